"""Every candidate trained with every seed, the worse ones stopped early, the rest compared and the target chosen.

Stopping goes by rank alone, for it saves time and judges nobody: after each of the recipe's `rungs` the candidates are
ranked by score, the best `keep` of them (rounded up) go on, and the others stop with all their seeds. All are on the full
schedule from the first step, so that those that go on are those that were compared. What is left after the last rung is
trained in full and compared by the rule in `choice.py`. Trials are jobs, which this process does one after the other, or a
cluster many at once.

A run folder further holds `rounds.json`, what was decided so far, so that a resumed run decides the same, and at the end
`selection.json`.
"""

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from octedge.errors import UsageError
from octedge.results.files import make_folder, write_json
from octedge.train.choice import Comparison, select
from octedge.train.cohort import Set, Split
from octedge.train.fit import Course, Trial, fit
from octedge.train.machine import first_process, launch
from octedge.train.networks import Family, multiply_adds
from octedge.train.progress import quiet
from octedge.train.recipe import Recipe, write_recipe
from octedge.train.selection import Candidate, Results, Round, Selection
from octedge.train.validate import Scores, is_layer

__all__ = ["Candidate", "Selection", "SplitRecord", "choose", "read_selection", "read_split", "train_all"]

Cost = Callable[[Family], float]
PACE_STEPS = 20


@dataclass(frozen=True, slots=True)
class Job:
    """A trial up to a rung: its recipe, its run's folder, and after how many of the recipe's steps it stops."""

    trial: Trial
    recipe: Recipe
    run: Path
    until: int


Pool = Callable[[Sequence[Job]], list[Scores]]


def work(job: Job, split: Split) -> Scores:
    """Do a job from wherever it was: what a cluster's machines run, again where a machine has died.

    Raises `UsageError` where the run's folder cannot be seen.
    """
    if not job.run.is_dir():
        what = "a worker does not see the run's folder"
        raise UsageError(f"{what}; on a cluster of several machines --out must lie on a file system that all of them share")
    return fit(job.trial, Course(job.recipe, split, quiet, resume=True), job.trial.folder(job.run), job.until)


class SplitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who was trained on and who held back, per source, with a hash of the B-scans and references."""

    source: str
    groups: tuple[str, ...]
    patients: tuple[str, ...]
    bscans: int
    digest: str


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run has settled so far: the steps of every candidate's whole training, and the rounds."""

    steps: dict[str, int]
    rounds: tuple[Round, ...] = ()
    schema: int = 1


def train_all(course: Course, run: Path, cost: Cost | None = None, pool: Pool | None = None) -> Selection:
    """Train and compare the candidates of a recipe; everything is left in the folder `run`.

    `cost` gives the milliseconds of a candidate on the target engine; without it 10^9 multiply-adds on 512 x 512 count.
    `pool` does the jobs of a rung, if not this process; it always goes on from what lies in the folder.
    Of several processes the first one writes.
    Raises `UsageError` where the validation sets have no layers to score, or a resumed run was of another recipe.
    """
    recipe = course.recipe
    require_layers(course.split)
    make_folder(run)
    progress = _begin(course, run)
    _record(recipe, course.split, run)
    costs, unit = _costs(recipe, cost), "ms" if cost else "GMAC"
    names = progress.rounds[-1].stayed if progress.rounds else tuple(recipe.candidates)
    for rung in recipe.rungs[len(progress.rounds) :]:
        if len(names) == 1:
            break
        found = _round(rung, _jobs(names, recipe, run, progress.steps, rung), pool or _here(course))
        names = tuple(Comparison.of(found.scores).ranked(costs)[: math.ceil(recipe.keep * len(names))])
        progress = msgspec.structs.replace(progress, rounds=(*progress.rounds, msgspec.structs.replace(found, stayed=names)))
        _write(progress, run / "rounds.json")
        course.say(f"after {rung} steps {', '.join(names)} of {', '.join(found.scores)} go on")
        course = replace(course, resume=True)
    last = _round(recipe.steps, _jobs(names, recipe, run, progress.steps, recipe.steps), pool or _here(course))
    selection = select(recipe, (*progress.rounds, last), costs, unit)
    _write(selection, run / "selection.json")
    for line in selection.table().splitlines():
        course.say(line)
    return selection


def require_layers(split: Split) -> None:
    """Raise `UsageError` where there is nothing to compare candidates by."""
    if not any(each.examples and any(map(is_layer, each.groups)) for each in split.validation):
        raise UsageError("no validation patient has annotated layers to compare candidates by; hold some back (validation_share)")


def choose(recipe: Recipe, steps: int, scores: Mapping[Trial, Scores], cost: Cost | None = None) -> Selection:
    """The selection among trials that were all trained for `steps` steps."""
    results: Results = {}
    for trial, each in scores.items():
        results.setdefault(trial.name, {})[trial.seed] = each
    only = Round(steps, dict.fromkeys(results, steps), results)
    return select(recipe, (only,), _costs(recipe, cost), "ms" if cost else "GMAC")


def read_selection(run: Path) -> Selection:
    """The comparison a run has made.

    Raises `UsageError` where there is none yet, or one of another schema.
    """
    try:
        found = msgspec.json.decode((run / "selection.json").read_bytes(), type=Selection)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{run.name}: no readable selection.json ({error}); let `octedge train` finish (--resume)") from error
    if found.schema != 1:
        raise UsageError(f"{run.name}: selection.json has schema {found.schema}, this octedge reads schema 1; use a matching octedge")
    return found


def read_split(run: Path) -> dict[str, tuple[SplitRecord, ...]]:
    """The run's record of its split: part -> sources."""
    try:
        return msgspec.json.decode((run / "split.json").read_bytes(), type=dict[str, tuple[SplitRecord, ...]])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{run.name}: no readable split.json ({error}); name a folder that `octedge train` wrote") from error


def _begin(course: Course, run: Path) -> Progress:
    """What the run has settled before, or the number of steps of every candidate, settled now."""
    path, recipe = run / "rounds.json", course.recipe
    if course.resume and path.exists():
        try:
            progress = msgspec.json.decode(path.read_bytes(), type=Progress)
        except msgspec.DecodeError as error:
            raise UsageError(f"{run.name}: rounds.json cannot be read ({error}); train without --resume") from error
        done = tuple(each.steps for each in progress.rounds)
        if set(progress.steps) != set(recipe.candidates) or done != recipe.rungs[: len(done)]:
            what = f"candidates {', '.join(progress.steps)} and rungs {done}"
            raise UsageError(f"{run.name} was begun with {what}, not those of this recipe; take its recipe.json, or a new folder")
        return progress
    if first_process():
        (run / "selection.json").unlink(missing_ok=True)
    steps = {name: _steps(name, course) for name in recipe.candidates}
    progress = Progress(steps)
    _write(progress, path)
    return progress


def _steps(name: str, course: Course) -> int:
    """The steps of a candidate's training: the recipe's, or those that its own pace allows in the recipe's minutes.

    The pace is that of a short training apart, whose start and whose few B-scans of validation count as well: rather too slow.
    """
    recipe = course.recipe
    if not recipe.minutes_per_trial:
        return recipe.steps
    few = tuple(replace(each, examples=each.examples[:1]) for each in course.split.validation)
    short = Course(_own(recipe, PACE_STEPS), Split(course.split.train, few), quiet)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fit(Trial(name, recipe.seeds[0]), short, Path(folder))
    pace = (time.monotonic() - began) / PACE_STEPS
    steps = launch(recipe.precision).broadcast(max(1, int(60 * recipe.minutes_per_trial / pace)))  # one pace for all processes
    course.say(f"{name}: {pace:.2f} s/step, {steps} steps in {recipe.minutes_per_trial:g} min")
    return steps


def _here(course: Course) -> Pool:
    """One job after the other, in this process or these that torchrun started."""
    return lambda jobs: [fit(job.trial, replace(course, recipe=job.recipe), job.trial.folder(job.run), job.until) for job in jobs]


def _jobs(names: tuple[str, ...], recipe: Recipe, run: Path, steps: Mapping[str, int], rung: int) -> list[Job]:
    """The named candidates with every seed up to a rung; where they differ in steps, to the same share of them."""
    until = {name: max(1, round(rung * steps[name] / recipe.steps)) for name in names}
    return [Job(Trial(name, seed), _own(recipe, steps[name]), run, until[name]) for name in names for seed in recipe.seeds]


def _round(rung: int, jobs: Sequence[Job], pool: Pool) -> Round:
    found: Results = {}
    for job, scores in zip(jobs, pool(jobs), strict=True):
        found.setdefault(job.trial.name, {})[job.trial.seed] = scores
    return Round(rung, {job.trial.name: job.until for job in jobs}, found)


def _own(recipe: Recipe, steps: int) -> Recipe:
    """The recipe of one candidate: its own steps, and with them its schedule."""
    return msgspec.structs.replace(recipe, steps=steps, rungs=(), minutes_per_trial=0)


def _costs(recipe: Recipe, cost: Cost | None) -> dict[str, float]:
    def gmac(shape: Family) -> float:
        return multiply_adds(shape, len(recipe.structures), 512, 512) / 1e9

    return {name: float((cost or gmac)(shape)) for name, shape in recipe.candidates.items()}


def _write(record: Progress | Selection, path: Path) -> None:
    if first_process():
        write_json(path, record)


def _record(recipe: Recipe, split: Split, run: Path) -> None:
    if not first_process():
        return
    write_recipe(recipe, run / "recipe.json")
    parts = {"train": split.train, "validation": split.validation}
    record = {part: [_record_set(each) for each in sets] for part, sets in parts.items()}
    write_json(run / "split.json", record)


def _record_set(each: Set) -> SplitRecord:
    digest = hashlib.sha256()
    for example in each.examples:
        digest.update(example.image.tobytes())
        digest.update(example.reference.tobytes())
    return SplitRecord(each.name, each.groups, each.patients, len(each.examples), digest.hexdigest())
