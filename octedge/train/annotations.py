"""From the files of a source to annotated B-scans, file by file, so that one bad file can be named and passed over."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError, UsageError
from octedge.metrics import IGNORED
from octedge.readers import Source, find
from octedge.readers.vol import device_lines
from octedge.scan import Frame, Scan
from octedge.train.identity import eye_of, patient_of
from octedge.train.labelmaps import LabelMap, boundary_reference, group_surfaces
from octedge.train.manifest import Archives, Boundaries, DeviceLines, Masks, RealSource
from octedge.train.masks import Mask, beside, number, read_masks, stated_classes

Depths = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Example:
    """An annotated B-scan: image uint8 (H, W), reference uint8 (H, W) group indices, boundaries float64 (K, W) in rows."""

    name: str
    patient: str
    image: Frame
    reference: NDArray[np.uint8]
    surfaces: Depths
    eye: str = ""  # "R", "L", or "" where nothing says


@dataclass(frozen=True, slots=True)
class Item:
    """One scan of a source; `read` gives its annotated B-scans, `raw` of each its boundaries (K, W) before they are put in order."""

    name: str
    read: Callable[[], list[Example]]
    raw: Callable[[], list[Depths]] | None = None


def items(source: RealSource, data: Path) -> tuple[tuple[str, ...], list[Item]]:
    """The groups a source annotates and its scans, in the order of their names; nothing but names has been read.

    Raises `UsageError` where there are no scans, `ScanError` where the classes of a result cannot be read.
    """
    if isinstance(source, Boundaries):
        tables = lru_cache(maxsize=64)(partial(_table, name=source.name))
        found = [_Bounded(scan, source, data, tables) for scan in scans(source, data)]
        return source.groups, [Item(each.scan.name, each.read, each.raw) for each in found]
    if isinstance(source, DeviceLines):
        lined = [_Lined(scan, source) for scan in scans(source, data)]
        return source.groups, [Item(each.scan.name, each.read, each.raw) for each in lined]
    listed = scans(source, data)
    labels = source.labels or _stated_map(source, data, listed)
    return labels.groups(), [Item(scan.name, partial(_masked, scan, source, data, labels)) for scan in listed]


def folders(source: RealSource) -> tuple[str, str]:
    """The folder of the scans and that of their annotations, below the data folder."""
    if isinstance(source, Masks):
        return source.images, source.masks
    return (source.images, source.tables) if isinstance(source, Boundaries) else (source.files, source.files)


def scans(source: RealSource, data: Path) -> list[Source]:
    """The scans of a source; annotations that lie in a folder among them are none."""
    place, notes = (data / each for each in folders(source))
    apart = notes != place and notes.is_relative_to(place)
    try:
        found = [scan for scan in find([place]) if not (apart and scan.paths[0].is_relative_to(notes))]
    except UsageError:
        found = []
    if isinstance(source, DeviceLines):
        found = [scan for scan in found if scan.paths[0].suffix.lower() == ".vol"]
    if not found:
        raise UsageError(f"source {source.name}: no images in {folders(source)[0]}; check the source's folder and --data")
    return found


def _stated_map(source: Masks | Archives, data: Path, listed: list[Source]) -> LabelMap:
    """The label map that results of octedge state themselves."""
    for scan in listed:
        files = beside(data / source.masks, scan.name) if isinstance(source, Masks) else [scan.paths[0]]
        classes = stated_classes(files[0]) if files else None
        if classes is not None:
            return LabelMap(values=dict(enumerate(classes)))
        break
    what = f"source {source.name}: key `labels` is missing, and the masks are no results of octedge, which say their classes"
    raise UsageError(f"{what}; add [source.labels.values]")


def _masked(scan: Source, source: Masks | Archives, data: Path, labels: LabelMap) -> list[Example]:
    opened = scan.read()
    examples = []
    patient, eye = patient_of(scan, source), eye_of(scan, source, opened)
    for index, mask, file in _masks(scan, source, data, opened):
        reference = labels.reference(mask, f"{source.name}: {file}")
        if (reference == IGNORED).all() and opened.frames > 1:
            continue  # of a volume, often only some B-scans are annotated
        image = opened.frame(index)
        if image.shape != mask.shape:
            raise ScanError(f"{source.name}: {file} is {mask.shape}, its image is {image.shape}; a mask has its image's size")
        surfaces = group_surfaces(reference, labels.groups())
        examples.append(Example(frame_name(opened, index), patient, image, reference, surfaces, eye))
    if not examples or all((each.reference == IGNORED).all() for each in examples):
        raise ScanError(f"{source.name}: {scan.name}: no pixel is annotated, all are ignored; remove it or mend mask or label map")
    return examples


def frame_name(scan: Scan, index: int) -> str:
    """A scan's name, with the B-scan's number where it has several."""
    return scan.name if scan.frames == 1 else f"{scan.name}_{index:03d}"


def _masks(scan: Source, source: Masks | Archives, data: Path, opened: Scan) -> Iterator[tuple[int, Mask, str]]:
    """(B-scan, mask, file name) of every B-scan that has a mask."""
    if isinstance(source, Archives):
        files, array, stored = [scan.paths[0]], source.array, False
    else:
        files, array, stored = beside(data / source.masks, scan.name), "labels", source.stored
    if not files:
        folder = folders(source)[1]
        raise ScanError(f"{source.name}: {scan.paths[0].name} has no mask in {folder}; add one or remove the image")
    place = _places(opened) if stored else list(range(opened.frames))
    if files[0].stem != Path(scan.name).name and isinstance(source, Masks):
        for file in files:
            own = number(file) - source.first_frame
            if not 0 <= own < opened.frames:
                what = f"{source.name}: {file.name} is for B-scan {own} from 0, the scan has {opened.frames}"
                raise ScanError(f"{what}; check key `first_frame`")
            yield place.index(own), read_masks(file, array)[0], file.name
        return
    masks = read_masks(files[0], array)
    if len(masks) != opened.frames:
        what = f"{source.name}: {files[0].name} has {len(masks)} masks, the scan {opened.frames} B-scans"
        raise ScanError(f"{what}; give each its mask, or name files STEM_NUMBER")
    for index, own in enumerate(place):
        yield index, masks[own], files[0].name


def _places(scan: Scan) -> list[int]:
    """The number from 0, as the file stores them, of each B-scan."""
    stored = scan.source_ids.get("FrameNumbers")
    return [int(each) - 1 for each in stored.split("\\")] if stored else list(range(scan.frames))


@dataclass(frozen=True, slots=True)
class _Bounded:
    """A picture whose boundaries stand in tables."""

    scan: Source
    source: Boundaries
    data: Path
    table: Callable[[Path], Depths]

    def raw(self) -> list[Depths]:
        patient, place = self._address()
        columns = []
        for boundary in range(1, len(self.source.groups)):
            path = self.data / self.source.tables / self.source.table.format(patient=patient, boundary=boundary)
            table = self.table(path)
            if not 0 < place <= table.shape[1]:
                what = f"{self.source.name}: {path.name} has {table.shape[1]} values in a line, {self.scan.name} needs number {place}"
                raise ScanError(f"{what}; check key `image`")
            columns.append(table[:, place - 1] - self.source.first_row)
        if len({len(each) for each in columns}) > 1:
            raise ScanError(f"{self.source.name}: the tables of {patient} differ in their number of lines; one of them is truncated")
        return [np.array(columns)]

    def _address(self) -> tuple[str, int]:
        found = re.search(self.source.image, self.scan.name)
        if not found or len(found.groups()) < 2 or not (found[2] or "").isdigit():
            what = f"source {self.source.name}: {self.scan.name} does not match {self.source.image!r} with groups for patient and number"
            raise UsageError(f"{what}; mend key `image`")
        return found[1], int(found[2])

    def read(self) -> list[Example]:
        opened = self.scan.read()
        surfaces = self.raw()[0]
        if surfaces.shape[1] != opened.columns:
            what = f"{self.source.name}: the tables of {self.scan.name} have {surfaces.shape[1]} columns, the image {opened.columns}"
            raise ScanError(f"{what}; a table has a line per column")
        patient = patient_of(self.scan, self.source) if self.source.patient else self._address()[0]
        return [_bounded(opened, 0, (patient, eye_of(self.scan, self.source, opened)), surfaces, self.source.name)]


@dataclass(frozen=True, slots=True)
class _Lined:
    """A raw export with its device's lines."""

    scan: Source
    source: DeviceLines

    def raw(self) -> list[Depths]:
        lines = device_lines(self.scan.paths[0])
        missing = [line for line in self.source.lines if line not in lines or not np.isfinite(lines[line]).any()]
        if missing:
            what = f"{self.source.name}: {self.scan.name}: the device drew no {', '.join(missing)}"
            raise ScanError(f"{what}; take the file out or name fewer in key `lines`")
        return list(np.stack([lines[line] for line in self.source.lines], axis=1).astype(np.float64))

    def read(self) -> list[Example]:
        opened = self.scan.read()
        whose = patient_of(self.scan, self.source), eye_of(self.scan, self.source, opened)
        return [
            _bounded(opened, index, whose, surfaces, self.source.name)
            for index, surfaces in enumerate(self.raw())
            if np.isfinite(surfaces).all(axis=0).any()
        ]


def _bounded(scan: Scan, index: int, whose: tuple[str, str], surfaces: Depths, source: str) -> Example:
    mended = np.maximum.accumulate(surfaces, axis=0)
    image = scan.frame(index)
    reference = boundary_reference(mended, len(image))
    if (reference == IGNORED).all():
        raise ScanError(f"{source}: {scan.name}: no column has all boundaries, so all are ignored; remove it or mend the tables")
    return Example(frame_name(scan, index), whose[0], image, reference, mended, whose[1])


def _table(path: Path, name: str) -> Depths:
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        what = f"{name}: {path.name} is not a boundary table ({error})"
        raise ScanError(f"{what}; needed are comma-separated rows, one per column") from error
