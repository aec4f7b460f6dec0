"""Every candidate trained, compared by IoU on the validation set, the target chosen, and the target trained in full."""

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from octedge.errors import UsageError
from octedge.train.cohort import Set, Split
from octedge.train.fit import Course, Trial, fit
from octedge.train.networks import build, parameters
from octedge.train.recipe import Recipe, write_recipe
from octedge.train.validate import Scores


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A trained candidate: its name, number of parameters, and the scores of every seed."""

    name: str
    parameters: int
    seeds: dict[int, Scores]

    @property
    def iou(self) -> float:
        """Mean over the seeds of the mean IoU over the real sources."""
        return float(np.mean([each.mean for each in self.seeds.values()]))

    @property
    def best(self) -> int:
        """The seed with the highest mean IoU; its weights are what is exported."""
        return max(self.seeds, key=lambda seed: self.seeds[seed].mean)


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All candidates, best first, after `steps` steps each; the first one is the target."""

    steps: int
    candidates: tuple[Candidate, ...]

    @property
    def target(self) -> Candidate:
        return self.candidates[0]

    def table(self) -> str:
        """The comparison as lines for people."""
        rows = [f"{'candidate':<12} {'parameters':>10} {'mean IoU':>9}"]
        rows += [f"{each.name:<12} {each.parameters:>10,} {each.iou:>9.4f}" for each in self.candidates]
        return "\n".join(rows)


class SplitRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who was trained on and who held back, per source, with a hash of the B-scans and references."""

    source: str
    groups: tuple[str, ...]
    patients: tuple[str, ...]
    bscans: int
    digest: str


def train_all(course: Course, run: Path) -> Selection:
    """Train and compare the candidates, then train the target for all steps; everything is left in the folder `run`."""
    recipe = course.recipe
    run.mkdir(parents=True, exist_ok=True)
    _record(recipe, course.split, run)
    screening = len(recipe.candidates) > 1 and 0 < recipe.screen_steps < recipe.steps
    steps = recipe.screen_steps if screening else recipe.steps
    trials = [Trial(name, seed) for name in recipe.candidates for seed in recipe.seeds]
    selection = choose(recipe, steps, {trial: fit(trial, course, trial.folder(run), steps) for trial in trials})
    (run / "selection.json").write_bytes(msgspec.json.format(msgspec.json.encode(selection), indent=1))
    course.say(selection.table())
    if screening:
        target = Trial(selection.target.name, selection.target.best)
        fit(target, replace(course, resume=True), target.folder(run))
    return selection


def choose(recipe: Recipe, steps: int, scores: dict[Trial, Scores]) -> Selection:
    """The candidates ordered by mean IoU; of equal ones (to 0.0001) the smaller network first."""
    found: dict[str, dict[int, Scores]] = {}
    for trial, each in scores.items():
        found.setdefault(trial.name, {})[trial.seed] = each
    classes = len(recipe.structures)
    candidates = [Candidate(name, parameters(build(recipe.candidates[name], classes)), seeds) for name, seeds in found.items()]
    return Selection(steps, tuple(sorted(candidates, key=lambda each: (-round(each.iou, 4), each.parameters))))


def read_selection(run: Path) -> Selection:
    """The comparison a run has made.

    Raises `UsageError` where there is none yet.
    """
    try:
        return msgspec.json.decode((run / "selection.json").read_bytes(), type=Selection)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{run.name}: no readable selection.json ({error}); let `octedge train` finish (--resume)") from error


def read_split(run: Path) -> dict[str, tuple[SplitRecord, ...]]:
    """The run's record of its split: part -> sources."""
    try:
        return msgspec.json.decode((run / "split.json").read_bytes(), type=dict[str, tuple[SplitRecord, ...]])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{run.name}: no readable split.json ({error}); name a folder that `octedge train` wrote") from error


def _record(recipe: Recipe, split: Split, run: Path) -> None:
    write_recipe(recipe, run / "recipe.json")
    parts = {"train": split.train, "validation": split.validation}
    record = {part: [_record_set(each) for each in sets] for part, sets in parts.items()}
    (run / "split.json").write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))


def _record_set(each: Set) -> SplitRecord:
    digest = hashlib.sha256()
    for example in each.examples:
        digest.update(example.image.tobytes())
        digest.update(example.reference.tobytes())
    return SplitRecord(each.name, each.groups, each.patients, len(each.examples), digest.hexdigest())
