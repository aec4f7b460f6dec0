"""The service as a whole: something takes scans in, one thread segments them, one sends results, until a signal says stop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from octedge import batch
from octedge.edge.model import Model, open_model
from octedge.errors import OctedgeError, ScanError, UsageError
from octedge.flow import patiently
from octedge.readers import Source
from octedge.scan import Scan
from octedge.service.monitor import Monitor, log_to_stderr, silence, where
from octedge.service.send import destinations
from octedge.service.series import Series
from octedge.service.settings import Settings
from octedge.service.spool import Spool
from octedge.service.worker import TICK, Segment, Stopped, Worker

if TYPE_CHECKING:
    from octedge.service.health import Metrics

WARM = (1024, 512)  # rows, columns


PEOPLE = ("npz", "overlay", "thickness", "report")  # formats that no archive takes
FALLBACK = "seg-binary"  # large, and for archives alone


class Inlet(Protocol):
    """Takes scans into the spool between `start` and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Service:
    """One spool, what fills it, and what empties it. `open_segment` gives what segments a job, warm and certified."""

    def __init__(self, settings: Settings, spool: Spool, monitor: Monitor) -> None:
        self.settings, self.spool, self.monitor = settings, spool, monitor
        self.series = Series(spool, settings.receive.quiet_s)
        self.worker = Worker(spool, self.series, destinations(settings), monitor, settings)
        self._error: OctedgeError | None = None

    @property
    def stop(self) -> threading.Event:
        """Set it to end the service: the B-scan at hand is finished, the rest stays pending."""
        return self.worker.stop

    def run(self, inlet: Inlet, open_segment: Callable[[], Segment]) -> None:
        """Work until `stop` is set. Raises what kept the model from being opened, and `UsageError` if nothing can be taken in."""
        inlet.start()
        works = (lambda: self._segment(open_segment)), (lambda: self._repeat(self.worker.send_due))
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        self.monitor.event("started")
        try:
            patiently(self.stop.wait)
        finally:
            self.stop.set()
            inlet.stop()
            for thread in threads:
                thread.join()
            self.monitor.event("stopped")
        if self._error is not None:
            raise self._error

    def stop_on_signals(self) -> None:
        """SIGTERM and Ctrl-C end the service gracefully."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    def _segment(self, open_segment: Callable[[], Segment]) -> None:
        segment = open_segment()
        self.monitor.ready.set()
        self.monitor.event("ready")
        self._repeat(lambda: self.worker.segment_due(segment))

    def _repeat(self, work: Callable[[], int]) -> None:
        while not self.stop.is_set():
            work()
            self.stop.wait(TICK)

    def _guarded(self, work: Callable[[], None]) -> None:
        """A thread's outermost entry: without it nothing is done any more, so its end is the service's end."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self._error = _told(error)
        finally:
            self.monitor.ready.clear()
            self.stop.set()


def _told(error: Exception) -> OctedgeError:
    """Our own errors as they are; of others what and where, for their words may hold values of a file."""
    return error if isinstance(error, OctedgeError) else OctedgeError(f"unexpected {where(error)}; report it, the spool is intact")


def serve(settings: Settings, tell: Callable[[str], None]) -> None:
    """Receive by DICOM until a signal says stop. Raises `UsageError`, `ModelError` and `OutputError`."""
    from octedge.service.health import Metrics
    from octedge.service.receive import Receiver

    metrics = Metrics()
    monitor = Monitor(metrics.count)
    with _service(settings, monitor) as service, _health(settings, monitor, metrics):
        metrics.watch(service.spool)
        receiver = Receiver(service.spool, service.series, settings.receive, monitor)
        service.run(receiver, lambda: segmenter(settings, service.stop, tell))


def watch(folder: Path, settings: Settings, tell: Callable[[str], None]) -> None:
    """Watch a folder until a signal says stop. Raises as `serve` does."""
    from octedge.service.watching import Watcher

    monitor = Monitor()
    with _service(settings, monitor) as service:
        watcher = Watcher(folder, service.spool, service.series, monitor, Path(settings.out))
        service.run(watcher, lambda: segmenter(settings, service.stop, tell))


def formats_of(settings: Settings) -> tuple[str, ...]:
    """What is written: what the settings say, else all that somebody gets. Raises `UsageError` if that is nothing."""
    for word in settings.formats:
        if word not in batch.FORMATS:
            raise UsageError(f"formats: {word!r} is none; available are {', '.join(sorted(batch.FORMATS))}")
    archives = settings.peer or settings.web
    wanted = (word for word in batch.FORMATS if (settings.out or word not in PEOPLE) and (archives or word != FALLBACK))
    formats = settings.formats or tuple(wanted)
    if archives and all(word in PEOPLE for word in formats):
        available = ", ".join(sorted(word for word in batch.FORMATS if word not in PEOPLE)) or "none in this version"
        raise UsageError(f"peer and web get DICOM, and no format is; available are {available}")
    return formats


def segmenter(settings: Settings, stop: threading.Event, tell: Callable[[str], None]) -> Segment:
    """The model, opened, certified and warm, as a function from a job's files to its results.

    Raises `ModelError` if the bundle or its engine cannot be used.
    """
    model = open_model(settings.model or None, settings.engine, tell)
    _warm(model)
    formats = formats_of(settings)

    def heed(done: int, of: int) -> None:
        if stop.is_set() and done < of:
            raise Stopped

    def segment(paths: Sequence[Path], job: str, folder: Path) -> str:
        outcome = batch.run_one(Source(tuple(paths), job), batch.Job(model, folder, batch.Options(formats)), heed)
        if outcome.status == "refused":
            raise ScanError(outcome.error)
        return "; ".join(outcome.notes)

    return segment


def _warm(model: Model) -> None:
    """The first call of an engine is slow; it is not a patient's."""
    rows, columns = WARM
    try:
        model.segment(Scan("warm-up", 1, rows, columns, lambda _: np.zeros((rows, columns), np.uint8)))
    except ScanError:
        return  # no memory for this size: scans will say so one by one


@contextmanager
def _service(settings: Settings, monitor: Monitor) -> Iterator[Service]:
    """The service of this process: private files, one log, and signals that end it."""
    formats_of(settings)
    os.umask(0o077)  # what is written here only its user reads
    silence()
    log_to_stderr()
    with Spool(Path(settings.spool)) as spool:
        service = Service(settings, spool, monitor)
        service.stop_on_signals()
        yield service


def _health(settings: Settings, monitor: Monitor, metrics: "Metrics") -> AbstractContextManager[object]:
    from octedge.service.health import Health

    return nullcontext() if settings.health_port is None else Health(settings.health_port, monitor, metrics)
