"""Where the B-scans of a DICOM scan lie: their order, their distances, the eye.

What devices write differs: positions per frame or none, spacing per frame, shared or at the top level, two per-frame
items for one frame. Every answer here names the place it came from, and what contradicts itself is not used.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from octedge.errors import ScanError
from octedge.readers._directions import Line
from octedge.readers._directions import directions as between_lines
from octedge.readers._spacing import plausible
from octedge.scan import Direction, Laterality, Spacing

_DISTINCT = 1e-5  # mm; closer planes are the same plane
_PARALLEL = 1e-3  # greatest difference between direction cosines of parallel planes
_SLANTED = 0.05  # the same between lines on a picture, which are rounded to its pixels


@dataclass(frozen=True, slots=True)
class Place:
    """What a file says of one B-scan; None where it says nothing. Lengths in mm; `pixel` is (axial, lateral).

    `location` is the B-scan's line on a picture of the fundus: row, column of its first A-scan, row, column of its last.
    """

    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel: tuple[float, ...] | None = None
    pixel_source: str = "unknown"
    step: float | None = None
    thickness: float | None = None
    stack: int | None = None
    instance: int | None = None
    location: tuple[float, ...] | None = None
    eyes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """The frames' order: `indices` into the places, the distance `between` neighbours (mm) where positions tell it."""

    indices: tuple[int, ...]
    between: float | None = None
    notes: tuple[str, ...] = ()


def places(dataset: Dataset, frames: int) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """The places of all frames and notes. PS3.3 C.7.6.16: per-frame items, else shared ones, else the top level."""
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    notes: tuple[str, ...] = ()
    if own and len(own) != frames:
        notes = (f"{len(own)} per-frame items for {frames} frames: which belongs to which is not stated, so none is used",)
        own = []
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    if not own:
        return (_place(dataset, shared, None),) * frames, notes
    return tuple(_place(dataset, shared, item) for item in own), notes


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
    straight = find("OphthalmicFrameLocationSequence", "OphthalmicImageOrientation")[0] == "LINEAR"
    return Place(
        position=_floats(find("PlanePositionSequence", "ImagePositionPatient")[0], 3),
        orientation=_floats(find("PlaneOrientationSequence", "ImageOrientationPatient")[0], 6),
        pixel=_floats(pixel, 2),
        pixel_source=source,
        step=step[0] if step else None,
        thickness=thickness[0] if thickness else None,
        stack=_whole(find("FrameContentSequence", "InStackPositionNumber")[0]),
        instance=_whole(dataset.get("InstanceNumber")),
        location=_floats(find("OphthalmicFrameLocationSequence", "ReferenceCoordinates")[0], 4) if straight else None,
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


def stored_order(found: Sequence[Place]) -> Order:
    """The order of a multi-frame file: as stored if positions rise or fall (or say nothing), else by position."""
    same = tuple(range(len(found)))
    if len(found) == 1:
        return Order(same)
    along = _along(found)
    if isinstance(along, str):
        return Order(same, notes=(f"frame order as stored: {along}",))
    steps = np.diff(along)
    if (steps > 0).all() or (steps < 0).all():
        return _spaced(same, along)
    order = _spaced(_sorted(found, along), along)
    return replace(order, notes=("frames put in the order of their plane positions; they are stored in another", *order.notes))


def series_order(name: str, found: Sequence[Place]) -> Order:
    """The order of single-frame files: by position, else InStackPositionNumber, else InstanceNumber.

    Raises `ScanError` if none of these tells the files apart; file names are not asked.
    """
    along = _along(found)
    if not isinstance(along, str):
        order = _spaced(_sorted(found, along), along)
        return replace(order, notes=(f"{len(found)} single-frame files ordered by plane position", *order.notes))
    for keyword, numbers in (("InStackPositionNumber", [p.stack for p in found]), ("InstanceNumber", [p.instance for p in found])):
        known = [number for number in numbers if number is not None]
        if len(set(known)) == len(found):
            indices = tuple(sorted(range(len(found)), key=known.__getitem__))
            notes = [f"{len(found)} single-frame files ordered by {keyword}: {along}"]
            if max(known) - min(known) + 1 != len(found):
                notes.append(f"{keyword} runs from {min(known)} to {max(known)} in {len(found)} files: some are missing")
            return Order(indices, notes=tuple(notes))
    missing = "neither plane positions nor InStackPositionNumber nor InstanceNumber tell them apart"
    raise ScanError(f"{name}: the order of {len(found)} single-frame files is unknown: {missing}; export the scan as one file")


def _along(found: Sequence[Place]) -> NDArray[np.float64] | str:
    """Positions (F,) in mm along the common normal of the planes, or why there are none."""
    if any(place.position is None for place in found):
        return "no plane positions"
    points = np.array([place.position for place in found])
    offsets = points - points[0]
    if all(place.orientation is not None for place in found):
        cosines = np.array([place.orientation for place in found])
        if np.abs(cosines - cosines[0]).max() > _PARALLEL:
            return "the planes are not parallel"
        normal = np.cross(cosines[0, :3], cosines[0, 3:])
    else:
        normal = offsets[np.argmax((offsets**2).sum(axis=1))]
        if np.abs(np.cross(offsets, normal)).max() > 0.05 * (normal**2).sum():
            return "the plane positions do not lie on a line"
    length = np.sqrt((normal**2).sum())
    along = offsets @ normal / length if length > 0 else np.zeros(len(points))
    if np.diff(np.sort(along)).min() < _DISTINCT:
        return "plane positions repeat"
    return np.asarray(along)


def _sorted(found: Sequence[Place], along: NDArray[np.float64]) -> tuple[int, ...]:
    """Frames by position; of the two directions the one in which the file's own numbers rise."""
    indices = tuple(int(index) for index in np.argsort(along, kind="stable"))
    for first, last in ((found[indices[0]].stack, found[indices[-1]].stack), (found[indices[0]].instance, found[indices[-1]].instance)):
        if first is not None and last is not None and first != last:
            return indices if first < last else indices[::-1]
    return indices


def _spaced(indices: tuple[int, ...], along: NDArray[np.float64]) -> Order:
    steps = np.abs(np.diff(along[list(indices)]))
    between = float(np.median(steps))
    if steps.max() - steps.min() <= 0.01 * between:
        return Order(indices, between)
    return Order(indices, between, (f"B-scans are unevenly spaced: {steps.min():.4f} to {steps.max():.4f} mm, median {between:.4f}",))


def spacing(found: Sequence[Place], between: float | None) -> tuple[Spacing, tuple[str, ...]]:
    """Axial and lateral from PixelSpacing [row, column]; between from positions, SpacingBetweenSlices or SliceThickness."""
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
    step, step_source = between, "plane positions"
    if step is None and len(found) > 1:
        step, step_source = _common(found, "step"), "SpacingBetweenSlices"
        if step is None:
            step, step_source = _common(found, "thickness"), "SliceThickness"
    if step is not None:
        source = "; ".join(filter(None, (source, f"between B-scans: DICOM {step_source}")))
    result, dropped = plausible((*values, step), source)
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
