"""A device's pace: B-scans handed over when a device would have them, and whether the answers keep up.

B-scan k is due at k x A-scans per B-scan / A-scan rate, counted from the first one by a clock that only goes forward: being late
once moves none of the later ones. Nothing is dropped; where the stream has no room, handing over waits, and the lag grows.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from math import inf
from threading import Event

import msgspec

from octedge.edge.ledger import BScan, Latency, Times, now, place
from octedge.edge.model import Model
from octedge.edge.stream import DEPTH, Stream
from octedge.errors import UsageError
from octedge.scan import Frame, Spacing

WARM_UP = 3  # B-scans before the first one that counts: the first call of a size allocates and compiles
FULL_SPEED = 16  # B-scans at full speed, at least
ALLOWED = 1000  # one B-scan in so many may miss its deadline


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A device that scans `a_rate` A-scans a second, `a_per_b` for each B-scan, for `seconds`."""

    a_rate: float
    a_per_b: int
    seconds: float

    def __post_init__(self) -> None:
        if not (0 < self.a_rate < inf and self.a_per_b > 0 and 0 < self.seconds < inf):
            given = f"{self.a_rate:g} A-scans/s, {self.a_per_b} per B-scan, for {self.seconds:g} s"
            raise UsageError(f"{given}: no pace; needed are finite numbers above 0")

    def due(self, k: int) -> int:
        """When B-scan k is handed over, in ns after the first one.

        >>> Rhythm(100_000, 512, 60).due(1000)
        5120000000
        """
        return round(k * self.a_per_b / self.a_rate * 1e9)

    @property
    def bscans(self) -> int:
        """How many are due before the end."""
        return next(k for k in count(int(self.seconds * self.per_second)) if self.due(k) >= self.seconds * 1e9)

    @property
    def per_second(self) -> float:
        """B-scans per second."""
        return self.a_rate / self.a_per_b

    @property
    def period_ms(self) -> float:
        """From one B-scan to the next."""
        return 1000 / self.per_second


class Pace(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a model kept up with a device.

    `lag` is from when a B-scan was due to its answer, in ms, of those that were answered; when the time is over, those that found no
    room are not handed over any more. `misses` are later than `deadline_ms`, or have no answer. `sustained` is what goes through at
    full speed, in B-scans per second, `headroom` that by what is needed.
    """

    a_rate: float
    a_per_b: int
    seconds: float
    period_ms: float
    deadline_ms: float
    under_way: int
    due: int
    answered: int
    misses: int
    lag: Latency
    stages: dict[str, Latency]
    needed: float
    sustained: float
    headroom: float

    @property
    def keeps_up(self) -> bool:
        """At most one B-scan in a thousand may miss its deadline; of fewer than a thousand, none."""
        return self.misses <= self.due // ALLOWED

    @property
    def rule(self) -> str:
        """What was asked for."""
        return f"{self.a_rate:g} A-scans/s, {self.a_per_b} per B-scan, answers within {self.deadline_ms:g} ms"


def replay(model: Model, frames: Sequence[Frame], spacing: Spacing, rhythm: Rhythm, deadline_ms: float | None = None) -> Pace:
    """Hand B-scans uint8 (H, W), over and over, to a stream of the model: first as fast as it takes them, then at the device's pace.

    Without a deadline it is one period for each B-scan that may be under way. Raises what the engine raises.
    """
    rows, columns = frames[0].shape
    if rhythm.a_per_b < columns:
        raise UsageError(f"{rhythm.a_per_b} A-scans per B-scan given; a B-scan of {columns} columns has at least as many")
    deadline = rhythm.period_ms * DEPTH if deadline_ms is None else deadline_ms
    sustained = full_speed(model, frames, spacing)
    paced = _feed(model.stream(rows, columns, spacing), _Device(frames, rhythm.bscans, rhythm.due, round(rhythm.seconds * 1e9)))
    return Pace(
        a_rate=rhythm.a_rate,
        a_per_b=rhythm.a_per_b,
        seconds=rhythm.seconds,
        period_ms=round(rhythm.period_ms, 3),
        deadline_ms=round(deadline, 3),
        under_way=DEPTH,
        due=rhythm.bscans,
        answered=len(paced.lags),
        misses=rhythm.bscans - sum(lag <= deadline for lag in paced.lags),
        lag=Latency.of(paced.lags),
        stages={stage: Latency.of(paced.stages[stage]) for stage in sorted(paced.stages, key=place)},
        needed=round(rhythm.per_second, 2),
        sustained=round(sustained, 2),
        headroom=round(sustained / rhythm.per_second, 3),
    )


def full_speed(model: Model, frames: Sequence[Frame], spacing: Spacing = Spacing()) -> float:
    """B-scans per second that go through a stream of the model when there is always another one."""
    few = max(len(frames), FULL_SPEED)
    rows, columns = frames[0].shape
    found = _feed(model.stream(rows, columns, spacing), _Device(frames, few))
    return 1000 * (few - 1) / (found.lags[-1] - found.lags[0])


@dataclass(frozen=True, slots=True)
class _Device:
    """Hands over `bscans` of its frames, over and over, each when it is `due`, until `end`; in ns after the first."""

    frames: Sequence[Frame]
    bscans: int
    due: Callable[[int], int] = lambda k: 0
    end: int | None = None

    def scan(self, stream: Stream, begun: int, stopped: Event) -> None:
        """Until all are handed over, the time is over, or nobody wants more."""
        try:
            for k in range(self.bscans):
                if stopped.wait(max(0.0, (begun + self.due(k) - now()) / 1e9)):
                    return
                left = None if self.end is None else max(0.0, (begun + self.end - now()) / 1e9)
                stream.put(self.frames[k % len(self.frames)], left)
        except TimeoutError:
            return  # the time is over, and there was no room
        finally:
            stream.close()


class _Answered:
    """The ms of B-scans, in their order: from when each was due to its answer, and by stage. Eight bytes each: a run may take hours."""

    def __init__(self) -> None:
        self.lags = array("d")
        self.stages: dict[str, array[float]] = defaultdict(lambda: array("d"))

    def add(self, lag: int, times: Times) -> None:
        """One more, its lag in ns."""
        self.lags.append(lag / 1e6)
        bscan = BScan(0, tuple(times.spans))
        for stage in {span.stage for span in times.spans}:
            self.stages[stage].append(bscan.ms(stage) or 0.0)


def _feed(stream: Stream, device: _Device) -> _Answered:
    """What comes of a device's B-scans in a stream, after some that do not count."""
    answered, stopped = _Answered(), Event()
    with ThreadPoolExecutor(1) as hands, stream:
        try:
            for _ in range(WARM_UP):
                stream.put(device.frames[0])
                stream.get()
            begun = now()
            handing = hands.submit(device.scan, stream, begun, stopped)
            for index, answer in enumerate(stream):
                answered.add(now() - begun - device.due(index), answer.times)
            handing.result()
        finally:
            stopped.set()
    return answered
