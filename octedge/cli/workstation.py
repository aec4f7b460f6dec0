"""`octedge train`, `select` and `export`: what runs on the workstation, with torch."""

from pathlib import Path

import click

from octedge.cli.console import complain, say, say_json

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--data", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--out", "run", required=True, type=click.Path(path_type=Path), help="Folder for the run: checkpoints, history, scores.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
def train(recipe: Path, data: Path, run: Path, resume: bool) -> None:
    """Train every candidate of RECIPE (TOML, or a run's recipe.json), compare them by IoU, train the best in full."""
    from octedge.train.cohort import load
    from octedge.train.fit import Course
    from octedge.train.recipe import read_recipe
    from octedge.train.select import train_all

    wanted = read_recipe(recipe)
    split = load(wanted, data)
    for part, sets in (("train", split.train), ("validation", split.validation)):
        for each in sets:
            complain(f"{part}: {each.name}, {len(each.patients)} patients, {len(each.examples)} B-scans")
    selection = train_all(Course(wanted, split, complain, resume), run)
    say(f"target: {selection.target.name}; next: octedge export {run} --out BUNDLE")


@click.command()
@RUN
@click.option("--json", "as_json", is_flag=True, help="The whole of selection.json on one line.")
def select(run: Path, as_json: bool) -> None:
    """Show how the candidates of RUN compare, the target first, and by which rule it was chosen."""
    from octedge.train.select import read_selection

    selection = read_selection(run)
    if as_json:
        return say_json(selection)
    for line in selection.table().splitlines():
        say(line)
    for each in selection.candidates:
        for line in each.details():
            say(line)


@click.command()
@RUN
@click.option("--out", "bundle", required=True, type=click.Path(path_type=Path), help="Folder for the bundle; made if need be.")
@click.option("--candidate", help="Another candidate than the target.")
def export(run: Path, bundle: Path, candidate: str | None) -> None:
    """Make a bundle of RUN's target network: ONNX, card, golden answers, checksums. Needs a checkout of octedge."""
    from export.bundle import export as make

    card = make(run, bundle, candidate, complain)
    say(f"{bundle}: {card.id}; next: octedge segment SCAN --model {bundle} --out DIR")
