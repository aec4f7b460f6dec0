"""What starting costs: importing octedge, the command up to its first mask, and where that time goes.

    python -m benchmarks.start
    python -m benchmarks.start --python .venv/bin/python        as on a device, without what development needs

Every measurement is a new process with the shipped model; given are the least and the median of the rounds. "first mask" is from the
start of `octedge segment` for a phantom of 1024 x 512 until its NPZ has its name; "on this machine for the first time" includes the check
of the engine, otherwise its certificate lies in the cache. Imports are what `python -X importtime` counts for modules themselves.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import msgspec

from benchmarks.facts import facts, head, row
from octedge.edge.bundle import open_bundle
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.results.files import make_folder, write_json

IMPORT, FIRST = 0.15, 1.5  # s, asked for
SHOWN = 8  # packages of the imports
COMMAND = "from octedge.cli import main; main(prog_name='octedge')"
# The same way in one process, with the time at every turn.
WAY = """
import json, sys, time
from pathlib import Path
marks = [("", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import octedge.cli.segment
mark("imports of the command")
import octedge.edge.ort, octedge.readers.dicom
mark("imports of engine and reader")
from octedge.edge.model import open_model
model = open_model()
mark("opening model and engine")
from octedge.batch import Job, Options, run_one
from octedge.readers import find
(source,) = find([Path(sys.argv[1])])
assert run_one(source, Job(model, Path(sys.argv[2]), Options(("npz",)))).status == "done"
mark("from file to result")
print(json.dumps([[name, end - start] for (_, start), (name, end) in zip(marks, marks[1:])]))
"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`start.json`: seconds, of every round; where the time goes, in the fastest of them; ms of imports by package."""

    facts: str
    seconds: dict[str, tuple[float, ...]]
    way: dict[str, float]
    imports: dict[str, float]


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that has octedge, where octedge keeps its certificates, and where compiled modules are."""

    path: Path
    cache: Path
    compiled: Path

    @property
    def environment(self) -> dict[str, str]:
        """For its processes: compiled modules are kept, as pip keeps those that it installs."""
        return os.environ | {"OCTEDGE_CACHE": str(self.cache), "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.compiled)}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """From start to end. Ends the program if it fails."""
        done = subprocess.run([self.path, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{arguments}: {done.stderr}")
        return done

    def seconds(self, code: str) -> float:
        """How long that takes for some code."""
        began = time.perf_counter()
        self.run("-c", code)
        return time.perf_counter() - began

    def first_mask(self, scan: Path, out: Path) -> float:
        """Seconds until the result has its name; the process is waited for."""
        result = out / f"{scan.stem}.npz"
        result.unlink(missing_ok=True)
        call: list[str | Path] = [self.path, "-c", COMMAND, "segment", scan, "--out", out, "--format", "npz"]
        began = time.perf_counter()
        with subprocess.Popen(call, env=self.environment, stderr=subprocess.PIPE) as process:
            while not result.exists():
                if process.poll() is not None:
                    raise SystemExit(f"octedge segment ended with {process.returncode} and no result")
                time.sleep(0.001)
            taken = time.perf_counter() - began
            process.communicate()
        return taken


def imports(text: str) -> dict[str, float]:
    """Milliseconds by package from what -X importtime writes: "import time: self us | cumulative | name"."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        parts = line.removeprefix("import time:").split("|")
        if line.startswith("import time:") and parts[0].strip().isdigit():
            package = _package(parts[2].strip())
            found[package] = found.get(package, 0.0) + int(parts[0]) / 1000
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _package(module: str) -> str:
    name = module.split(".")[0]
    return "standard library" if name in sys.stdlib_module_names else name


@click.command()
@click.option("--out", default="bench-out", show_default=True, type=click.Path(path_type=Path), help="Folder for start.json.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--python", "path", default=sys.executable, type=click.Path(path_type=Path), help="Another interpreter.  [default: this one]")
def main(out: Path, rounds: int, path: Path) -> None:
    """Print tables as Markdown."""
    made = facts("onnxruntime", "pydicom", "click")
    found: dict[str, list[float]] = {name: [] for name in ("python", "import octedge", "first mask", "on this machine for the first time")}
    ways: list[list[tuple[str, float]]] = []
    with TemporaryDirectory() as folder:
        scan, results, cache = (Path(folder, name) for name in ("scan.dcm", "results", "cache"))
        axial_um = open_bundle().card.axial_um[1]
        write_dicom(Phantom(replace(LOOKS["spectralis"], rows=1024, columns=512, axial_um=axial_um), 1, 1), scan)
        known = Python(path, cache, Path(folder, "compiled"))
        known.first_mask(scan, results)  # leaves the certificate, the compiled modules, and the files in the system's memory
        for turn in range(rounds):
            found["on this machine for the first time"].append(replace(known, cache=Path(folder, f"new{turn}")).first_mask(scan, results))
            found["first mask"].append(known.first_mask(scan, results))
            found["python"].append(known.seconds("pass"))
            found["import octedge"].append(known.seconds("import octedge"))
            ways.append(json.loads(known.run("-c", WAY, scan, results).stdout))
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        timed = known.run("-X", "importtime", "-c", WAY, scan, results).stderr
    report = Report(
        facts=made,
        seconds={name: tuple(round(each, 4) for each in times) for name, times in found.items()},
        way={name: round(taken, 4) for name, taken in min(ways, key=lambda way: sum(taken for _, taken in way))},
        imports={name: round(each, 1) for name, each in imports(timed).items()},
    )
    make_folder(out)
    write_json(out / "start.json", report)
    show(report)


def show(report: Report) -> None:
    """As Markdown."""
    limits = {"import octedge": IMPORT, "first mask": FIRST}
    print(f"{report.facts}\n")
    print(head("", "least, s", "median, s", "asked, s"))
    bare = min(report.seconds["python"])
    for name, times in report.seconds.items():
        less = bare if name == "import octedge" else 0.0  # what Python itself takes is not octedge's
        print(row(name, f"{min(times) - less:.3f}", f"{median(times) - less:.3f}", limits.get(name, "-")))
    print(f"\n{head('on the way to the first mask', 'ms')}")
    for name, taken in {"Python itself": bare, **report.way}.items():
        print(row(name, f"{1000 * taken:.0f}"))
    print(f"\n{head('imports on the way', 'ms')}")
    shown = list(report.imports.items())
    for name, each in [*shown[:SHOWN], ("others", sum(each for _, each in shown[SHOWN:]))]:
        print(row(name, f"{each:.0f}"))


if __name__ == "__main__":
    main()
