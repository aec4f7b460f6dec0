"""Latency, written down: when each stage had each B-scan, by a clock that only goes forward, and what comes of it.

Stages, where an engine or a run has them: receive, decode, tile, copy, engine, copy back, stitch, quality, deviation, encode, write.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec
import numpy as np

import octedge
from octedge.edge.machine import describe

SCHEMA = 1
STAGES = ("receive", "decode", "tile", "copy", "engine", "copy back", "stitch", "quality", "deviation", "encode", "write")
PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "p99.9": 99.9, "max": 100}

now = time.perf_counter_ns  # whoever sets the machine's clock changes nothing


class Span(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stage at work on a B-scan, from `start` to `end` in ns."""

    stage: str
    start: int
    end: int


class Times:
    """The spans of one B-scan; it goes with the B-scan from stage to stage."""

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, stage: str, start: int) -> None:
        """A span of the stage, from `start` (`now`) until now."""
        self.spans.append(Span(stage, start, now()))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span of the stage: what happens inside the `with`."""
        start = now()
        try:
            yield
        finally:
            self.add(name, start)


_PARTS: ContextVar[list[Span] | None] = ContextVar("_PARTS", default=None)


def note(stage: str, start: int, end: int) -> None:
    """For an engine that knows the parts of a call: one of them, in ns of `time.perf_counter_ns`; nobody need be listening."""
    parts = _PARTS.get()
    if parts is not None:
        parts.append(Span(stage, start, end))


@contextmanager
def listening() -> Iterator[list[Span]]:
    """Call an engine inside: what it has noted; the whole as stage "engine" if it has noted nothing."""
    parts: list[Span] = []
    token, start = _PARTS.set(parts), now()
    try:
        yield parts
    finally:
        _PARTS.reset(token)
        if not parts:
            parts.append(Span("engine", start, now()))


class BScan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The spans of B-scan `index`."""

    index: int
    spans: tuple[Span, ...]

    def ms(self, stage: str) -> float | None:
        """How long the stage took; None if the B-scan had no such stage."""
        found = [span.end - span.start for span in self.spans if span.stage == stage]
        return sum(found) / 1e6 if found else None

    @property
    def end_to_end(self) -> float:
        """From the first stage's start to the last one's end, in ms."""
        return (max(span.end for span in self.spans) - min(span.start for span in self.spans)) / 1e6


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Percentiles of ms; each is one that occurred."""

    p50: float
    p95: float
    p99: float
    p99_9: float = msgspec.field(name="p99.9")
    max: float

    @classmethod
    def of(cls, ms: Iterable[float]) -> "Latency":
        """The nearest ranks."""
        found = np.percentile(np.fromiter(ms, float), list(PERCENTILES.values()), method="inverted_cdf")
        return cls(*(round(float(value), 3) for value in found))


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latencies by stage and from end to end, and B-scans per second."""

    bscans: int
    per_second: float
    stages: dict[str, Latency]
    end_to_end: Latency

    def table(self) -> str:
        """For people: a line per stage, in ms."""
        lines = [("ms", *PERCENTILES)]
        for name, row in (*self.stages.items(), ("end to end", self.end_to_end)):
            lines.append((name, *(f"{value:.2f}" for value in msgspec.structs.astuple(row))))
        return "\n".join(f"{name:<12}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in lines)


class Ledger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When each stage had each B-scan that was answered, in ns since the first span; `whole` is what was done once for all of them."""

    schema: int = SCHEMA
    model: str
    engine: str
    machine: str
    octedge: str = octedge.__version__
    rows: int
    columns: int
    whole: tuple[Span, ...]
    bscans: tuple[BScan, ...]

    def summary(self) -> Summary:
        """Percentiles by stage and from end to end; there must be a B-scan."""
        stages = {}
        for stage in sorted({span.stage for bscan in self.bscans for span in bscan.spans}, key=place):
            stages[stage] = Latency.of(ms for bscan in self.bscans if (ms := bscan.ms(stage)) is not None)
        return Summary(
            len(self.bscans),
            round(len(self.bscans) / self.wall, 2),
            stages,
            Latency.of(bscan.end_to_end for bscan in self.bscans),
        )

    @property
    def spans(self) -> Iterator[Span]:
        """All of them."""
        yield from self.whole
        for bscan in self.bscans:
            yield from bscan.spans

    @property
    def wall(self) -> float:
        """Seconds from the first span's start to the last one's end."""
        return max((span.end for span in self.spans), default=0) / 1e9

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, all B-scans together; stages run at the same time, so the sum may be more than `wall`."""
        found: dict[str, int] = {}
        for span in self.spans:
            found[span.stage] = found.get(span.stage, 0) + span.end - span.start
        return {stage: found[stage] / 1e9 for stage in sorted(found, key=place)}


def make_ledger(model: str, engine: str, size: tuple[int, int], bscans: Mapping[int, Times], whole: Times) -> Ledger:
    """The ledger of B-scans of a size (H, W), by their number."""
    every = [whole.spans, *(times.spans for times in bscans.values())]
    origin = min((span.start for spans in every for span in spans), default=0)

    def since(times: Times) -> tuple[Span, ...]:
        return tuple(Span(span.stage, span.start - origin, span.end - origin) for span in sorted(times.spans, key=lambda span: span.start))

    return Ledger(
        model=model,
        engine=engine,
        machine=describe(),
        rows=size[0],
        columns=size[1],
        whole=since(whole),
        bscans=tuple(BScan(index, since(times)) for index, times in sorted(bscans.items())),
    )


def place(stage: str) -> tuple[int, str]:
    """In the order of the stages, then others by name."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)
