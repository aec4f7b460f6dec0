"""What devices leave out of a DICOM OCT file, or put elsewhere: each as a change of the conformant header of a phantom.

From conformance statements, other readers' sources and reports of users; no device's own file is copied.
"""

import math
from collections.abc import Callable
from typing import Literal

from pydicom import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from octedge.phantom import Phantom

Profile = Literal[
    "conformant", "shuffled", "reversed", "cirrus", "heidelberg", "optopol", "towardpi", "oct-converter", "radial",
    "circle", "line", "repeats",
]  # fmt: skip

FUNDUS = 768  # rows and columns of the fundus image that frame locations refer to, px


def stored(profile: Profile, frames: int) -> list[int]:
    """Which B-scan is stored at each place."""
    order = list(range(frames))
    if profile == "shuffled":
        return order[1::2] + order[0::2]
    return order[::-1] if profile == "reversed" else order


def change(profile: Profile, header: Dataset, phantom: Phantom) -> None:
    """Make of the conformant header what the device of that name writes."""
    if profile in _CHANGES:
        _CHANGES[profile](header, phantom)


def _shared(header: Dataset) -> Dataset:
    shared: Dataset = header.SharedFunctionalGroupsSequence[0]
    return shared


def _frames(header: Dataset) -> list[Dataset]:
    return list(header.PerFrameFunctionalGroupsSequence)


def _cirrus(header: Dataset, phantom: Phantom) -> None:
    """No plane positions, a series of both eyes, the older codes, one index with two values, SliceThickness as distance."""
    del _shared(header).PlaneOrientationSequence
    del _shared(header).PixelMeasuresSequence[0].SpacingBetweenSlices
    for group in _frames(header):
        del group.PlanePositionSequence
    _locate(header, phantom, _across)
    header.Laterality = "B"
    header.ImageType = ["ORIGINAL", "PRIMARY", "", "CUBE"]
    header.ConcatenationUID = generate_uid(entropy_srcs=[header.SeriesInstanceUID, "concatenation"])
    del header.DimensionIndexSequence[1]
    retina = code("T-AA610", "SRT", "Retina")
    header.AnatomicRegionSequence = [retina]
    _shared(header).FrameAnatomySequence[0].AnatomicRegionSequence = [retina]


def _heidelberg(header: Dataset, phantom: Phantom) -> None:
    """Positions, and beside them the lines on the fundus image; SliceThickness as distance."""
    del _shared(header).PixelMeasuresSequence[0].SpacingBetweenSlices
    _locate(header, phantom, _across)


def _optopol(header: Dataset, phantom: Phantom) -> None:
    """PixelMeasures in every frame."""
    measures = _shared(header).PixelMeasuresSequence
    del _shared(header).PixelMeasuresSequence
    for group in _frames(header):
        group.PixelMeasuresSequence = measures


def _towardpi(header: Dataset, phantom: Phantom) -> None:
    """Two per-frame items for each frame, lines that run down the fundus image, PixelSpacing at the top level."""
    _locate(header, phantom, _down)
    header.PerFrameFunctionalGroupsSequence = [group for each in _frames(header) for group in (each, each)]
    header.PixelSpacing = _shared(header).PixelMeasuresSequence[0].PixelSpacing
    del _shared(header).PixelMeasuresSequence


def _oct_converter(header: Dataset, phantom: Phantom) -> None:
    """Written by a conversion of what the device did not state: no frame of reference, millimetres that no eye has."""
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator", "DimensionOrganizationSequence", "DimensionIndexSequence"):
        delattr(header, keyword)
    for keyword in ("StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        delattr(header, keyword)
    _shared(header).PixelMeasuresSequence = [item(PixelSpacing=["0.3", "0.6"], SliceThickness="0.02")]
    for group in _frames(header):
        del group.PlanePositionSequence


def _radial(header: Dataset, phantom: Phantom) -> None:
    """Lines through one centre; every plane has its own orientation."""
    del _shared(header).PlaneOrientationSequence
    half = (phantom.look.columns - 1) / 2 * (phantom.spacing.lateral or 0)
    for index, group in enumerate(_frames(header)):
        x, z = _turned(phantom, index)
        group.PlaneOrientationSequence = [item(ImageOrientationPatient=[_ds(x), "0", _ds(z), "0", "1", "0"])]
        group.PlanePositionSequence = [item(ImagePositionPatient=[_ds(-half * x), "0", _ds(-half * z)])]
    _locate(header, phantom, _spoke)
    header.ScanPatternTypeCodeSequence = [code("128282", "DCM", "Radial")]


def _circle(header: Dataset, phantom: Phantom) -> None:
    """Circles round the optic disc: no plane, a line on the fundus image that is not straight."""
    del _shared(header).PlaneOrientationSequence
    for group in _frames(header):
        del group.PlanePositionSequence
    _locate(header, phantom, _ring)
    header.ScanPatternTypeCodeSequence = [code("128284", "DCM", "Circle")]


def _line(header: Dataset, phantom: Phantom) -> None:
    header.ScanPatternTypeCodeSequence = [code("128281", "DCM", "Line")]


def _repeats(header: Dataset, phantom: Phantom) -> None:
    """The same line again and again, to be averaged or compared."""
    first = _frames(header)[0].PlanePositionSequence
    for group in _frames(header):
        group.PlanePositionSequence = first


_CHANGES: dict[str, Callable[[Dataset, Phantom], None]] = {
    "cirrus": _cirrus, "heidelberg": _heidelberg, "optopol": _optopol, "towardpi": _towardpi, "oct-converter": _oct_converter,
    "radial": _radial, "circle": _circle, "line": _line, "repeats": _repeats,
}  # fmt: skip


def _locate(header: Dataset, phantom: Phantom, line: Callable[[Phantom, int], list[float]]) -> None:
    """Give every frame its place on the fundus image: row and column of each point (PS3.3 C.8.17.10)."""
    fundus = generate_uid(entropy_srcs=[header.SeriesInstanceUID, "fundus"])
    for index, group in enumerate(_frames(header)):
        points = line(phantom, index)
        kind = "LINEAR" if len(points) == 4 else "NONLINEAR"
        group.OphthalmicFrameLocationSequence = [
            item(
                ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.1", ReferencedSOPInstanceUID=fundus,
                ReferenceCoordinates=points, OphthalmicImageOrientation=kind,
            )
        ]  # fmt: skip


def _place(phantom: Phantom, index: int) -> float:
    return FUNDUS * (index + 1) / (phantom.frames + 1)


def _across(phantom: Phantom, index: int) -> list[float]:
    return [_place(phantom, index), 100.0, _place(phantom, index), FUNDUS - 100.0]


def _down(phantom: Phantom, index: int) -> list[float]:
    return [0.0, _place(phantom, index), float(FUNDUS), _place(phantom, index)]


def _turned(phantom: Phantom, index: int) -> tuple[float, float]:
    angle = math.pi * index / phantom.frames
    return math.cos(angle), math.sin(angle)


def _spoke(phantom: Phantom, index: int) -> list[float]:
    x, z = (FUNDUS / 3 * part for part in _turned(phantom, index))
    return [FUNDUS / 2 + z, FUNDUS / 2 - x, FUNDUS / 2 - z, FUNDUS / 2 + x]


def _ring(phantom: Phantom, index: int) -> list[float]:
    angles = [2 * math.pi * step / 16 for step in range(17)]
    radius = FUNDUS / 6 + index
    return [coordinate for angle in angles for coordinate in (FUNDUS / 2 + radius * math.sin(angle), FUNDUS / 2 + radius * math.cos(angle))]


def _ds(value: float) -> str:
    return str(format_number_as_ds(round(value, 9) + 0.0))


def item(**values: object) -> Dataset:
    """A data set, or an item of a sequence."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
