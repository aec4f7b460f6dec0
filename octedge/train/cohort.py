"""From folders to annotated B-scans, split by patient: the first training and validation sets."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.metrics import IGNORED
from octedge.phantom import random_phantom
from octedge.train.annotations import Example, folders, items
from octedge.train.manifest import AnySource, Part, Phantoms, RealSource
from octedge.train.recipe import Recipe
from octedge.train.split import Draw, Person, Roster, assign, lacking

__all__ = ["Example", "Set", "Split", "content", "load", "load_whole", "read_source"]


@dataclass(frozen=True, slots=True)
class Set:
    """All B-scans of one source in one part of the split, with the G groups it annotates."""

    name: str
    groups: tuple[str, ...]
    examples: tuple[Example, ...]
    share: float
    vendor: str = "unknown"

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(sorted({example.patient for example in self.examples}))


@dataclass(frozen=True, slots=True)
class Split:
    """The first training set and the first validation set; no patient is in both."""

    train: tuple[Set, ...]
    validation: tuple[Set, ...]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A source that has been read."""

    source: RealSource
    groups: tuple[str, ...]
    examples: tuple[Example, ...]

    @property
    def roster(self) -> Roster:
        return Roster(self.source, frozenset(example.patient for example in self.examples))


def load(recipe: Recipe, data: Path) -> Split:
    """Read every source below `data` and split it by patient.

    Raises `UsageError` where a source, its validation patients, one of its structures or a part of it cannot be found,
    or its content has changed; `ScanError` for a bad image or mask.
    """
    real = [_whole(source, data) for source in recipe.source if not isinstance(source, Phantoms)]
    rosters = [each.roster for each in real]
    draw = Draw(recipe.salt, recipe.validation_share)
    parts = assign(rosters, recipe.split, draw)
    for name, what in lacking(rosters, parts, recipe.split, draw):
        raise UsageError(f"source {name}: {what}")
    by_name = {each.source.name: each for each in real}
    sets = {part: tuple(_part(source, by_name, parts, part) for source in recipe.source) for part in ("train", "validation")}
    return Split(sets["train"], sets["validation"])


def load_whole(source: AnySource, data: Path) -> Set:
    """Every B-scan of a source, whatever its part; of phantoms, those to train on.

    Raises as `load` does.
    """
    if isinstance(source, Phantoms):
        return _part(source, {}, {}, "train")
    whole = _whole(source, data)
    return Set(source.name, whole.groups, whole.examples, source.share, source.vendor)


def _whole(source: RealSource, data: Path) -> _Whole:
    if source.sha256 and content(source, data) != source.sha256:
        what = f"source {source.name}: the content of {' and '.join(dict.fromkeys(folders(source)))} is not what key `sha256` says"
        raise UsageError(f"{what}; look for changed files, or remove the key if the change is meant")
    groups, found = items(source, data)
    examples = tuple(example for item in found for example in item.read())
    for group in absent(groups, examples) if mapped(source) else ():
        raise UsageError(f"source {source.name}: no pixel is {group!r}; take it out of the label map or mend the masks")
    return _Whole(source, groups, examples)


def mapped(source: RealSource) -> bool:
    """Whether the source says what its values mean: results of a model say all it knows, found or not."""
    return getattr(source, "labels", True) is not None


def absent(groups: tuple[str, ...], examples: Iterable[Example]) -> list[str]:
    """The groups no pixel belongs to."""
    seen = np.zeros(256, np.int64)
    for example in examples:
        seen += np.bincount(example.reference.ravel(), minlength=256)
    return [group for index, group in enumerate(groups) if not seen[index]]


def _part(source: AnySource, real: dict[str, _Whole], parts: dict[Person, Part], part: str) -> Set:
    if isinstance(source, Phantoms):
        seeds = range(source.count) if part == "train" else range(10**6, 10**6 + source.validation_count)
        return Set(source.name, KEYS, tuple(_phantom(seed, whole=part == "train") for seed in seeds), source.share, source.name)
    whole = real[source.name]
    inside = tuple(example for example in whole.examples if parts[whole.roster.person(example.patient)] == part)
    return Set(source.name, whole.groups, inside, source.share, source.vendor)


def read_source(source: RealSource, data: Path) -> Iterator[Example]:
    """The annotated B-scans of a source, in the order of their names.

    Raises `UsageError` or `ScanError` where something is wrong with them.
    """
    return (example for item in items(source, data)[1] for example in item.read())


def content(source: RealSource, data: Path) -> str:
    """A hash of every file below the source's folders, names included; it depends on nothing else.

    Raises `UsageError` where a folder is missing.
    """
    total = hashlib.sha256()
    for folder in dict.fromkeys(folders(source)):
        if not (data / folder).exists():
            raise UsageError(f"source {source.name}: {folder} does not exist; check the source's folders and --data")
        below = [data / folder] if (data / folder).is_file() else (data / folder).rglob("*")
        for name, path in sorted((path.relative_to(data).as_posix(), path) for path in below if path.is_file() and path.name[0] != "."):
            with path.open("rb") as file:
                total.update(f"{name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _phantom(seed: int, whole: bool) -> Example:
    """A phantom, graded as far down as its image shows anything, or as a whole.

    To train on it is graded whole: the dark below the retina looks as the vitreous does, and ungraded might be called so.
    """
    phantom = random_phantom(seed)
    scan = phantom.bscan(seed % phantom.frames)
    last = np.full_like(scan.reach, len(scan.image)) if whole else scan.reach
    reference = np.where(np.arange(len(scan.image))[:, None] < last, scan.labels, np.uint8(IGNORED))
    surfaces = scan.surfaces.astype(np.float64)
    surfaces[(surfaces <= 0) | (surfaces >= last)] = np.nan
    return Example(f"phantom{seed}", f"phantom{seed}", scan.image, reference, surfaces, phantom.eye)
