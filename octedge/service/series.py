"""When a series is complete: single-frame objects say how many they are nowhere that can be relied on.

The rule: a series is complete when every association that sent of it has ended, and then nothing of it has come for the quiet
time. Durations are by a clock that nobody can set; after a restart the quiet time begins anew.
"""

import threading
import time
from collections.abc import Callable, Hashable

from octedge.service.spool import Receipt, Spool


class Series:
    """The series that are growing; `close` takes from them those that have been quiet for `quiet` s."""

    def __init__(self, spool: Spool, quiet: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._spool, self._quiet, self._clock = spool, quiet, clock
        self._lock = threading.Lock()
        self._last = {job.id: clock() for job in spool.pending("growing")}
        self._senders: dict[Hashable, set[str]] = {}

    def came(self, receipt: Receipt, sender: Hashable = None) -> None:
        """An object of a job came from a sender."""
        if not receipt.growing:
            return
        with self._lock:
            self._last[receipt.job] = self._clock()
            if sender is not None:
                self._senders.setdefault(sender, set()).add(receipt.job)

    def left(self, sender: Hashable) -> None:
        """The sender has ended; what it sent of is quiet from now on."""
        with self._lock:
            for job in self._senders.pop(sender, ()):
                self._last[job] = self._clock()

    def close(self) -> list[str]:
        """The jobs that are complete now."""
        with self._lock:
            held = set().union(*self._senders.values())
            now = self._clock()
            quiet = [job for job, last in self._last.items() if job not in held and now - last >= self._quiet]
            for job in quiet:
                self._spool.grown(job)
                del self._last[job]
        return quiet
