"""`octedge data samples`: a picture of what a recipe trains on."""

from pathlib import Path

import click

from octedge.cli.console import complain, say


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--data", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--out", "picture", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The PNG to write.")
@click.option("--batches", default=2, show_default=True, type=click.IntRange(1, 20), help="How many batches to show.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="The seed whose samples to show.")
def samples(recipe: Path, data: Path, picture: Path, batches: int, seed: int) -> None:
    """Draw the samples of RECIPE as the networks see them, with reference and changes. Shows scans: keep it where they may be."""
    from octedge.errors import OutputError
    from octedge.train.cohort import load
    from octedge.train.recipe import read_recipe
    from octedge.train.sample_sheet import sheet

    wanted = read_recipe(recipe)
    complain("reading the sources")
    made = sheet(wanted, load(wanted, data), seed, batches)
    try:
        made.save(picture, "PNG")
    except OSError as error:
        raise OutputError(f"{picture}: cannot be written ({error.strerror}); choose another place for --out") from error
    say(f"{picture}: samples of {batches} batches, seed {seed}")
