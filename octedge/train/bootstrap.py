"""How sure a comparison is: patients and seeds drawn anew, counts added, then divided.

The bootstrap over patients, within each source (Efron 1979), in the form for small samples: of n patients n - 1 are drawn
with replacement, which makes the variance of a mean of few patients right on average (McCarthy & Snowden 1985; Rao & Wu
1988), where drawing n makes it too small by (n - 1) / n. Seeds are drawn in the same way, and every candidate sees the same
draws of both, so that a difference between two candidates is one of pairs: two copies of a candidate differ by 0 in all.

With fewer than `FEWEST` patients there is no interval: one patient cannot vary at all, and the two values that two patients
allow hold the truth in half of the cases. Up to `FEW` patients (or with fewer than `SEEDS` seeds) intervals are still too
narrow - even the whole range of five values misses their median in 6 % of the cases - and are called weak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 3  # patients in a source that an interval needs
FEW = 5  # patients in a source up to which an interval is weak
SEEDS = 3
RESAMPLES = 2000
LEVEL = 0.95
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """Pixels of one source's G layers: `shared` with the reference and in the `union`, each (K, S, n, G): candidates, seeds, patients."""

    name: str
    vendor: str
    shared: NDArray[np.int64]
    union: NDArray[np.int64]

    @property
    def patients(self) -> int:
        return int(self.shared.shape[2])

    @property
    def seeds(self) -> int:
        return int(self.shared.shape[1])

    def iou(self, patients: Floats, seeds: Floats) -> Floats:
        """Mean IoU over the layers that occur, mean over seeds: weights (B, n) and (B, S) -> (B, K); NaN where no layer occurs."""
        shared, union = (np.tensordot(patients, counts, ((1,), (2,))) for counts in (self.shared, self.union))
        found = _mean(np.divide(shared, union, out=np.full(shared.shape, np.nan), where=union > 0), 3)
        mean: Floats = np.einsum("bks,bs->bk", found, seeds / seeds.sum(1, keepdims=True))
        return mean


@dataclass(frozen=True, slots=True)
class Draws:
    """IoU of K candidates in B draws, each (B, K): mean over the sources, that of the worst vendor, and their mean, the score."""

    mean: Floats
    worst: Floats

    @property
    def score(self) -> Floats:
        return (self.mean + self.worst) / 2


def observed(sources: Sequence[Source]) -> Draws:
    """The scores as they are: one draw, everybody in it once."""
    return _scores(sources, [np.ones((1, each.patients)) for each in sources], np.ones((1, sources[0].seeds)))


def resample(sources: Sequence[Source], resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """The scores in as many draws of patients and seeds; the same for the same `seed`."""
    rng = np.random.default_rng(seed)
    patients = [draw(each.patients, resamples, rng) for each in sources]
    return _scores(sources, patients, draw(sources[0].seeds, resamples, rng))


def draw(count: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each of `count` is taken in each draw of count - 1: (B, count); a single one is always taken."""
    return rng.multinomial(max(1, count - 1), np.full(count, 1 / count), resamples).astype(np.float64)


def interval(values: Floats) -> tuple[float, float]:
    """The middle 95 % of the draws (B,): percentiles 2.5 and 97.5."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def too_few(sources: Sequence[Source]) -> str:
    """Why there can be no interval, or nothing: `octlayers: 2 patients`."""
    found = [f"{each.name}: {each.patients} patient{'s' * (each.patients > 1)}" for each in sources if each.patients < FEWEST]
    return ", ".join(found)


def weakness(sources: Sequence[Source]) -> tuple[str, ...]:
    """What makes the comparison weak, in words."""
    few = [f"{each.name} {each.patients}" for each in sources if FEWEST <= each.patients <= FEW]
    found = []
    if too_few(sources):
        found.append(f"no intervals, for {too_few(sources)}; at least {FEWEST} in every source are needed")
    elif few:
        found.append(f"intervals too narrow, for few patients: {', '.join(few)}")
    if sources[0].seeds < SEEDS:
        count = sources[0].seeds
        found.append(f"weak comparison: {count} seed{'s' * (count > 1)}; at least {SEEDS} are needed to see the luck of a training")
    return tuple(found)


def _scores(sources: Sequence[Source], patients: Sequence[Floats], seeds: Floats) -> Draws:
    found = np.stack([each.iou(weights, seeds) for each, weights in zip(sources, patients, strict=True)])
    vendors = sorted({each.vendor for each in sources})
    own = [_mean(found[[each.vendor == vendor for each in sources]], 0) for vendor in vendors]
    return Draws(_mean(found, 0), np.fmin.reduce(own))


def _mean(values: Floats, axis: int) -> Floats:
    """The mean of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    found: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return found
