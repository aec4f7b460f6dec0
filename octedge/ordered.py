"""The ordered decode: from scores to the best anatomically possible labels, and sub-pixel surfaces.

For every column, of all labellings that keep the anatomical order (each class at most once, top to bottom, any of
them absent), the one with the highest sum of scores; exact, by dynamic programming over the rows:

    V_l(z) = e_l(z) + max over k <= l of V_k(z - 1)

A column whose argmax is in order already is its own answer; only the others are decoded. Fluid counts for whatever
retinal layer it lies in while decoding and is painted over afterwards.

Depths: the centre of row r lies at r. A surface between rows b - 1 and b lies in (b - 1, b); a surface above the
first row is at 0, one below the last at H. So the label of a row is the number of surfaces at or above its centre.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import RETINA, is_ordered, members

# A fluid pixel's layer is not known: any retinal layer takes the fluid's score, and the layer's own score, scaled
# down this much, only decides between layings that are otherwise equally good.
_TIE = 1 / 1024
# Keeps a surface off the row centres, so that labels and surfaces agree whichever side a comparison includes.
_MARGIN = 1 / 128
# Scores are held within +-this: finite, so that a column without any possible labelling is still ordered, and small
# enough that the sum of a thousand impossible rows does not swallow the scores of the possible ones.
_IMPOSSIBLE = 1e9
# Columns decoded at a time: bounds the memory of the traceback.
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Chain:
    """How C classes make the chain: `ordered` class indices top to bottom, `fluid` index or None, and which chain places are retina."""

    ordered: tuple[int, ...]
    fluid: int | None
    retina: tuple[bool, ...]

    @classmethod
    def of(cls, classes: tuple[str, ...]) -> "Chain":
        """The chain of a model's classes (see `anatomy.check_classes`)."""
        ordered = tuple(index for index, group in enumerate(classes) if is_ordered(group))
        fluid = next((index for index, group in enumerate(classes) if not is_ordered(group)), None)
        retina = tuple(any(key in RETINA for key in members(classes[index])) for index in ordered)
        return cls(ordered, fluid, retina)


def _finite(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scores as float64 within +-1e9; NaN is as impossible as -inf."""
    finite: NDArray[np.float64] = np.fmin(np.fmax(scores.astype(np.float64), -_IMPOSSIBLE), _IMPOSSIBLE)
    return finite


def chain_scores(scores: NDArray[np.floating], chain: Chain) -> NDArray[np.float64]:
    """Log-probabilities (C, ...) of all classes -> e (L + 1, ...), those of the chain, with fluid counted for every retinal layer.

    Finite: NaN and -inf become -1e9.
    """
    own = _finite(scores[list(chain.ordered)])
    if chain.fluid is None:
        return own
    fluid = _finite(scores[chain.fluid])
    retina = np.flatnonzero(chain.retina)
    own[retina] = np.maximum(own[retina], fluid + _TIE * own[retina])
    return own


def decode(
    scores: NDArray[np.floating], chain: Chain, labels: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The best ordered labelling of log-probabilities (C, H, W) and its surfaces.

    `labels` (H, W) is the argmax over C if the graph has computed it already. Returns class indices uint8 (H, W),
    fluid painted over, and depths float32 (L, W). NaN scores count as impossible.
    """
    if labels is None:
        labels = np.fmax(scores, -np.inf).argmax(axis=0).astype(np.uint8)
    place = _places(labels, chain)
    wrong = np.flatnonzero(_out_of_order(place, len(chain.ordered)))
    for first in range(0, len(wrong), _BLOCK):
        columns = wrong[first : first + _BLOCK]
        place[:, columns] = best_path(chain_scores(scores[:, :, columns], chain))
    surfaces = _surfaces(place, scores, chain)
    out = np.asarray(chain.ordered, np.uint8)[place]
    if chain.fluid is not None:
        out[(labels == chain.fluid) & np.asarray(chain.retina)[place]] = chain.fluid
    return out, surfaces


def _places(labels: NDArray[np.uint8], chain: Chain) -> NDArray[np.uint8]:
    """Class indices (H, W) -> places in the chain; fluid becomes a place beyond the chain."""
    table = np.full(256, len(chain.ordered), np.uint8)
    table[list(chain.ordered)] = np.arange(len(chain.ordered), dtype=np.uint8)
    return table[labels]


def _out_of_order(place: NDArray[np.uint8], length: int) -> NDArray[np.bool_]:
    """Columns (W,) that are not their own answer: some row lies above its predecessor, or holds fluid."""
    falls = np.any(place[1:] < place[:-1], axis=0)
    return np.asarray(falls | np.any(place == length, axis=0), np.bool_)


def best_path(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The non-decreasing path with the highest sum through finite scores (K, H, W): places uint8 (H, W).

    Of equally good paths, the one that stays longest in the deeper class.
    """
    classes, rows, columns = scores.shape
    scores = scores.astype(np.float64, copy=False)
    came_from = np.empty((rows, classes, columns), np.uint8)
    index = np.arange(classes, dtype=np.uint8)[:, None]
    best = scores[:, 0]
    for row in range(1, rows):
        running = np.maximum.accumulate(best, axis=0)
        np.maximum.accumulate(np.where(best >= running, index, 0), axis=0, out=came_from[row])
        best = running + scores[:, row]
    path = np.empty((rows, columns), np.uint8)
    # argmax of the reversed order: the deepest class among equals, as in the rows above.
    path[-1] = classes - 1 - best[::-1].argmax(axis=0)
    every = np.arange(columns)
    for row in range(rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row], every]
    return path


def _surfaces(place: NDArray[np.uint8], scores: NDArray[np.floating], chain: Chain) -> NDArray[np.float32]:
    """Depths (L, W) of the L surfaces of ordered places (H, W), refined below a row.

    Between the rows b - 1 (class u) and b (class v) the surface lies where e_u and e_v, linear between the row
    centres, are equal; the decode is optimal, so there is one such point.
    """
    rows, columns = place.shape
    count = len(chain.ordered) - 1
    surfaces = np.zeros((count, columns), np.float32)
    every = np.arange(columns)
    for surface in range(count):
        below = (place <= surface).sum(axis=0)  # first row of a deeper class; H where there is none
        inside = np.flatnonzero((below > 0) & (below < rows))
        surfaces[surface] = below
        if not len(inside):
            continue
        row, column = below[inside], every[inside]
        upper, lower = place[row - 1, column], place[row, column]
        before = _advantage(scores, chain, (upper, lower), (row - 1, column))
        after = _advantage(scores, chain, (lower, upper), (row, column))
        total = before + after
        share = np.divide(before, total, out=np.full(len(row), 0.5), where=total > 0)
        surfaces[surface, inside] = row - 1 + np.clip(share, _MARGIN, 1 - _MARGIN)
    return surfaces


Places = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]


def _advantage(scores: NDArray[np.floating], chain: Chain, places: Places, pixels: Pixels) -> NDArray[np.float64]:
    """By how much e of the first of two places exceeds e of the second, at n pixels (rows, columns)."""
    classes = np.asarray(chain.ordered)
    one, other = (_finite(scores[classes[place], *pixels]) for place in places)
    if chain.fluid is not None:
        fluid, retina = _finite(scores[chain.fluid, *pixels]), np.asarray(chain.retina)
        one, other = (np.where(retina[place], np.maximum(e, fluid + _TIE * e), e) for place, e in zip(places, (one, other), strict=True))
    return one - other
