"""Live: B-scans in as they come, whole or a few columns at a time, and answers out as soon as they are ready.

    with model.stream(496, 768) as stream:
        stream.put(frame)
        answer = stream.get()

One thread may put while another one gets. Where answers are not taken, `put` waits: nothing is dropped, and memory is bounded.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from queue import Empty, SimpleQueue
from threading import Semaphore
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.edge.ledger import Times, listening, now
from octedge.edge.pipeline import Answer, Arrival, Pipeline
from octedge.errors import ScanError, UsageError
from octedge.flow import ahead, patiently
from octedge.geometry import resample_rows
from octedge.quality import Gauge, certainty, frame_quality
from octedge.scan import Frame, Spacing
from octedge.segment import Engine, Layers, order, plan

DEPTH = 4  # B-scans under way

Part = TypeVar("Part")


class _Live(ABC, Generic[Part]):
    """What comes and what goes: parts of B-scans of one size (H, W) in, answers out, `depth` B-scans under way at most."""

    def __init__(self, size: tuple[int, int], depth: int) -> None:
        if depth < 1:
            raise UsageError(f"depth {depth} given; needed is at least 1 B-scan under way")
        self._size, self._room = size, Semaphore(depth)
        self._parts: SimpleQueue[Part | None] = SimpleQueue()
        self._ready: SimpleQueue[Answer | None] = SimpleQueue()
        self._closed = self._left = False

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1)
        self._end = self._pool.submit(self._work)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._left = True
        self.close()
        self._pool.shutdown()

    def close(self) -> None:
        """Nothing more will be put; what is under way is still answered."""
        self._closed = True
        self._parts.put(None)

    def get(self, timeout: float | None = None) -> Answer:
        """The next answer, in the order of the B-scans.

        Raises `TimeoutError` if there is none after `timeout` s, `UsageError` if there will be none, and what went wrong on the way.
        """
        answer = self._next(timeout)
        if answer is None:
            raise UsageError("the stream is closed, and all answers were given")
        return answer

    def __iter__(self) -> Iterator[Answer]:
        """The answers, until the stream is closed and all are given."""
        while (answer := self._next()) is not None:
            yield answer

    def _next(self, timeout: float | None = None) -> Answer | None:
        found: list[Answer | None] = []

        def take(seconds: float) -> bool:
            with suppress(Empty):
                found.append(self._ready.get(timeout=seconds))
            return bool(found)

        if not patiently(take, timeout):
            raise TimeoutError(f"no answer within {timeout:g} s")
        if found[0] is None:
            self._ready.put(None)  # for whoever asks again
            self._end.result()
        else:
            self._room.release()
        return found[0]

    def _enter(self, timeout: float | None) -> None:
        """Wait until there is room for one more B-scan."""
        if not patiently(lambda seconds: self._room.acquire(timeout=seconds), timeout):
            raise TimeoutError(f"no room for another B-scan within {timeout:g} s; take answers, or drop it")
        if self._closed:
            self._room.release()  # for whoever else waits
            raise UsageError("the stream is closed or has failed, and takes nothing more; get() says what went wrong")

    def _work(self) -> None:
        try:
            with closing(self._answers()) as answers:
                for answer in answers:
                    self._ready.put(answer)
        finally:
            self._closed = True
            self._room.release()
            self._ready.put(None)

    def _arrived(self) -> Generator[Part, None, None]:
        """What was put, until the stream is closed or left."""
        while (part := self._parts.get()) is not None and not self._left:
            yield part

    @abstractmethod
    def _answers(self) -> Generator[Answer, None, None]:
        """The answers to what arrives."""


class Stream(_Live[tuple[int, Arrival]]):
    """B-scans uint8 (H, W) as they come."""

    def __init__(self, engine: Engine, card: ModelCard, size: tuple[int, int], spacing: Spacing = Spacing(), depth: int = DEPTH) -> None:
        super().__init__(size, depth)
        self._pipeline = Pipeline(engine, card, size, spacing)
        self._count = 0

    def put(self, frame: Frame, timeout: float | None = None) -> None:
        """Take in the next B-scan, as soon as there is room for it; its memory may be used for another one afterwards.

        Raises `TimeoutError` if there is none after `timeout` s, `ScanError` for another size, `UsageError` if the stream is closed.
        """
        came = now()
        _expect(frame, self._size)
        self._enter(timeout)
        self._parts.put((came, Arrival(self._count, Times(), frame.copy())))
        self._count += 1

    def _answers(self) -> Generator[Answer, None, None]:
        return self._pipeline.answers(self._received())

    def _received(self) -> Generator[Arrival, None, None]:
        for came, arrival in self._arrived():
            arrival.times.add("receive", came)
            yield arrival


@dataclass(frozen=True, slots=True)
class _Strip:
    """What the engine gave for window n of a B-scan: scores (C, P, V), labels (P, V)."""

    arrival: Arrival
    n: int
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]


class ColumnStream(_Live[tuple[int, NDArray[np.uint8]]]):
    """B-scans uint8 (H, W) of which columns come as they are scanned: a window is run as soon as its columns are there.

    Raises `UsageError` if the network is not exact: the windows are narrower than those of whole B-scans.
    """

    def __init__(self, engine: Engine, card: ModelCard, size: tuple[int, int], spacing: Spacing = Spacing(), depth: int = DEPTH) -> None:
        if not card.exact:
            raise UsageError(f"the answers of {card.id} depend on the windows, for it is not exact; put whole B-scans into a stream")
        super().__init__(size, depth)
        self._engine, self._chain, self._gauge = engine, card.chain, Gauge.of(card.structures, spacing)
        self._tiling = replace(plan(card, size[0], spacing), windowing=card.windowing).tiling(*size)
        self._missing = 0  # columns of the B-scan at hand
        self._count = 0

    def put(self, columns: NDArray[np.uint8], timeout: float | None = None) -> None:
        """Take in the next columns uint8 (H, any number); with the first of a B-scan, as soon as there is room for it.

        Raises `TimeoutError` if there is none after `timeout` s, `ScanError` for other rows or too many columns, `UsageError` if the
        stream is closed.
        """
        came, (rows, whole) = now(), self._size
        missing = self._missing or whole
        _expect(columns, (rows, min(max(columns.shape[-1], 1), missing)))
        if missing == whole:
            self._enter(timeout)
        self._missing = missing - columns.shape[1]
        self._parts.put((came, columns.copy()))

    def _answers(self) -> Generator[Answer, None, None]:
        """Each B-scan's strips ordered as they come, and put together."""
        (rows, _), tiling = self._size, self._tiling
        with closing(ahead(self._strips())) as strips:
            layers: list[Layers] = []
            sure: list[NDArray[np.float64]] = []
            for strip in strips:
                start = tiling.starts[strip.n]
                own = slice(tiling.owned[strip.n] - start, tiling.owned[strip.n + 1] - start)
                scores = strip.scores[:, : tiling.rows, own]
                with strip.arrival.times.stage("stitch"):
                    layers.append(order(scores, strip.labels[: tiling.rows, own], self._chain, rows))
                with strip.arrival.times.stage("quality"):
                    sure.append(certainty(scores, layers[-1].labels, self._gauge))
                if len(layers) == len(tiling.starts):
                    yield self._joined(strip.arrival, layers, np.concatenate(sure))
                    layers, sure = [], []

    def _joined(self, arrival: Arrival, layers: list[Layers], sure: NDArray[np.float64]) -> Answer:
        """A B-scan's answer from those of its strips, and the certainty (W,) of its columns."""
        assert arrival.frame is not None
        joined = Layers(np.hstack([each.labels for each in layers]), np.hstack([each.surfaces for each in layers]))
        with arrival.times.stage("quality"):
            quality = frame_quality(arrival.frame, joined.labels, joined.surfaces, sure, self._gauge)
        return Answer(arrival.index, joined, arrival.times, arrival.frame, quality=quality)

    def _strips(self) -> Generator[_Strip, None, None]:
        with closing(self._arrived()) as parts:
            for index in count():
                first = next(parts, None)
                if first is None:
                    return
                yield from self._windows(index, chain([first], parts))

    def _windows(self, index: int, parts: Iterator[tuple[int, NDArray[np.uint8]]]) -> Generator[_Strip, None, None]:
        """The windows of a B-scan through the engine, each as soon as its columns are there."""
        frame, tiling, there, n, begun = np.zeros(self._size, np.uint8), self._tiling, 0, 0, now()
        arrival = Arrival(index, Times(), frame)
        image = np.zeros((tiling.height, tiling.starts[-1] + tiling.window), np.uint8)
        for came, part in parts:
            begun = min(begun, came)
            last = there + part.shape[1]
            frame[:, there:last] = part
            image[: tiling.rows, there:last] = resample_rows(part, tiling.rows)
            there = last
            if there == self._size[1]:
                arrival.times.add("receive", begun)
            while n < len(tiling.starts) and min(tiling.starts[n] + tiling.window, self._size[1]) <= there:
                yield self._run(arrival, n, image[:, tiling.starts[n] : tiling.starts[n] + tiling.window])
                n += 1
            if n == len(tiling.starts):
                return
        if not self._left:
            raise ScanError(f"the stream was closed after {there} of {self._size[1]} columns of B-scan {index}; put all of them")

    def _run(self, arrival: Arrival, n: int, window: NDArray[np.uint8]) -> _Strip:
        with listening() as parts:
            scores, labels = self._engine(np.ascontiguousarray(window)[None, None])
        arrival.times.spans += parts
        return _Strip(arrival, n, scores[0], labels[0])


def _expect(frame: NDArray[np.uint8], size: tuple[int, int]) -> None:
    if frame.shape != size or frame.dtype != np.uint8:
        raise ScanError(f"{frame.dtype} {frame.shape} came; needed is uint8 {size}")
