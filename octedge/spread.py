"""How sure the surfaces are: forward-backward over the chain of the ordered decode.

The scores of a column make every ordered labelling p of its rows (each class at most once, top to bottom, any absent)
as likely as exp(sum over rows z of e_p(z)(z) / T). The depth of a surface, counted as the number of rows above it, is
then a random number; its mean and standard deviation follow exactly from P(depth > z) = P(row z lies above the surface):

    A_l(z) = e_l(z) + log sum over k <= l of exp A_k(z - 1)        from above (Rabiner 1989, Proc. IEEE 77(2):257)
    B_l(z) = log sum over k >= l of exp(e_k(z + 1) + B_k(z + 1))   from below
    P(row z in class l) ~ exp(A_l(z) + B_l(z))

Neighbouring pixels of a network err together, so the plain scores (T = 1) claim too much. The temperature that fits a model's
errors is found when it is exported, and stands in its card; `benchmarks/calibration.py` says how well it holds.
"""

import math

import numpy as np
from numpy.typing import NDArray

from octedge.errors import UsageError
from octedge.ordered import Chain, chain_scores

# Columns at a time: bounds the memory, two float64 of L + 1 classes and H rows for each.
_BLOCK = 128
ROW = 1 / 12  # variance of a depth within its row, of which labels of whole rows say nothing


def spread(scores: NDArray[np.floating], chain: Chain, temperature: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation, float32 (L, W) each, of the number of rows above every surface, from log-probabilities (C, H, W).

    A mean of b is a surface at depth b - 1/2, halfway between two row centres. NaN and -inf count as impossible.
    Raises `UsageError` for a temperature that is not a finite number above 0.
    """
    if not 0 < temperature < math.inf:
        raise UsageError(f"temperature {temperature} given; needed is a finite number above 0, 1 for the scores as they are")
    shape = len(chain.ordered) - 1, scores.shape[2]
    mean, deviation = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for first in range(0, shape[1], _BLOCK):
        columns = slice(first, first + _BLOCK)
        e = chain_scores(scores[:, :, columns], chain) / temperature
        mean[:, columns], deviation[:, columns] = _moments(e)
    return mean, deviation


def deviation(scores: NDArray[np.floating], chain: Chain, temperature: float) -> NDArray[np.float32]:
    """Standard deviation (L, W) of the depth of every surface in rows of the scores (C, H, W): the spread, and the row it lies in.

    Raises `UsageError` as `spread` does.
    """
    within: NDArray[np.float32] = np.sqrt(spread(scores, chain, temperature)[1] ** 2 + np.float32(ROW))
    return within


def _moments(e: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (L, W) of the rows above each surface, from e (L + 1, H, W)."""
    above = _from_above(e)
    below = np.zeros_like(e[:, 0])
    mean, square = np.zeros_like(e[1:, 0]), np.zeros_like(e[1:, 0])
    for row in range(e.shape[1] - 1, -1, -1):
        likely = above[row] + below
        likely -= likely.max(axis=0)
        np.exp(likely, out=likely)
        np.cumsum(likely, axis=0, out=likely)
        share = likely[:-1] / likely[-1]  # P(row in a class above the surface) = P(depth > row)
        mean += share
        square += (2 * row + 1) * share
        below += e[:, row]
        below = np.logaddexp.accumulate(below[::-1], axis=0)[::-1]
        below -= below.max(axis=0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _from_above(e: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (H, L + 1, W), in every row and column less its largest: the differences alone matter, and stay exact beside -1e9."""
    classes, rows, columns = e.shape
    above = np.empty((rows, classes, columns))
    above[0] = e[:, 0]
    for row in range(1, rows):
        np.logaddexp.accumulate(above[row - 1], axis=0, out=above[row])
        above[row] += e[:, row]
        above[row] -= above[row].max(axis=0)
    return above
