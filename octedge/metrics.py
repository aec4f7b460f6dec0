"""Counts first, scores after: counts of tiles, B-scans and patients add up before anything is divided."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = 255  # a reference pixel nobody annotated


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of G classes: in both (`shared`), in the prediction, in the reference; each int64 (G,). Summable."""

    shared: NDArray[np.int64]
    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.shared + other.shared, self.predicted + other.predicted, self.reference + other.reference)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union (G,); NaN for a class that occurs in neither."""
        return _ratio(self.shared, self.predicted + self.reference - self.shared)

    @property
    def dice(self) -> NDArray[np.float64]:
        """Dice coefficient (G,); NaN for a class that occurs in neither."""
        return _ratio(2 * self.shared, self.predicted + self.reference)


def overlap(predicted: NDArray[np.uint8], reference: NDArray[np.uint8], groups: int) -> Overlap:
    """Compare labels (H, W) in 0..groups-1; where the reference is `IGNORED` nothing is counted.

    A predicted value outside 0..groups-1 (a class the set does not know) counts against the reference only.
    """
    known = reference != IGNORED
    seen = np.minimum(predicted[known], groups).astype(np.int64)
    table = np.bincount(reference[known].astype(np.int64) * (groups + 1) + seen, minlength=groups * (groups + 1))
    table = table.reshape(groups, groups + 1)
    return Overlap(table.diagonal().copy(), table[:, :groups].sum(axis=0), table.sum(axis=1))


@dataclass(frozen=True, slots=True)
class Distance:
    """Boundary errors of L surfaces: sums of |error| and of error in px, and the columns counted; each (L,). Summable."""

    absolute: NDArray[np.float64]
    signed: NDArray[np.float64]
    columns: NDArray[np.int64]

    def __add__(self, other: "Distance") -> "Distance":
        return Distance(self.absolute + other.absolute, self.signed + other.signed, self.columns + other.columns)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean absolute boundary error per surface (L,), px; NaN where no column has a reference."""
        return _ratio(self.absolute, self.columns)

    @property
    def bias(self) -> NDArray[np.float64]:
        """Mean signed boundary error per surface (L,), px; positive is too deep."""
        return _ratio(self.signed, self.columns)


def distance(predicted: NDArray[np.floating], reference: NDArray[np.floating]) -> Distance:
    """Compare surfaces (L, W), depths in rows; columns where the reference is NaN are not counted."""
    error = predicted.astype(np.float64) - reference
    known = np.isfinite(error)
    error = np.where(known, error, 0)
    return Distance(np.abs(error).sum(axis=1), error.sum(axis=1), known.sum(axis=1).astype(np.int64))


def _ratio(above: NDArray[np.number], below: NDArray[np.number]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return out
