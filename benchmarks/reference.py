"""Make the shipped model: train the candidates of recipes/reference.toml, choose the target by IoU, export the bundle.

    python -m benchmarks.reference --data ../shared/data
"""

import sys
from pathlib import Path

import click

from export.bundle import export
from octedge.edge.bundle import REFERENCE
from octedge.train.checkpoint import refuse_another
from octedge.train.cohort import load
from octedge.train.fit import Course
from octedge.train.recipe import read_recipe
from octedge.train.select import train_all

RECIPE = Path(__file__).parents[1] / "recipes" / "reference.toml"


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--run", default="runs/reference", show_default=True, type=click.Path(path_type=Path), help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
def main(data: Path, run: Path, resume: bool) -> None:
    """Hours on two cores, and not yet run in one piece; progress goes to stderr."""
    recipe = read_recipe(RECIPE)
    if resume:
        refuse_another(recipe, run)
    train_all(Course(recipe, load(recipe, data), _say, resume), run)
    card = export(run, REFERENCE, None, _say)
    size = sum(file.stat().st_size for file in REFERENCE.iterdir())
    print(f"{card.id}: {size / 1e6:.2f} MB in {REFERENCE.name}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
