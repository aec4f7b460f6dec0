"""Sectors of the fundus: the ETDRS grid around the fovea, and those of a circle around the optic disc."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from octedge.scan import Direction, Laterality

Floats = NDArray[np.floating]

_RADII = (0.5, 1.5, 3.0)  # mm; circles of 1, 3 and 6 mm (ETDRS report 7, Ophthalmology 1987;94:761)
_STEP = 0.02  # mm between the points whose sector is asked for

# Spectralis: temporal and nasal quadrants whole, the others halved. Degrees from the temporal side over the superior one.
_CIRCLE = {"temporal": (-45, 45), "temporal superior": (45, 90), "nasal superior": (90, 135), "nasal": (135, 225),
           "nasal inferior": (225, 270), "temporal inferior": (270, 315)}  # fmt: skip
_QUADRANTS = {"quadrant temporal": (-45, 45), "quadrant superior": (45, 135), "quadrant nasal": (135, 225),
              "quadrant inferior": (225, 315)}  # fmt: skip

_OPPOSITE: dict[Direction, Direction] = {"left": "right", "right": "left", "up": "down", "down": "up"}
_SIDES = {
    "R": {"left": "temporal", "right": "nasal", "up": "superior", "down": "inferior"},
    "L": {"left": "nasal", "right": "temporal", "up": "superior", "down": "inferior"},
    None: {"left": "left", "right": "right", "up": "superior", "down": "inferior"},
}
_ORDER = ("superior", "first frames", "nasal", "left", "first columns", "inferior", "last frames", "temporal", "right", "last columns")


def sides(directions: tuple[Direction | None, Direction | None], eye: Laterality | None) -> tuple[str, str, str, str]:
    """What lies towards the last columns, the last frames, the first columns, the first frames.

    >>> sides(("right", "down"), "R")
    ('nasal', 'inferior', 'temporal', 'superior')
    >>> sides(("right", None), None)
    ('right', 'last frames', 'left', 'first frames')
    """
    names = []
    for direction, what in zip(directions, ("columns", "frames"), strict=True):
        known = direction is not None and direction in _OPPOSITE
        names.append((_SIDES[eye][direction], _SIDES[eye][_OPPOSITE[direction]]) if known else (f"last {what}", f"first {what}"))  # type: ignore[index]
    (right, left), (down, up) = names
    return right, down, left, up


def etdrs(
    shape: tuple[int, int], fovea: tuple[float, float], spacing: tuple[float, float], towards: tuple[str, str, str, str]
) -> Iterator[tuple[str, float, Floats]]:
    """The nine sectors: name, area in mm2, and the area (F, W) each A-scan stands for in it.

    `fovea` is column and frame, `spacing` lateral and between in mm, `towards` the names from `sides`. Between A-scans and
    between B-scans thickness is taken to change linearly, so a weighted mean of A-scans is the mean of that interpolation over
    the sector, however far apart B-scans are. Nothing is assumed beyond the first and the last of them.
    """
    steps = min(_STEP, spacing[0]), 0.9 * min(_STEP, spacing[0])  # unequal, so that no point lies between two sectors
    right, down = ((np.arange(-half, half) + 0.5) * step for step in steps for half in [int(np.ceil(_RADII[-1] / step))])
    column = _between(right / spacing[0] + fovea[0], shape[1])
    frame = _between(down / spacing[1] + fovea[1], shape[0])
    for name, area, inside in _etdrs_masks(right, down[:, None], towards):
        low, left = np.nonzero(inside)
        yield name, area, _weights(shape, frame[:, low], column[:, left]) * (area / len(low))


def _etdrs_masks(right: Floats, down: Floats, towards: tuple[str, str, str, str]) -> Iterator[tuple[str, float, NDArray[np.bool_]]]:
    """The nine sectors over points so many mm from the fovea, to the last columns (S,) and frames (T, 1): name, mm2, inside (T, S)."""
    ring = np.searchsorted(_RADII, np.hypot(right, down), side="right")
    side = np.where(np.abs(right) > np.abs(down), np.where(right > 0, 0, 2), np.where(down > 0, 1, 3))
    yield "centre", np.pi * _RADII[0] ** 2, ring == 0
    for number, name in ((1, "inner"), (2, "outer")):
        area = np.pi * (_RADII[number] ** 2 - _RADII[number - 1] ** 2) / 4
        for index in sorted(range(4), key=lambda index: _ORDER.index(towards[index])):
            yield f"{name} {towards[index]}", area, (ring == number) & (side == index)


def _between(at: Floats, size: int) -> Floats:
    """For places along an axis (2, S): the sample before each, and the share of the one after it, NaN beyond the ends."""
    low = np.clip(np.floor(at), 0, max(size - 2, 0))
    part = at - low
    return np.stack([low, np.where((part >= 0) & (part <= 1), part, np.nan)])


def _weights(shape: tuple[int, int], frame: Floats, column: Floats) -> Floats:
    """How often each of the (F, W) samples counts when all the points between them are interpolated."""
    scanned = ~np.isnan(frame[1] + column[1])
    (low, down), (left, right) = frame[:, scanned], column[:, scanned]
    first = (low * shape[1] + left).astype(np.intp)
    total = np.zeros(shape[0] * shape[1])
    for offset, weight in ((0, 1 - down), (shape[1], down)):
        total += np.bincount(first + offset, weight * (1 - right), len(total)) + np.bincount(first + offset + 1, weight * right, len(total))
    return total.reshape(shape)


def circle(columns: int) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The sectors and quadrants of a circle that begins on the temporal side and turns over the superior one: name, columns (W,)."""
    angle = (np.arange(columns) + 0.5) * 360 / columns
    for name, (first, last) in {**_CIRCLE, **_QUADRANTS}.items():
        yield name, (angle - first) % 360 < last - first
