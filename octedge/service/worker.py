"""The work between receiving and sending: two threads that take jobs from the spool, one to segment them and one to send results.

A try that failed is repeated after a wait that doubles, by a clock that nobody can set; when tries are used up the job is
quarantined. What cannot go well by waiting (a damaged scan, a class that a peer refuses) is quarantined at once.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from octedge.errors import ModelError, OctedgeError, OutOfMemory, OutputError, ScanError
from octedge.service.monitor import Monitor, where
from octedge.service.send import Destination, Folder, Parcel, Refused, Unreachable, dicom_items
from octedge.service.series import Series
from octedge.service.settings import Settings
from octedge.service.spool import Job, Spool

TICK = 0.5  # s between looks at the spool
WORK_TRIES = 3  # a scan that failed so often to be segmented, or killed the process, is not the machine's bad luck


class Stopped(Exception):
    """The service is to end: after this B-scan, before the next."""


# Segment the files of a job into a folder; what is to be said of the results, or "". Raises `ScanError` if the scan is refused,
# `Stopped`, `ModelError` and `OutputError`.
Segment = Callable[[Sequence[Path], str, Path], str]


@dataclass(slots=True)
class Retry:
    """When a job may be tried again: after `first` s, then twice that, and so on up to `longest`; at once if it never failed.

    Waiting begins when it is first asked for, so after a restart it begins anew, and a clock that is set changes nothing.
    """

    first: float
    longest: float
    clock: Callable[[], float] = time.monotonic
    _due: dict[str, tuple[int, float]] = field(default_factory=dict)

    def ready(self, job: str, tries: int) -> bool:
        """Whether the wait after so many tries is over."""
        if not tries:
            self._due.pop(job, None)
            return True
        if self._due.get(job, (0, 0.0))[0] != tries:
            self._due[job] = tries, self.clock() + min(self.longest, self.first * 2.0 ** min(tries - 1, 30))
        return self.clock() >= self._due[job][1]

    def forget(self, job: str) -> None:
        """It is over."""
        self._due.pop(job, None)


class Worker:
    """Takes jobs through the spool until `stop` is set."""

    def __init__(self, spool: Spool, series: Series, destinations: Sequence[Destination], monitor: Monitor, settings: Settings) -> None:
        self.spool, self.series, self.destinations, self.monitor = spool, series, destinations, monitor
        self.stop = threading.Event()
        self._send_tries = settings.tries
        self._work_retry, self._send_retry = (Retry(settings.wait_s, settings.longest_wait_s) for _ in range(2))

    # Segmenting

    def segment_due(self, segment: Segment) -> int:
        """Segment every job that is due; how many were."""
        for complete in self.series.close():
            self.monitor.event("complete", job=complete)
        due = [job for job in self.spool.pending("received") if self._work_retry.ready(job.id, job.tries)]
        for job in due:
            if self.stop.is_set():
                break
            self._segment(job, segment)
        return len(due)

    def _segment(self, job: Job, segment: Segment) -> None:
        if job.tries >= WORK_TRIES:
            self._quarantine(job.id, job.reason or f"the process ended {job.tries} times while segmenting it")
            return
        number = self.spool.begin(job.id, "received")
        if number is None:
            return
        begun = time.perf_counter()
        try:
            note = segment(self.spool.paths(job.id), job.id, self.spool.empty_results(job.id))
        except Stopped:
            self.spool.put_back(job.id, counted=False)
        except ScanError as error:
            self._quarantine(job.id, str(error))
        except OutputError as error:  # the disk's fault, not the scan's
            self.spool.put_back(job.id, str(error), counted=False)
            self.monitor.event("failed", job=job.id, step="segment", why=type(error).__name__)
            self.stop.wait(self._work_retry.first)
        except Exception as error:  # the outermost entry: one scan must not stop those behind it
            self._failed(job.id, number, WORK_TRIES, _reason(error), "segment")
            if isinstance(error, ModelError) and not isinstance(error, OutOfMemory):
                raise  # it would fail with every scan: the service is to end, and certify its engine when it is started again
        else:
            self.spool.written(job.id, note)
            self.monitor.event("segmented", job=job.id, ms=round(1000 * (time.perf_counter() - begun), 1))
        self._work_retry.forget(job.id)

    # Sending

    def send_due(self) -> int:
        """Send the results of every job that is due; how many were. A destination that does not answer is asked once."""
        due = [job for job in self.spool.pending("written") if self._send_retry.ready(job.id, job.tries)]
        silent: dict[str, str] = {}
        for job in due:
            if self.stop.is_set():
                break
            self._send(job, silent)
        return len(due)

    def _send(self, job: Job, silent: dict[str, str]) -> None:
        number = self.spool.begin(job.id, "written")
        if number is None:
            return
        begun, items = time.perf_counter(), dicom_items(self.spool.results / job.id)
        left_out: list[str] = []
        failures: list[str] = []
        refusals: list[str] = []
        for destination in self.destinations:
            try:
                if destination.name in silent:
                    raise Unreachable(silent[destination.name])
                left_out += destination.deliver(Parcel(self.spool, job.id, destination.name, items))
            except Unreachable as error:
                silent[destination.name] = str(error)
                failures.append(str(error))
            except Refused as error:
                refusals.append(str(error))
            except Exception as error:  # noqa: BLE001 - the outermost entry, as above
                failures.append(_reason(error))
        if not items and not any(isinstance(destination, Folder) for destination in self.destinations):
            refusals.append(f"no DICOM result that could be sent: {job.note or 'none was written'}")
        if refusals and not failures:
            self._quarantine(job.id, "; ".join(refusals))
        elif failures:
            self._failed(job.id, number, self._send_tries, "; ".join(failures + refusals), "send")
        else:
            self.spool.delivered(job.id, "; ".join(filter(None, [job.note, *left_out])))
            self._send_retry.forget(job.id)
            self.monitor.event("delivered", job=job.id, left_out=len(left_out), ms=round(1000 * (time.perf_counter() - begun), 1))

    # Both

    def _failed(self, job: str, number: int, limit: int, reason: str, step: str) -> None:
        self.monitor.event("failed", job=job, step=step, tries=number)
        if number >= limit:
            self._quarantine(job, f"{reason} (tried {number} times)")
        else:
            self.spool.put_back(job, reason)

    def _quarantine(self, job: str, reason: str) -> None:
        self.spool.quarantine(job, reason)
        self.monitor.event("quarantined", job=job)


def _reason(error: Exception) -> str:
    """Our own words hold no patient data; of others' nobody knows."""
    return str(error) if isinstance(error, OctedgeError) else f"unexpected {where(error)}"
