"""The fovea, found where the retina has its pit."""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating]

_STEP = 0.05  # mm between the points looked at
_SMOOTH = 0.12  # mm, standard deviation of the smoothing
_RING = 1.0  # mm from the pit to its rim, where the retina is thickest
_NEAR = 0.5  # mm; within, a second pit is the same one
_SHALLOW, _DEEP = 0.08, 0.65  # of the rim's thickness: less is no pit, more is a hole or the optic disc
_SURE = 0.2  # of the rim's thickness: from here on depth leaves no doubt; healthy pits have 0.25 to 0.45
_FLOOR = 0.3  # of the depth: what lies lower is the floor, whose middle is the fovea
_UNEVEN, _EVEN = 0.6, 0.9  # thinnest side of the rim by the thickest: healthy ones have 0.92 and more, swollen ones little
_MIN_CONFIDENCE = 0.3


def find_fovea(retina: Map, lateral: float, between: float) -> tuple[float, float, float] | None:
    """Column, frame and confidence (0..1) of the fovea in total retinal thickness (F, W), NaN where unknown; None where there is no pit.

    The smoothed thickness is compared with that 1 mm away to all four sides: the pit lies where the thinnest side still is much
    thicker. So it lies within the scan, 1 mm from its border at least. Confidence is the product of how deep the pit is, how
    much deeper than the second deepest place, how even its rim is, and how much of that was scanned.
    """
    frames, columns = retina.shape
    at_frames = np.arange(0, (frames - 1) * between + 1e-9, _STEP) / between
    at_columns = np.arange(0, (columns - 1) * lateral + 1e-9, _STEP) / lateral
    if min(len(at_frames), len(at_columns)) * _STEP < 2 * _RING:
        return None
    smooth = _smoothed(_resampled(retina, at_frames, at_columns))
    depth, trust = _depth(smooth)
    depth = np.where((depth < _SHALLOW) | (depth > _DEEP) | np.isnan(depth), 0, depth)
    frame, column = np.unravel_index(depth.argmax(), depth.shape)
    best = float(depth[frame, column])
    rows, cols = np.indices(depth.shape) * _STEP
    distance = np.hypot(rows - frame * _STEP, cols - column * _STEP)
    second = float(depth[distance > _NEAR].max(initial=0))
    confidence = min(best / _SURE, 1.0) * (1 - second / best) ** 0.5 * float(trust[frame, column]) if best > 0 else 0.0
    if confidence < _MIN_CONFIDENCE:
        return None
    near = np.where(distance <= _NEAR, smooth, np.nan)
    spot = np.nanargmin(near)
    if depth.flat[spot] == 0 or distance.flat[spot] > 0.9 * _NEAR:  # the flank of something that is no pit, or not in the scan
        return None
    thinnest = near.flat[spot]
    floor = thinnest + _FLOOR * best / (1 - best) * thinnest  # best is the depth as a share of the rim, which is thinnest / (1 - best)
    weight = np.nan_to_num(np.clip(floor - near, 0, None))
    weight /= weight.sum()
    return float((weight * cols).sum() / lateral), float((weight * rows).sum() / between), confidence


def _depth(smooth: Map) -> tuple[Map, Map]:
    """For every point: depth of the pit there as a share of its rim's thickness, NaN where a side of the rim is unknown; trust (0..1)."""
    radius = round(_RING / _STEP)
    padded = np.pad(smooth, radius, constant_values=np.nan)
    rows, columns = smooth.shape
    sides = []
    for side in range(4):
        angles = np.deg2rad(90 * side + np.array([-40, -24, -8, 8, 24, 40]))
        shifts = np.rint(radius * np.array([np.sin(angles), np.cos(angles)])).astype(int).T + radius
        sides.append([padded[down : down + rows, right : right + columns] for down, right in shifts])
    ring = np.array(sides)
    known = ~np.isnan(ring)
    counts = known.sum(axis=1)
    means = np.divide(np.where(known, ring, 0).sum(axis=1), counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    rim, thickest = means.min(axis=0), means.max(axis=0)  # NaN if one side is
    even = np.clip((rim / np.where(thickest > 0, thickest, np.nan) - _UNEVEN) / (_EVEN - _UNEVEN), 0, 1)
    return 1 - smooth / np.where(rim > 0, rim, np.nan), known.mean(axis=(0, 1)) * even


def _smoothed(values: Map) -> Map:
    """Weighted by a Gaussian; unknown values have no weight and stay unknown."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0)
    down, across = (_gaussian(size) for size in values.shape)
    total = down @ known @ across
    return np.where(known, down @ filled @ across / np.maximum(total, 1e-12), np.nan)


def _gaussian(size: int) -> Map:
    place = np.arange(size) * _STEP / _SMOOTH
    return np.asarray(np.exp(-0.5 * (place[:, None] - place) ** 2))


def _resampled(values: Map, at_rows: Map, at_columns: Map) -> Map:
    """(F, W) at the given frames and columns, linear between neighbours, NaN where one of them is."""
    return _along(_along(values, at_rows).T, at_columns).T


def _along(values: Map, at: Map) -> Map:
    low = np.clip(at.astype(int), 0, len(values) - 2)
    part = (at - low)[:, None]
    return np.asarray(values[low] * (1 - part) + values[low + 1] * part)
