"""The target tuned: shapes and window widths around it are the candidates of one more run, but for those that are too slow.

Latency comes first and costs nothing but a function: whoever calls says what a shape costs on the engine that will run it,
and a shape over the budget is never trained. The others are trained as the candidates of any recipe are, see `select.py`:
after every rung the worse ones stop, and of those no worse than the best the fastest is chosen.

So the folder is that of a run, to be resumed, shown, reported and exported as any other; `tune.json` beside says what was
measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from octedge.errors import UsageError
from octedge.results.files import make_folder, write_json
from octedge.train.checkpoint import refuse_another
from octedge.train.cohort import Split
from octedge.train.fit import Course
from octedge.train.grid import Point, grid, varied
from octedge.train.networks import Family
from octedge.train.progress import Say
from octedge.train.recipe import Recipe
from octedge.train.select import Pool, require_layers, train_all
from octedge.train.selection import Selection
from octedge.train.tuning import Tuning


@dataclass(frozen=True, slots=True)
class Budget:
    """What one B-scan may cost: `ms`; `cost` measures shapes, in ms each; `where` says on what: engine, size, machine."""

    ms: float
    cost: Callable[[Sequence[Family]], Sequence[float]]
    where: str


@dataclass(frozen=True, slots=True)
class Study:
    """What is tuned: recipe, its target, the data, the budget; and where the run lies, which may be gone on with."""

    recipe: Recipe
    target: str
    split: Split
    budget: Budget
    run: Path
    resume: bool = False


def tune(study: Study, say: Say, pool: Pool | None = None) -> tuple[Tuning, Selection]:
    """Measure the grid around the target, train what is fast enough, and choose; `pool` trains, if not this process.

    Raises `UsageError` where no shape is fast enough, there is nothing to compare by, or the folder holds another run.
    """
    require_layers(study.split)
    points, run = grid(study.recipe, study.target), study.run.resolve()
    tuning = _measured(study, points)
    ms: dict[Family, float] = {point.shape: tuning.ms[point.of_shape] for point in points}
    recipe = varied(study.recipe, [point for point in points if ms[point.shape] <= study.budget.ms])
    refuse_another(recipe, run)
    make_folder(run)
    write_json(run / "tune.json", tuning)
    return tuning, train_all(Course(recipe, study.split, say, resume=True), run, ms.__getitem__, pool)


def _measured(study: Study, points: Sequence[Point]) -> Tuning:
    """What the shapes cost, measured now or before the tuning was stopped."""
    budget = study.budget
    if study.run.exists() and any(study.run.iterdir()):
        found = _resumed(study, points).ms
    else:
        shapes = {point.of_shape: point.shape for point in points}
        found = dict(zip(shapes, map(float, budget.cost(tuple(shapes.values()))), strict=True))
    tuning = Tuning(target=study.target, where=budget.where, budget_ms=budget.ms, ms=found)
    if len(tuning.over) == len(found):
        costs = ", ".join(f"{name} {ms:.1f} ms" for name, ms in tuning.over.items())
        what = f"no shape is within the budget of {budget.ms:g} ms ({budget.where}): {costs}"
        raise UsageError(f"{what}; raise --budget-ms, or add smaller values to [tune]")
    return tuning


def _resumed(study: Study, points: Sequence[Point]) -> Tuning:
    name = study.run.name
    if not study.resume:
        raise UsageError(f"{name} is not empty; go on with the tuning in it (--resume) or give another --out")
    try:
        tuning = msgspec.json.decode((study.run / "tune.json").read_bytes(), type=Tuning)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{name}: no readable tune.json ({error}); this is no tuning's folder; give another --out") from error
    if tuning.where != study.budget.where:
        raise UsageError(f"{name} was measured on {tuning.where}, now it is {study.budget.where}; give another --out")
    if set(tuning.ms) != {point.of_shape for point in points}:
        raise UsageError(f"{name} is the tuning of another grid: {', '.join(tuning.ms)}; go on with its recipe, or give another --out")
    return tuning
