"""The run over many scans that `segment` and `demo` share: read, segment, write; a refused scan does not stop the others."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from octedge.cli.console import Progress
from octedge.edge.clock import Clock
from octedge.edge.model import Model
from octedge.errors import ScanError, UsageError
from octedge.readers import Source
from octedge.results.files import make_folder, write_atomic
from octedge.results.npz import write_npz
from octedge.results.overlay import View, write_overlay
from octedge.scan import Scan, Spacing
from octedge.segment import Segmentation

FORMATS = ("npz", "overlay")
COMING = ("seg", "heightmap", "sr", "report")
STAGES = ("read", "engine", "order", "write")


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
    """What became of one scan: the JSON line of `segment`; `outputs` relative to --out, `seconds` by stage."""

    name: str
    status: str  # "done" or "refused"
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
    seconds: dict[str, float] = {}
    ms_per_bscan: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every scan: the model, where results go, in which formats, and the scale the user gave."""

    model: Model
    out: Path
    formats: tuple[str, ...] = FORMATS
    axial_um: float | None = None
    lateral_um: float | None = None
    inputs: frozenset[tuple[int, int]] = field(default=frozenset(), repr=False)  # what must not be overwritten


def identities(sources: Iterable[Source]) -> frozenset[tuple[int, int]]:
    """The input files, whatever they are called."""
    found = (_identity(path) for source in sources for path in source.paths)
    return frozenset(one for one in found if one is not None)


def run_one(source: Source, job: Job, progress: Progress | None = None) -> Outcome:
    """Read, segment and write one scan.

    Raises `ModelError` and `OutputError`, which concern the next scan too; a `ScanError` is the scan's outcome.
    """
    clock = Clock()
    try:
        with clock.stage("read"):
            scan = scaled(source.read(), job.axial_um, job.lateral_um)
        result = job.model.segment(scan, progress, clock)
        with clock.stage("write"):
            outputs = write_results(scan, result, job)
    except ScanError as error:
        return Outcome(name=source.name, status="refused", error=str(error))
    return Outcome(
        name=source.name,
        status="done",
        frames=scan.frames,
        rows=scan.rows,
        columns=scan.columns,
        outputs=tuple(path.relative_to(job.out).as_posix() for path in outputs),
        spacing=Scale.of(result.spacing),
        factor=result.factor,
        model=result.model,
        engine=result.engine,
        notes=result.notes,
        seconds={stage: round(clock.seconds.get(stage, 0.0), 4) for stage in STAGES},
        ms_per_bscan=round(1000 * clock.total / scan.frames, 2),
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


def write_results(scan: Scan, result: Segmentation, job: Job) -> list[Path]:
    """Write the result in the job's formats; the paths written.

    Raises `OutputError` if that fails, `UsageError` if it would overwrite an input.
    """
    pictures = range(scan.frames if "overlay" in job.formats else 0)
    paths = [_write_overlay(scan, View(result, index), job) for index in pictures]
    if "npz" in job.formats:
        paths.insert(0, _write(job, f"{result.name}.npz", lambda path: write_atomic(path, lambda file: write_npz(file, result))))
    return paths


def _write_overlay(scan: Scan, view: View, job: Job) -> Path:
    one = f"{scan.name}.overlay.png"
    name = one if scan.frames == 1 else f"{scan.name}/overlay_{view.index:03d}.png"
    frame = scan.frame(view.index)
    return _write(job, name, lambda path: write_atomic(path, lambda file: write_overlay(file, frame, view)))


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
