"""A folder that is watched: every whole scan in it is copied into the spool once, whatever happens to the folder or to us.

Copied, not referred to: devices tidy their export folders, and what has been taken in must not be lost with them. The copy goes
when its results are there. Polled, not notified: export folders are network shares more often than not, and those notify nobody.

A file is whole when size and time have not changed for `settle` s and its reader finds everything it states; what stays unreadable
is taken after `patience` s all the same, so that its end is told: quarantined, with the reason.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from octedge.errors import OctedgeError, OutputError, ScanError, UsageError
from octedge.readers import Source
from octedge.readers._sources import DICOM, IMAGES, listed, stem
from octedge.service.intake import described, settle
from octedge.service.monitor import Monitor
from octedge.service.series import Series
from octedge.service.spool import Arrival, Spool

ENDINGS = (*IMAGES, *DICOM, ".npz", ".vol")


@dataclass(frozen=True, slots=True)
class Patience:
    """In s: how often to look, how long a file must not change, and how long to wait for one that cannot be read yet."""

    interval: float = 2.0
    settle: float = 4.0
    unreadable: float = 60.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was when it last changed, and since when it is like that; `over` if nothing is left to do with it."""

    size: int
    changed: int  # ns
    since: float
    over: bool = False


class Watcher:
    """Looks into `folder` again and again, in a thread of its own; the spool and `out`, if they lie in it, are passed over."""

    def __init__(self, folder: Path, spool: Spool, series: Series, monitor: Monitor, out: Path | None = None) -> None:
        self.folder, self.spool, self.series, self.monitor = folder, spool, series, monitor
        self.patience = Patience()
        self.clock: Callable[[], float] = time.monotonic
        self._apart = {path.resolve() for path in (spool.folder, out) if path is not None}
        self._seen: dict[Path, _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def start(self) -> None:
        """Look from now on. Raises `UsageError` if there is no such folder."""
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder}: no such folder; name the folder that the device exports to")
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a copy under way is finished."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> int:
        """Take in what is whole by now; how many files."""
        seen, taken = {}, 0
        for path, status in self._files():
            before, now = self._seen.get(path), self.clock()
            if before is None or (before.size, before.changed) != (status.st_size, status.st_mtime_ns):
                before = _Seen(status.st_size, status.st_mtime_ns, now)
            if not before.over and now - before.since >= self.patience.settle:
                took = self._take(path, before, now - before.since >= self.patience.unreadable)
                taken += took is True
                before = replace(before, over=took is not None)
            seen[path] = before
        self._seen = seen
        return taken

    def _watch(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except (OctedgeError, OSError) as error:  # a share that is gone comes back
                self.monitor.event("failed", step="watch", why=type(error).__name__)
            self._stop.wait(self.patience.interval)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for here, folders, names in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(here, name).resolve() not in self._apart)
            for name in sorted(name for name in names if not name.startswith(".")):
                with suppress(OSError):  # gone since it was listed
                    yield Path(here, name), Path(here, name).stat()

    def _take(self, path: Path, seen: _Seen, late: bool) -> bool | None:
        """Whether a file was taken in: True now, False never (known, or no scan), None not yet."""
        stamp = f"{path.relative_to(self.folder).as_posix()}|{seen.size}|{seen.changed}"
        if self.spool.knows(stamp):
            return False
        candidate = listed(path, self.folder)
        if candidate is None:
            return False
        if not late and not _readable(path):
            return None
        begun = time.perf_counter()
        copy = self._copied(path, seen)
        if copy is None:
            return None
        try:
            arrival = _described(copy, settle(copy), path)
            receipt = self.spool.arrive(copy, msgspec.structs.replace(arrival, name=self._name(path, bool(candidate.series)), stamp=stamp))
        except (OSError, OutputError):
            copy.unlink(missing_ok=True)
            raise
        self.series.came(receipt)
        ms = round(1000 * (time.perf_counter() - begun), 1)
        self.monitor.event("received" if receipt.new else "repeated", job=receipt.job, bytes=seen.size, ms=ms)
        if receipt.new and receipt.quarantined:
            self.monitor.event("quarantined", job=receipt.job, why="same-uid-or-late")
        return True

    def _copied(self, path: Path, seen: _Seen) -> Path | None:
        """A copy in the spool; None if the file changed meanwhile."""
        with self.spool.temporary() as copy:
            name = Path(os.fspath(copy.name))
            try:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, copy, 1 << 20)
                status = path.stat()
            except OSError:
                status = None
        if status is None or (status.st_size, status.st_mtime_ns) != (seen.size, seen.changed):
            name.unlink()
            return None
        return name

    def _name(self, path: Path, in_series: bool) -> str:
        """What results are called: as the file without ending, with it where two differ in nothing else; a series as its folder."""
        relative = path.relative_to(self.folder)
        if in_series:
            return relative.parent.as_posix() if relative.parent != Path() else self.folder.resolve().name
        alike = [other for other in path.parent.iterdir() if stem(other).casefold() == stem(path).casefold() and _is_kind(other)]
        return (relative if len(alike) > 1 else relative.with_name(stem(path))).as_posix()


def _is_kind(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file()


def _readable(path: Path) -> bool:
    try:
        Source((path,), "whole").read()
    except ScanError:
        return False
    return True


def _described(copy: Path, content: str, path: Path) -> Arrival:
    """A DICOM file by its header; of others the content is all the identity there is."""
    ending = path.suffix.lower()
    if ending in ENDINGS and ending not in DICOM:
        return Arrival(content=content, suffix=ending)
    return described(copy, content)
