"""The target tuned: shapes and window widths around it, measured first, trained where they are fast enough, the best one chosen.

Latency comes first and costs nothing but a function: whoever calls says what a shape costs on the engine that will run it,
and a shape over the budget is never trained. The others are trained by successive halving (Jamieson & Talwalkar 2016): after
every rung the worse half, by IoU on the validation set, stops, and the rest goes on from where it was. Of the trials trained
to the end the one with the highest IoU is chosen, or the fastest of those that differ from it by no more than noise.

The folder holds `latency.json`, the `recipe.json`, and for each trial a run folder with its own recipe and what `fit` leaves,
with a `scores-STEPS.json` for each rung: what is there is never done again. `tune.json` and the chosen one's `selection.json`,
with which it can be exported, come last.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from octedge.errors import UsageError
from octedge.results.files import write_json
from octedge.train.cohort import Split
from octedge.train.fit import Course, Trial, fit
from octedge.train.grid import Point, grid, recipe_of
from octedge.train.networks import Family, build, parameters
from octedge.train.progress import Say, quiet
from octedge.train.recipe import Recipe, read_recipe, write_recipe
from octedge.train.select import train_all
from octedge.train.tuning import Latency, Tried, Tuning
from octedge.train.validate import Scores

PACE = (2, 8)  # steps after which a training's clock is read: the difference is free of its beginning and its end


@dataclass(frozen=True, slots=True)
class Budget:
    """What one B-scan may cost: `ms`; `cost` measures shapes, in ms each; `where` says on what: engine, size, machine."""

    ms: float
    cost: Callable[[Sequence[Family]], Sequence[float]]
    where: str


@dataclass(frozen=True, slots=True)
class Job:
    """A trial up to a rung: its recipe with one candidate, its run folder, and how many steps."""

    recipe: Recipe
    run: Path
    until: int

    @property
    def trial(self) -> Trial:
        return Trial(next(iter(self.recipe.candidates)), self.recipe.seeds[0])


Pool = Callable[[Sequence[Job]], list[Scores]]


@dataclass(frozen=True, slots=True)
class Study:
    """What is tuned and how: recipe, its target, the data, the budget, and where it lies; `minutes` bounds the training of one trial."""

    recipe: Recipe
    target: str
    split: Split
    budget: Budget
    run: Path
    minutes: float | None = None
    resume: bool = False


def work(job: Job, split: Split, say: Say = quiet) -> Scores:
    """Train a trial up to its rung, from wherever it was; the scores that lie there already are only read.

    The same at home and on every machine of a cluster. Raises `UsageError` where the run's folder cannot be seen.
    """
    if not job.run.is_dir():
        what = "a worker does not see the run's folder"
        raise UsageError(f"{what}; on a cluster of several machines --out must lie on a file system that all of them share")
    folder = job.trial.folder(job.run)
    done = folder / f"scores-{job.until}.json"
    if done.exists():
        return msgspec.json.decode(done.read_bytes(), type=Scores)
    (folder / "scores.json").unlink(missing_ok=True)  # of an earlier rung: after a kill it would be taken for this one's
    scores = fit(job.trial, Course(job.recipe, split, say, resume=True), folder, job.until)
    write_json(done, scores)
    return scores


def at_home(split: Split, say: Say) -> Pool:
    """One trial after the other, in this process."""
    return lambda jobs: [work(job, split, say) for job in jobs]


def tune(study: Study, pool: Pool, say: Say) -> Tuning:
    """Measure, train and compare the grid around the target; everything is left in the run's folder, to be resumed at any time.

    Raises `UsageError` where no shape is fast enough, or the folder holds another tuning.
    """
    recipe, budget = study.recipe, study.budget
    if not any(each.examples for each in study.split.validation):
        raise UsageError("no source has B-scans to validate on, by which trials are compared; hold patients back (validation_share)")
    points = {point.name: point for point in grid(recipe, study.target)}
    latency = _measured(study, tuple(points.values()))
    trials = [_trial(point, recipe, latency.ms[point.of_shape]) for point in points.values()]
    fast = [each for each in trials if each.ms <= budget.ms]
    jobs = {each.name: _job(points[each.name], study, latency.steps) for each in fast}
    rungs = rungs_of(recipe.tune.rungs, latency.steps)

    def train(names: Sequence[str], until: int) -> list[float]:
        say(f"to step {until}: {', '.join(names)}")
        return [scores.mean for scores in pool([replace(jobs[name], until=until) for name in names])]

    tried = halve(fast, rungs, train)
    over = [msgspec.structs.replace(each, stopped=f"over {budget.ms:g} ms") for each in trials if each.ms > budget.ms]
    chosen, reason = choose([each for each in tried if not each.stopped], recipe.tune.noise)
    tuning = Tuning(
        target=study.target, where=latency.where, budget_ms=budget.ms, steps=latency.steps, rungs=rungs, noise=recipe.tune.noise,
        chosen=chosen.name, reason=reason, trials=tuple(sorted([*tried, *over], key=lambda each: (each.ms, each.name))),
    )  # fmt: skip
    job = jobs[chosen.name]
    train_all(Course(job.recipe, study.split, say, resume=True), job.run)  # trained already: only what an export needs is added
    write_json(study.run / "tune.json", tuning)
    return tuning


def _job(point: Point, study: Study, steps: int) -> Job:
    """A trial to its end, its run folder made."""
    recipe = recipe_of(point, study.recipe, study.target, steps)
    run = study.run.resolve() / point.name
    run.mkdir(exist_ok=True)
    write_recipe(recipe, run / "recipe.json")
    return Job(recipe, run, steps)


def _trial(point: Point, recipe: Recipe, ms: float) -> Tried:
    size = parameters(build(point.shape, len(recipe.structures)))
    return Tried(name=point.name, shape=point.shape, window=point.window, parameters=size, ms=ms)


def rungs_of(shares: Sequence[float], steps: int) -> tuple[int, ...]:
    """After how many steps trials are compared: at the shares of all steps, and at the end.

    >>> rungs_of((0.25, 0.5), 1000)
    (250, 500, 1000)
    """
    return tuple(dict.fromkeys((*(max(1, round(share * steps)) for share in shares), steps)))


def halve(trials: Sequence[Tried], rungs: Sequence[int], train: Callable[[Sequence[str], int], Sequence[float]]) -> list[Tried]:
    """Successive halving: `train` names to a rung, get their IoU; the worse half (rounded down) stops, of equal ones the slower.

    Nobody stops at the last rung. Returns all trials with their IoU by rung and why they stopped.
    """
    going, stopped = list(trials), []
    for rung in rungs:
        found = train([each.name for each in going], rung)
        going = [msgspec.structs.replace(each, iou={**each.iou, rung: iou}) for each, iou in zip(going, found, strict=True)]
        if rung == rungs[-1]:
            break
        ranked = sorted(going, key=lambda each: (-each.iou[rung], each.ms, each.name))
        going, worse = ranked[: -(-len(ranked) // 2)], ranked[-(-len(ranked) // 2) :]
        stopped += [msgspec.structs.replace(each, stopped=f"worse half after {rung} steps") for each in worse]
    return [*going, *stopped]


def choose(finished: Sequence[Tried], noise: float) -> tuple[Tried, str]:
    """The trial with the highest IoU, or the fastest of those within `noise` of it; and why, in words."""
    best = max(finished, key=lambda each: each.last)
    near = [each for each in finished if best.last - each.last <= noise]
    chosen = min(near, key=lambda each: (each.ms, each.parameters, each.name))
    if chosen == best:
        return chosen, f"highest IoU within the budget ({best.last:.4f})"
    highest = f"{best.name}: {best.last:.4f}, {best.ms:.1f} ms"
    return chosen, f"fastest of those within {noise:g} of the highest IoU ({chosen.last:.4f}; {highest})"


def _measured(study: Study, points: Sequence[Point]) -> Latency:
    """What was measured in this folder, now or before it was resumed.

    Raises `UsageError` where no shape is within the budget, or the folder holds another tuning.
    """
    path, plan = study.run / "latency.json", study.run / "recipe.json"
    if path.exists() or plan.exists():
        latency = _resumed(study)
    else:
        latency = Latency(where=study.budget.where, steps=0, ms=_costs(study.budget, points))
    fastest = min(latency.ms, key=lambda name: latency.ms[name])
    if latency.ms[fastest] > study.budget.ms:
        what = f"no shape is within the budget of {study.budget.ms:g} ms: the fastest is {fastest} with {latency.ms[fastest]:.1f} ms"
        raise UsageError(f"{what} ({latency.where}); raise --budget-ms, or add smaller values to [tune]")
    if not path.exists():
        study.run.mkdir(parents=True, exist_ok=True)
        slowest = max((each for each in points if latency.ms[each.of_shape] <= study.budget.ms), key=lambda each: latency.ms[each.of_shape])
        latency = msgspec.structs.replace(latency, steps=_steps(study, slowest))
        write_json(path, latency)
    write_recipe(study.recipe, plan)
    return latency


def _costs(budget: Budget, points: Sequence[Point]) -> dict[str, float]:
    shapes = {point.of_shape: point.shape for point in points}
    return dict(zip(shapes, map(float, budget.cost(tuple(shapes.values()))), strict=True))


def _resumed(study: Study) -> Latency:
    name, plan = study.run.name, study.run / "recipe.json"
    if not study.resume:
        raise UsageError(f"{name} holds a tuning already; go on with it (--resume) or give another --out")
    try:
        latency = msgspec.json.decode((study.run / "latency.json").read_bytes(), type=Latency)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{name}: no readable latency.json ({error}); this is no tuning's folder; give another --out") from error
    if plan.exists() and read_recipe(plan) != study.recipe:
        raise UsageError(f"{name} was made by another recipe; tune with that one (its recipe.json), or give another --out")
    if latency.where != study.budget.where:
        raise UsageError(f"{name} was measured on {latency.where}, now it is {study.budget.where}; give another --out")
    return latency


def _steps(study: Study, slowest: Point) -> int:
    """The recipe's steps, or as many as the slowest shape within the budget makes in the minutes there are: the same for all."""
    if study.minutes is None:
        return study.recipe.steps
    recipe = msgspec.structs.replace(recipe_of(slowest, study.recipe, study.target), validate_every=study.recipe.steps + 1)
    course = Course(recipe, replace(study.split, validation=()), quiet)
    clock = []
    with tempfile.TemporaryDirectory() as folder:
        for steps in PACE:
            began = time.perf_counter()
            fit(Trial(study.target, recipe.seeds[0]), course, Path(folder), steps)
            clock.append(time.perf_counter() - began)
    pace = max(1e-6, (clock[1] - clock[0]) / (PACE[1] - PACE[0]))
    return max(1, min(study.recipe.steps, int(study.minutes * 60 / pace)))
