"""What is wrong with a cohort: every finding names source, file, what, and what to do. A sound cohort has none."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from octedge.errors import OctedgeError, UsageError
from octedge.train.annotations import Example, Item, folders, items
from octedge.train.cohort import content, mapped
from octedge.train.manifest import Boundaries, Part, Phantoms, RealSource
from octedge.train.plausible import Order, disordered, order, row_profile, rows_off, turned
from octedge.train.recipe import Recipe
from octedge.train.split import Draw, Person, Roster, assign, lacking, namesakes

_CROSSED = 3.0  # rows; boundaries of thin layers drawn by hand cross by 2.2 in a sound set


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong; `file` is empty where it concerns the whole source."""

    source: str
    file: str
    what: str
    todo: str


@dataclass(slots=True)
class _Seen:
    """What is kept of a source after its B-scans have been looked at."""

    source: RealSource
    groups: tuple[str, ...] = ()
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    order: Order | None = None
    profiles: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    images: list[tuple[str, str, str]] = field(default_factory=list)  # digest, name, patient

    @property
    def roster(self) -> Roster:
        return Roster(self.source, frozenset(patient for _, _, patient in self.images))


def check(recipe: Recipe, data: Path) -> Iterator[Finding]:
    """Everything that is wrong with the recipe's sources below `data`, source by source, then what concerns several."""
    whole = []
    for source in recipe.source:
        if isinstance(source, Phantoms):
            continue
        seen = _Seen(source)
        yield from _check_source(seen, data)
        whole.append(seen)
    known = [each for each in whole if each.images]
    rosters, draw = [each.roster for each in known], Draw(recipe.salt, recipe.validation_share)
    parts: dict[Person, Part] | None = None
    try:
        parts = assign(rosters, recipe.split, draw)
    except UsageError as error:
        yield _as_finding("", "", error)
    if parts is not None:
        for name, words in lacking(rosters, parts, recipe.split, draw):
            yield _split_words(name, "", words)
        for patient, words in namesakes(rosters, parts):
            todo = "if it is one person, give both sources the same `people`; if not, give each its own"
            yield Finding("", patient, f"patient {patient} is {words}", todo)
    yield from _twice(known, parts)


def _check_source(seen: _Seen, data: Path) -> Iterator[Finding]:
    source = seen.source
    try:
        if source.sha256 and content(source, data) != source.sha256:
            what = f"the content of {' and '.join(dict.fromkeys(folders(source)))} is not what key `sha256` says"
            yield Finding(source.name, "", what, "look for changed files; if the change is meant, remove the key")
        seen.groups, found = items(source, data)
    except OctedgeError as error:
        yield _as_finding(source.name, "", error)
        return
    for item in found:
        yield from _check_item(seen, item)
    if not seen.images:
        yield Finding(source.name, "", "no B-scan of it can be used", "mend what is said about its files")
        return
    yield from _check_whole(seen)


def _check_item(seen: _Seen, item: Item) -> Iterator[Finding]:
    source, name = seen.source, seen.source.name
    try:
        examples = item.read()
        raw = item.raw() if item.raw else []
    except OctedgeError as error:
        yield _as_finding(name, item.name, error)
        return
    for depths in raw:
        gap = depths[:-1] - depths[1:]
        if np.nanmax(gap, initial=0) > _CROSSED:
            boundary, column = np.unravel_index(np.nanargmax(gap), gap.shape)
            what = f"boundary {boundary + 1} lies {gap[boundary, column]:.1f} rows below boundary {boundary + 2} in column {column}"
            yield Finding(name, item.name, what, "look whether tables are exchanged; else draw the boundaries anew there")
    for example in examples:
        seen.images.append((_digest(example), example.name, example.patient))
        seen.pixels += np.bincount(example.reference.ravel(), minlength=256)
        own = order(example, seen.groups)
        seen.order = own if seen.order is None else seen.order + own
        share = disordered(example, seen.groups)
        if share and not own.wrong(seen.groups):
            what = f"boundaries cross: structures stand in the wrong order in {share:.0%} of the columns"
            yield Finding(name, example.name, what, "clean the mask; each structure occurs once per column, in anatomical order")
        turn = turned(example, seen.groups)
        if turn:
            yield Finding(name, example.name, f"the image fits its annotation far better {turn}", "turn the mask or the image back")
        if isinstance(source, Boundaries):
            seen.profiles[example.patient].append(row_profile(example, seen.groups))


def _check_whole(seen: _Seen) -> Iterator[Finding]:
    source = seen.source
    for index, group in enumerate(seen.groups):
        if mapped(source) and not seen.pixels[index]:
            yield Finding(source.name, "", f"no pixel is {group!r}", "take it out of the label map, or mend the masks")
    wrong = seen.order.wrong(seen.groups) if seen.order else []
    if wrong and seen.order:
        upper, lower = wrong[0]
        lie = ", ".join(seen.order.seen(seen.groups))
        what = f"{upper!r} lies below {lower!r} in most columns; from top to bottom the labels lie {lie}"
        yield Finding(source.name, "", what, "values are exchanged in the label map, or masks are upside down: mend the map or the masks")
    profiles = [np.mean(each, axis=0) for each in seen.profiles.values()]
    off = rows_off(profiles)
    if off is not None and isinstance(source, Boundaries):
        rows = round(off) or (1 if off > 0 else -1)
        what = f"the boundaries fit the images better {abs(rows)} row{'s' * (abs(rows) > 1)} further {'down' if off > 0 else 'up'}"
        todo = f"the set probably counts rows from another number: try first_row = {source.first_row - rows:g}"
        yield Finding(source.name, "", what, todo)


def _twice(whole: list[_Seen], parts: dict[Person, Part] | None) -> Iterator[Finding]:
    """The same pixels under two patients, or in two parts."""
    first: dict[str, tuple[str, str, Person, Part | None]] = {}
    for seen in whole:
        for digest, name, patient in seen.images:
            person = seen.roster.person(patient)
            part = parts[person] if parts else None
            source, other, known, where = first.setdefault(digest, (seen.source.name, name, person, part))
            if known == person and where == part:
                continue
            what = f"the same B-scan as {other} of patient {known[1]} in source {source}"
            if where != part:
                what += f", which is in the part {where}, this one in {part}"
            yield Finding(seen.source.name, name, what, "remove one of the two, or give them one patient (and their sources one `people`)")


def _digest(example: Example) -> str:
    return hashlib.sha256(repr(example.image.shape).encode() + np.ascontiguousarray(example.image).tobytes()).hexdigest()


def _as_finding(source: str, file: str, error: OctedgeError) -> Finding:
    words = str(error).removeprefix("source ").removeprefix(f"{source}: ").removeprefix(f"{file}: ")
    return _split_words(source, file, words)


def _split_words(source: str, file: str, words: str) -> Finding:
    """A message of this house says what to do after its last semicolon."""
    what, _, todo = words.rpartition("; ")
    return Finding(source, file, what or words, todo if what else "mend or remove it")
