"""`octedge tune`: the target's shape varied within a budget of milliseconds."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import structs

from octedge.cli.console import complain, say

if TYPE_CHECKING:
    from octedge.train.cohort import Split
    from octedge.train.select import Pool

FOLDER = click.Path(path_type=Path)


def _size(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """`496x768` -> rows, columns."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if not found or not all(map(int, found.groups())):
        raise click.BadParameter(f"{value!r} is no size of a B-scan; give rows x columns, as 496x768", ctx, param)
    return int(found[1]), int(found[2])


@click.command()
@click.argument("recipe", type=FOLDER)
@click.option("--data", default=".", show_default=True, type=FOLDER, help="Folder that the recipe's folders lie in.")
@click.option("--out", "run", required=True, type=FOLDER, help="Folder for the run, tune.json and the picture.")
@click.option("--budget-ms", "budget", required=True, type=click.FloatRange(min=0, min_open=True), help="What one B-scan may cost at most.")
@click.option("--engine", default="ort", show_default=True, help="What will run the network.")
@click.option("--size", default="496x768", show_default=True, callback=_size, help="Rows x columns of the B-scan that is timed.")
@click.option("--minutes-per-trial", "minutes", type=click.FloatRange(min=0, min_open=True), help="As many steps as each has time for.")
@click.option("--cluster", "address", metavar="ADDRESS|local", help="Train the trials on a Ray cluster, or on one started here.")
@click.option("--resume", is_flag=True, help="Go on where a stopped run was.")
def tune(  # noqa: PLR0913 - one per option
    recipe: Path,
    data: Path,
    run: Path,
    budget: float,
    engine: str,
    size: tuple[int, int],
    minutes: float | None,
    address: str | None,
    resume: bool,
) -> None:
    """Vary the target of RECIPE (TOML with [tune], or a finished run's recipe.json): convolutions, kernels, down-samplings, windows.

    Shapes that cost more than the budget on the engine are not trained; the others are the candidates of a run like any other.
    Needs a checkout of octedge.
    """
    from export.latency import Stopwatch
    from octedge.train.cohort import load
    from octedge.train.grid import grid, target_of
    from octedge.train.pareto import picture
    from octedge.train.recipe import read_recipe
    from octedge.train.select import read_selection
    from octedge.train.tune import Budget, Study
    from octedge.train.tune import tune as search

    wanted = read_recipe(recipe)
    if minutes is not None:
        wanted = structs.replace(wanted, minutes_per_trial=minutes)
    finished = (recipe.parent / "selection.json").exists() and recipe.suffix == ".json"
    target = target_of(wanted, read_selection(recipe.parent).target.name if finished else None)
    grid(wanted, target)  # what is wrong with it is said before anything is read or measured
    clock = Stopwatch(wanted.structures, size, engine, say=complain)
    split = load(wanted, data)
    with _pool(address, split) as pool:
        tuning, selection = search(Study(wanted, target, split, Budget(budget, clock, str(clock)), run, resume), complain, pool)
    picture(tuning, selection, run / "tune.png")
    for name, ms in tuning.over.items():
        say(f"over {budget:g} ms, not trained: {name} ({ms:.1f} ms)")
    say(f"target: {selection.target.name}, {selection.target.reason}; next: octedge select {run}; octedge export {run} --out BUNDLE")


@contextmanager
def _pool(address: str | None, split: "Split") -> Iterator["Pool | None"]:
    """Who trains: a cluster, or nobody but this process."""
    if address is None:
        yield None
        return
    from octedge.cluster import cluster
    from octedge.train.select import work

    with cluster(address, work, split) as pool:
        yield pool
