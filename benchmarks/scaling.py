"""How cost grows: time per B-scan and peak memory by number of B-scans, by width, by depth, and by threads.

    python -m benchmarks.scaling                      table on stdout; bench-out/scaling.json and scaling.png
    python -m benchmarks.scaling --quick              small sizes, to see that it runs

What `octedge segment` does with a DICOM volume, results as NPZ, with the shipped model in fp32. Every measurement is a process of its
own, which first does a volume of a few B-scans; memory is the most that it has had resident, engine included. Rounds go through
all of them in turn; given is the median. A volume repeats a few phantom B-scans, each of which is read and segmented anew.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
import msgspec

from benchmarks.facts import facts, head, ms, row
from octedge.edge.machine import cores
from octedge.phantom import Bscan, Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS, Look
from octedge.results.files import make_folder, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, COLUMNS, FRAMES = 496, 512, 16
DISTINCT = 4  # phantom B-scans of a volume
SIZES = {
    "frames": (8, 64, 256, 1024),
    "columns": (256, 512, 1024, 2048),
    "rows": (248, 496, 992, 1984),
}
QUICK = {"frames": (4, 16), "columns": (64, 128), "rows": (64, 128)}
# What is asked of a volume of 1,024 B-scans, as a multiple of one of 64.
FEW, MANY, MEMORY, TIME = 64, 1024, 1.1, 1.05
CHILD = """
import json, sys, time
from pathlib import Path
from octedge.batch import Job, Options, run_one
from octedge.edge.bench import memory_mb
from octedge.edge.bundle import open_bundle
from octedge.edge.engine import load_engine
from octedge.edge.model import Model
from octedge.readers import Source
scan, warm, out = map(Path, sys.argv[1:4])
bundle = open_bundle()
job = Job(Model(bundle, load_engine(bundle, sys.argv[4])), out, Options(("npz",)))
run_one(Source((warm,), "warm"), job)
began = time.perf_counter()
outcome = run_one(Source((scan,), "scan"), job)
taken = time.perf_counter() - began
status = Path("/proc/self/status")  # of this process alone; what getrusage says may be of the process that started it
lines = status.read_text().splitlines() if status.exists() else []
most = [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")]
print(json.dumps([outcome.status, taken, (most or [memory_mb()])[0]]))
"""


@dataclass(frozen=True, slots=True)
class Volume:
    """What is measured: which axis it lies on, the size of a volume, and how many threads the engine has (0: one per core)."""

    axis: str
    frames: int = FRAMES
    rows: int = ROWS
    columns: int = COLUMNS
    threads: int = 0

    @property
    def value(self) -> int:
        """Where on its axis."""
        return int(getattr(self, self.axis))


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A volume's medians over the rounds, whose own times are in `rounds`: ms per B-scan, and MB at most."""

    axis: str
    frames: int
    rows: int
    columns: int
    threads: int
    ms_per_bscan: float
    peak_mb: float
    rounds: tuple[float, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`scaling.json`."""

    facts: str
    engine: str
    points: tuple[Point, ...]


class Repeated(Phantom):
    """A volume that repeats its first B-scans."""

    def bscan(self, index: int) -> Bscan:
        """B-scan `index`."""
        return _bscan(self.look, index % DISTINCT)


@lru_cache(maxsize=DISTINCT)
def _bscan(look: Look, index: int) -> Bscan:
    return Phantom(look, DISTINCT, 1).bscan(index)


def volumes(quick: bool) -> list[Volume]:
    """All that is measured."""
    sizes = QUICK if quick else SIZES
    few = {"frames": 2, "rows": 64, "columns": 64} if quick else {}
    most = cores() or os.cpu_count() or 1
    threads = [count for count in (1, 2, 4, 8, 16, 32, 64) if count < most] + [most]
    found = [Volume(axis, **(few | {axis: value})) for axis, values in sizes.items() for value in values]
    return found + [Volume("threads", **(few | {"threads": count})) for count in threads]


def measured(volume: Volume, folder: Path, engine: str) -> tuple[float, float]:
    """Seconds and MB of one volume in a process of its own. Ends the program if that fails."""
    scan, warm = (_file(replace(volume, frames=frames), folder) for frames in (volume.frames, DISTINCT))
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(volume.threads)} if volume.threads else {})
    call: list[str | Path] = [sys.executable, "-c", CHILD, scan, warm, folder / "out", engine]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{volume}: {done.stderr}")
    status, seconds, mb = json.loads(done.stdout)
    if status != "done":
        raise SystemExit(f"{volume}: {status}")
    return float(seconds), float(mb)


def _file(volume: Volume, folder: Path) -> Path:
    """The volume as a DICOM file, made if it is not there."""
    path = folder / f"{volume.frames}x{volume.rows}x{volume.columns}.dcm"
    if not path.exists():
        look = replace(LOOKS["spectralis"], rows=volume.rows, columns=volume.columns)
        write_dicom(Repeated(look, volume.frames, 1), path)
    return path


def points(wanted: Sequence[Volume], rounds: int, engine: str) -> Iterator[Point]:
    """The medians, when all rounds are over."""
    times: dict[Volume, list[tuple[float, float]]] = {volume: [] for volume in wanted}
    with TemporaryDirectory() as made:
        for turn in range(rounds):
            for volume, found in times.items():
                found.append(measured(volume, Path(made), engine))
                print(f"round {turn + 1} of {rounds}: {volume.axis} {volume.value}", file=sys.stderr, flush=True)
    for volume, found in times.items():
        each = tuple(round(1000 * seconds / volume.frames, 2) for seconds, _ in found)
        yield Point(
            axis=volume.axis,
            frames=volume.frames,
            rows=volume.rows,
            columns=volume.columns,
            threads=volume.threads,
            ms_per_bscan=median(each),
            peak_mb=round(median(mb for _, mb in found), 1),
            rounds=each,
        )


def asked(found: Sequence[Point]) -> str:
    """How many B-scans compare with few; empty where they were not measured."""
    sizes = {point.frames: point for point in found if point.axis == "frames"}
    if not {FEW, MANY} <= sizes.keys():
        return ""
    few, many = sizes[FEW], sizes[MANY]
    memory, time = many.peak_mb / few.peak_mb, many.ms_per_bscan / few.ms_per_bscan
    words = f"{MANY} B-scans against {FEW}: peak memory x {memory:.3f} (asked: at most {MEMORY})"
    return f"{words}, time per B-scan x {time:.3f} (asked: within {TIME - 1:.0%})"


def draw(report: Report, path: Path) -> None:
    """Four panels, one per axis: ms per B-scan, and MB beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2)
    for panel, axis in zip(panels.ravel(), ("frames", "columns", "rows", "threads"), strict=True):
        _panel(panel, axis, [point for point in report.points if point.axis == axis])
    figure.suptitle(report.engine)
    figure.savefig(path, dpi=120)


def _panel(panel: "Axes", axis: str, found: Sequence[Point]) -> None:
    values = [getattr(point, axis) for point in found]
    (time,) = panel.plot(values, [point.ms_per_bscan for point in found], "o-", color="tab:blue", label="ms per B-scan")
    other = panel.twinx()
    (memory,) = other.plot(values, [point.peak_mb for point in found], "s--", color="tab:orange", label="MB at most")
    panel.set_xscale("log", base=2)
    panel.set_xticks(values, [str(value) for value in values])
    panel.set_xlabel(axis)
    for each, highest in ((panel, max(point.ms_per_bscan for point in found)), (other, max(point.peak_mb for point in found))):
        each.set_ylim(0, 1.1 * highest)
    panel.legend(handles=[time, memory], loc="lower right", fontsize="small")


@click.command()
@click.option(
    "--out", default="bench-out", show_default=True, type=click.Path(path_type=Path), help="Folder for scaling.json and the picture."
)
@click.option("--engine", default="ort-fp32", show_default=True, help="Which engine; needs no certificate.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="Small sizes in one round: to see that it runs.")
def main(out: Path, engine: str, rounds: int, quick: bool) -> None:
    """Print a table as Markdown."""
    made = facts("onnxruntime", "pydicom")
    found = tuple(points(volumes(quick), 1 if quick else rounds, engine))
    report = Report(facts=made, engine=engine, points=found)
    make_folder(out)
    write_json(out / "scaling.json", report)
    draw(report, out / "scaling.png")
    print(f"{made}\n\n{engine}, {len(found[0].rounds)} rounds, medians\n")
    print(head("B-scans x rows x columns", "threads", "ms per B-scan", "ns per pixel", "MB at most"))
    for point in found:
        pixel = 1e6 * point.ms_per_bscan / (point.rows * point.columns)
        size = f"{point.frames} x {point.rows} x {point.columns}"
        print(row(size, point.threads or "all", *ms([point.ms_per_bscan]), f"{pixel:.0f}", f"{point.peak_mb:.0f}"))
    print(f"\n{asked(found)}")


if __name__ == "__main__":
    main()
