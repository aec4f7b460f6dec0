"""DICOM OCT: multi-frame Ophthalmic Tomography images, and series of single-frame ones (PS3.3 A.52, C.8.17)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from octedge.errors import ScanError
from octedge.readers._dicom_file import open_dicom, reading
from octedge.readers._dicom_order import Order, Place, series_order, stored_order
from octedge.readers._dicom_places import directions, laterality, places, spacing
from octedge.readers._pixel_data import Encapsulated, Native, Pixels
from octedge.scan import Direction, Frame, Scan, range_note, to_uint8

OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
# Same family, other contents: en-face pictures and flow volumes.
OTHER = {"1.2.840.10008.5.1.4.1.1.77.1.5.7": "an en-face image", "1.2.840.10008.5.1.4.1.1.77.1.5.8": "a B-scan analysis (flow) volume"}

# PS3.16 CID 4211, SCT and the older SRT codes: these parts lie in front of what octedge segments.
_FRONT = {
    "31636006": "anterior chamber", "T-AA050": "anterior chamber", "28726007": "cornea", "T-AA200": "cornea",
    "65431007": "corneal endothelium", "T-AA260": "corneal endothelium", "15775008": "corneal epithelium",
    "T-AA220": "corneal epithelium", "41296002": "iris", "T-AA500": "iris", "78076003": "lens", "T-AA700": "lens",
    "29534007": "ciliary body", "T-AA400": "ciliary body", "29445007": "conjunctiva", "T-AA860": "conjunctiva",
}  # fmt: skip

# PS3.16 CID 4272.
_PATTERNS = {
    "128279": "volume", "128280": "volume", "128281": "line", "128282": "radial", "128283": "cross", "128284": "circle",
    "128285": "concentric circles", "128286": "circle and volume", "128287": "circle and radial", "128288": "grid",
}  # fmt: skip

# B-scans of these do not lie beside each other, whatever distance the tags state.
_NOT_APART = ("radial", "cross", "circle", "concentric circles", "circle and volume", "circle and radial")

_IDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a folder listing needs of a file: its series, whether it is one frame, whether it is an OCT scan at all."""

    series: str
    single: bool
    tomography: bool


def summary(path: Path) -> Summary:
    """Read only what is needed to group files. Raises `ScanError` for a damaged file."""
    with reading(path.name):
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "Modality", "SeriesInstanceUID", "NumberOfFrames"])
        other = bool(dataset.get("Modality")) and not _is_tomography(dataset)
        single = dataset.get("NumberOfFrames", 1) == 1
        directory = str(dataset.file_meta.get("MediaStorageSOPClassUID", "")) == "1.2.840.10008.1.3.10"
        return Summary(str(dataset.get("SeriesInstanceUID", "")), single, not (other or directory))


@dataclass(frozen=True, slots=True)
class Header:
    """A file without its pixels, for results that refer to it: the data set, and what it says of each of its frames.

    Look at the data set inside `reading` only: pydicom converts values when they are looked at.
    """

    dataset: Dataset
    places: tuple[Place, ...]


def headers(paths: Sequence[Path]) -> tuple[Header, ...]:
    """The headers of a scan's files, in the order of `paths`. Raises `ScanError` for a damaged file."""
    return tuple(_header(path) for path in paths)


def _header(path: Path) -> Header:
    with reading(path.name):
        dataset = dcmread(path, stop_before_pixels=True)
        frames = dataset.get("NumberOfFrames")
        found, _ = places(dataset, int(frames) if isinstance(frames, int) and frames > 0 else 1)
        return Header(dataset, found)


def _is_tomography(dataset: Dataset) -> bool:
    return dataset.get("SOPClassUID") == OPT or (dataset.get("Modality") == "OPT" and dataset.get("SOPClassUID") not in OTHER)


def read_dicom(paths: Sequence[Path], name: str) -> Scan:
    """One multi-frame file, or the single-frame files of one series, as a `Scan` whose frames are read when asked for.

    `source_ids` holds the UIDs results refer to; a series' SOPInstanceUID is the list of its files' UIDs in frame
    order, joined by backslashes; FrameNumbers (1-based, the same way) is there if frames stand in another order than
    stored. A deflated file is held in memory. Raises `ScanError`.
    """
    opened = [_open(path) for path in paths]
    first = opened[0]
    if len(opened) > 1:
        _check_series(name, opened)
        order = series_order(name, [file.places[0] for file in opened])
        found = [opened[index].places[0] for index in order.indices]
        frames = [(opened[index].pixels, 0) for index in order.indices]
    else:
        order = stored_order(first.places)
        found = [first.places[index] for index in order.indices]
        frames = [(first.pixels, index) for index in order.indices]

    def decode(index: int) -> Frame:
        pixels, number = frames[index]
        return to_uint8(pixels.raw(number), pixels.layout.bits_stored)

    if first.pattern in _NOT_APART:
        order = replace(order, apart=False, between=None)
    scale, scale_notes = spacing(found, order)
    eye, eye_notes = laterality(found)
    runs, run_notes = directions(found)
    middle, number = frames[len(frames) // 2]
    notes = (*first.notes, *_bit_notes(middle, number), *order.notes, *scale_notes, *eye_notes, *run_notes)
    return Scan(
        name, len(frames), middle.layout.rows, middle.layout.columns, decode, scale, eye, _pattern(first, order, runs), first.device,
        _ids(opened, order), tuple(dict.fromkeys(notes)), runs, order.known, first.pixels.words,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _File:
    """One file, header converted: nothing of pydicom is left."""

    pixels: Pixels
    places: tuple[Place, ...]
    ids: dict[str, str]
    device: str
    pattern: str | None
    notes: tuple[str, ...]


def _open(path: Path) -> _File:
    with reading(path.name):
        dataset, pixels = open_dicom(path)
        _check_kind(path.name, dataset)
        found, notes = places(dataset, pixels.layout.frames)
        ids = {key: str(dataset.get(key, "")) for key in _IDS}
        ids = {key: uid for key, uid in ids.items() if re.fullmatch(r"[0-9.]{1,64}", uid)}
        device = " ".join(str(dataset.get(key) or "").strip() for key in ("Manufacturer", "ManufacturerModelName")).strip()
        codes = [_PATTERNS.get(str(item.get("CodeValue", ""))) for item in dataset.get("ScanPatternTypeCodeSequence") or ()]
        parts = dataset.get("InConcatenationTotalNumber")
        if isinstance(parts, int) and parts > 1:
            notes = (*notes, f"one of {parts} files of a concatenation; each is segmented on its own")
        if isinstance(pixels, Native) and pixels.held is not None:
            notes = (*notes, "deflated file: all frames are held in memory")
        notes = (*notes, *_lossy(dataset, pixels))
        return _File(pixels, found, ids, device or "unknown", codes[0] if codes else None, notes)


def _lossy(dataset: Dataset, pixels: Pixels) -> tuple[str, ...]:
    """A note if the frames have been compressed with loss, by their header (PS3.3 C.7.6.1.1.5) or by their coding."""
    if dataset.get("LossyImageCompression") == "01":
        ratio = dataset.get("LossyImageCompressionRatio")
        ratios = [float(value) for value in (ratio if isinstance(ratio, MultiValue) else [ratio] if ratio else ())]
        return ("lossy compression" + (f", ratio {max(ratios):g}" if ratios else "") + ": stated in the header",)
    if isinstance(pixels, Encapsulated) and pixels.codec.lossy:
        return ("lossy compression: the frames are JPEG, which the header does not state",)
    return ()


def _check_kind(name: str, dataset: Dataset) -> None:
    """Raise `ScanError` for anything that is not an OCT of the back of the eye."""
    kind = OTHER.get(str(dataset.get("SOPClassUID", "")))
    if kind is not None:
        raise ScanError(f"{name}: {kind}, not B-scans; give the structural OCT of the same examination")
    if not _is_tomography(dataset):
        raise ScanError(f"{name}: neither is (0008,0060) Modality OPT, nor the SOP class Ophthalmic Tomography; only OCT B-scans are read")
    groups = [dataset, *(dataset.get("SharedFunctionalGroupsSequence") or ()), *(dataset.get("PerFrameFunctionalGroupsSequence") or ())]
    holders = [item for group in groups for item in (group, *(group.get("FrameAnatomySequence") or ()))]
    for holder in holders:
        for code in holder.get("AnatomicRegionSequence") or ():
            front = _FRONT.get(str(code.get("CodeValue", "")))
            if front:
                raise ScanError(f"{name}: (0008,2218) AnatomicRegionSequence says {front}; octedge segments the back of the eye")


def _check_series(name: str, opened: Sequence[_File]) -> None:
    """Make sure single-frame files can be frames of one scan."""
    if len({file.ids.get("SeriesInstanceUID") for file in opened}) != 1:
        raise ScanError(f"{name}: the files belong to several series; give each series a folder of its own")
    for file in opened:
        this, first = file.pixels.layout, opened[0].pixels.layout
        here, there = file.pixels.path.name, opened[0].pixels.path.name
        if this.frames != 1:
            raise ScanError(f"{name}: {here} has {this.frames} frames; a series is made of single-frame files")
        if (this.rows, this.columns, this.bits_stored) != (first.rows, first.columns, first.bits_stored):
            raise ScanError(
                f"{name}: frames of mixed size in one series: {here} has {this.rows} x {this.columns} of {this.bits_stored} bit, "
                f"{there} has {first.rows} x {first.columns} of {first.bits_stored} bit; split it into folders"
            )


def _bit_notes(pixels: Pixels, number: int) -> tuple[str, ...]:
    bits = pixels.layout.bits_stored
    notes = (f"{bits} bit reduced to 8: value >> {bits - 8}",) if bits > 8 else ()
    try:
        little = range_note(pixels.raw(number), bits)
    except ScanError:  # a damaged frame costs itself alone, when it is asked for
        return notes
    return (*notes, little) if little else notes


def _pattern(file: _File, order: Order, runs: tuple[Direction | None, Direction | None]) -> str:
    """As stated; else parallel B-scans beside each other are a volume."""
    if file.pattern:
        return file.pattern
    return "volume" if order.raster or None not in runs else "unknown"


def _ids(opened: Sequence[_File], order: Order) -> dict[str, str]:
    ids = dict(opened[0].ids)
    if len(opened) > 1:
        ids["SOPInstanceUID"] = "\\".join(opened[index].ids.get("SOPInstanceUID", "") for index in order.indices)
    elif order.indices != tuple(range(len(order.indices))):
        ids["FrameNumbers"] = "\\".join(str(index + 1) for index in order.indices)
    return ids
