"""Work ahead of need, in threads: always in order, never further ahead than wanted, and over when nobody wants more."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from itertools import islice, repeat
from types import GeneratorType
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Progress = Callable[[int, int], None]  # hears how many are done, of how many

_BRIEF = 0.01  # s
_TICK = 1.0  # s; Windows lets Ctrl-C through only where a wait has an end


def ahead(items: Iterable[Item], depth: int = 1) -> Generator[Item, None, None]:
    """The items in their order, made by a thread of their own while earlier ones are used; at most `depth` are made and not taken.

    What the iterator raises comes at its place. When the consumer goes away, the thread ends after the item it is at, and the
    iterator is closed; to be sure when that is, use `contextlib.closing`.
    """
    source, end = iter(items), object()
    try:
        with closing(side_by_side(lambda _: next(source, end), repeat(None), 1, depth)) as made:
            for item in made:
                if item is end:
                    return
                yield item  # type: ignore[misc]
                del item
    finally:
        if isinstance(source, GeneratorType):
            while source.gi_running:  # Ctrl-C met a thread that was just being started, for which its pool does not wait
                time.sleep(_BRIEF)
            source.close()


def side_by_side(
    make: Callable[[Item], Made], items: Iterable[Item], workers: int, depth: int | None = None
) -> Generator[Made, None, None]:
    """`make` of every item in their order, by `workers` threads while earlier ones are used; with none, when asked for.

    At most `depth` are made and not taken: by default one more than there are threads. The items themselves come from the
    consumer's thread, which must not have to wait for them.
    """
    if not workers:
        yield from map(make, items)
        return
    pool, waiting = ThreadPoolExecutor(workers), iter(items)
    try:
        coming = deque(pool.submit(make, item) for item in islice(waiting, depth or workers + 1))
        while coming:
            patiently(lambda seconds: bool(wait(islice(coming, 1), seconds).done))
            coming.extend(pool.submit(make, item) for item in islice(waiting, 1))
            yield coming.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def patiently(attempt: Callable[[float], bool], timeout: float | None = None) -> bool:
    """Whether `attempt`, which waits for so many seconds at most, succeeds within `timeout` s; None: however long that takes."""
    end = float("inf") if timeout is None else time.monotonic() + timeout
    while not attempt(max(0.0, min(_TICK, end - time.monotonic()))):
        if time.monotonic() >= end:
            return False
    return True
