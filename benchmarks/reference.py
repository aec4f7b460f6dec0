"""Train the candidates of a recipe, choose the target by IoU, export the bundle: of the shipped model, or of the research model.

python -m benchmarks.reference --data ../shared/data
python -m benchmarks.reference --data ../shared/data --recipe recipes/research.toml --run runs/research --bundle bundles/research
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
@click.option("--recipe", "path", default=RECIPE, type=click.Path(path_type=Path), help="Another recipe than the shipped model's.")
@click.option("--bundle", default=REFERENCE, type=click.Path(path_type=Path), help="Another folder than the shipped model's.")
@click.option("--run", default="runs/reference", show_default=True, type=click.Path(path_type=Path), help="Folder for the run.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
@click.option("--precisions", is_flag=True, help="Train nothing: make fp16 and int8 anew from the shipped fp32 network.")
def main(data: Path, path: Path, bundle: Path, run: Path, resume: bool, precisions: bool) -> None:  # noqa: PLR0913 - one per option
    """Somewhat over an hour on two cores; progress goes to stderr."""
    recipe = read_recipe(path)
    split = load(recipe, data)
    if precisions:
        card = again(bundle, split)
    else:
        if resume:
            refuse_another(recipe, run)
        train_all(Course(recipe, split, _say, resume), run)
        card = export(run, bundle, None, Scans(split, travel=False), _say)
    size = sum(file.stat().st_size for file in bundle.iterdir())
    print(f"{card.id}: {size / 1e6:.2f} MB in {bundle.name}")


def again(folder: Path, split: Split) -> ModelCard:
    """A bundle from its own fp32 network, card and golden answers: its weights and what they answer stay."""
    bundle = open_bundle(folder)
    card = msgspec.structs.replace(bundle.card, heights=HEIGHTS)
    return write_bundle(folder, onnx.load(folder / "model.onnx"), card, bundle.golden(), Scans(split, travel=False), _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
