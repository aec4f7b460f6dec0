"""How fast a model is on a machine, end to end and its engine alone: what is measured, under which rules, and how reports compare.

Measured is in rounds that take turns, so that a machine that grows slower on the way is slower for both. Every round begins with
some B-scans that do not count: a first call of a size allocates and compiles, and the stages have to fill.
"""

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path

import msgspec
import numpy as np

import octedge
from octedge.edge.bundle import Bundle
from octedge.edge.certificate import identify, read_certificate, self_certificate_file
from octedge.edge.gpu import gpus
from octedge.edge.ledger import Latency, Ledger, now
from octedge.edge.machine import cores, describe
from octedge.edge.model import Model
from octedge.edge.pace import WARM_UP, Pace
from octedge.edge.places import cache_folder, engines_folder
from octedge.edge.variant import FIRST, NamedEngine
from octedge.errors import UsageError
from octedge.scan import Frame, Spacing
from octedge.segment import plan, prepare, run

SCHEMA = 1
ROUNDS = 3
ENOUGH = 4  # B-scans a round needs for saying whether the machine is stable
DRIFT = 0.05  # from the first round to the last, of the median
SPREAD = 0.15  # between the quartiles, of the median


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where it was measured; nothing that names this one machine. `load` is how many processes ran or waited in the minute before."""

    kind: str
    cores: int
    gpus: tuple[str, ...]
    load: float | None
    octedge: str
    python: str
    numpy: str

    @property
    def software(self) -> tuple[str, str, str]:
        """Versions."""
        return self.octedge, self.python, self.numpy


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured: a model (`bundle` is its SHA-256), its engine, and the SHA-256 of the certificate that lets it serve.

    `certificate` is empty where the engine was checked when it was opened, and the machine has no place to keep that.
    """

    model: str
    bundle: str
    engine: str
    variant: str
    certificate: str


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The B-scans that went through: how many there are to repeat, their size, what their rows are scaled by, the size of their files.

    `pixels` is the beginning of a SHA-256 of the grey values, which tells whether two reports are about the same ones.
    """

    synthetic: bool
    frames: int
    rows: int
    columns: int
    factor: float
    bytes: int
    pixels: str


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """So many B-scans and how fast they went; `latency` of one in ms.

    `drift` is how much longer a B-scan took in the last round than in the first, `spread` the distance between the quartiles, both
    as shares of the median; `unstable` says why the figures are not to be trusted, and is empty where they are.
    """

    bscans: int
    bscans_per_second: float
    ascans_per_second: float
    latency: Latency
    drift: float
    spread: float
    unstable: str


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scan: from its file to the file of its result, by stages, and the engine alone. `once` are ms for the whole scan."""

    series: Series
    end_to_end: Measured
    stages: dict[str, Latency]
    once: dict[str, float]
    engine: Measured
    pace: Pace | None = None


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run of `octedge bench`; `memory_mb` is the most that the process has taken."""

    schema: int = SCHEMA
    date: str
    machine: Machine
    subject: Subject
    written: str
    rounds: int
    warm_up: int
    memory_mb: float
    cases: tuple[Case, ...]


def this_machine() -> Machine:
    """The one that this process runs on."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    named = tuple(f"{gpu.name}, driver {gpu.driver}" for gpu in gpus())
    return Machine(
        kind=describe(),
        cores=cores() or os.cpu_count() or 1,
        gpus=named,
        load=load,
        octedge=octedge.__version__,
        python=platform.python_version(),
        numpy=np.__version__,
    )


def subject_of(model: Model) -> Subject:
    """A model, by what its speed depends on."""
    variant, certificate = _certified(model.bundle, model.engine)
    return Subject(
        model=model.bundle.card.id, bundle=model.bundle.digest, engine=model.engine.name, variant=variant, certificate=certificate
    )


def _certified(bundle: Bundle, engine: NamedEngine) -> tuple[str, str]:
    """The engine's variant, and the SHA-256 of the certificate that holds for it."""
    identity = identify(bundle, FIRST, engine)
    files = sorted(engines_folder(bundle).glob("*.certificate.json"))
    with suppress(RuntimeError):  # no home folder: nothing is kept there
        files.append(self_certificate_file(cache_folder(), identity))
    for file in files:
        kept = read_certificate(file)
        if kept is not None and kept.identity == msgspec.structs.replace(identity, variant=kept.identity.variant):
            return kept.identity.variant, sha256(file.read_bytes()).hexdigest()
    return str(FIRST), ""  # any other serves with a kept one only


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()


def fingerprint(frames: Iterable[Frame]) -> str:
    """The same for the same grey values; they cannot be had back from it."""
    digest = sha256()
    for frame in frames:
        digest.update(repr(frame.shape).encode() + frame.tobytes())
    return digest.hexdigest()[:16]


def engine_alone(model: Model, frames: Sequence[Frame], spacing: Spacing, count: int) -> list[float]:
    """The ms of the engine for each of `count` B-scans, after some that do not count; their windows are ready before."""
    how = plan(model.bundle.card, len(frames[0]), spacing)
    windows = [prepare(frame, how).windows for frame in frames]
    ms = []
    for index in range(WARM_UP + count):
        begun = now()
        run(windows[index % len(windows)], model.engine, how)
        ms.append((now() - begun) / 1e6)
    return ms[WARM_UP:]


def of_engine(rounds: Sequence[Sequence[float]], columns: int) -> Measured:
    """From the ms of its calls, round by round."""
    return _measured(rounds, list(chain(*rounds)), columns)


def of_ledgers(rounds: Sequence[Ledger]) -> tuple[Measured, dict[str, Latency], dict[str, float]]:
    """From the ledgers of rounds: B-scans from end to end, by stage, and what is done once for all of them (medians)."""
    counted = msgspec.structs.replace(rounds[0], bscans=tuple(each for ledger in rounds for each in ledger.bscans[WARM_UP:]))
    steps = [_steps(ledger) for ledger in rounds]
    whole = [{span.stage: (span.end - span.start) / 1e6 for span in ledger.whole} for ledger in rounds]
    once = {stage: round(float(np.median([each[stage] for each in whole])), 3) for stage in whole[0]}
    latency = [bscan.end_to_end for bscan in counted.bscans]
    return _measured(steps, latency, rounds[0].columns), counted.summary().stages, once


def _steps(ledger: Ledger) -> list[float]:
    """The ms from one answer to the next, from the last one that does not count on."""
    ends = [max(span.end for span in bscan.spans) / 1e6 for bscan in ledger.bscans]
    return [later - earlier for earlier, later in pairwise(ends[WARM_UP - 1 :])]


def _measured(rounds: Sequence[Sequence[float]], latency: Sequence[float], columns: int) -> Measured:
    """From the ms that every B-scan took away from the others, and those it was under way itself."""
    every = np.array(list(chain(*rounds)))
    per_second = 1000 * len(every) / float(every.sum())
    low, middle, high = np.percentile(every, (25, 50, 75))
    drift, spread = float(np.median(rounds[-1]) / np.median(rounds[0]) - 1), float((high - low) / middle)
    return Measured(
        bscans=len(every),
        bscans_per_second=round(per_second, 2),
        ascans_per_second=round(per_second * columns, 1),
        latency=Latency.of(latency),
        drift=round(drift, 4),
        spread=round(spread, 4),
        unstable=unsteady(min(map(len, rounds)), drift, spread),
    )


def unsteady(fewest: int, drift: float, spread: float) -> str:
    """Why figures are not to be trusted: from the B-scans of the shortest round, the drift and the spread; empty if they are."""
    faults = []
    if fewest < ENOUGH:
        faults.append(f"{fewest} B-scans a round are too few to say; {ENOUGH} are needed")
    if abs(drift) > DRIFT:
        faults.append(f"the last round was {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first; {DRIFT:.0%} may be")
    if spread > SPREAD:
        faults.append(f"half of the B-scans lie {spread:.0%} apart; {SPREAD:.0%} may be")
    return "; ".join(faults)


def memory_mb() -> float:
    """The most memory that this process has had in use so far, in MB."""
    if sys.platform == "win32":
        import ctypes

        class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS; the first of the sizes is PeakWorkingSetSize
            _fields_ = (("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("sizes", ctypes.c_size_t * 8))

        counters, kernel = Counters(ctypes.sizeof(Counters)), ctypes.WinDLL("kernel32")
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo(ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.cb)
        most = counters.sizes[0]
    else:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return round(most / 1e6, 1)


def read_report(path: Path) -> Report:
    """A report kept as JSON. Raises `UsageError` if there is none in the file."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no report of octedge bench ({error}); octedge bench --json FILE writes one") from error
    if report.schema != SCHEMA:
        raise UsageError(f"{path}: has schema {report.schema}, this octedge reads schema {SCHEMA}; measure anew")
    return report


def differences(one: Report, other: Report) -> dict[str, tuple[str, str]]:
    """What the speed depends on and two reports do not share, each with both values."""
    kinds = {
        "machine": [f"{r.machine.kind}, {r.machine.cores} cores{''.join(f', {gpu}' for gpu in r.machine.gpus)}" for r in (one, other)],
        "software": ["octedge {}, Python {}, numpy {}".format(*r.machine.software) for r in (one, other)],
        "model": [f"{r.subject.model} ({r.subject.bundle[:12]})" for r in (one, other)],
        "engine": [f"{r.subject.variant}, {r.subject.engine}" for r in (one, other)],
        "scans": [", ".join(f"{c.series.rows} x {c.series.columns} ({c.series.pixels})" for c in r.cases) for r in (one, other)],
        "results": [r.written for r in (one, other)],
    }
    return {name: (mine, theirs) for name, (mine, theirs) in kinds.items() if mine != theirs}


def verdict(different: dict[str, tuple[str, str]]) -> tuple[bool, str]:
    """Whether ratios mean something, and what: at most one thing may differ, and neither the scans nor what is written of them."""
    if not different:
        return True, "nothing differs: the ratios are what two runs of the same differ by"
    if len(different) == 1 and different.keys().isdisjoint(("scans", "results")):
        return True, f"the {next(iter(different))} differs and nothing else: the ratios are due to it"
    return False, f"the comparison means nothing, for these differ: {', '.join(different)}"
