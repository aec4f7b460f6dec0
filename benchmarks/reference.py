"""Make the shipped model: train the candidates of recipes/reference.toml, choose the target by IoU, export the bundle.

python -m benchmarks.reference --data ../shared/data
python -m benchmarks.reference --data ../shared/data --precisions    only its fp16 and int8 files, from the shipped fp32 one
"""

import sys
from pathlib import Path

import click
import msgspec
import onnx

from export.bundle import Scans, export, write_bundle
from export.card import HEIGHTS
from octedge.card import ModelCard
from octedge.edge.bundle import REFERENCE, open_bundle
from octedge.train.checkpoint import refuse_another
from octedge.train.cohort import Split, load
from octedge.train.fit import Course
from octedge.train.recipe import read_recipe
from octedge.train.select import train_all

RECIPE = Path(__file__).parents[1] / "recipes" / "reference.toml"


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--run", default="runs/reference", show_default=True, type=click.Path(path_type=Path), help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
@click.option("--precisions", is_flag=True, help="Train nothing: make fp16 and int8 anew from the shipped fp32 network.")
def main(data: Path, run: Path, resume: bool, precisions: bool) -> None:
    """Hours on two cores, and not yet run in one piece; progress goes to stderr."""
    recipe = read_recipe(RECIPE)
    split = load(recipe, data)
    if precisions:
        card = again(split)
    else:
        if resume:
            refuse_another(recipe, run)
        train_all(Course(recipe, split, _say, resume), run)
        card = export(run, REFERENCE, None, Scans(split, travel=False), _say)
    size = sum(file.stat().st_size for file in REFERENCE.iterdir())
    print(f"{card.id}: {size / 1e6:.2f} MB in {REFERENCE.name}")


def again(split: Split) -> ModelCard:
    """The shipped bundle from its own fp32 network, card and golden answers: its weights and what they answer stay."""
    bundle = open_bundle(REFERENCE)
    card = msgspec.structs.replace(bundle.card, heights=HEIGHTS)
    return write_bundle(REFERENCE, onnx.load(REFERENCE / "model.onnx"), card, bundle.golden(), Scans(split, travel=False), _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
