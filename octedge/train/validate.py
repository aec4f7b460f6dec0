"""Validation scores what the user gets: the same `segment` as at the edge, behind a torch engine."""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from octedge.anatomy import is_ordered, members, surface_names
from octedge.geometry import Windowing, labels_from_surfaces
from octedge.metrics import IGNORED, Distance, Overlap, distance, overlap
from octedge.ordered import Chain
from octedge.scan import Frame
from octedge.segment import Layers, Plan, segment
from octedge.train.cohort import Set
from octedge.train.labelmaps import merge_table, same_surfaces, to_groups
from octedge.train.networks import Family, Graph


class TorchEngine:
    """The network in torch, behind the protocol of all engines."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.eval()

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        scores, labels = self.graph(torch.from_numpy(np.ascontiguousarray(windows)))
        return scores.numpy(), labels.numpy()


class Counts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one patient adds to the scores: pixels per group (G,), sums of |error| and error in px, columns, per boundary (B,)."""

    shared: tuple[int, ...]
    predicted: tuple[int, ...]
    reference: tuple[int, ...]
    absolute: tuple[float, ...]
    signed: tuple[float, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, overlaps: Overlap, distances: Distance) -> "Counts":
        """The counts as plain numbers."""
        pixels = (overlaps.shared, overlaps.predicted, overlaps.reference)
        errors = (distances.absolute, distances.signed, distances.columns)
        return cls(*(tuple(each.tolist()) for each in (*pixels, *errors)))

    def overlaps(self) -> Overlap:
        return Overlap(np.array(self.shared), np.array(self.predicted), np.array(self.reference))

    def distances(self) -> Distance:
        return Distance(np.array(self.absolute), np.array(self.signed), np.array(self.columns))


class SetScores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores of one source: the counts of every patient, from which all scores are made by adding before dividing.

    Fluid lies within layers: a pixel that was called fluid counts for the layer between whose surfaces it lies, and
    pixels the reference calls fluid are left out of the layers' scores, for nobody graded which layer they lie in.
    """

    vendor: str
    groups: tuple[str, ...]
    boundaries: tuple[str, ...]
    patients: dict[str, Counts]

    def overlaps(self) -> Overlap:
        """The pixel counts of all patients together."""
        return functools.reduce(operator.add, (each.overlaps() for each in self.patients.values()))

    def distances(self) -> Distance:
        """The boundary errors of all patients together."""
        return functools.reduce(operator.add, (each.distances() for each in self.patients.values()))

    def by_group(self) -> dict[str, tuple[float, float]]:
        """Group -> IoU and Dice, of the groups that occur."""
        found = self.overlaps()
        rows = zip(self.groups, found.iou.tolist(), found.dice.tolist(), strict=True)
        return {group: (iou, dice) for group, iou, dice in rows if not math.isnan(iou)}

    def by_boundary(self) -> dict[str, float]:
        """Boundary -> mean absolute error in px, of the boundaries that were graded."""
        rows = zip(self.boundaries, self.distances().mean.tolist(), strict=True)
        return {name: value for name, value in rows if not math.isnan(value)}

    def _mean(self, column: int) -> float:
        return _mean([pair[column] for group, pair in self.by_group().items() if is_layer(group)])

    @property
    def iou(self) -> float:
        """Mean over the set's layers: what lies between the vitreous and the choroid."""
        return self._mean(0)

    @property
    def dice(self) -> float:
        """Mean over the set's layers."""
        return self._mean(1)

    @property
    def boundary(self) -> float:
        """Mean boundary error in px, each boundary weighing the same."""
        return _mean(list(self.by_boundary().values()))


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores of every source; `mean` is the mean IoU over the real sources, phantoms only where there is no other."""

    sets: dict[str, SetScores]

    def real(self) -> dict[str, SetScores]:
        """The sources that count in selection."""
        return {name: each for name, each in self.sets.items() if name != "phantoms"} or self.sets

    @property
    def mean(self) -> float:
        return _mean([each.iou for each in self.real().values()])

    def line(self) -> str:
        """One line for people."""
        parts = [f"{name} IoU {each.iou:.3f} Dice {each.dice:.3f} boundary {each.boundary:.2f} px" for name, each in self.sets.items()]
        return "; ".join(parts)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def is_layer(group: str) -> bool:
    """Whether a group counts in the mean over layers: a retinal layer, not what lies above or below, not fluid."""
    return is_ordered(group) and not set(members(group)) & {"vitreous", "choroid", "sclera", "disc"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What is scored of a B-scan: labels uint8 (H, W), the labels without fluid (H, W), surfaces float (L, W)."""

    labels: NDArray[np.uint8]
    layers: NDArray[np.uint8]
    surfaces: NDArray[np.floating]

    @classmethod
    def of(cls, found: Layers, chain: Chain) -> "Answer":
        """The answer of the runtime; below fluid lies the layer its surfaces bound."""
        order = np.array(chain.ordered, np.uint8)
        return cls(found.labels, order[labels_from_surfaces(found.surfaces, len(found.labels))], found.surfaces)


Decoder = Callable[[Frame], Answer]


def validate(graph: Graph, shape: Family, structures: tuple[str, ...], sets: tuple[Set, ...]) -> Scores:
    """Segment every B-scan of the validation sets, whole width, and compare with what each set annotates."""
    how = Plan(Chain.of(structures), Windowing(1 << 14, 0, 1 << shape.downs))
    engine = TorchEngine(graph)
    return score(lambda frame: Answer.of(segment(frame, engine, how), how.chain), structures, sets)


def score(decoder: Decoder, structures: tuple[str, ...], sets: tuple[Set, ...]) -> Scores:
    """Scores of any decoder of B-scans on annotated sets."""
    return Scores({each.name: _score_set(decoder, structures, each) for each in sets if each.examples})


def _score_set(decoder: Decoder, structures: tuple[str, ...], data: Set) -> SetScores:
    table = merge_table(structures, data.groups)
    pick, given = same_surfaces(structures, data.groups)
    patients: dict[str, tuple[Overlap, Distance]] = {}
    for example in data.examples:
        answer = decoder(example.image)
        seen = _overlap(to_groups(answer.labels, table), to_groups(answer.layers, table), example.reference, data.groups)
        apart = distance(answer.surfaces[pick], example.surfaces[given])
        before = patients.get(example.patient)
        patients[example.patient] = (before[0] + seen, before[1] + apart) if before else (seen, apart)
    counts = {patient: Counts.of(*found) for patient, found in patients.items()}
    return SetScores(data.vendor, data.groups, tuple(surface_names(data.groups)[index] for index in given), counts)


def _overlap(labels: NDArray[np.uint8], layers: NDArray[np.uint8], reference: NDArray[np.uint8], groups: tuple[str, ...]) -> Overlap:
    """Fluid is scored by `labels` on everything known, ordered groups by `layers` where the reference is not fluid."""
    ordered = np.array([is_ordered(group) for group in groups])
    dry = np.where(ordered[np.minimum(reference, len(groups) - 1)], reference, IGNORED)
    fluid, rest = overlap(labels, reference, len(groups)), overlap(layers, dry, len(groups))
    return Overlap(*(np.where(ordered, getattr(rest, name), getattr(fluid, name)) for name in ("shared", "predicted", "reference")))
