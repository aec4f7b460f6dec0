"""`octedge bench`."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import msgspec

from octedge.batch import Job, Options, run_one
from octedge.card import ModelCard
from octedge.cli.bench_tables import comparison, tables
from octedge.cli.console import complain, say, say_json
from octedge.edge import bench as measure
from octedge.edge.engine import BACKENDS
from octedge.edge.ledger import Ledger
from octedge.edge.model import Model, open_model
from octedge.edge.pace import WARM_UP, Pace, Rhythm, replay
from octedge.errors import ScanError, UsageError
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import Source, find
from octedge.results.files import write_json
from octedge.scan import Frame, Scan
from octedge.segment import plan

FORMATS = ("npz",)
VOLUME = 16  # B-scans of the synthetic volume, and that are held in memory; more are had by repetition
WIDTH_MM = 6.0


@dataclass(frozen=True, slots=True)
class _Repeated(Source):
    """A source with another number of B-scans: its own ones, over and over."""

    bscans: int = 1

    def read(self) -> Scan:
        scan = Source.read(self)
        return replace(scan, frames=self.bscans, decode=lambda index: scan.decode(index % scan.frames))


@dataclass(frozen=True, slots=True)
class _Wish:
    """How many B-scans are measured, and at which pace they come, if at any: A-scans per second and per B-scan, s, ms."""

    frames: int
    a_rate: float | None
    a_per_b: int | None
    duration: float
    deadline_ms: float | None

    def __post_init__(self) -> None:
        if self.a_rate is None and (self.a_per_b or self.deadline_ms):
            raise UsageError("--a-per-b and --deadline-ms are about a device's pace; give that with --a-rate")

    @property
    def a_round(self) -> int:
        """How many of the B-scans a round has."""
        return -(-self.frames // measure.ROUNDS)


def _size(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """ROWSxCOLUMNS -> both."""
    found = re.fullmatch(r"(\d{2,4})x(\d{2,5})", value)
    if not found or int(found[1]) < 32 or int(found[2]) < 32:
        raise click.BadParameter(f"{value!r} is no size; needed are rows x columns, 32 or more of each, as 1024x512", ctx, param)
    return int(found[1]), int(found[2])


@click.command()
@click.argument("inputs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A model bundle's folder [default: the shipped reference].")
@click.option(
    "--engine",
    metavar="NAME",
    default="auto",
    show_default=True,
    help=f"What runs the network: auto, {', '.join(BACKENDS)}, or one of these with a precision, as rtx-fp16.",
)
@click.option("--size", callback=_size, default="1024x512", show_default=True, help="Rows x columns of the synthetic scan.")
@click.option("--frames", type=click.IntRange(1, 1_000_000), default=30, show_default=True, help="B-scans measured of each scan.")
@click.option("--a-rate", type=click.FloatRange(100, 1e8), help="A-scans per second: also replay the scan at this pace.")
@click.option("--a-per-b", type=click.IntRange(1, 1_000_000), help="A-scans per B-scan [default: the scan's columns].")
@click.option("--duration", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True, help="Seconds at that pace.")
@click.option(
    "--deadline-ms", type=click.FloatRange(0.01, 1e6), help="How late an answer may be [default: a B-scan's period x B-scans under way]."
)
@click.option("--json", "to", metavar="FILE|-", help="Write the report as JSON, to a file or on stdout.")
@click.option("--compare", nargs=2, type=click.Path(path_type=Path), metavar="A B", help="Compare two such files instead of measuring.")
@click.pass_context
def bench(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    /,
    inputs: tuple[Path, ...],
    bundle: Path | None,
    engine: str,
    size: tuple[int, int],
    to: str | None,
    compare: tuple[Path, Path] | None,
    **wish: float | None,
) -> None:
    """Say how fast a model is on this machine, from a scan's file to its result's file, and its engine alone.

    INPUTS are scans as for segment; without any, a synthetic volume is written and read. With --a-rate B-scans also come at a
    device's pace, and it is said whether the answers keep up. Ends with 0; with 1 if a scan is refused, the answers do not keep
    up, or a comparison means nothing; 2 on a wrong call, 3 if the model or its engine cannot be used.
    """
    if compare and inputs:
        raise UsageError("--compare is about two reports; give it without INPUTS")
    if compare:
        meaningful, text = comparison(*map(measure.read_report, compare))
        say_all(text)
        ctx.exit(0 if meaningful else 1)
    wanted = _Wish(**wish)  # type: ignore[arg-type]
    report = _measure(inputs, open_model(bundle, engine, complain), size, wanted)
    say_all(tables(report), beside=to == "-")
    if to == "-":
        say_json(report)
    elif to is not None:
        write_json(Path(to), report)
    ctx.exit(0 if all(case.pace is None or case.pace.keeps_up for case in report.cases) else 1)


def say_all(text: str, beside: bool = False) -> None:
    """Several lines, `beside` what was asked for or as that."""
    for line in text.splitlines():
        (complain if beside else say)(line)


def _measure(inputs: tuple[Path, ...], model: Model, size: tuple[int, int], wish: _Wish) -> measure.Report:
    machine = measure.this_machine()
    with TemporaryDirectory(prefix="octedge-") as made:
        folder = Path(made)
        sources = find(inputs) if inputs else [_synthetic(folder / "phantom.dcm", size, model.bundle.card)]
        cases = tuple(_case(source, Job(model, folder, Options(FORMATS, ledger=True)), wish, not inputs) for source in sources)
    return measure.Report(
        date=measure.today(),
        machine=machine,
        subject=measure.subject_of(model),
        written=", ".join(FORMATS),
        rounds=measure.ROUNDS,
        warm_up=WARM_UP,
        memory_mb=measure.memory_mb(),
        cases=cases,
    )


def _synthetic(path: Path, size: tuple[int, int], card: ModelCard) -> Source:
    """A phantom as DICOM whose rows the model takes as they are."""
    rows, columns = size
    look = replace(LOOKS["spectralis"], rows=rows, columns=columns, axial_um=card.axial_um[1], lateral_um=1000 * WIDTH_MM / columns)
    write_dicom(Phantom(look, VOLUME, 1), path)
    return Source((path,), path.stem)


def _case(source: Source, job: Job, wish: _Wish, synthetic: bool) -> measure.Case:
    """One scan measured. Raises `ScanError` if it cannot be read, or not all of it."""
    scan, model = source.read(), job.model
    repeated = _Repeated(source.paths, source.name, WARM_UP + wish.a_round)
    frames = [scan.frame(index) for index in range(min(scan.frames, VOLUME))]
    pace = _pace(scan, frames, model, wish) if wish.a_rate else None
    ledgers, alone = [], []
    for _ in range(measure.ROUNDS):
        ledgers.append(_pass(repeated, job))
        alone.append(measure.engine_alone(model, frames, scan.spacing, wish.a_round))
    end_to_end, stages, once = measure.of_ledgers(ledgers)
    return measure.Case(
        series=_series(scan, source, model, synthetic),
        end_to_end=end_to_end,
        stages=stages,
        once=once,
        engine=measure.of_engine(alone, scan.columns),
        pace=pace,
    )


def _pass(source: Source, job: Job) -> Ledger:
    """The scan once through all that `segment` does."""
    outcome = run_one(source, job)
    if outcome.status != "done":
        raise ScanError(outcome.error or f"{outcome.name}: {'; '.join(outcome.notes)}")
    kept = next(name for name in outcome.outputs if name.endswith(".ledger.json"))
    return msgspec.json.decode((job.out / kept).read_bytes(), type=Ledger)


def _series(scan: Scan, source: Source, model: Model, synthetic: bool) -> measure.Series:
    return measure.Series(
        synthetic=synthetic,
        frames=scan.frames,
        rows=scan.rows,
        columns=scan.columns,
        factor=round(plan(model.bundle.card, scan.rows, scan.spacing).factor, 4),
        bytes=sum(path.stat().st_size for path in source.paths),
        pixels=measure.fingerprint(scan),
    )


def _pace(scan: Scan, frames: list[Frame], model: Model, wish: _Wish) -> Pace:
    rhythm = Rhythm(wish.a_rate or 0.0, wish.a_per_b or scan.columns, wish.duration)
    return replay(model, frames, scan.spacing, rhythm, wish.deadline_ms)
