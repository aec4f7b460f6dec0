"""A model ready to use: a bundle and the engine that runs it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.edge.bundle import Bundle, open_bundle
from octedge.edge.clock import Clock
from octedge.edge.engine import open_engine, quiet
from octedge.edge.variant import NamedEngine
from octedge.errors import ScanError
from octedge.scan import Scan
from octedge.segment import Segmentation, plan, segment_scan


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle and its engine; `segment` answers scans."""

    bundle: Bundle
    engine: NamedEngine

    def segment(self, scan: Scan, progress: Callable[[int, int], None] | None = None, clock: Clock | None = None) -> Segmentation:
        """Segment all F B-scans; `progress` hears how many are done of how many, `clock` counts the stages read, engine and order.

        Raises `ScanError` if a B-scan cannot be decoded or the results do not fit into memory.
        """
        clock = clock or Clock()
        card = self.bundle.card
        labels, surfaces = _room(scan, len(card.surfaces))
        timed = replace(scan, decode=clock.timed("read", scan.decode))
        answers = segment_scan(timed, clock.timed("engine", self.engine), card)
        with clock.stage("order"):
            for index, layers in enumerate(answers):
                labels[index], surfaces[index] = layers.labels, layers.surfaces
                if progress is not None:
                    progress(index + 1, scan.frames)
        factor = plan(card, scan.rows, scan.spacing).factor
        return Segmentation(
            scan.name,
            labels,
            surfaces,
            card.structures,
            card.surfaces,
            scan.spacing,
            card.id,
            self.engine.name,
            factor,
            scan.notes + _scale_notes(scan, factor),
        )


def open_model(
    bundle: Path | str | None = None, engine: str = "auto", tell: Callable[[str], None] = quiet, allow_fallback: bool = False
) -> Model:
    """Open a bundle's folder (none: the shipped reference) with an engine; `tell` hears of the check on first use, and of a fall-back.

    Raises `ModelError` if the bundle is not intact, or the engine is missing or has no certificate that holds.
    """
    opened = open_bundle(bundle)
    return Model(opened, open_engine(opened, engine, tell, allow_fallback))


def _room(scan: Scan, surfaces: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Empty labels uint8 (F, H, W) and surfaces float32 (F, L, W) for the whole scan."""
    try:
        return (
            np.empty((scan.frames, scan.rows, scan.columns), np.uint8),
            np.empty((scan.frames, surfaces, scan.columns), np.float32),
        )
    except (MemoryError, ValueError) as error:
        raise ScanError(
            f"{scan.name}: {scan.frames} B-scans of {scan.rows} x {scan.columns} do not fit into memory;"
            " is the size in the file right? segment it in parts"
        ) from error


def _scale_notes(scan: Scan, factor: float) -> tuple[str, ...]:
    """What a user must know about the scale the scan was segmented at."""
    if scan.spacing.axial is None:
        return ("scale unknown: rows taken as they are; results in pixels; give --axial-um",)
    if factor == 1:
        return ()
    axial_um = scan.spacing.axial * 1000
    return (f"rows scaled by {factor:.2f} from {axial_um:.2f} to {axial_um / factor:.2f} um for the network",)
