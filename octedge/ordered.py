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


def chain_scores(scores: NDArray[np.floating], chain: Chain) -> NDArray[np.floating]:
    """Scores (C, ...) of all classes -> e (L + 1, ...), those of the chain, with fluid counted for every retinal layer."""
    own = scores[list(chain.ordered)]
    if chain.fluid is None:
        return own
    fluid = scores[chain.fluid]
    retina = np.flatnonzero(chain.retina)
    own[retina] = np.maximum(own[retina], fluid + _TIE * own[retina])
    return own


def decode(
    scores: NDArray[np.floating], chain: Chain, labels: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The best ordered labelling of scores (C, H, W) and its surfaces.

    `labels` (H, W) is the argmax over C if the graph has computed it already. Returns class indices uint8 (H, W),
    fluid painted over, and depths float32 (L, W). NaN scores count as impossible.
    """
    if labels is None:
        labels = scores.argmax(axis=0).astype(np.uint8)
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
    return (place[1:] < place[:-1]).any(axis=0) | (place == length).any(axis=0)


def best_path(scores: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The non-decreasing path with the highest sum through scores (K, H, W): places uint8 (H, W).

    Of equally good paths, the one that stays longest in the deeper class.
    """
    classes, rows, columns = scores.shape
    cleaned = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    cleaned = np.maximum(cleaned, -1e30)  # sums stay finite, so that the order of the impossible is defined too
    came_from = np.empty((rows, classes, columns), np.uint8)
    index = np.arange(classes, dtype=np.uint8)[:, None]
    best = cleaned[:, 0]
    for row in range(1, rows):
        running = np.maximum.accumulate(best, axis=0)
        np.maximum.accumulate(np.where(best >= running, index, 0), axis=0, out=came_from[row])
        best = running + cleaned[:, row]
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
        difference = _difference(scores, chain, upper, lower, row - 1, column)
        after = -_difference(scores, chain, upper, lower, row, column)
        total = difference + after
        share = np.divide(difference, total, out=np.full(len(row), 0.5), where=(total > 0) & np.isfinite(total))
        surfaces[surface, inside] = row - 1 + np.clip(share, _MARGIN, 1 - _MARGIN)
    return surfaces


def _difference(scores, chain, upper, lower, row, column):  # type: ignore[no-untyped-def]
    """e_upper - e_lower at the given pixels, all arguments (n,)."""
    return _chain_score(scores, chain, upper, row, column) - _chain_score(scores, chain, lower, row, column)


def _chain_score(scores, chain, place, row, column):  # type: ignore[no-untyped-def]
    """e of one class per pixel, all arguments (n,): `chain_scores` without the classes that are not asked for."""
    own = scores[np.asarray(chain.ordered)[place], row, column].astype(np.float64)
    if chain.fluid is None:
        return own
    fluid = scores[chain.fluid, row, column].astype(np.float64)
    return np.where(np.asarray(chain.retina)[place], np.maximum(own, fluid + _TIE * own), own)
