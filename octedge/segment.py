"""One function segments, everywhere: validation, certificates, the edge and the benchmarks differ only in the engine.

`segment` is three stages, which the edge runs at the same time, each on another B-scan: `prepare`, `run`, `order`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.geometry import (
    Tiling,
    Windowing,
    labels_from_surfaces,
    padded_height,
    resample_rows,
    rows_to_original,
    scaled_rows,
    split,
    stitch,
)
from octedge.ordered import Chain, decode, nerve_or_wall
from octedge.quality import Flag, FrameQuality, flags
from octedge.scan import Frame, Spacing

# Pixels one call of the engine may get: bounds the memory of the activations, whatever the size of the B-scan.
PIXELS_PER_CALL = 1 << 20

NOTHING = 255  # the label of a B-scan that could not be decoded; no model has so many classes


class Engine(Protocol):
    """Runs the graph: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), log-probabilities, and labels uint8 (N, P, V)."""

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How B-scans of one size are segmented: their classes' chain, the tiling rule, and the factor their rows are scaled by.

    `pixels` is how many a call of the engine gets at most, unless one window has more.
    """

    chain: Chain
    windowing: Windowing
    factor: float = 1.0
    pixels: int = PIXELS_PER_CALL

    def tiling(self, rows: int, columns: int) -> Tiling:
        """The windows of a B-scan of this size, over its scaled rows."""
        return self.windowing.tiling(scaled_rows(rows, self.factor), columns)


def plan(card: ModelCard, rows: int, spacing: Spacing = Spacing(), pixels: int = PIXELS_PER_CALL) -> Plan:
    """The plan for B-scans of `rows` rows: an exact network takes as wide windows as `pixels` allow, the whole width at best."""
    axial_um = None if spacing.axial is None else spacing.axial * 1000
    factor = card.axial_range.factor(axial_um)
    rule = card.windowing
    if card.exact:
        height = padded_height(scaled_rows(rows, factor), rule.grid)
        wide = max(pixels // height, 2 * rule.overlap) // rule.grid * rule.grid
        rule = Windowing(max(wide, rule.window), rule.overlap, rule.grid)
    return Plan(card.chain, rule, factor, pixels)


def windows_per_call(height: int, window: int, pixels: int = PIXELS_PER_CALL) -> int:
    """How many windows of `height` rows and `window` columns one call of the engine gets at most."""
    return max(1, pixels // (height * window))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A B-scan as the engine takes it: windows uint8 (N, 1, P, V), where they lie, and the B-scan's own number of rows."""

    windows: NDArray[np.uint8]
    tiling: Tiling
    rows: int


@dataclass(frozen=True, slots=True)
class Layers:
    """One B-scan's answer: labels uint8 (H, W), class indices; surfaces float32 (L, W), depths in rows."""

    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]


def segment(frame: Frame, engine: Engine, how: Plan) -> Layers:
    """Segment one B-scan uint8 (H, W): scale, tile, run, stitch, order, and map back to the B-scan's own rows."""
    prepared = prepare(frame, how)
    scores, labels = run(prepared.windows, engine, how)
    return order(stitch(scores, prepared.tiling), stitch(labels, prepared.tiling), how.chain, prepared.rows)


def prepare(frame: Frame, how: Plan) -> Prepared:
    """Scale the rows of a B-scan uint8 (H, W), and cut it into windows."""
    tiling = how.tiling(*frame.shape)
    return Prepared(split(resample_rows(frame, tiling.rows), tiling)[:, None], tiling, len(frame))


def run(windows: NDArray[np.uint8], engine: Engine, how: Plan) -> tuple[list[NDArray[np.float32]], list[NDArray[np.uint8]]]:
    """Scores (C, P, V) and labels (P, V) of each of the windows uint8 (N, 1, P, V), as many of which go into a call as may."""
    height, width = windows.shape[2:]
    most = windows_per_call(height, width, how.pixels)
    answers = [engine(windows[first : first + most]) for first in range(0, len(windows), most)]
    return [window for scores, _ in answers for window in scores], [window for _, labels in answers for window in labels]


def order(scores: NDArray[np.float32], argmax: NDArray[np.uint8], chain: Chain, rows: int) -> Layers:
    """The answer from scores (C, H, W) and their argmax (H, W): put into anatomical order, and mapped back to the B-scan's own rows.

    No column holds both the nerve head and what ends at its margin; columns do not depend on each other.
    """
    labels, surfaces = nerve_or_wall(scores, chain, argmax, decode(scores, chain, argmax))
    if len(labels) != rows:
        surfaces = rows_to_original(surfaces, rows, len(labels))
        labels = _on_original_rows(labels, surfaces, chain, rows)
    return Layers(labels, surfaces)


def _on_original_rows(labels: NDArray[np.uint8], surfaces: NDArray[np.float32], chain: Chain, rows: int) -> NDArray[np.uint8]:
    """Labels (H, W) from the mapped surfaces; fluid from the nearest scaled row, inside the retina only."""
    place = labels_from_surfaces(surfaces, rows)
    out = np.asarray(chain.ordered, np.uint8)[place]
    if chain.fluid is not None:
        nearest = np.minimum(((np.arange(rows) + 0.5) * len(labels) / rows).astype(int), len(labels) - 1)
        out[(labels[nearest] == chain.fluid) & np.asarray(chain.retina)[place]] = chain.fluid
    return out


@dataclass(frozen=True, slots=True)
class About:
    """What the answer to a scan of F frames means.

    `structures` (C,) and `surface_names` (L,) are keys; `factor` is what the rows were scaled by on the way; `failed` says of the
    frames that could not be decoded why: their labels are 255, their surfaces NaN. `quality` has the measures of each frame, if taken.
    `certificate` is the id of the one that the engine served by.
    """

    name: str
    frames: int
    structures: tuple[str, ...]
    surface_names: tuple[str, ...]
    spacing: Spacing
    model: str
    engine: str
    factor: float = 1.0
    notes: tuple[str, ...] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    quality: tuple[FrameQuality, ...] = ()
    certificate: str = ""

    @property
    def flags(self) -> tuple[Flag, ...]:
        """When not to trust the answer: see `octedge.quality`."""
        return flags(self.quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation(About):
    """A scan's answer: labels uint8 (F, H, W), surfaces float32 (F, L, W), and what they mean."""

    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]
