"""Whether annotations lie where the image says: which way up, which way round, how many rows off, and in what order.

The evidence is the step of grey at boundaries whose sign is known in every OCT: the inner surface of the retina is
darker above, Bruch's membrane brighter, and so on. It is measured with the image as it is and turned.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import is_ordered, surface_names
from octedge.train.annotations import Example

Depths = NDArray[np.float64]

# Surface -> whether it grows brighter (+1) or darker (-1) downwards, in B-scans of every vendor.
STEP = {"vitreous|nfl": 1, "nfl|gcl": -1, "ipl|inl": -1, "inl|opl": 1, "opl|onl": -1, "mz|ez": 1, "rpe|choroid": -1}
SHIFTS = np.arange(-4, 4.01, 0.5)
TURNS = {"mirrored left to right": (1, -1), "upside down": (-1, 1), "turned by 180 degrees": (-1, -1)}

_BETTER = 1.25  # a turned image must fit so many times better; right ones of two sets: at most 0.58 times as well
_SURE = 4.0  # standard errors that the difference must have
_GRAIN = 8  # columns that speckle and smoothing make one
_OUT_OF_ORDER = 0.05  # share of a B-scan's columns that may be out of order: stray pixels
_OFF = 0.7  # rows; two right sets are off by -0.4 and 0.0


def turned(example: Example, groups: tuple[str, ...]) -> str | None:
    """How the image fits its annotation far better than as it is, in words; None if it does not."""
    steps = _known(groups)
    if not steps:
        return None
    upright = _steps(example.image, example.surfaces, steps)
    found = {words: _steps(example.image[::down, ::across], example.surfaces, steps) for words, (down, across) in TURNS.items()}
    words = max(found, key=lambda each: float(np.nanmean(found[each])) if np.isfinite(found[each]).any() else -np.inf)
    gain = found[words] - upright
    gain = gain[np.isfinite(gain)]
    if gain.size < 2 * _GRAIN:
        return None
    error = gain.std() / np.sqrt(gain.size / _GRAIN)
    clear = float(np.nanmean(found[words])) > _BETTER * max(float(np.nanmean(upright)), 0.0)
    return words if clear and gain.mean() > _SURE * error else None


def row_profile(example: Example, groups: tuple[str, ...]) -> NDArray[np.float64]:
    """The step of grey when all boundaries move down by each of `SHIFTS` rows: (shifts,), every boundary weighing the same."""
    curves, edges = [], _edges(example.image)
    for index, sign in _known(groups).items():
        steps = [_at(edges, example.surfaces[index] + shift) for shift in SHIFTS]
        if not all(np.isfinite(each).any() for each in steps):
            continue
        curve = np.array([np.nanmean(each) * sign for each in steps])
        if curve.max() > 0:
            curves.append(curve / curve.max())
    return np.mean(curves, axis=0) if curves else np.full(len(SHIFTS), np.nan)


def rows_off(profiles: list[NDArray[np.float64]]) -> float | None:
    """Rows that all boundaries should move down for the best fit; None where it is below 0.7 or the patients disagree.

    One profile per patient: their mean says how far, nine of ten must agree on the direction.
    """
    known = np.array([each for each in profiles if np.isfinite(each).all()])
    if not len(known):
        return None
    best = _peak(known.mean(axis=0))
    agree = np.mean([_peak(each) * np.sign(best) > _OFF / 2 for each in known])
    return best if abs(best) >= _OFF and agree >= 0.9 else None


def _peak(curve: NDArray[np.float64]) -> float:
    """Where a curve over `SHIFTS` is highest, by the parabola through its three highest neighbours."""
    top = int(np.clip(curve.argmax(), 1, len(curve) - 2))
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(SHIFTS[top] + (0.5 * (left - right) / bend * 0.5 if bend < 0 else 0.0))


def _known(groups: tuple[str, ...]) -> dict[int, int]:
    return {index: STEP[name] for index, name in enumerate(surface_names(groups)) if name in STEP}


def _steps(image: NDArray[np.uint8], surfaces: Depths, steps: dict[int, int]) -> NDArray[np.float64]:
    """Per column (W,) the mean step of grey in the known direction, NaN where no boundary is graded."""
    edges = _edges(image)
    each = np.array([sign * _at(edges, surfaces[index]) for index, sign in steps.items()])
    number = np.isfinite(each).sum(axis=0)
    return np.where(number > 0, np.nansum(each, axis=0) / np.maximum(number, 1), np.nan)


def _edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H + 1, W): how much brighter it is below the edge between rows z - 1 and z than above: two rows each, over 5 columns."""
    padded = np.pad(image.astype(np.float32), ((0, 0), (2, 2)), mode="edge")
    columns = image.shape[1]
    smooth = sum((padded[:, shift : shift + columns] for shift in range(5)), np.zeros(image.shape, np.float32)) / np.float32(5)
    edge = np.zeros((len(image) + 1, columns), np.float32)
    edge[2:-2] = (smooth[2:-1] + smooth[3:] - smooth[1:-2] - smooth[:-3]) / 2
    return edge


def _at(edges: NDArray[np.float32], depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per column (W,) the edge at a depth in rows, between two by proportion; NaN where it is not graded or outside."""
    rows, columns = len(edges) - 1, edges.shape[1]
    inside = np.isfinite(depth) & (depth > 0) & (depth < rows - 1)
    place = np.where(inside, depth, 1.0) + 0.5
    above = np.floor(place).astype(int)
    part, column = place - above, np.arange(columns)
    return np.where(inside, edges[above, column] * (1 - part) + edges[above + 1, column] * part, np.nan)


@dataclass(frozen=True, slots=True)
class Order:
    """In how many columns group a (row) lies above group b, of those that hold both: both int64 (G, G)."""

    above: NDArray[np.int64]
    both: NDArray[np.int64]

    def __add__(self, other: "Order") -> "Order":
        return Order(self.above + other.above, self.both + other.both)

    def wrong(self, groups: tuple[str, ...]) -> list[tuple[str, str]]:
        """Pairs that stand the other way round in most columns: (upper by anatomy, lower by anatomy)."""
        chain = [index for index, group in enumerate(groups) if is_ordered(group)]
        return [
            (groups[upper], groups[lower])
            for place, upper in enumerate(chain)
            for lower in chain[place + 1 :]
            if self.both[upper, lower] >= 2 * _GRAIN and self.above[upper, lower] < 0.5 * self.both[upper, lower]
        ]

    def seen(self, groups: tuple[str, ...]) -> list[str]:
        """The ordered groups as they really lie, topmost first."""
        chain = [index for index, group in enumerate(groups) if is_ordered(group)]
        share = np.divide(self.above, self.both, out=np.full(self.above.shape, 0.5), where=self.both > 0)
        return [groups[index] for index in sorted(chain, key=lambda each: -share[each, chain].sum())]


def order(example: Example, groups: tuple[str, ...]) -> Order:
    """The order of the groups of one B-scan, column by column, by their mean depth."""
    depth = np.full((len(groups), example.reference.shape[1]), np.nan)
    rows = np.arange(len(example.reference))
    for index in range(len(groups)):
        mask = example.reference == index
        number = mask.sum(axis=0)
        depth[index] = np.where(number > 0, rows @ mask / np.maximum(number, 1), np.nan)
    both = np.isfinite(depth[:, None]) & np.isfinite(depth[None])
    return Order((depth[:, None] < depth[None]).sum(axis=2), both.sum(axis=2))


def disordered(example: Example, groups: tuple[str, ...]) -> float:
    """The share of columns in which a structure occurs below one that lies under it, if that is more than stray pixels; else 0."""
    place = np.full(256, -1, np.int16)
    chain = [index for index, group in enumerate(groups) if is_ordered(group)]
    place[chain] = np.arange(len(chain))
    seen = place[example.reference]
    out = ((seen >= 0) & (seen < np.maximum.accumulate(seen, axis=0))).any(axis=0)
    share = float(out.mean())
    return share if share > _OUT_OF_ORDER else 0.0
