"""Everything but the engine hides behind the engine: B-scans are decoded, run and ordered at the same time, each stage in a thread.

A few B-scans are under way at a time, so memory does not grow with the volume; answers come in the order of the B-scans.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, starmap

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.edge.ledger import Times, listening
from octedge.errors import OutOfMemory, ScanError
from octedge.flow import ahead
from octedge.geometry import stitch
from octedge.quality import FrameQuality, Gauge, certainty, frame_quality
from octedge.scan import Frame, Spacing
from octedge.segment import NOTHING, Engine, Layers, Plan, Prepared, order, plan, prepare, run, windows_per_call
from octedge.spread import deviation

WAITING = 4  # answers, without their scores: so long as a disk takes a breath, the engine goes on


@dataclass(frozen=True, slots=True)
class Arrival:
    """B-scan `index`, uint8 (H, W), or why there is none; `times` go with it."""

    index: int
    times: Times
    frame: Frame | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the engine gave for the windows of a B-scan: scores (C, P, V) and labels (P, V) of each."""

    prepared: Prepared
    scores: list[NDArray[np.float32]]
    labels: list[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for B-scan `index`, when each stage had it, the B-scan itself, and why there is none if there is none.

    `quality` are the measures of the B-scan and its answer: see `quality.flags`. `deviation` float32 (L, W) are the standard
    deviations of its surfaces in rows, where they were asked for.
    """

    index: int
    layers: Layers
    times: Times
    frame: Frame | None = None
    fault: str = ""
    quality: FrameQuality = FrameQuality()
    deviation: NDArray[np.float32] | None = None


class Pipeline:
    """B-scans of one size (H, W) through an engine; up to `batch` of them share a call, if it has room for all their windows.

    With a `temperature` above 0 the surfaces have standard deviations.
    """

    def __init__(  # noqa: PLR0913 - what a run is made of
        self,
        engine: Engine,
        card: ModelCard,
        size: tuple[int, int],
        spacing: Spacing = Spacing(),
        batch: int = 1,
        temperature: float = 0.0,
    ) -> None:
        self._temperature = temperature
        self._engine, self._card, self._size, self._spacing, self._batch = engine, card, size, spacing, batch
        self.how = plan(card, size[0], spacing)
        self._gauge = Gauge.of(card.structures, spacing)
        self.notes: tuple[str, ...] = ()

    def answers(self, arrivals: Generator[Arrival, None, None]) -> Generator[Answer, None, None]:
        """The answers, in order; close it to stop.

        Raises `ModelError` if the engine fails, `ScanError` if it has no memory for even the narrowest windows.
        """
        return ahead(self._ordered(ahead(self._scored(arrivals))), WAITING)

    def _scored(self, arrivals: Generator[Arrival, None, None]) -> Generator[tuple[Arrival, Scored | None], None, None]:
        """Through the engine; B-scans that are none pass by."""
        with closing(arrivals):
            while group := list(islice(arrivals, self._together())):
                scored = self._run([each for each in group if each.frame is not None])
                for each in group:
                    yield each, None if each.frame is None else scored.pop(0)

    def _ordered(self, scored: Generator[tuple[Arrival, Scored | None], None, None]) -> Generator[Answer, None, None]:
        with closing(scored):
            yield from starmap(self._order, scored)  # which keeps no scores while it waits

    def _run(self, arrivals: list[Arrival]) -> list[Scored]:
        while True:
            try:
                return self._call(arrivals, self.how)
            except (OutOfMemory, MemoryError) as error:
                self._narrow(str(error))

    def _call(self, arrivals: list[Arrival], how: Plan) -> list[Scored]:
        """What the engine gives for B-scans, the windows of all of them together."""
        prepared = []
        for each in arrivals:
            with each.times.stage("tile"):
                assert each.frame is not None
                prepared.append(prepare(each.frame, how))
        if not prepared:
            return []
        with listening() as parts:
            windows = prepared[0].windows if len(prepared) == 1 else np.concatenate([each.windows for each in prepared])
            scores, labels = run(windows, self._engine, how)
        for each in arrivals:
            each.times.spans += parts
        count = len(prepared[0].windows)
        return [
            Scored(each, scores[first : first + count], labels[first : first + count])
            for each, first in zip(prepared, range(0, len(windows), count), strict=True)
        ]

    def _order(self, arrival: Arrival, scored: Scored | None) -> Answer:
        if scored is None or arrival.frame is None:
            return Answer(arrival.index, self._nothing(), arrival.times, fault=arrival.fault)
        tiling, rows = scored.prepared.tiling, scored.prepared.rows
        with arrival.times.stage("stitch"):
            scores = stitch(scored.scores, tiling)
            layers = order(scores, stitch(scored.labels, tiling), self.how.chain, rows)
        with arrival.times.stage("quality"):
            sure = certainty(scores, layers.labels, self._gauge)
            quality = frame_quality(arrival.frame, layers.labels, layers.surfaces, sure, self._gauge)
        found = None
        if self._temperature:
            with arrival.times.stage("deviation"):
                found = deviation(scores, self.how.chain, self._temperature) * np.float32(rows / scores.shape[1])
        return Answer(arrival.index, layers, arrival.times, arrival.frame, quality=quality, deviation=found)

    def _nothing(self) -> Layers:
        """Where there is no B-scan."""
        surfaces = (len(self._card.surfaces), self._size[1])
        return Layers(np.full(self._size, NOTHING, np.uint8), np.full(surfaces, np.nan, np.float32))

    def _together(self) -> int:
        """How many B-scans share a call."""
        tiling = self.how.tiling(*self._size)
        return max(1, min(self._batch, windows_per_call(tiling.height, tiling.window, self.how.pixels) // len(tiling.starts)))

    def _columns(self) -> int:
        """How many columns a call has at most."""
        tiling = self.how.tiling(*self._size)
        most = windows_per_call(tiling.height, tiling.window, self.how.pixels)
        return tiling.window * min(most, self._together() * len(tiling.starts))

    def _narrow(self, why: str) -> None:
        """Take calls of half as many columns from now on, or as near to that as the card's window allows."""
        before, pixels = self._columns(), self.how.pixels
        while self._columns() == before:
            pixels //= 2
            if not pixels:
                raise ScanError(f"the engine has no memory for {before} columns, and fewer cannot be taken ({why}); free memory")
            self.how = plan(self._card, self._size[0], self._spacing, pixels)
        self.notes = (f"the engine ran out of memory with {before} columns at a time: {self._columns()} were taken",)
