"""The order of a scan's B-scans, from where the file says that they lie; a file's own order is trusted only where nothing else is."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError

_DISTINCT = 1e-5  # mm; closer planes are the same plane
_PARALLEL = 1e-3  # greatest difference between direction cosines of parallel planes
_DISTINCT_PX, _PARALLEL_PX = 0.01, 0.01  # the same on the fundus image, in its pixels and in radians: coordinates are rounded


@dataclass(frozen=True, slots=True)
class Place:
    """What a file says of one B-scan; None where it says nothing. Lengths in mm; `pixel` is (axial, lateral).

    `location` is the B-scan's line on a picture of the fundus: row, column of its first A-scan, row, column of its last, px;
    `fundus` names the picture.
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
    fundus: str = ""
    eyes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """The frames' order: `indices` into the places, how it is `known`, and what the places tell besides.

    `between` is the distance of neighbours (mm) where positions tell it. `apart`: whether the frames may lie beside each other,
    so that a distance has a meaning. `raster`: they are known to.
    """

    indices: tuple[int, ...]
    known: str
    between: float | None = None
    notes: tuple[str, ...] = ()
    apart: bool = True
    raster: bool = False


class _Line(NamedTuple):
    """Where frames lie on the line across them: `along` (F,), in mm if from positions; or why that is not known."""

    along: NDArray[np.float64] | None
    words: str
    millimetres: bool = False
    apart: bool = True


def stored_order(found: Sequence[Place]) -> Order:
    """The order of a multi-frame file: by position, by location on the fundus image, by the file's own numbers, else as stored.

    The file's numbers (InStackPositionNumber) also tell in which of the two directions; without them it is the stored one.
    """
    same = tuple(range(len(found)))
    if len(found) == 1:
        return Order(same, "one B-scan")
    line = _line(found)
    if line.along is not None:
        rising = bool((np.diff(line.along) > 0).all() or (np.diff(line.along) < 0).all())
        indices = same if rising and not _falling(found) else _sorted(found, line.along)
        return _along(
            line, indices, "" if indices == same else f"frames put in the order of their {line.words}s; they are stored in another"
        )
    numbers = [place.stack for place in found]
    if None not in numbers and len(set(numbers)) == len(found):
        indices = tuple(sorted(same, key=lambda index: found[index].stack or 0))
        return Order(indices, "by InStackPositionNumber", None, (f"frame order by InStackPositionNumber: {line.words}",), line.apart)
    return Order(same, "as stored", None, (f"frame order as stored: {line.words}",), line.apart)


def series_order(name: str, found: Sequence[Place]) -> Order:
    """The order of single-frame files: by position, else InStackPositionNumber, else InstanceNumber.

    Raises `ScanError` if none of these tells the files apart; file names are not asked.
    """
    line = _line(found)
    if line.along is not None:
        return _along(line, _sorted(found, line.along), f"{len(found)} single-frame files ordered by {line.words}")
    for keyword, numbers in (("InStackPositionNumber", [p.stack for p in found]), ("InstanceNumber", [p.instance for p in found])):
        known = [number for number in numbers if number is not None]
        if len(set(known)) == len(found):
            indices = tuple(sorted(range(len(found)), key=known.__getitem__))
            notes = [f"{len(found)} single-frame files ordered by {keyword}: {line.words}"]
            if max(known) - min(known) + 1 != len(found):
                notes.append(f"{keyword} runs from {min(known)} to {max(known)} in {len(found)} files: some are missing")
            return Order(indices, f"by {keyword}", None, tuple(notes), line.apart)
    missing = "neither plane positions nor InStackPositionNumber nor InstanceNumber tell them apart"
    raise ScanError(f"{name}: the order of {len(found)} single-frame files is unknown: {missing}; export the scan as one file")


def _line(found: Sequence[Place]) -> _Line:
    """The frames' places by their plane positions, else by their lines on the fundus image."""
    by_position = _positions(found)
    if by_position.along is not None or any(place.position is not None for place in found):
        return by_position
    return _locations(found) or by_position


def _positions(found: Sequence[Place]) -> _Line:
    """Positions along the common normal of the planes."""
    if any(place.position is None for place in found):
        return _Line(None, "no plane positions")
    points = np.array([place.position for place in found])
    offsets = points - points[0]
    if all(place.orientation is not None for place in found):
        cosines = np.array([place.orientation for place in found])
        if np.abs(cosines - cosines[0]).max() > _PARALLEL:
            return _Line(None, "the planes are not parallel", apart=False)
        normal = np.cross(cosines[0, :3], cosines[0, 3:])
    else:
        normal = offsets[np.argmax((offsets**2).sum(axis=1))]
        if np.abs(np.cross(offsets, normal)).max() > 0.05 * (normal**2).sum():
            return _Line(None, "the plane positions do not lie on a line")
    length = np.sqrt((normal**2).sum())
    along = offsets @ normal / length if length > 0 else np.zeros(len(points))
    if np.ptp(along) < _DISTINCT:
        return _Line(None, "all plane positions are the same", apart=False)
    if np.diff(np.sort(along)).min() < _DISTINCT:
        return _Line(None, "plane positions repeat")
    return _Line(np.asarray(along), "plane position", millimetres=True)


def _locations(found: Sequence[Place]) -> _Line | None:
    """Lines on one fundus image (PS3.3 C.8.17.10) across their common direction; None if the file has no such lines."""
    if any(place.location is None for place in found) or len({place.fundus for place in found}) != 1:
        return None
    lines = np.array([place.location for place in found])
    directions = lines[:, 2:] - lines[:, :2]
    lengths = np.sqrt((directions**2).sum(axis=1))
    if lengths.min() < 1:
        return _Line(None, "no plane positions, and frame locations that are no lines", apart=False)
    directions /= lengths[:, None]
    normal = np.array([-directions[0, 1], directions[0, 0]])
    if np.abs(directions @ normal).max() > _PARALLEL_PX:
        return _Line(None, "no plane positions, and frame locations that are not parallel", apart=False)
    along = (lines[:, :2] + lines[:, 2:]) @ normal / 2
    if np.diff(np.sort(along)).min() < _DISTINCT_PX:
        return _Line(None, "no plane positions, and frame locations that repeat", apart=bool(np.ptp(along) >= _DISTINCT_PX))
    return _Line(along, "location on the fundus image")


def _falling(found: Sequence[Place]) -> bool:
    """Whether the file numbers its frames against the order they are stored in."""
    numbers = [place.stack for place in found if place.stack is not None]
    return len(numbers) == len(found) and all(first > second for first, second in itertools.pairwise(numbers))


def _sorted(found: Sequence[Place], along: NDArray[np.float64]) -> tuple[int, ...]:
    """Frames by position; of the two directions the one in which the file's own numbers rise."""
    indices = tuple(int(index) for index in np.argsort(along, kind="stable"))
    for first, last in ((found[indices[0]].stack, found[indices[-1]].stack), (found[indices[0]].instance, found[indices[-1]].instance)):
        if first is not None and last is not None and first != last:
            return indices if first < last else indices[::-1]
    return indices


def _along(line: _Line, indices: tuple[int, ...], note: str) -> Order:
    """The order of frames whose places are known, with their distance where it is in mm."""
    notes: tuple[str, ...] = (note,) if note else ()
    if line.along is None or not line.millimetres:
        return Order(indices, f"by {line.words}", None, notes, raster=True)
    steps = np.abs(np.diff(line.along[list(indices)]))
    between = float(np.median(steps))
    if steps.max() - steps.min() > 0.01 * between:
        notes += (f"B-scans are unevenly spaced: {steps.min():.4f} to {steps.max():.4f} mm, median {between:.4f}",)
    return Order(indices, f"by {line.words}", between, notes, raster=True)
