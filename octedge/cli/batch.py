"""The run over many scans that `segment` and `demo` share: read, segment, write; a refused scan does not stop the others."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import msgspec

from octedge.cli.console import Progress
from octedge.edge.ledger import now
from octedge.edge.model import Model, Run
from octedge.edge.pipeline import Answer
from octedge.errors import ScanError, UsageError
from octedge.flow import ahead
from octedge.readers import Source
from octedge.results.files import make_folder, write_atomic, write_bytes, write_json
from octedge.results.npz import write_npz_by_frame
from octedge.results.overlay import View, write_overlay
from octedge.scan import Frame, Scan, Spacing
from octedge.segment import About, Layers

FORMATS = ("npz", "overlay")
COMING = ("seg", "heightmap", "sr", "report")
# What is told of a scan -> the ledger's stages it is the sum of.
STAGES = {
    "read": ("receive", "decode"),
    "engine": ("tile", "copy", "engine", "copy back"),
    "order": ("stitch",),
    "write": ("encode", "write"),
}


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A scan's spacing as JSON says it: um, None where unknown, and where it came from."""

    axial_um: float | None
    lateral_um: float | None
    between_um: float | None
    source: str

    @classmethod
    def of(cls, spacing: Spacing) -> "Scale":
        """From mm."""
        axial, lateral, between = (None if mm is None else round(mm * 1000, 6) for mm in (spacing.axial, spacing.lateral, spacing.between))
        return cls(axial_um=axial, lateral_um=lateral, between_um=between, source=spacing.source)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one scan: the JSON line of `segment`.

    `outputs` are relative to --out; `failed` says of B-scans that could not be decoded why; `seconds` are by stage, and stages run
    at the same time; `ms_per_bscan` is what one has waited for.
    """

    name: str
    status: str  # "done", "partial" (some B-scans failed) or "refused"
    error: str | None = None
    frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    outputs: tuple[str, ...] = ()
    spacing: Scale | None = None
    factor: float | None = None
    model: str | None = None
    engine: str | None = None
    notes: tuple[str, ...] = ()
    failed: dict[int, str] = {}
    seconds: dict[str, float] = {}
    ms_per_bscan: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every scan: the model, where results go, in which formats, the scale the user gave, and whether to keep the times."""

    model: Model
    out: Path
    formats: tuple[str, ...] = FORMATS
    axial_um: float | None = None
    lateral_um: float | None = None
    ledger: bool = False
    inputs: frozenset[tuple[int, int]] = field(default=frozenset(), repr=False)  # what must not be overwritten


def identities(sources: Iterable[Source]) -> frozenset[tuple[int, int]]:
    """The input files, whatever they are called."""
    found = (_identity(path) for source in sources for path in source.paths)
    return frozenset(one for one in found if one is not None)


def run_one(source: Source, job: Job, progress: Progress | None = None) -> Outcome:
    """Read, segment and write one scan, all three at the same time.

    Raises `ModelError` and `OutputError`, which concern the next scan too; a `ScanError` is the scan's outcome.
    """
    begun = now()
    try:
        run = job.model.run(scaled(source.read(), job.axial_um, job.lateral_um))
        run.whole.add("receive", begun)
        outputs = write_results(run, job, progress)
    except ScanError as error:
        return Outcome(name=source.name, status="refused", error=str(error))
    about, ledger = run.about, run.ledger()
    if job.ledger:
        outputs.append(_write(job, f"{about.name}.ledger.json", lambda path: write_json(path, ledger)))
    seconds = ledger.seconds()
    return Outcome(
        name=source.name,
        status="partial" if about.failed else "done",
        frames=about.frames,
        rows=run.scan.rows,
        columns=run.scan.columns,
        outputs=tuple(path.relative_to(job.out).as_posix() for path in outputs),
        spacing=Scale.of(about.spacing),
        factor=about.factor,
        model=about.model,
        engine=about.engine,
        notes=about.notes,
        failed=dict(about.failed),
        seconds={name: round(sum(seconds.get(stage, 0.0) for stage in stages), 4) for name, stages in STAGES.items()},
        ms_per_bscan=round(1000 * ledger.wall / about.frames, 2),
    )


def scaled(scan: Scan, axial_um: float | None, lateral_um: float | None) -> Scan:
    """The scan with the scale the user gave; where the file says otherwise, a note says so."""
    given = {direction: um for direction, um in (("axial", axial_um), ("lateral", lateral_um)) if um is not None}
    if not given:
        return scan
    stated = {direction: mm for direction in ("axial", "lateral", "between") if (mm := getattr(scan.spacing, direction)) is not None}
    notes = tuple(
        f"{direction} spacing {um:g} um given by the user; the file says {stated[direction] * 1000:.4g} um"
        for direction, um in given.items()
        if direction in stated and abs(stated[direction] * 1000 - um) > 0.005 * um
    )
    source = f"{' and '.join(given)} given by the user" + (f", else {scan.spacing.source}" if stated.keys() - given.keys() else "")
    spacing = replace(scan.spacing, **{direction: um / 1000 for direction, um in given.items()}, source=source)
    return replace(scan, spacing=spacing, notes=scan.notes + notes)


def write_results(run: Run, job: Job, progress: Progress | None = None) -> list[Path]:
    """Write the answers in the job's formats while they come; the paths written.

    Raises `OutputError` if that fails, `UsageError` if it would overwrite an input, and what the answers raise.
    """
    paths: list[Path] = []
    answers = run.answers()
    if "overlay" in job.formats:
        answers = ahead(_with_overlays(answers, run.about, job, paths))
    with closing(answers):
        layers = _layers(answers, run.scan.frames, progress)
        if "npz" in job.formats:
            paths.insert(0, _write(job, f"{run.scan.name}.npz", lambda path: _write_npz(path, layers, run)))
        else:
            deque(layers, maxlen=0)
    return paths


def _layers(answers: Iterable[Answer], frames: int, progress: Progress | None) -> Iterator[Layers]:
    """What the answers say; whoever takes it encodes it until asking for the next."""
    for answer in answers:
        with answer.times.stage("encode"):
            yield answer.layers
        if progress is not None:
            progress(answer.index + 1, frames)


def _write_npz(path: Path, layers: Iterable[Layers], run: Run) -> None:
    ends: list[int] = []

    def about() -> About:
        ends.append(now())
        return run.about

    shape = (run.scan.frames, run.scan.rows, run.scan.columns)
    write_atomic(path, lambda file: write_npz_by_frame(file, shape, layers, about))
    run.whole.add("write", ends[0])


def _with_overlays(answers: Generator[Answer, None, None], about: About, job: Job, paths: list[Path]) -> Generator[Answer, None, None]:
    """The same answers, each after its overlay is written; `paths` gets those."""
    with closing(answers):
        for answer in answers:
            if answer.frame is not None:
                paths.append(_write_overlay(answer, answer.frame, about, job))
            yield answer


def _write_overlay(answer: Answer, frame: Frame, about: About, job: Job) -> Path:
    name = f"{about.name}.overlay.png" if about.frames == 1 else f"{about.name}/overlay_{answer.index:03d}.png"
    picture = BytesIO()
    with answer.times.stage("encode"):
        write_overlay(picture, frame, View(about, answer.index, answer.layers.labels, answer.layers.surfaces))
    with answer.times.stage("write"):
        return _write(job, name, lambda path: write_bytes(path, picture.getvalue()))


def _write(job: Job, name: str, write: Callable[[Path], None]) -> Path:
    path = job.out / name
    if _identity(path) in job.inputs:
        raise UsageError(f"{path}: is an input, the result would overwrite it; choose another folder for --out")
    make_folder(path.parent)
    write(path)
    return path


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, the same by whatever name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
