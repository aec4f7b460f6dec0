"""What a report shows beyond the scores: errors column by column, thickness B-scan by B-scan, and what was taken for what."""

import functools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import is_ordered, surface_names
from octedge.metrics import IGNORED, Overlap
from octedge.train.cohort import Example, Set
from octedge.train.labelmaps import merge_table, same_surfaces, to_groups
from octedge.train.validate import Answer, Decoder, SetScores, is_layer, score

WHISKERS = (5, 95)  # percentiles at the ends of a box plot's whiskers


@dataclass(frozen=True, slots=True)
class Seen:
    """One B-scan as its source annotates it and as the model sees it, both in the source's groups.

    `reference` and `predicted` are labels uint8 (H, W), what belongs to no group is G in a prediction; the surfaces (K, W)
    are those between the ordered groups, NaN where not graded or not known to the model. `dice` is the mean over the layers.
    """

    example: Example
    predicted: NDArray[np.uint8]
    surfaces: NDArray[np.float64]
    scores: SetScores

    @property
    def dice(self) -> float:
        """Mean Dice over the layers of this B-scan; NaN where none is graded."""
        return self.scores.dice


@dataclass(frozen=True, slots=True)
class Evidence:
    """All B-scans of one source together.

    `confusion` (G, G + 1): pixels by reference group and predicted group, the last column being structures the source does
    not know. `errors`: boundary -> signed error in px of every graded column, positive is too deep. `thickness`: layer group
    -> predicted and reference mean thickness (n, 2) in px of every B-scan that grades it. `dice` (n,) of every B-scan.
    """

    data: Set
    confusion: NDArray[np.int64]
    errors: dict[str, NDArray[np.float32]]
    thickness: dict[str, NDArray[np.float64]]
    dice: NDArray[np.float64]
    overlaps: Overlap

    def worst(self) -> list[int]:
        """The indices of the graded B-scans, lowest Dice first."""
        return [int(index) for index in np.argsort(self.dice, kind="stable") if np.isfinite(self.dice[index])]


def gather(decoder: Decoder, structures: tuple[str, ...], data: Set) -> Evidence:
    """Segment every B-scan of a source and keep what the report shows of it."""
    groups, names = data.groups, surface_names(data.groups)
    confusion = np.zeros((len(groups), len(groups) + 1), np.int64)
    errors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
    thickness: dict[str, list[tuple[float, float]]] = {}
    dice, overlaps = [], []
    for seen in look_at(decoder, structures, data):
        confusion += confused(seen.predicted, seen.example.reference, len(groups))
        for name, found, given in zip(names, seen.surfaces, seen.example.surfaces, strict=True):
            error = (found - given).astype(np.float32)
            errors[name].append(error[np.isfinite(error)])
        for group, pair in mean_thickness(seen, groups).items():
            thickness.setdefault(group, []).append(pair)
        dice.append(seen.dice)
        overlaps.append(seen.scores.overlaps())
    found_errors = {name: np.concatenate(each) for name, each in errors.items() if sum(map(len, each))}
    pairs = {group: np.array(each) for group, each in thickness.items()}
    return Evidence(data, confusion, found_errors, pairs, np.array(dice), functools.reduce(operator.add, overlaps))


def look_at(decoder: Decoder, structures: tuple[str, ...], data: Set) -> Iterator[Seen]:
    """The B-scans of a source, segmented one after the other."""
    return (_seen(decoder(example.image), structures, replace(data, examples=(example,))) for example in data.examples)


def _seen(answer: Answer, structures: tuple[str, ...], one: Set) -> Seen:
    example = one.examples[0]
    own, marked = same_surfaces(structures, one.groups)
    surfaces = np.full(example.surfaces.shape, np.nan)
    surfaces[marked] = answer.surfaces[own]
    predicted = to_groups(answer.labels, merge_table(structures, one.groups))
    return Seen(example, predicted, surfaces, score(lambda _: answer, structures, (one,)).sets[one.name])


def confused(predicted: NDArray[np.uint8], reference: NDArray[np.uint8], groups: int) -> NDArray[np.int64]:
    """Pixels int64 (G, G + 1) by reference group and predicted group; ungraded pixels are not counted."""
    known = reference != IGNORED
    flat = reference[known].astype(np.int64) * (groups + 1) + predicted[known]
    return np.bincount(flat, minlength=groups * (groups + 1)).reshape(groups, groups + 1)


def mean_thickness(seen: Seen, groups: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Layer group -> predicted and reference mean thickness in px, over the columns in which both of its boundaries are graded."""
    out = {}
    ordered = [group for group in groups if is_ordered(group)]
    for place, group in enumerate(ordered[1:-1]):
        found, given = np.diff(seen.surfaces[place : place + 2], axis=0)[0], np.diff(seen.example.surfaces[place : place + 2], axis=0)[0]
        both = np.isfinite(found) & np.isfinite(given)
        if is_layer(group) and both.any():
            out[group] = (float(found[both].mean()), float(given[both].mean()))
    return out


@dataclass(frozen=True, slots=True)
class Box:
    """A box plot's five numbers (percentiles 5, 25, 50, 75, 95) of n values."""

    low: float
    first: float
    median: float
    third: float
    high: float
    n: int

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> "Box":
        """Linear interpolation between order statistics, as numpy does it."""
        low, first, median, third, high = np.percentile(values.astype(np.float64), [WHISKERS[0], 25, 50, 75, WHISKERS[1]]).tolist()
        return cls(low, first, median, third, high, len(values))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Predicted minus reference of n pairs: mean difference and 95 % limits of agreement, mean -/+ 1.96 standard deviations.

    Source: Bland and Altman 1986, Lancet 327(8476):307. The limits of fewer than 2 pairs are NaN.
    """

    bias: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, pairs: NDArray[np.float64]) -> "Agreement":
        """Of (n, 2) predicted and reference."""
        difference = pairs[:, 0] - pairs[:, 1]
        spread = 1.96 * float(difference.std(ddof=1)) if len(pairs) > 1 else float("nan")
        bias = float(difference.mean())
        return cls(bias, bias - spread, bias + spread, len(pairs))
