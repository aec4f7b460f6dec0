"""`octedge train`, `select` and `export`: what runs on the workstation, with torch."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from octedge.cli.console import complain, say, say_json
from octedge.edge.bundle import open_bundle
from octedge.errors import UsageError

if TYPE_CHECKING:
    from octedge.train.networks import Family
    from octedge.train.recipe import Recipe
    from octedge.train.select import Cost

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--data", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--out", "run", required=True, type=click.Path(path_type=Path), help="Folder for the run: checkpoints, history, scores.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(0, 64), help="Threads that make the samples.")
@click.option("--tensorboard", is_flag=True, help="Draw curves of loss and IoU for TensorBoard into each candidate's folder.")
def train(recipe: Path, data: Path, run: Path, resume: bool, workers: int, tensorboard: bool) -> None:  # noqa: PLR0913
    """Train every candidate of RECIPE (TOML, or a run's recipe.json), compare them by IoU, train the best in full.

    Several GPUs: torchrun --nproc-per-node GPUS -m octedge train RECIPE ... on every node that sees the folder of the run.
    """
    from octedge.train.checkpoint import refuse_another
    from octedge.train.cohort import load
    from octedge.train.fit import Course
    from octedge.train.machine import first_process
    from octedge.train.progress import quiet
    from octedge.train.recipe import read_recipe
    from octedge.train.select import train_all

    wanted = read_recipe(recipe)
    if resume:
        refuse_another(wanted, run)
    split = load(wanted, data)
    tell = complain if first_process() else quiet
    for part, sets in (("train", split.train), ("validation", split.validation)):
        for each in sets:
            tell(f"{part}: {each.name}, {len(each.patients)} patients, {len(each.examples)} B-scans")
    selection = train_all(Course(wanted, split, tell, resume, workers, tensorboard), run, _cost(wanted))
    if first_process():
        say(f"target: {selection.target.name}; next: octedge report {run} --data {data}; octedge export {run} --out BUNDLE")


def _cost(recipe: "Recipe") -> "Cost | None":
    """What candidates cost on ONNX Runtime here, all in one interleaved run; nothing where that cannot be told the same to all.

    That is: in an installation without the checkout's `export`, or in one of several processes.
    """
    from importlib.util import find_spec

    if find_spec("export") is None or os.environ.get("WORLD_SIZE", "1") != "1" or len(recipe.candidates) == 1:
        return None
    from export.latency import Stopwatch

    shapes: tuple[Family, ...] = tuple(recipe.candidates.values())
    return dict(zip(shapes, Stopwatch(recipe.structures, say=complain)(shapes), strict=True)).__getitem__


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
@click.option("--out", "bundle", type=click.Path(path_type=Path), help="Folder for the bundle; made if need be.")
@click.option("--candidate", help="Another candidate than the target.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in, for int8.")
@click.option(
    "--golden",
    type=click.Choice(["scans", "phantoms"]),
    default="scans",
    show_default=True,
    help="Whether, with --data, some held-out scans travel in the bundle as golden frames beside the phantoms.",
)
@click.option("--triton", "repository", type=click.Path(path_type=Path), help="Put the networks into this Triton model repository.")
def export(  # noqa: PLR0913 - one per option
    run: Path, bundle: Path | None, candidate: str | None, data: Path | None, golden: str, repository: Path | None
) -> None:
    """Make a bundle of RUN's target network: ONNX in fp32, fp16 and, with --data, int8; card, golden answers, checksums.

    A precision that would move the masks too far is left out, and named. Needs a checkout of octedge.

    For a bundle that is there already: octedge export BUNDLE --triton DIR.
    """
    if bundle is None and (repository is None or candidate):
        raise UsageError("nothing to make: give --out BUNDLE for a run, or --triton DIR alone for a bundle")
    if bundle is not None:
        from export.bundle import Scans
        from export.bundle import export as make
        from octedge.train.cohort import load
        from octedge.train.recipe import read_recipe

        scans = None if data is None else Scans(load(read_recipe(run / "recipe.json"), data), travel=golden == "scans")
        card = make(run, bundle, candidate, scans, complain)
        say(f"{bundle}: {card.id}; next: octedge segment SCAN --model {bundle} --out DIR")
    if repository is not None:
        from export.triton import write_triton

        for model in write_triton(open_bundle(bundle or run), repository):
            say(str(model))
