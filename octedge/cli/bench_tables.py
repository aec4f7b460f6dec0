"""A report of `octedge bench` as text, and two of them beside each other."""

from collections.abc import Iterator

import msgspec

from octedge.edge.bench import Case, Measured, Report, differences, verdict
from octedge.edge.ledger import PERCENTILES, Latency
from octedge.edge.pace import ALLOWED, Pace

WIDE = 16  # of the first column


def tables(report: Report) -> str:
    """For people: what was measured where, by which rules, and what came of it."""
    machine, subject = report.machine, report.subject
    certificate = f"certificate {subject.certificate[:12]}" if subject.certificate else "checked when it was opened"
    load = "" if machine.load is None else f", load {machine.load:g} before"
    gpus = "".join(f", {gpu}" for gpu in machine.gpus)
    lines = [
        f"octedge {machine.octedge} bench, {report.date}; research use only",
        f"machine: {machine.kind}, {machine.cores} cores{gpus}{load}; Python {machine.python}, numpy {machine.numpy}",
        f"model: {subject.model}, bundle {subject.bundle[:12]}",
        f"engine: {subject.variant}: {subject.engine}, {certificate}",
    ]
    for number, case in enumerate(report.cases, 1):
        lines += _case(report, number, case)
    return "\n".join((*lines, "", f"memory: {report.memory_mb:.0f} MB at most"))


def _case(report: Report, number: int, case: Case) -> Iterator[str]:
    series, each = case.series, case.engine.bscans // report.rounds
    source = "a phantom" if series.synthetic else "the file given"
    scaled = "" if series.factor == 1 else f", rows scaled by {series.factor:.2f}"
    yield ""
    yield f"scan {number}: {series.rows} x {series.columns}, {series.frames} B-scans, {series.bytes / 1e6:.1f} MB, {source}{scaled}"
    yield f"{report.rounds} rounds of {each} B-scans end to end, then {each} of the engine alone; the first {report.warm_up} of each do not"
    yield "count: a first call allocates and compiles, and the stages have to fill. End to end is from the file to its result"
    yield f"({report.written}); several B-scans are under way at a time, each for longer than the next one takes to follow."
    if case.engine.bscans < ALLOWED:
        yield f"Percentiles are latencies that occurred; of {case.engine.bscans}, p99.9 is the longest."
    yield ""
    yield from latencies({**case.stages, "end to end": case.end_to_end.latency, "engine alone": case.engine.latency})
    yield "once a scan, ms: " + ", ".join(f"{stage} {ms:.1f}" for stage, ms in case.once.items())
    yield ""
    yield _row("", "B-scans/s", "A-scans/s", "drift", "spread")
    for name, found in (("end to end", case.end_to_end), ("engine alone", case.engine)):
        drift, spread = f"{found.drift:+.1%}", f"{found.spread:.1%}"
        yield _row(name, f"{found.bscans_per_second:.2f}", f"{found.ascans_per_second:.0f}", drift, spread)
    for name, found in (("end to end", case.end_to_end), ("engine alone", case.engine)):
        yield f"{name}: " + (f"not stable: {found.unstable}" if found.unstable else "stable")
    if case.pace:
        yield from _pace(case.pace)


def _pace(pace: Pace) -> Iterator[str]:
    yield ""
    yield f"pace: {pace.a_rate:g} A-scans/s, {pace.a_per_b} per B-scan: a B-scan every {pace.period_ms:.2f} ms, for {pace.seconds:g} s"
    yield f"rule: an answer comes within {pace.deadline_ms:g} ms after its B-scan was due; at most 1 in {ALLOWED} may miss that"
    yield ""
    yield from latencies({**pace.stages, "lag": pace.lag})
    unanswered = f", {pace.due - pace.answered} of them never handed over for want of room" if pace.answered < pace.due else ""
    yield f"due: {pace.due} B-scans; misses: {pace.misses}{unanswered}"
    full = f"{pace.sustained:.2f} B-scans/s at full speed, {pace.needed:.2f} needed"
    yield f"{'keeps up' if pace.keeps_up else 'does not keep up'}: headroom {pace.headroom:.2f} ({full})"


def latencies(rows: dict[str, Latency]) -> Iterator[str]:
    """A line per stage, in ms."""
    yield _row("ms", *PERCENTILES)
    for name, latency in rows.items():
        yield _row(name, *(f"{value:.2f}" for value in msgspec.structs.astuple(latency)))


def _row(name: str, *cells: str) -> str:
    return f"{name:<{WIDE}}" + "".join(f"{cell:>12}" for cell in cells)


def comparison(one: Report, other: Report) -> tuple[bool, str]:
    """Whether two reports can be compared, and how they do."""
    different = differences(one, other)
    meaningful, words = verdict(different)
    lines = [f"{name}: {mine}  |  {theirs}" for name, (mine, theirs) in different.items()]
    for number, (a, b) in enumerate(zip(one.cases, other.cases, strict=False), 1):
        lines += ["", _row(f"scan {number}", "A", "B", "B / A"), *_compared(a, b)]
    return meaningful, "\n".join((*lines, "", words))


def _compared(a: Case, b: Case) -> Iterator[str]:
    for name, mine, theirs in (("end to end", a.end_to_end, b.end_to_end), ("engine", a.engine, b.engine)):
        yield _ratio(f"{name}, 1/s", mine.bscans_per_second, theirs.bscans_per_second) + _doubt(mine, theirs)
        for percentile, x, y in zip(PERCENTILES, *map(msgspec.structs.astuple, (mine.latency, theirs.latency)), strict=True):
            yield _ratio(f"  {percentile}, ms", x, y)
    for stage in [stage for stage in a.stages if stage in b.stages]:
        yield _ratio(f"{stage} p50, ms", a.stages[stage].p50, b.stages[stage].p50)
    if a.pace and b.pace and a.pace.rule == b.pace.rule:
        yield _ratio("lag p99, ms", a.pace.lag.p99, b.pace.lag.p99)
        yield _ratio("headroom", a.pace.headroom, b.pace.headroom)


def _ratio(name: str, a: float, b: float) -> str:
    return _row(name, f"{a:.2f}", f"{b:.2f}", f"{b / a:.3f}" if a else "-")


def _doubt(a: Measured, b: Measured) -> str:
    """What takes away from a ratio: a machine that was not stable, or a difference as small as the spread."""
    unstable = [name for name, found in (("A", a), ("B", b)) if found.unstable]
    if unstable:
        return f"  ({' and '.join(unstable)} not stable)"
    within = max(a.spread, b.spread, abs(a.drift), abs(b.drift))
    return "  (within the spread)" if abs(b.bscans_per_second / a.bscans_per_second - 1) <= within else ""
