"""The functional groups of a derived object's frames (PS3.3 C.7.6.16), encoded as they stand in a file.

There are as many as frames, thousands where each class has frames of its own; as pydicom's data sets they would take ten times as
long as the pixels. So they are made of bytes: little endian, explicit VR (PS3.5 section 7.1.2).
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from octedge.readers._dicom_order import Place
from octedge.readers._spacing import plausible
from octedge.results._dicom import Origin, Reference, derived_uid, item

# (0062,000B) in (0062,000A), (0020,9056) and (0020,9057) in (0020,9111): PS3.3 C.7.6.17.
_SEGMENT, _STACK = [(0x0062000B, 0x0062000A)], [(0x00209056, 0x00209111), (0x00209057, 0x00209111)]
_NUMBERS = {"UL": "I", "US": "H", "FD": "d"}


@lru_cache
def _head(keyword: str) -> tuple[bytes, str]:
    tag, vr = Tag(keyword), dictionary_VR(keyword)
    return struct.pack("<HH2s", tag.group, tag.element, vr.encode()), vr


def element(keyword: str, value: str | bytes | Sequence[float]) -> bytes:
    """One element: text, numbers of VR UL, US or FD, or bytes as they are."""
    head, vr = _head(keyword)
    if isinstance(value, str):
        value = value.encode("ascii")
        value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    elif not isinstance(value, bytes):
        value = struct.pack(f"<{len(value)}{_NUMBERS[vr]}", *value)
    return head + struct.pack("<HI" if vr == "SQ" else "<H", *([0] if vr == "SQ" else []), len(value)) + value


def sequence(keyword: str, *items: bytes) -> bytes:
    """A sequence of items, each made of elements in the order of their tags."""
    return element(keyword, b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(each)) + each for each in items))


def set_frames(dataset: Dataset, source: Origin, frames: Sequence[tuple[int, int | None]]) -> None:
    """Describe the frames, each (B-scan, segment number or None), in the dimensions segment, stack, place in the stack."""
    dataset.NumberOfFrames = len(frames)
    set_dimensions(dataset, segments=frames[0][1] is not None)
    indices = sorted(dict(frames))
    shared, own = geometry(source, indices)
    ranks = {index: rank for rank, index in enumerate(indices, start=1)}
    made_of = {index: derivation(source.references[index]) for index in indices}
    groups = [made_of[index] + _content(ranks[index], segment) + own[ranks[index] - 1] + _segment(segment) for index, segment in frames]
    set_sequence(dataset, "SharedFunctionalGroupsSequence", [shared])
    set_sequence(dataset, "PerFrameFunctionalGroupsSequence", groups)


def set_dimensions(dataset: Dataset, segments: bool = True, stacked: bool = True) -> None:
    """State what frames are sorted by: segments, stack and place in the stack."""
    organization = derived_uid("dimensions", dataset.SOPInstanceUID)
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = [
        item(DimensionOrganizationUID=organization, DimensionIndexPointer=pointer, FunctionalGroupPointer=group)
        for pointer, group in [*(_SEGMENT if segments else []), *(_STACK if stacked else [])]
    ]


def set_sequence(dataset: Dataset, keyword: str, items: Sequence[bytes]) -> None:
    """Put encoded items into a data set that is to be written."""
    tag, head = Tag(keyword), 12  # bytes before the value
    value = sequence(keyword, *items)[head:]
    dataset[tag] = RawDataElement(tag, "SQ", len(value), value, 0, False, True)


def _content(rank: int, segment: int | None) -> bytes:
    """A frame's ranks in the dimensions; those in the stack rise by 1 whatever B-scans are missing (PS3.3 C.7.6.16.2.2)."""
    ranks = [1, rank] if segment is None else [segment, 1, rank]
    values = element("StackID", "1") + element("InStackPositionNumber", [rank]) + element("DimensionIndexValues", ranks)
    return sequence("FrameContentSequence", values)


def _segment(number: int | None) -> bytes:
    return b"" if number is None else sequence("SegmentIdentificationSequence", element("ReferencedSegmentNumber", [number]))


def derivation(*references: Reference, same_pixels: bool = True) -> bytes:
    """What a frame was made of (PS3.3 C.7.6.16.2.6), and whether its pixels lie where those of the source do."""
    frames: dict[tuple[str, str], list[int]] = {}
    for each in references:
        frames.setdefault((each.sop_class, each.instance), []).append(each.frame)
    sources = [
        element("ReferencedSOPClassUID", sop_class) + element("ReferencedSOPInstanceUID", instance)
        + element("ReferencedFrameNumber", "\\".join(map(str, numbers)))
        + element("SpatialLocationsPreserved", "YES" if same_pixels else "NO")
        + sequence("PurposeOfReferenceCodeSequence", _code("121322", "DCM", "Source image for image processing operation"))
        for (sop_class, instance), numbers in frames.items()
    ]  # fmt: skip
    how = sequence("DerivationCodeSequence", _code("113076", "DCM", "Segmentation"))
    return sequence("DerivationImageSequence", sequence("SourceImageSequence", *sources) + how)


@lru_cache
def _code(value: str, scheme: str, meaning: str) -> bytes:
    return element("CodeValue", value) + element("CodingSchemeDesignator", scheme) + element("CodeMeaning", meaning)


def geometry(source: Origin, indices: Sequence[int]) -> tuple[bytes, list[bytes]]:
    """Where B-scans lie and how large their pixels are, as the source states it: the groups they share, and those of each.

    What is not stated for each of them is left out; positions and orientations also where there is no frame of reference.
    """
    places = [source.places[index] for index in indices]
    positioned = source.frame_of_reference is not None
    macros = (
        [macro("PlanePositionSequence", ImagePositionPatient=place.position if positioned else None) for place in places],
        [macro("PlaneOrientationSequence", ImageOrientationPatient=place.orientation if positioned else None) for place in places],
        [measures(place) if positioned or place.thickness is not None else b"" for place in places],  # readers ask for a thickness
    )
    shared, own = b"", [b""] * len(places)
    for position, stated in zip((True, False, False), macros, strict=True):
        if not all(stated):
            continue
        if not position and len(set(stated)) == 1:
            shared += stated[0]
        else:
            own = [groups + macro for groups, macro in zip(own, stated, strict=True)]
    return shared, own


def measures(place: Place) -> bytes:
    """The sizes of a B-scan's pixels, empty if they are not stated or not believed."""
    if place.pixel is None or plausible((*place.pixel, None), "")[1]:
        return b""
    lengths = {"SliceThickness": place.thickness, "SpacingBetweenSlices": place.step}
    stated = {name: (length,) for name, length in lengths.items() if length is not None and length > 0}
    return macro("PixelMeasuresSequence", **stated, PixelSpacing=place.pixel)


def macro(keyword: str, **values: tuple[float, ...] | None) -> bytes:
    """A macro of decimal strings, in the order of their tags; empty if one is missing."""
    texts = {name: None if numbers is None else "\\".join(map(format_number_as_ds, numbers)) for name, numbers in values.items()}
    elements = [element(name, text) for name, text in texts.items() if text is not None]
    return sequence(keyword, b"".join(elements)) if len(elements) == len(values) else b""
