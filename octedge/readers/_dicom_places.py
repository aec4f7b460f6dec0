"""What a DICOM file says of where its B-scans lie: places, distances, the eye.

What devices write differs: positions per frame or none, spacing per frame, shared or at the top level, two per-frame
items for one frame. Every answer here names the place it came from, and what contradicts itself is not used.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset

from octedge.readers._dicom_order import Order, Place
from octedge.readers._directions import Line
from octedge.readers._directions import directions as between_lines
from octedge.readers._spacing import plausible
from octedge.scan import Direction, Laterality, Spacing

_SLANTED = 0.05  # greatest difference between directions of parallel lines, on a picture too, where they are rounded to its pixels


def places(dataset: Dataset, frames: int) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """The places of all frames and notes. PS3.3 C.7.6.16: per-frame items, else shared ones, else the top level."""
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    if not own:
        return (_place(dataset, shared, None),) * frames, ()
    found = tuple(_place(dataset, shared, item) for item in own)
    if len(found) == frames:
        return found, ()
    note = f"{len(own)} per-frame items for {frames} frames: which belongs to which is not stated, so only what all of them say is used"
    return (_agreed(found),) * frames, (note,)


def _agreed(found: Sequence[Place]) -> Place:
    """What holds of every frame, whichever item is its own: no position, and spacing only if it is the same everywhere."""
    return Place(
        pixel=found[0].pixel if len({place.pixel for place in found}) == 1 else None,
        pixel_source=found[0].pixel_source,
        step=_common(found, "step"),
        thickness=_common(found, "thickness"),
        instance=found[0].instance,
        eyes=tuple(eye for place in found for eye in place.eyes),
    )


def _place(dataset: Dataset, shared: Dataset | None, own: Dataset | None) -> Place:
    def find(macro: str, keyword: str) -> tuple[object, str]:
        for groups, where in ((own, "per-frame"), (shared, "shared")):
            item = _first(groups, macro)
            if item is not None and item.get(keyword) is not None:
                return item.get(keyword), f"DICOM {where} {macro.removesuffix('Sequence')}"
        return dataset.get(keyword), f"DICOM top-level {keyword}"

    pixel, source = find("PixelMeasuresSequence", "PixelSpacing")
    step = _floats(find("PixelMeasuresSequence", "SpacingBetweenSlices")[0], 1)
    thickness = _floats(find("PixelMeasuresSequence", "SliceThickness")[0], 1)
    eye = find("FrameAnatomySequence", "FrameLaterality")[0]
    location = _first(own, "OphthalmicFrameLocationSequence") or _first(shared, "OphthalmicFrameLocationSequence")
    straight = location is not None and location.get("OphthalmicImageOrientation") == "LINEAR"
    return Place(
        position=_floats(find("PlanePositionSequence", "ImagePositionPatient")[0], 3),
        orientation=_floats(find("PlaneOrientationSequence", "ImageOrientationPatient")[0], 6),
        pixel=_floats(pixel, 2),
        pixel_source=source,
        step=step[0] if step else None,
        thickness=thickness[0] if thickness else None,
        stack=_whole(find("FrameContentSequence", "InStackPositionNumber")[0]),
        instance=_whole(dataset.get("InstanceNumber")),
        location=_floats(location.get("ReferenceCoordinates"), 4) if straight and location is not None else None,
        fundus=str(location.get("ReferencedSOPInstanceUID") or "") if location is not None else "",
        eyes=(str(dataset.get("ImageLaterality") or ""), str(eye or ""), str(dataset.get("Laterality") or "")),
    )


def _first(dataset: Dataset | None, sequence: str) -> Dataset | None:
    items = dataset.get(sequence) if dataset is not None else None
    return items[0] if items else None


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int) else None


def _floats(value: object, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers, or None for anything else: a damaged value is no value."""
    if value is None or value == "":
        return None
    values = [value] if count == 1 else value
    try:
        numbers = tuple(float(number) for number in values)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def spacing(found: Sequence[Place], order: Order) -> tuple[Spacing, tuple[str, ...]]:
    """Axial and lateral from PixelSpacing [row, column]; between from positions, SpacingBetweenSlices or SliceThickness.

    Frames that do not lie beside each other have no distance between them, whatever the tags say.
    """
    notes: list[str] = []
    values: list[float | None] = [None, None]
    pixels = [place.pixel for place in found if place.pixel is not None]
    if pixels and len(pixels) < len(found):
        notes.append(f"PixelSpacing is stated for {len(pixels)} of {len(found)} frames only; not used")
    elif pixels:
        for axis, what in enumerate(("axial", "lateral")):
            low, high = min(pixel[axis] for pixel in pixels), max(pixel[axis] for pixel in pixels)
            if high - low > 1e-6 * abs(high):
                notes.append(f"{what} spacing differs between frames, {low:.6g} to {high:.6g} mm; not used")
            else:
                values[axis] = pixels[0][axis]
    source = found[0].pixel_source if pixels else ""
    step, step_source = order.between, "plane positions"
    if step is None and len(found) > 1 and order.apart:
        step, step_source = _common(found, "step"), "SpacingBetweenSlices"
        if step is None:
            step, step_source = _common(found, "thickness"), "SliceThickness"
    if step is not None:
        source = "; ".join(filter(None, (source, f"between B-scans: DICOM {step_source}")))
    result, dropped = plausible((*values, step), source)
    if len(dropped) > 1 and order.between is None and result.between is not None:
        dropped = (*dropped, "nor is the distance between B-scans, stated with it")
        result = Spacing()
    if result.axial is not None and result.axial == result.lateral:
        notes.append("axial and lateral spacing are the same, which no OCT device samples by: it may stand in for one nobody knew")
    return result, (*notes, *dropped)


def _common(found: Sequence[Place], what: str) -> float | None:
    values = {getattr(place, what) for place in found}
    return values.pop() if len(values) == 1 else None


def laterality(found: Sequence[Place]) -> tuple[Laterality | None, tuple[str, ...]]:
    """The eye from ImageLaterality, FrameLaterality, Laterality; None with a note if they say B or contradict each other."""
    stated = {eye for place in found for eye in place.eyes} & {"R", "L", "B"}
    sides = stated - {"B"}
    if sides == {"R"}:
        return "R", ()
    if sides == {"L"}:
        return "L", ()
    if not stated:
        return None, ()
    return None, ("laterality not used: the file says " + ("both R and L" if sides else "B (both eyes)"),)


def directions(found: Sequence[Place]) -> tuple[tuple[Direction | None, Direction | None], tuple[str, ...]]:
    """Where columns and B-scans run on the fundus, from planes (PS3.3 C.7.6.2.1.1) or lines on its picture (C.8.17.10).

    None where they say nothing, with a note where they contradict each other.
    """
    told = [between_lines(lines[0], lines[-1]) for lines in (_parallel(found, _on_patient), _parallel(found, _on_picture)) if lines]
    result: list[Direction | None] = []
    notes = []
    for axis, what in enumerate(("columns", "B-scans")):
        words = {each[axis] for each in told} - {None}
        result.append(words.pop() if len(words) == 1 else None)
        if len(words) > 1:
            notes.append(f"where {what} run on the fundus is not used: planes and lines on its picture contradict each other")
    return (result[0], result[1]), tuple(notes)


def _parallel(found: Sequence[Place], line: Callable[[Place], Line | None]) -> list[Line]:
    """The lines of all B-scans; none if one is missing or they are not parallel, as those of a radial scan."""
    lines = [each for each in map(line, found) if each is not None]
    across = np.array([(each[2] - each[0], each[3] - each[1]) for each in lines])
    if len(lines) < len(found) or (np.abs(across - across[0]).max(axis=0) > _SLANTED * np.abs(across[0]).max()).any():
        return []
    return lines


def _on_patient(place: Place) -> Line | None:
    """Seen from in front: the patient's left (x) is on the right, the head (z) is up."""
    if place.position is None or place.orientation is None:
        return None
    x, z = place.position[0], place.position[2]
    return x, z, x + place.orientation[0], z + place.orientation[2]


def _on_picture(place: Place) -> Line | None:
    """Rows of a picture count downwards."""
    if place.location is None:
        return None
    top, left, bottom, right = place.location
    return left, -top, right, -bottom
