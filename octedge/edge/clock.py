"""Seconds by stage, summed over the B-scans of a scan."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Clock:
    """A stopwatch with one hand per stage, in seconds of wall time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the `with` for stage `name`; what a stage within has counted is taken off."""
        start, counted = time.perf_counter(), self.total
        try:
            yield
        finally:
            inner = self.total - counted
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start - inner

    def timed(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """`call`, counted for stage `name`."""

        @wraps(call)
        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.stage(name):
                return call(*args, **kwargs)

        return counted

    @property
    def total(self) -> float:
        """The seconds of all stages."""
        return sum(self.seconds.values())
