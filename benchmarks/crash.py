"""Kill the service's spool at every step, again and again, and see whether anything acknowledged is lost or delivered twice.

    python -m benchmarks.crash --rounds 1000

Each round is a process that opens the spool, receives scans (a repeated one and a series among them), segments and sends them, and
is killed (SIGKILL) at one point: before a file is opened, renamed or removed, or before a statement with which SQLite changes
something, COMMIT included. The rounds go through all those points, shuffled; "died" tells how often at which. Spool, queue and
work are the real ones; segmenting writes two small files whose identity is new each time, and the two archives are folders, one of
which takes only the second file.

At the end the sender repeats what was never acknowledged, everything is finished, and then for each scan and archive there must be
exactly one result. Processes are killed, not the machine: that fsync is called before success is answered is what tests check.
"""

import json
import math
import multiprocessing
import os
import secrets
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from octedge.service.intake import settle
from octedge.service.monitor import Monitor
from octedge.service.send import Parcel
from octedge.service.series import Series
from octedge.service.settings import Settings
from octedge.service.spool import Arrival, Spool
from octedge.service.worker import Worker

WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "sqlite3.connect")
READS = ("SELECT", "PRAGMA", "\nSELECT")  # dying before one of these is dying after what came before it
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, SIGTERM ends a process as hard


@dataclass(frozen=True, slots=True)
class Found:
    """What `rounds` of killing came to; `lost` and `twice` must be empty."""

    rounds: int
    points: int
    killed: int
    scans: int
    died: dict[str, int]
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


class FolderArchive:
    """An archive that keeps what it gets under the result's identity; it takes one of the two alternatives."""

    def __init__(self, folder: Path, takes: str) -> None:
        self.name, self._folder, self._takes = folder.name, folder, takes

    def deliver(self, parcel: Parcel) -> list[str]:
        """As a peer does by negotiation."""
        for item, files in parcel.open().items():
            (file,) = (file for file in files if self._takes in file.name)
            parcel.choose(item, file)
            result = json.loads(file.read_bytes())
            (self._folder / f"{result['uid']}.{secrets.token_hex(4)}").write_bytes(file.read_bytes())
            parcel.sent(item)
        return []


def segment(paths: Sequence[Path], job: str, folder: Path) -> str:
    """Two alternatives with new identities, each time it is done."""
    scan = "+".join(sorted(path.read_text("utf-8") for path in paths))
    for kind in ("seg", "seg-binary"):
        (folder / f"{job}.{kind}.dcm").write_text(json.dumps({"scan": scan, "uid": secrets.token_hex(8)}), "utf-8")
    return ""


def life(home: Path, scans: Sequence[int], kill_at: int | None) -> None:
    """One life of the service: receive, segment, send, and die at a point; without one, until nothing is left. Ends the process."""
    count, note = 0, (home / "died").open("a", encoding="utf-8")

    def point(what: str) -> None:
        nonlocal count
        count += 1
        if count - 1 == kill_at:
            note.write(f"{what}\n")
            note.flush()
            os.kill(os.getpid(), KILL)

    def heard(event: str, _: tuple[Any, ...]) -> None:
        if event in WATCHED:
            point(event)

    def connected(*values: Any, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*values, **options)
        db.set_trace_callback(lambda statement: None if statement.startswith(READS) else point(" ".join(statement.split()[:3])))
        return db

    sys.addaudithook(heard)
    connect, sqlite3.connect = sqlite3.connect, connected  # type: ignore[assignment]
    with Spool(home / "spool") as spool:
        _work(spool, home, scans, forever=kill_at is None)
    (home / "points").write_text(str(count), "utf-8")


def _work(spool: Spool, home: Path, scans: Sequence[int], forever: bool) -> None:
    series = Series(spool, quiet=0)
    archives = [FolderArchive(home / "first", "seg.dcm"), FolderArchive(home / "second", "seg-binary.dcm")]
    worker = Worker(spool, series, archives, Monitor(), Settings(spool="", wait_s=0.001, longest_wait_s=0.002))
    acknowledged = _acknowledged(home)
    for uid, content, of in _objects(scans):
        if uid in acknowledged and uid.endswith(".0"):
            continue  # the first frame of a scan is not sent again, unless its sender does not know
        with spool.temporary() as file:
            file.write(content.encode())
        path = Path(os.fspath(file.name))
        series.came(spool.arrive(path, Arrival(content=settle(path), uid=uid, series=of)), "sender")
        with (home / "acknowledged").open("a", encoding="utf-8") as told:
            told.write(f"{uid}\n")
    series.left("sender")
    for _ in range(1000 if forever else 2):
        if not worker.segment_due(segment) + worker.send_due() and not spool.pending("received") + spool.pending("written"):
            break
        time.sleep(0.002)


def _objects(scans: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """UID, content and series of what the sender sends: every third scan is a series of two; the last object comes twice."""
    for scan in scans:
        for frame in range(1 + (scan % 3 == 0)):
            yield f"1.2.{scan}.{frame}", f"scan {scan} frame {frame}", f"1.3.{scan}" if scan % 3 == 0 else ""
    if scans:
        yield f"1.2.{scans[-1]}.0", f"scan {scans[-1]} frame 0", f"1.3.{scans[-1]}" if scans[-1] % 3 == 0 else ""


def _acknowledged(home: Path) -> set[str]:
    path = home / "acknowledged"
    return set(path.read_text("utf-8").split()) if path.exists() else set()


def crash(home: Path, rounds: int) -> Found:
    """Kill `rounds` lives one after another, let the last one finish, and look."""
    for folder in ("first", "second"):
        (home / folder).mkdir()
    context: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")

    def lived(scans: Sequence[int], kill_at: int | None) -> bool:
        process = context.Process(target=life, args=(home, scans, kill_at))
        process.start()
        process.join()
        if process.exitcode not in (0, -KILL, KILL):
            raise RuntimeError(f"a life ended with {process.exitcode}, not by being killed")
        return bool(process.exitcode == 0)

    lived([0], None)
    points, killed, scans, unheard = int((home / "points").read_text("utf-8")), 0, 1, list[int]()
    for number in range(rounds):
        unheard = [scan for scan in unheard if not _known(home, scan)]
        if not unheard:
            unheard, scans = [scans], scans + 1
        killed += not lived(unheard, (number * _stride(points)) % points)
        if number % 3 == 2:  # a life to the end, so that the next ones get as far as sending
            lived([scan for scan in unheard if not _known(home, scan)], None)
    with Spool(home / "spool") as spool:
        for job in spool.jobs():
            if job.state == "quarantined":  # killed three times while it was segmented
                spool.retry(job.id)
    lived([scan for scan in range(scans) if not _known(home, scan)], None)
    died = Counter((home / "died").read_text("utf-8").splitlines())
    return _found(home, Found(rounds, points, killed, scans, dict(died.most_common())))


def _stride(points: int) -> int:
    """Steps through all points, far apart: neighbours in time are no neighbours in the work."""
    return next(step for step in range(int(points * 0.618), points) if math.gcd(step, points) == 1)


def _known(home: Path, scan: int) -> bool:
    """Whether the sender has heard that all of a scan has arrived."""
    return {uid for uid, *_ in _objects([scan])} <= _acknowledged(home)


def _found(home: Path, found: Found) -> Found:
    """Look into the archives."""
    for archive in ("first", "second"):
        identities: dict[str, set[str]] = {}
        for path in (home / archive).iterdir():
            result = json.loads(path.read_bytes())
            identities.setdefault(result["scan"], set()).add(result["uid"])
        frames = Counter(frame for scan in identities for frame in scan.split("+"))
        for scan in range(found.scans):
            whole = "+".join(sorted({content for _, content, _ in _objects([scan])}))
            if whole not in identities:
                found.lost.append(f"{archive}: {whole}")
            elif len(identities[whole]) > 1 or any(frames[frame] > 1 for frame in whole.split("+")):
                found.twice.append(f"{archive}: {whole}")
    return found


@click.command()
@click.option("--rounds", default=1000, show_default=True, help="How many lives end by being killed.")
def main(rounds: int) -> None:
    """Kill the spool at every step; ends with 1 if anything was lost or delivered twice."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        found = crash(Path(home), rounds)
    seconds = time.perf_counter() - began
    click.echo(json.dumps({name: getattr(found, name) for name in found.__slots__} | {"seconds": round(seconds, 1)}))
    sys.exit(bool(found.lost or found.twice))


if __name__ == "__main__":
    main()
