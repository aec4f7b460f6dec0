"""From a scan's files to the files of its results: read, segment, write, all at the same time; a refused scan does not stop the others."""

import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec
import numpy as np

from octedge.edge.ledger import now
from octedge.edge.model import Model, Run
from octedge.edge.pipeline import Answer
from octedge.errors import ScanError, UsageError
from octedge.flow import Progress, ahead
from octedge.quality import Flag
from octedge.readers import Source
from octedge.results.files import atomic, make_folder, write_bytes, write_json
from octedge.results.npz import npz_by_frame, write_deviations
from octedge.results.overlay import View, write_overlay
from octedge.results.thickness import thickness, thickness_csv
from octedge.scan import Frame, Scan, Spacing
from octedge.segment import About, Layers

if TYPE_CHECKING:
    from octedge.results._dicom import Origin

Answers = Generator[Answer, None, None]

DEFAULT = ("npz", "overlay")
# What is told of a scan -> the ledger's stages it is the sum of.
STAGES = {
    "read": ("receive", "decode"),
    "engine": ("tile", "copy", "engine", "copy back"),
    "order": ("stitch", "quality", "deviation"),
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

    `outputs` are relative to --out; `flags` say where not to trust them, `failed` of B-scans that could not be decoded why; `seconds`
    are by stage, and stages run at the same time; `ms_per_bscan` is what one has waited for.
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
    certificate: str | None = None
    notes: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    failed: dict[int, str] = {}
    seconds: dict[str, float] = {}
    ms_per_bscan: float | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What is written of a scan, and what the user knows better than its file: the scale, and where the fovea is (B-scan, column)."""

    formats: tuple[str, ...] = DEFAULT
    axial_um: float | None = None
    lateral_um: float | None = None
    fovea: tuple[float, float] | None = None
    ledger: bool = False  # also when each stage had each B-scan


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every scan: the model, where results go, and the options."""

    model: Model
    out: Path
    options: Options = Options()
    inputs: frozenset[tuple[int, int]] = field(default=frozenset(), repr=False)  # what must not be overwritten


def identities(sources: Iterable[Source]) -> frozenset[tuple[int, int]]:
    """The input files, whatever they are called."""
    found = (_identity(path) for source in sources for path in source.paths)
    return frozenset(one for one in found if one is not None)


@dataclass(frozen=True, slots=True)
class Writing:
    """A scan whose results are being written: what was `written` so far, and what was `left_out` and why."""

    source: Source
    run: Run
    job: Job
    written: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def fovea(self) -> tuple[float, float] | None:
        """Column and B-scan of the fovea, if the user gave it."""
        given = self.job.options.fovea
        return None if given is None else (given[1], given[0])

    def path(self, ending: str) -> Path:
        """Where the result NAME + `ending` goes; its folder is there.

        Raises `UsageError` if it would overwrite an input, `OutputError` if there can be no folder.
        """
        path = self.job.out / f"{self.run.scan.name}{ending}"
        if _identity(path) in self.job.inputs:
            raise UsageError(f"{path}: is an input, the result would overwrite it; choose another folder for --out")
        make_folder(path.parent)
        return path


def run_one(source: Source, job: Job, progress: Progress | None = None) -> Outcome:
    """Read, segment and write one scan, all three at the same time.

    Raises `ModelError` and `OutputError`, which concern the next scan too; a `ScanError` is the scan's outcome.
    """
    begun = now()
    try:
        deviations = "deviation" in job.options.formats and job.model.bundle.card.temperature > 0
        run = job.model.run(scaled(source.read(), job.options), deviations)
        run.whole.add("receive", begun)
        writing = Writing(source, run, job)
        _write(writing, progress)
    except ScanError as error:
        return Outcome(name=source.name, status="refused", error=str(error))
    about, ledger = run.about, run.ledger()
    if job.options.ledger:
        write_json(path := writing.path(".ledger.json"), ledger)
        writing.written.append(path)
    seconds = ledger.seconds()
    return Outcome(
        name=source.name,
        status="partial" if about.failed else "done",
        frames=about.frames,
        rows=run.scan.rows,
        columns=run.scan.columns,
        outputs=tuple(path.relative_to(job.out).as_posix() for path in writing.written),
        spacing=Scale.of(about.spacing),
        factor=about.factor,
        model=about.model,
        engine=about.engine,
        certificate=about.certificate,
        notes=(*about.notes, *writing.left_out),
        flags=about.flags,
        failed=dict(about.failed),
        seconds={name: round(sum(seconds.get(stage, 0.0) for stage in stages), 4) for name, stages in STAGES.items()},
        ms_per_bscan=round(1000 * ledger.wall / about.frames, 2),
    )


def scaled(scan: Scan, options: Options) -> Scan:
    """The scan with the scale the user gave; where the file says otherwise, a note says so."""
    given = {direction: um for direction, um in (("axial", options.axial_um), ("lateral", options.lateral_um)) if um is not None}
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


def _write(writing: Writing, progress: Progress | None) -> None:
    """Let the answers pass through the writers of the job's formats, each of which hands them on."""
    answers = writing.run.answers()
    for name in sorted(writing.job.options.formats, key=list(FORMATS).index):
        answers = FORMATS[name](answers, writing)
    with closing(answers):
        for answer in answers:
            if progress is not None:
                progress(answer.index + 1, writing.run.scan.frames)


def _npz(answers: Answers, writing: Writing) -> Answers:
    run, path = writing.run, writing.path(".npz")
    shape = (run.scan.frames, run.scan.rows, run.scan.columns)
    with closing(answers), atomic(path) as file, npz_by_frame(file, shape, lambda: run.about) as add:
        for answer in answers:
            with answer.times.stage("encode"):
                add(answer.layers)
            yield answer
        begun = now()
    run.whole.add("write", begun)
    writing.written.insert(0, path)


def _overlays(answers: Answers, writing: Writing) -> Answers:
    return ahead(_with_overlays(answers, writing))  # drawn by a thread of their own


def _with_overlays(answers: Answers, writing: Writing) -> Answers:
    about = writing.run.about
    with closing(answers):
        for answer in answers:
            if answer.frame is not None:
                _write_overlay(answer, answer.frame, about, writing)
            yield answer


def _write_overlay(answer: Answer, frame: Frame, about: About, writing: Writing) -> None:
    path = writing.path(".overlay.png" if about.frames == 1 else f"/overlay_{answer.index:03d}.png")
    picture = BytesIO()
    with answer.times.stage("encode"):
        write_overlay(picture, frame, View(about, answer.index, answer.layers.labels, answer.layers.surfaces))
    with answer.times.stage("write"):
        write_bytes(path, picture.getvalue())
    writing.written.append(path)


def _thickness(answers: Answers, writing: Writing) -> Answers:
    run, surfaces = writing.run, []
    table, record = writing.path(".thickness.csv"), writing.path(".thickness.json")
    with closing(answers):
        for answer in answers:
            surfaces.append(answer.layers.surfaces)
            yield answer
    begun = now()
    found = thickness(run.scan, run.about, np.stack(surfaces), writing.fovea)
    write_bytes(table, thickness_csv(found))
    write_json(record, found)
    writing.written.extend((table, record))
    run.whole.add("write", begun)


def _deviation(answers: Answers, writing: Writing) -> Answers:
    if not writing.job.model.bundle.card.temperature:
        writing.left_out.append("no deviation: the model's card has no temperature, by which it is told; export the run anew with --data")
        return answers
    return _with_deviations(answers, writing)


def _with_deviations(answers: Answers, writing: Writing) -> Answers:
    run, found = writing.run, []
    path, nothing = writing.path(".deviation.npz"), np.full((len(run.about.surface_names), run.scan.columns), np.nan, np.float32)
    with closing(answers):
        for answer in answers:
            found.append(nothing if answer.deviation is None else answer.deviation)
            yield answer
    begun = now()
    with atomic(path) as file:
        write_deviations(file, np.stack(found), run.about)
    writing.written.append(path)
    run.whole.add("write", begun)


class DicomWriter(Protocol):
    """Takes answers as they come, and writes one DICOM file; both its start and its end may raise `ScanError`."""

    def add(self, index: int, layers: Layers) -> None: ...
    def finish(self, about: About, file: BinaryIO) -> None: ...


def _writer(name: str, source: "Origin", writing: Writing) -> DicomWriter:
    """Raises `ScanError` if the source cannot carry this format."""
    if name == "sr":
        from octedge.results.sr import ReportWriter

        return ReportWriter(source, writing.run.scan, writing.fovea)
    if name == "heightmap":
        from octedge.results.heightmap import HeightMapWriter  # pydicom is loaded by those who need it

        return HeightMapWriter(source)
    from octedge.results.dicom_seg import BINARY, LABELMAP, SegWriter

    return SegWriter(source, BINARY if name == "seg-binary" else LABELMAP)


def _dicom(answers: Answers, writing: Writing, name: str) -> Answers:
    """The stage that writes NAME.`name`.dcm, or leaves it out and says why: no study to belong to, no geometry."""
    from octedge.results._dicom import origin

    try:
        writer = _writer(name, origin(writing.source.paths, writing.run.scan), writing)
    except ScanError as error:
        _leave_out(name, error, writing)
        return answers
    return _through(answers, writer, name, writing)


def _through(answers: Answers, writer: DicomWriter, name: str, writing: Writing) -> Answers:
    run, path = writing.run, writing.path(f".{name}.dcm")
    with closing(answers):
        for answer in answers:
            with answer.times.stage("encode"):
                writer.add(answer.index, answer.layers)
            yield answer
    begun = now()
    try:
        with atomic(path) as file:
            writer.finish(run.about, file)
        writing.written.append(path)
    except ScanError as error:
        _leave_out(name, error, writing)
    run.whole.add("write", begun)


def _leave_out(name: str, error: ScanError, writing: Writing) -> None:
    writing.left_out.append(f"no {name}: {str(error).removeprefix(f'{writing.run.scan.name}: ')}")


# In the order in which answers pass through: what is drawn takes its time while the rest is encoded.
FORMATS: dict[str, Callable[[Answers, Writing], Answers]] = {
    "overlay": _overlays,
    "npz": _npz,
    "thickness": _thickness,
    "deviation": _deviation,
    **{name: partial(_dicom, name=name) for name in ("seg", "seg-binary", "heightmap", "sr")},
}


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file, the same by whatever name; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
