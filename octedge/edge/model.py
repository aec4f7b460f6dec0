"""A model ready to use: a bundle and the engine that runs it."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.edge.bundle import Bundle, open_bundle
from octedge.edge.engine import open_certified, quiet
from octedge.edge.ledger import Ledger, Times, make_ledger
from octedge.edge.pipeline import Answer, Arrival, Pipeline
from octedge.edge.stream import DEPTH, ColumnStream, Stream
from octedge.edge.variant import NamedEngine
from octedge.errors import ModelError, ScanError
from octedge.flow import ahead
from octedge.quality import FrameQuality
from octedge.scan import Scan, Spacing
from octedge.segment import About, Segmentation

SHOWN = 10  # numbers in a note


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle and its engine; `segment` answers scans. Up to `batch` B-scans share a call of the engine, if it has room for them.

    `certificate` is the id of the certificate that the engine serves by; an engine that is only measured has none.
    """

    bundle: Bundle
    engine: NamedEngine
    batch: int = 1
    certificate: str = ""

    def segment(self, scan: Scan, progress: Callable[[int, int], None] | None = None) -> Segmentation:
        """Segment all F B-scans; `progress` hears how many are done of how many.

        A B-scan that cannot be decoded is named in `failed`. Raises `ScanError` if none can, or the results do not fit into memory.
        """
        labels, surfaces = _room(scan, len(self.bundle.card.surfaces))
        run = self.run(scan)
        with closing(run.answers()) as answers:
            for answer in answers:
                labels[answer.index], surfaces[answer.index] = answer.layers.labels, answer.layers.surfaces
                if progress is not None:
                    progress(answer.index + 1, scan.frames)
        about = {each.name: getattr(run.about, each.name) for each in fields(About)}
        return Segmentation(**about, labels=labels, surfaces=surfaces)

    def run(self, scan: Scan, deviations: bool = False) -> "Run":
        """The scan on its way through the model, for whoever takes its answers one by one; the surfaces with `deviations`, if wanted.

        Raises `ModelError` if they are wanted and the model was never checked against its errors.
        """
        return Run(self, scan, deviations)

    def stream(self, rows: int, columns: int, spacing: Spacing = Spacing(), depth: int = DEPTH) -> Stream:
        """For B-scans (H, W) that come one by one, live; `depth` are under way at most."""
        return Stream(self.engine, self.bundle.card, (rows, columns), spacing, depth)

    def column_stream(self, rows: int, columns: int, spacing: Spacing = Spacing(), depth: int = DEPTH) -> ColumnStream:
        """For B-scans (H, W) that come a few columns at a time; the network must be exact."""
        return ColumnStream(self.engine, self.bundle.card, (rows, columns), spacing, depth)


class Run:
    """A scan on its way through a model; `whole` are the times of what is done once for all B-scans."""

    def __init__(self, model: Model, scan: Scan, deviations: bool = False) -> None:
        card = model.bundle.card
        if deviations and not card.temperature:
            what = f"{card.id}: its card has no temperature, without which standard deviations of surfaces mean nothing"
            raise ModelError(f"{what}; export the run anew with --data")
        self.scan = scan
        self.whole = Times()
        self._model = model
        temperature = card.temperature if deviations else 0.0
        self._pipeline = Pipeline(model.engine, card, (scan.rows, scan.columns), scan.spacing, model.batch, temperature)
        self._times: dict[int, Times] = {}
        self._failed: dict[int, str] = {}
        self._quality = [FrameQuality()] * scan.frames

    def answers(self) -> Generator[Answer, None, None]:
        """The answers for all F B-scans, in order, while later ones are worked on; close it to stop.

        Raises `ModelError` if the engine fails, `ScanError` if it lacks memory, and at the end if no B-scan could be decoded.
        """
        with closing(self._pipeline.answers(ahead(_decoded(self.scan)))) as answers:
            for answer in answers:
                if answer.fault:
                    self._failed[answer.index] = answer.fault
                else:
                    self._times[answer.index] = answer.times
                    self._quality[answer.index] = answer.quality
                yield answer
        if len(self._failed) == self.scan.frames:
            which = "" if self.scan.frames == 1 else f"none of its {self.scan.frames} B-scans can be decoded; the first: "
            raise ScanError(f"{self.scan.name}: {which}{self._failed[0]}")

    @property
    def about(self) -> About:
        """What the answers mean, as far as it is known; all of it when they have come."""
        scan, card, factor = self.scan, self._model.bundle.card, self._pipeline.how.factor
        notes = (*scan.notes, *_scale_notes(scan, factor), *self._pipeline.notes, *_failure_notes(self._failed, scan.frames))
        return About(
            scan.name, scan.frames, card.structures, card.surfaces, scan.spacing, card.id, self._model.engine.name, factor, notes,
            dict(self._failed), tuple(self._quality), self._model.certificate,
        )  # fmt: skip

    def ledger(self) -> Ledger:
        """When each stage had each B-scan."""
        size = self.scan.rows, self.scan.columns
        return make_ledger(self._model.bundle.card.id, self._model.engine.name, size, self._times, self.whole)


def open_model(
    bundle: Path | str | None = None, engine: str = "auto", tell: Callable[[str], None] = quiet, allow_fallback: bool = False
) -> Model:
    """Open a bundle's folder (none: the shipped reference) with an engine; `tell` hears of the check on first use, and of a fall-back.

    Raises `ModelError` if the bundle is not intact, or the engine is missing or has no certificate that holds.
    """
    opened = open_bundle(bundle)
    ready, certificate = open_certified(opened, engine, tell, allow_fallback)
    return Model(opened, ready, certificate=certificate.identity.id)


def _decoded(scan: Scan) -> Generator[Arrival, None, None]:
    """The B-scans one by one; of one that cannot be decoded, why."""
    for index in range(scan.frames):
        times = Times()
        try:
            with times.stage("decode"):
                frame = scan.frame(index)
        except ScanError as error:
            yield Arrival(index, times, fault=str(error).removeprefix(f"{scan.name}: "))
        else:
            yield Arrival(index, times, frame)


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


def _failure_notes(failed: dict[int, str], frames: int) -> tuple[str, ...]:
    """Which B-scans have no answer, and why the first of them has none."""
    if not failed:
        return ()
    numbers = ", ".join(map(str, islice(failed, SHOWN))) + ", ..." * (len(failed) > SHOWN)
    which = f"{len(failed)} of {frames} B-scans could not be decoded and have no answer: {numbers} (counted from 0)"
    return (f"{which}; the first: {next(iter(failed.values()))}",)
