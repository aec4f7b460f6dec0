"""The ordered decode: from scores to the best anatomically possible labels, and sub-pixel surfaces.

For every column, of all labellings that keep the anatomical order (each class at most once, top to bottom, any of
them absent), the one with the highest sum of scores; exact, by dynamic programming. With M_l(z) the highest sum of
the rows down to z in classes no deeper than l:

    V_l(z) = M_l(z - 1) + e_l(z)          row z in class l
    M_l(z) = max(V_l(z), M_{l-1}(z))      or in one above it

All of a diagonal l + z follows from the diagonal before, so that one numpy call serves all classes and columns at once.

A column whose argmax is in order already is its own answer; only the others are decoded. Fluid counts for whatever
retinal layer it lies in while decoding and is painted over afterwards.

Depths: the centre of row r lies at r. A surface between rows b - 1 and b lies in (b - 1, b); a surface above the
first row is at 0, one below the last at H. So the label of a row is the number of surfaces at or above its centre.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
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
# Columns decoded at a time: bounds the memory of the traceback; many, as numpy costs much per call.
_BLOCK = 1024
# What a column through the nerve head is made of.
_IN_NERVE = {"vitreous", "nfl", "disc"}
# Pixels whose scores are prepared at a time, so that they are still in the cache when they are summed.
_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Chain:
    """How C classes make the chain: `ordered` class indices top to bottom, `fluid` index or None, and which chain places are retina.

    `wall` are the places that no column through the nerve head has, where that is a class of its own, and the last: all but the
    vitreous, the nerve fibres and the nerve head itself. Else there are none.
    """

    ordered: tuple[int, ...]
    fluid: int | None
    retina: tuple[bool, ...]
    wall: tuple[int, ...] = ()

    @classmethod
    def of(cls, classes: tuple[str, ...]) -> "Chain":
        """The chain of a model's classes (see `anatomy.check_classes`)."""
        ordered = tuple(index for index, group in enumerate(classes) if is_ordered(group))
        fluid = next((index for index, group in enumerate(classes) if not is_ordered(group)), None)
        retina = tuple(any(key in RETINA for key in members(classes[index])) for index in ordered)
        groups = [set(members(classes[index])) for index in ordered]
        wall = tuple(place for place, group in enumerate(groups) if not group & _IN_NERVE) if groups[-1] == {"disc"} else ()
        return cls(ordered, fluid, retina, wall)


def chain_scores(scores: NDArray[np.floating], chain: Chain, out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Log-probabilities (C, ...) of all classes -> e (L + 1, ...), those of the chain, with fluid counted for every retinal layer.

    Within +-1e9; NaN is as impossible as -inf. Written to `out` if given.
    """
    e = np.empty((len(chain.ordered), *scores.shape[1:])) if out is None else out
    lowest, highest = float(scores.min(initial=0)), float(scores.max(initial=0))
    if not (lowest >= -_IMPOSSIBLE and highest <= _IMPOSSIBLE):  # NaN is neither
        scores = np.fmin(np.fmax(scores.astype(np.float64), -_IMPOSSIBLE), _IMPOSSIBLE)
    fluid = None if chain.fluid is None else scores[chain.fluid].astype(np.float64)
    for own, index, retina in zip(e, chain.ordered, chain.retina, strict=True):
        own[...] = scores[index]
        if retina and fluid is not None:
            either = own * _TIE
            either += fluid
            np.maximum(own, either, out=own)
    return e


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
        place[:, columns] = _decoded(scores, chain, columns)
    return _answer(place, scores, chain, labels)


def nerve_or_wall(
    scores: NDArray[np.floating], chain: Chain, labels: NDArray[np.uint8], answer: tuple[NDArray[np.uint8], NDArray[np.float32]]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The answer of `decode`, no column of which holds both the nerve head and what ends at its margin: the better of the two ways.

    At the margin of the nerve head all layers but the nerve fibres end, and so does the wall of the eye; the nerve goes on to the
    bottom. Far down the image is dark, and a network cannot tell sclera from the nerve. So where a column has both, the best ordered
    labelling without either is found, and the one with the higher sum taken. `labels` (H, W) are the argmax over C.
    """
    if not chain.wall:
        return answer
    found, surfaces = answer
    last = len(chain.ordered) - 1
    shown = [chain.ordered[place] for place in chain.wall]
    if chain.fluid is not None:
        shown.append(chain.fluid)  # any layer may lie below it
    both = np.flatnonzero((found[-1] == chain.ordered[last]) & np.isin(found, shown).any(axis=0))
    for first in range(0, len(both), _BLOCK):
        columns = both[first : first + _BLOCK]
        own = scores.take(columns, axis=2)
        (nerve, of_nerve), (wall, of_wall) = (_without(own, chain, left_out) for left_out in (chain.wall, (last,)))
        place = np.where(of_nerve >= of_wall, nerve, wall)
        found[:, columns], surfaces[:, columns] = _answer(place, own, chain, labels.take(columns, axis=1))
    return found, surfaces


def _without(scores: NDArray[np.floating], chain: Chain, left_out: tuple[int, ...]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The best ordered labelling without some places of the chain: places (H, W), and their sums (W,)."""
    kept = [place for place in range(len(chain.ordered)) if place not in left_out]
    part = Chain(tuple(chain.ordered[place] for place in kept), chain.fluid, tuple(chain.retina[place] for place in kept))
    path = best_path(scores, part)
    sums, step = np.zeros(scores.shape[2]), max(1, _CHUNK // scores.shape[2])
    for first in range(0, len(path), step):
        rows = slice(first, first + step)
        sums += np.take_along_axis(chain_scores(scores[:, rows], part), path[None, rows].astype(np.intp), axis=0)[0].sum(axis=0)
    return np.array(kept, np.uint8)[path], sums


def _answer(
    place: NDArray[np.uint8], scores: NDArray[np.floating], chain: Chain, labels: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels (H, W), fluid painted over, and surfaces (L, W) from ordered places (H, W)."""
    surfaces = _surfaces(place, scores, chain)
    out = np.asarray(chain.ordered, np.uint8).take(place)
    if chain.fluid is not None:
        fluid = np.flatnonzero(labels == chain.fluid)
        inside = np.asarray(chain.retina)[place.ravel()[fluid]]
        out.ravel()[fluid[inside]] = chain.fluid
    return out, surfaces


def _places(labels: NDArray[np.uint8], chain: Chain) -> NDArray[np.uint8]:
    """Class indices (H, W) -> places in the chain; fluid becomes a place beyond the chain."""
    table = np.full(256, len(chain.ordered), np.uint8)
    table[list(chain.ordered)] = np.arange(len(chain.ordered), dtype=np.uint8)
    return table.take(labels)


def _out_of_order(place: NDArray[np.uint8], length: int) -> NDArray[np.bool_]:
    """Columns (W,) that are not their own answer: some row lies above its predecessor, or holds fluid, the deepest place of all."""
    return np.asarray(np.any(place[1:] < place[:-1], axis=0) | (place[-1] == length), np.bool_)


def _decoded(scores: NDArray[np.floating], chain: Chain, columns: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Places (H, n) of n rising columns; where they lie close, those in between are decoded too, which costs less than picking."""
    first, last = columns[0], columns[-1] + 1
    if last - first <= 2 * len(columns):
        return best_path(scores[:, :, first:last], chain)[:, columns - first]
    return best_path(scores.take(columns, axis=2), chain)


def best_path(scores: NDArray[np.floating], chain: Chain) -> NDArray[np.uint8]:
    """The ordered labelling of log-probabilities (C, H, W) with the highest sum of `chain_scores`: places uint8 (H, W).

    Of equally good ones, the one that stays longest in the deeper class.
    """
    rows, columns = scores.shape[1:]
    begins = _begins(_left(scores, chain))
    thickness = np.diff(begins, axis=1, prepend=0, append=rows)
    place = np.tile(np.arange(len(chain.ordered), dtype=np.uint8), columns)
    return place.repeat(thickness.ravel()).reshape(columns, rows).T


def _left(scores: NDArray[np.floating], chain: Chain) -> NDArray[np.bool_]:
    """Whether M_l(z) is M_{l-1}(z), better than V_l(z): bool (H + L, L + 1, W), [d, l] for z = d - l."""
    classes, (rows, columns) = len(chain.ordered), scores.shape[1:]
    left = np.empty((rows + classes - 1, classes, columns), np.bool_)
    # M, twice, from the row above the first one, where it is 0; above the first class it is -inf. Views of it at l - 1 and at l.
    sums = np.zeros((2, classes + 1, columns))
    sums[:, 0] = -np.inf
    (shallower, same), (next_shallower, next_same) = ((each[:-1], each[1:]) for each in sums)
    for e, leaves in zip(_diagonals(scores, chain), left, strict=True):
        np.add(same, e, out=next_same)
        np.greater(shallower, next_same, out=leaves)
        np.maximum(shallower, next_same, out=next_same)
        shallower, same, next_shallower, next_same = next_shallower, next_same, shallower, same
    for diagonal in range(min(classes - 1, len(left))):
        left[diagonal, diagonal + 1 :] = True  # above the first row every class but the first is left
    return left


def _diagonals(scores: NDArray[np.floating], chain: Chain) -> Iterator[NDArray[np.float64]]:
    """e along the diagonals d = 0 .. H + L - 1: (L + 1, W) each, row d - l of class l, 0 beyond the image."""
    classes, (rows, columns) = len(chain.ordered), scores.shape[1:]
    count, kept = rows + classes - 1, classes - 1
    step = min(count, max(_CHUNK // columns, kept, 1))
    e = np.zeros((classes, kept + step, columns))  # the last L rows before and those of this step
    by_class, by_row, by_column = e.strides
    skewed = as_strided(e[:, kept:], (step, classes, columns), (by_row, by_class - by_row, by_column), writeable=False)
    for first in range(0, count, step):
        e[:, :kept] = e[:, step:]
        new = scores[:, first : first + step]
        chain_scores(new, chain, e[:, kept : kept + new.shape[1]])
        e[:, kept + new.shape[1] :] = 0
        yield from skewed[: count - first]


def _begins(left: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Back along the choices: the first rows (W, L) of the classes but the first, H for none."""
    diagonals, classes, columns = left.shape
    at, up = np.arange(columns) + (classes - 1) * columns, np.array([0, columns])
    leaves = np.empty((diagonals, columns), np.bool_)
    for choices, here in zip(left.reshape(diagonals, -1)[::-1], leaves[::-1], strict=True):
        choices.take(at, out=here, mode="clip")  # none is to be clipped: the other modes are slower
        at -= up.take(here)
    # Each column leaves each class but the first once: class l on the diagonal of the row before its first one.
    left_on = np.flatnonzero(leaves.T) % diagonals
    return np.asarray(left_on.reshape(columns, classes - 1) - np.arange(classes - 1), np.intp)


def _surfaces(place: NDArray[np.uint8], scores: NDArray[np.floating], chain: Chain) -> NDArray[np.float32]:
    """Depths (L, W) of the L surfaces of ordered places (H, W), refined below a row.

    Between the rows b - 1 (class u) and b (class v) the surfaces u to v - 1 lie where e_u and e_v, linear between the
    row centres, are equal; the decode is optimal, so there is one such point.
    """
    rows, columns = place.shape
    surfaces = np.where(np.arange(len(chain.ordered) - 1)[:, None] < place[0], np.float32(0), np.float32(rows))
    row, column = np.divmod(np.flatnonzero(place[1:] != place[:-1]), columns)
    upper, lower, border = place[row, column], place[row + 1, column], np.arange(len(row))
    above, below = (chain_scores(scores[:, at, column], chain) for at in (row, row + 1))
    before = above[upper, border] - above[lower, border]
    after = below[lower, border] - below[upper, border]
    total = before + after
    share = np.divide(before, total, out=np.full(len(row), 0.5), where=total > 0)
    depth = row + np.clip(share, _MARGIN, 1 - _MARGIN)
    for more in range((lower - upper).max(initial=0)):
        here = upper + more < lower
        surfaces[upper[here] + more, column[here]] = depth[here]
    return surfaces
