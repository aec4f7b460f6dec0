"""One function segments, everywhere: validation, certificates, the edge and the benchmarks differ only in the engine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.geometry import Windowing, labels_from_surfaces, padded_height, resample_rows, rows_to_original, scaled_rows, split, stitch
from octedge.ordered import Chain, decode
from octedge.scan import Frame, Scan, Spacing

# Pixels one call of the engine may get: bounds the memory of the activations, whatever the size of the B-scan.
PIXELS_PER_CALL = 1 << 20


class Engine(Protocol):
    """Runs the graph: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), log-probabilities, and labels uint8 (N, P, V)."""

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How B-scans of one size are segmented: their classes' chain, the tiling rule, and the factor their rows are scaled by."""

    chain: Chain
    windowing: Windowing
    factor: float = 1.0


def plan(card: ModelCard, rows: int, spacing: Spacing = Spacing()) -> Plan:
    """The plan for B-scans of `rows` rows: an exact network takes as wide windows as memory allows, the whole width at best."""
    axial_um = None if spacing.axial is None else spacing.axial * 1000
    factor = card.axial_range.factor(axial_um)
    rule = card.windowing
    if card.exact:
        height = padded_height(scaled_rows(rows, factor), rule.grid)
        wide = max(PIXELS_PER_CALL // height, 2 * rule.overlap) // rule.grid * rule.grid
        rule = Windowing(max(wide, rule.window), rule.overlap, rule.grid)
    return Plan(card.chain, rule, factor)


def windows_per_call(height: int, window: int) -> int:
    """How many windows of `height` rows and `window` columns one call of the engine gets at most."""
    return max(1, PIXELS_PER_CALL // (height * window))


@dataclass(frozen=True, slots=True)
class Layers:
    """One B-scan's answer: labels uint8 (H, W), class indices; surfaces float32 (L, W), depths in rows."""

    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]


def segment(frame: Frame, engine: Engine, how: Plan) -> Layers:
    """Segment one B-scan uint8 (H, W): scale, tile, run, stitch, order, and map back to the B-scan's own rows."""
    rows = frame.shape[0]
    image = resample_rows(frame, scaled_rows(rows, how.factor))
    tiling = how.windowing.tiling(*image.shape)
    windows = split(image, tiling)[:, None]
    batch = windows_per_call(tiling.height, tiling.window)
    answers = [engine(windows[first : first + batch]) for first in range(0, len(windows), batch)]
    scores = stitch([window for scores, _ in answers for window in scores], tiling)
    argmax = stitch([window for _, labels in answers for window in labels], tiling)
    labels, surfaces = decode(scores, how.chain, argmax)
    if image is not frame:
        surfaces = rows_to_original(surfaces, rows, len(image))
        labels = _on_original_rows(labels, surfaces, how.chain, rows)
    return Layers(labels, surfaces)


def segment_scan(scan: Scan, engine: Engine, card: ModelCard) -> Iterator[Layers]:
    """Segment the B-scans of a scan one after the other, in its order."""
    how = plan(card, scan.rows, scan.spacing)
    return (segment(frame, engine, how) for frame in scan)


def _on_original_rows(labels: NDArray[np.uint8], surfaces: NDArray[np.float32], chain: Chain, rows: int) -> NDArray[np.uint8]:
    """Labels (H, W) from the mapped surfaces; fluid from the nearest scaled row, inside the retina only."""
    place = labels_from_surfaces(surfaces, rows)
    out = np.asarray(chain.ordered, np.uint8)[place]
    if chain.fluid is not None:
        nearest = np.minimum(((np.arange(rows) + 0.5) * len(labels) / rows).astype(int), len(labels) - 1)
        out[(labels[nearest] == chain.fluid) & np.asarray(chain.retina)[place]] = chain.fluid
    return out


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A scan's answer: labels uint8 (F, H, W), surfaces float32 (F, L, W), and what they mean.

    `structures` (C,) and `surface_names` (L,) are keys; `factor` is what the rows were scaled by on the way.
    """

    name: str
    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]
    structures: tuple[str, ...]
    surface_names: tuple[str, ...]
    spacing: Spacing
    model: str
    engine: str
    factor: float = 1.0
    notes: tuple[str, ...] = ()
