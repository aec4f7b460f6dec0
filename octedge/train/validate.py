"""Validation scores what the user gets: the same `segment` as at the edge, behind a torch engine."""

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
from octedge.train.labelmaps import merge_table, to_groups
from octedge.train.networks import Graph, Shape


class TorchEngine:
    """The network in torch, behind the protocol of all engines."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.eval()

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        scores, labels = self.graph(torch.from_numpy(np.ascontiguousarray(windows)))
        return scores.numpy(), labels.numpy()


class SetScores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores of one source: IoU and Dice per group, the boundary error (px) per boundary; None where nothing was graded.

    Fluid lies within layers: a pixel that was called fluid counts for the layer between whose surfaces it lies, and
    pixels the reference calls fluid are left out of the layers' scores, for nobody graded which layer they lie in.
    """

    groups: dict[str, tuple[float | None, float | None]]
    boundaries: dict[str, float | None]

    def _layers(self, column: int) -> list[float]:
        return [pair[column] for group, pair in self.groups.items() if is_layer(group) and pair[column] is not None]  # type: ignore[misc]

    @property
    def iou(self) -> float:
        """Mean over the set's layers: what lies between the vitreous and the choroid."""
        return float(np.mean(self._layers(0))) if self._layers(0) else float("nan")

    @property
    def dice(self) -> float:
        return float(np.mean(self._layers(1))) if self._layers(1) else float("nan")

    @property
    def boundary(self) -> float:
        """Mean boundary error in px, each boundary weighing the same."""
        known = [value for value in self.boundaries.values() if value is not None]
        return float(np.mean(known)) if known else float("nan")


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scores of every source; `mean` is the mean IoU over the real sources, phantoms only where there is no other."""

    sets: dict[str, SetScores]

    @property
    def mean(self) -> float:
        real = [scores.iou for name, scores in self.sets.items() if name != "phantoms"]
        return float(np.nanmean(real or [scores.iou for scores in self.sets.values()]))

    def line(self) -> str:
        """One line for people."""
        parts = [f"{name} IoU {each.iou:.3f} Dice {each.dice:.3f} boundary {each.boundary:.2f} px" for name, each in self.sets.items()]
        return "; ".join(parts)


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


def validate(graph: Graph, shape: Shape, structures: tuple[str, ...], sets: tuple[Set, ...]) -> Scores:
    """Segment every B-scan of the validation sets, whole width, and compare with what each set annotates."""
    how = Plan(Chain.of(structures), Windowing(1 << 14, 0, 1 << shape.downs))
    engine = TorchEngine(graph)
    return score(lambda frame: Answer.of(segment(frame, engine, how), how.chain), structures, sets)


def score(decoder: Decoder, structures: tuple[str, ...], sets: tuple[Set, ...]) -> Scores:
    """Scores of any decoder of B-scans on annotated sets."""
    return Scores({each.name: _score_set(decoder, structures, each) for each in sets if each.examples})


def _score_set(decoder: Decoder, structures: tuple[str, ...], data: Set) -> SetScores:
    table = merge_table(structures, data.groups)
    own, marked = surface_names(structures), surface_names(data.groups)
    wanted = [name for name in marked if name in own]  # a set that skips structures marks borders no model has
    pick, given = [own.index(name) for name in wanted], [marked.index(name) for name in wanted]
    overlaps: Overlap | None = None
    distances: Distance | None = None
    for example in data.examples:
        answer = decoder(example.image)
        seen = _overlap(to_groups(answer.labels, table), to_groups(answer.layers, table), example.reference, data.groups)
        apart = distance(answer.surfaces[pick], example.surfaces[given])
        overlaps = seen if overlaps is None else overlaps + seen
        distances = apart if distances is None else distances + apart
    assert overlaps is not None
    assert distances is not None
    return SetScores(
        {group: (_known(iou), _known(dice)) for group, iou, dice in zip(data.groups, overlaps.iou, overlaps.dice, strict=True)},
        dict(zip(wanted, map(_known, distances.mean), strict=True)),
    )


def _overlap(labels: NDArray[np.uint8], layers: NDArray[np.uint8], reference: NDArray[np.uint8], groups: tuple[str, ...]) -> Overlap:
    """Fluid is scored by `labels` on everything known, ordered groups by `layers` where the reference is not fluid."""
    ordered = np.array([is_ordered(group) for group in groups])
    dry = np.where(ordered[np.minimum(reference, len(groups) - 1)], reference, IGNORED)
    fluid, rest = overlap(labels, reference, len(groups)), overlap(layers, dry, len(groups))
    return Overlap(*(np.where(ordered, getattr(rest, name), getattr(fluid, name)) for name in ("shared", "predicted", "reference")))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
