"""How well the spread of the surfaces (`octedge.spread`) tells their error: fitted on training patients, checked on held-out ones.

The error bar of a surface is its spread and the row it lies in: sd^2 = spread^2 + 1/12.

    python -m benchmarks.calibration --data ../shared/data
"""

import platform
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.reference import RECIPE
from octedge.anatomy import surface_names
from octedge.edge.bundle import open_bundle
from octedge.edge.engine import open_engine
from octedge.segment import plan
from octedge.train.calibrate import NORMAL, Errors, fitted, misses, observe
from octedge.train.cohort import Set, load
from octedge.train.manifest import Phantoms
from octedge.train.recipe import read_recipe

EDGES = (0.0, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, np.inf)  # of the bins of the reliability table, px


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A bundle [default: the shipped reference].")
@click.option("--scans", default=0, show_default=True, help="Held-out B-scans of each source, evenly spread; 0: all.")
@click.option("--fit", default=6, show_default=True, help="B-scans of the training patients of each source.")
def main(data: Path, bundle: Path | None, scans: int, fit: int) -> None:
    """Print the tables as Markdown."""
    opened = open_bundle(bundle)
    card, engine = opened.card, open_engine(opened)
    recipe = read_recipe(RECIPE)
    real = tuple(each for each in recipe.source if not isinstance(each, Phantoms))
    cohort = load(msgspec.structs.replace(recipe, source=real), data)

    def look(sets: tuple[Set, ...], most: int) -> dict[str, Errors]:
        return {each.name: observe(each, most, engine, partial(plan, card), card.structures) for each in sets if each.examples}

    print(f"{card.id}, {engine.name}, {platform.machine()} {platform.system()}, {date.today().isoformat()}\n")
    chosen = _show_fit(look(cohort.train, fit))
    for name, errors in look(cohort.validation, scans).items():
        print(f"### {name}, held out: {len(errors.error)} points of surfaces\n")
        _show_within(errors, chosen)
        _show_reliability(errors.at(chosen))
        _show_surfaces(errors.at(chosen), surface_names(card.structures))


def _show_fit(observed: dict[str, Errors]) -> float:
    """The temperature that fits, as it is found when a model is exported."""
    print(f"Fitted on the training patients of {', '.join(observed)}:\n")
    print("| temperature | within 1 sd | within 2 sd | distance |\n|--:|--:|--:|--:|")
    for temperature, miss in misses(observed).items():
        one, two = np.mean([each.at(temperature).within() for each in observed.values()], axis=0)
        print(f"| {temperature:g} | {one:.1%} | {two:.1%} | {miss:.3f} |")
    chosen = fitted(observed)
    print(f"\nNormal: {NORMAL[0]:.1%}, {NORMAL[1]:.1%}. Chosen: **T = {chosen:g}**.\n")
    return chosen


def _show_within(errors: Errors, chosen: float) -> None:
    print("| temperature | within 1 sd | within 2 sd |\n|--:|--:|--:|")
    for temperature in dict.fromkeys((1.0, chosen)):
        one, two = errors.at(temperature).within()
        print(f"| {temperature:g} | {one:.1%} | {two:.1%} |")
    print()


def _show_reliability(errors: Errors) -> None:
    """By bins of the deviation: how large the errors are where it says so."""
    print("| sd, px | share of points | mean sd | root mean square error | within 1 sd | within 2 sd |\n|---|--:|--:|--:|--:|--:|")
    for low, high in pairwise(EDGES):
        inside = (errors.deviation >= low) & (errors.deviation < high)
        if not inside.any():
            continue
        part = Errors(errors.surface[inside], errors.error[inside], errors.deviation[inside])
        one, two = part.within()
        rms = np.sqrt((part.error**2).mean())
        cells = f"{inside.mean():.1%} | {part.deviation.mean():.2f} | {rms:.2f} | {one:.1%} | {two:.1%}"
        print(f"| {low:g} to {high:g} | {cells} |")
    print()


def _show_surfaces(errors: Errors, names: tuple[str, ...]) -> None:
    """Usefulness: whether the columns with the largest deviations are those with the largest errors."""
    print("| surface | mean error, px | without the 10 % of largest sd | rank correlation of sd and error |\n|---|--:|--:|--:|")
    for surface in np.unique(errors.surface):
        part = errors.of(surface)
        size = np.abs(part.error)
        kept = size[part.deviation <= np.quantile(part.deviation, 0.9)]
        name, follows = names[surface].replace("|", " / "), rank_correlation(part.deviation, size)
        print(f"| {name} | {size.mean():.2f} | {kept.mean():.2f} | {follows:.2f} |")
    print()


def rank_correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank; NaN where one side is constant."""
    a, b = (_ranks(each) for each in (one, other))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: NDArray[np.float64] = (last - (count - 1) / 2)[place]
    return ranks


if __name__ == "__main__":
    main()
