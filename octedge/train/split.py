"""Who is trained on and who is held back: a person goes into one part with both eyes, and a new person moves no other."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from octedge.errors import UsageError
from octedge.train.manifest import HEADER, Facts, Part

Person = tuple[str, str]  # whose patients (`people` of a source, else its name), and which of them


class SplitRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which patients are held back, where that is not drawn: in this order the first that says something decides.

    `leave_out`: everyone of this vendor is held back. `locked`: who is known to an earlier run's split.json stays where
    they were (in TOML its path, beside the recipe; in a run's recipe.json what it says: part -> source -> patients).
    `folds` above 0: fold number `fold` (from 0) of so many is held back, and what sources name in `validation` is not.
    """

    folds: int = 0
    fold: int = 0
    leave_out: str = ""
    locked: str | dict[Part, dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        if self.folds and not 0 <= self.fold < self.folds:
            raise UsageError(f"split: fold {self.fold} of {self.folds} folds; they are counted from 0 to {self.folds - 1}")
        if self.folds == 1 or self.folds < 0:
            raise UsageError(f"split: {self.folds} folds; needed are 2 or more, or 0 for none")
        if self.folds and self.locked:
            raise UsageError("split: a locked split has no folds; remove one of the two")


@dataclass(frozen=True, slots=True)
class Roster:
    """The patients of one source, and what the source says about its part."""

    facts: Facts
    patients: frozenset[str]

    def person(self, patient: str) -> Person:
        """Who that is, the same for all sources that share their people; an identity from headers is one everywhere."""
        return (self.facts.people or (HEADER if self.facts.patient == HEADER else self.facts.name), patient)


@dataclass(frozen=True, slots=True)
class Draw:
    """The salted draw: `share` of the persons are held back."""

    salt: str
    share: float

    def of(self, person: Person) -> float:
        """A number in 0..1 that depends on salt and person alone."""
        return int.from_bytes(hashlib.sha256("\n".join((self.salt, *person)).encode()).digest()[:8]) / 2**64


def assign(rosters: Sequence[Roster], rule: SplitRule, draw: Draw) -> dict[Person, Part]:
    """The part of every person.

    Raises `UsageError` for names, vendors or locked parts that fit no source.
    """
    _check(rosters, rule)
    parts: dict[Person, Part] = {}
    for decided in (_left_out(rosters, rule), _locked(rosters, rule), _stated(rosters, rule)):
        for person, part in decided.items():
            parts.setdefault(person, part)
    for roster in rosters:
        for patient in roster.patients:
            person = roster.person(patient)
            if person not in parts:
                number = draw.of(person)
                held = int(number * rule.folds) == rule.fold if rule.folds else number < draw.share
                parts[person] = "validation" if held else "train"
    return parts


def lacking(rosters: Sequence[Roster], parts: Mapping[Person, Part], rule: SplitRule, draw: Draw) -> list[tuple[str, str]]:
    """(Source, what is wrong and what to do) where the draw left a part of a source empty."""
    found = []
    for roster in rosters:
        facts = roster.facts
        settled = facts.part or (facts.validation and not rule.folds) or rule.locked or facts.vendor == rule.leave_out
        if settled or len({parts[roster.person(patient)] for patient in roster.patients}) > 1:
            continue
        ranked = sorted(roster.patients, key=lambda patient: draw.of(roster.person(patient)))
        if len(ranked) == 1:
            what = f"one patient only ({ranked[0]}), needed are two: one to train on, one to hold back"
            found.append((facts.name, f'{what}; add patients, or say part = "train" or part = "validation"'))
            continue
        part = parts[roster.person(ranked[0])]
        what = f"all {len(ranked)} patients were drawn into the part {part}"
        found.append((facts.name, f'{what}; name some to hold back, validation = ["{ranked[0]}"], or take another salt'))
    return found


def namesakes(rosters: Sequence[Roster], parts: Mapping[Person, Part]) -> list[tuple[str, str]]:
    """(Patient, what) where two sources know a patient of the same name in different parts, and neither says whose it is."""
    places: dict[str, dict[Part, str]] = {}
    for roster in rosters:
        if not roster.facts.people and roster.facts.patient != HEADER:
            for patient in roster.patients:
                places.setdefault(patient, {})[parts[roster.person(patient)]] = roster.facts.name
    return [
        (patient, f"in the part train by source {where['train']}, in validation by source {where['validation']}")
        for patient, where in sorted(places.items())
        if len(where) > 1
    ]


def _check(rosters: Sequence[Roster], rule: SplitRule) -> None:
    if rule.leave_out and rule.leave_out not in {roster.facts.vendor for roster in rosters}:
        known = sorted({roster.facts.vendor for roster in rosters})
        raise UsageError(f"split: leave_out = {rule.leave_out!r}, but the sources' vendors are {', '.join(known)}; name one of them")
    for roster in rosters:
        missing = set(roster.facts.validation) - roster.patients
        if missing:
            what = f"source {roster.facts.name}: key `validation`: patients {sorted(missing)} have no B-scans"
            raise UsageError(f"{what}; found are {sorted(roster.patients)}")


def _left_out(rosters: Sequence[Roster], rule: SplitRule) -> dict[Person, Part]:
    gone = [roster for roster in rosters if rule.leave_out and roster.facts.vendor == rule.leave_out]
    return {roster.person(patient): "validation" for roster in gone for patient in roster.patients}


def _locked(rosters: Sequence[Roster], rule: SplitRule) -> dict[Person, Part]:
    if isinstance(rule.locked, str):
        raise UsageError(f"split: locked = {rule.locked!r} has not been read; read the recipe with read_recipe")
    by_name = {roster.facts.name: roster for roster in rosters}
    found: dict[Person, Part] = {}
    for part, sources in rule.locked.items():
        for source, patients in sources.items():
            roster = by_name.get(source)
            for patient in patients if roster else ():
                assert roster is not None
                if found.setdefault(roster.person(patient), part) != part:
                    raise UsageError(f"split: the locked split has patient {patient} of source {source} in both parts; mend split.json")
                if part == "train" and patient in roster.facts.validation:
                    what = f"source {source}: key `validation` names {patient}, the locked split has trained on them"
                    raise UsageError(f"{what}; remove the name or the lock")
    return found


def _stated(rosters: Sequence[Roster], rule: SplitRule) -> dict[Person, Part]:
    """What sources say themselves; a person held back by one source is held back in all that share the people."""
    found: dict[Person, Part] = {}
    for roster in rosters:
        named = () if rule.folds else roster.facts.validation
        for patient in roster.patients:
            part: Part | None = roster.facts.part
            if part is None and named:
                part = "validation" if patient in named else "train"
            if part and found.get(roster.person(patient)) != "validation":
                found[roster.person(patient)] = part
    return found


def read_locked(path: Path) -> dict[Part, dict[str, tuple[str, ...]]]:
    """Part -> source -> patients, of the split.json of a run.

    Raises `UsageError`.
    """
    try:
        record = msgspec.json.decode(path.read_bytes(), type=dict[Part, list[_Locked]])
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{path.name}: no readable split ({error}); name the split.json of a run") from None
    return {part: {each.source: each.patients for each in sources} for part, sources in record.items()}


class _Locked(msgspec.Struct, frozen=True):
    """What a lock needs of a run's record of one source in one part."""

    source: str
    patients: tuple[str, ...]
