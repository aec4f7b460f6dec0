"""From folders to annotated B-scans, split by patient: the first training and validation sets."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from octedge.anatomy import KEYS
from octedge.errors import ScanError, UsageError
from octedge.phantom import random_phantom
from octedge.scan import Frame
from octedge.train.labelmaps import boundary_reference, group_surfaces
from octedge.train.manifest import AnySource, Boundaries, Masks, Phantoms
from octedge.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Example:
    """An annotated B-scan: image uint8 (H, W), reference uint8 (H, W) group indices, boundaries float64 (K, W) in rows."""

    name: str
    patient: str
    image: Frame
    reference: NDArray[np.uint8]
    surfaces: NDArray[np.float64]


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


def load(recipe: Recipe, data: Path) -> Split:
    """Read every source below `data` and split it by patient.

    Raises `UsageError` where a source or its validation patients cannot be found, `ScanError` for a bad image or mask.
    """
    parts = [_split(source, data, recipe) for source in recipe.source]
    return Split(tuple(train for train, _ in parts), tuple(validation for _, validation in parts))


def _split(source: AnySource, data: Path, recipe: Recipe) -> tuple[Set, Set]:
    if isinstance(source, Phantoms):
        return _phantoms(source, range(source.count)), _phantoms(source, range(10**6, 10**6 + source.validation_count))
    groups = source.labels.groups() if isinstance(source, Masks) else source.groups
    examples = tuple(read_source(source, data))
    held = validation_patients(source, {example.patient for example in examples}, recipe)
    return (
        Set(source.name, groups, tuple(example for example in examples if example.patient not in held), source.share, source.vendor),
        Set(source.name, groups, tuple(example for example in examples if example.patient in held), source.share, source.vendor),
    )


def validation_patients(source: Masks | Boundaries, patients: set[str], recipe: Recipe) -> set[str]:
    """Who is held back: those the recipe names, else a share chosen by salted hash, so that a new patient moves no other."""
    if source.validation:
        missing = set(source.validation) - patients
        if missing:
            raise UsageError(f"source {source.name}: validation patients {sorted(missing)} have no B-scans; found are {sorted(patients)}")
        return set(source.validation)
    return {patient for patient in patients if _draw(recipe.salt, source.name, patient) < recipe.validation_share}


def _draw(*words: str) -> float:
    """A number in 0..1 that depends on the words alone."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:8]) / 2**64


def read_source(source: Masks | Boundaries, data: Path) -> Iterator[Example]:
    """The annotated B-scans of a source, in file order."""
    folder = data / source.images
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in {".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg"})
    if not files:
        raise UsageError(f"source {source.name}: no images in {source.images}; check the recipe's folder and --data")
    read_one = _masked if isinstance(source, Masks) else _bounded
    return (read_one(path, source, data) for path in files)  # type: ignore[arg-type]


def _masked(path: Path, source: Masks, data: Path) -> Example:
    found = sorted((data / source.masks).glob(f"{path.stem}.*"))
    if not found:
        raise ScanError(f"{source.name}: {path.name} has no mask in {source.masks}; add one or remove the image")
    image, mask = read_grey(path), read_mask(found[0])
    if image.shape != mask.shape:
        raise ScanError(f"{source.name}: {found[0].name} is {mask.shape}, its image is {image.shape}; a mask has its image's size")
    reference = source.labels.reference(mask, f"{source.name}: {found[0].name}")
    surfaces = group_surfaces(reference, source.labels.groups())
    return Example(path.stem, _match(source.patient, path, source.name)[0], image, reference, surfaces)


def _bounded(path: Path, source: Boundaries, data: Path) -> Example:
    patient, number = _match(source.image, path, source.name)[:2]
    image = read_grey(path)
    columns = []
    for boundary in range(1, len(source.groups)):
        table = data / source.tables / source.table.format(patient=patient, boundary=boundary)
        columns.append(_table(table, source.name)[:, int(number) - 1] - source.first_row)
    surfaces = np.array(columns)
    if surfaces.shape[1] != image.shape[1]:
        raise ScanError(f"{source.name}: the tables of {path.stem} have {surfaces.shape[1]} columns, the image {image.shape[1]}")
    surfaces = np.maximum.accumulate(surfaces, axis=0)
    return Example(path.stem, patient, image, boundary_reference(surfaces, len(image)), surfaces)


def _table(path: Path, name: str) -> NDArray[np.float64]:
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        what = f"{name}: {path.name} is not a boundary table ({error})"
        raise ScanError(f"{what}; needed are comma-separated rows, one per column") from error


def _match(pattern: str, path: Path, name: str) -> tuple[str, ...]:
    found = re.search(pattern, path.stem)
    if not found or not found.groups():
        raise UsageError(f"source {name}: {path.stem} does not match {pattern!r} with a group for the patient; mend the recipe")
    return found.groups()


def read_grey(path: Path) -> Frame:
    """An 8-bit grey image.

    Raises `ScanError` for anything else.
    """
    image = _open(path)
    if image.mode != "L":
        raise ScanError(f"{path.name}: image mode {image.mode}, needed is 8-bit grey")
    return np.asarray(image)


def read_mask(path: Path) -> NDArray[np.integer]:
    """A mask of whole numbers: grey or palette image, or NPY.

    Raises `ScanError` for colour, NaN or fractional values.
    """
    mask: NDArray[np.integer]
    if path.suffix == ".npy":
        mask = np.load(path, allow_pickle=False)
    else:
        image = _open(path)
        if image.mode not in {"L", "P", "I;16", "I", "F"}:
            raise ScanError(f"{path.name}: mask mode {image.mode}, needed is one whole number per pixel")
        mask = np.asarray(image)
    if np.issubdtype(mask.dtype, np.floating):
        if not np.isfinite(mask).all() or (mask != np.rint(mask)).any():
            raise ScanError(f"{path.name}: mask holds NaN or fractions, needed is one whole number per pixel")
        mask = mask.astype(np.int64)
    if mask.ndim != 2:
        raise ScanError(f"{path.name}: mask has {mask.ndim} axes, needed are 2")
    return mask


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError) as error:
        raise ScanError(f"{path.name}: not a readable image ({type(error).__name__}); it is empty, damaged or of another kind") from error


def _phantoms(source: Phantoms, seeds: Iterable[int]) -> Set:
    examples = []
    for seed in seeds:
        phantom = random_phantom(seed)
        scan = phantom.bscan(seed % phantom.frames)
        surfaces = scan.surfaces.astype(np.float64)
        rows = len(scan.image)
        surfaces[(surfaces <= 0) | (surfaces >= rows)] = np.nan
        examples.append(Example(f"phantom{seed}", f"phantom{seed}", scan.image, scan.labels, surfaces))
    return Set(source.name, KEYS, tuple(examples), source.share, source.name)
