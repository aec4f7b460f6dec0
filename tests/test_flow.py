"""Work ahead: in order, no further than asked, failing in place, and over when nobody wants more."""

import threading
import time
import weakref
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.flow import ahead, patiently, side_by_side


class Broken(Exception):
    """What goes wrong in these tests."""


def failing_after(count):
    yield from range(count)
    raise Broken


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_the_items_come_in_their_order(items, depth):
    assert list(ahead(iter(items), depth)) == items
    assert list(ahead(ahead(items, depth), depth)) == items


def test_the_items_are_made_in_another_thread_even_the_first():
    assert set(ahead((threading.get_ident() for _ in range(3)), 2)).isdisjoint({threading.get_ident()})


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_items_wait(depth):
    made, full = [], threading.Semaphore(0)

    def items():
        for item in range(20):
            made.append(item)
            full.release()
            yield item

    with closing(ahead(items(), depth)) as taken:
        next(taken)
        for _ in range(1 + depth):  # the one taken, and as many as may wait
            assert full.acquire(timeout=10)
        assert len(made) == 1 + depth
        for item in taken:
            assert len(made) <= item + 1 + depth
    assert made == list(range(20))


def test_work_goes_on_while_an_item_is_used():
    started = threading.Event()

    def items():
        yield 1
        started.set()
        yield 2

    with closing(ahead(items())) as taken:
        assert next(taken) == 1
        assert started.wait(10)


def test_a_failure_comes_at_its_place():
    with closing(ahead(failing_after(3), 5)) as stream:
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Broken):
            next(stream)


@pytest.mark.parametrize("end", [GeneratorExit, KeyboardInterrupt, Broken])
def test_a_consumer_that_goes_away_ends_the_thread_and_closes_the_iterator(end):
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread())

    def use():
        with closing(ahead(ahead(items(), 2), 2)) as taken:
            next(taken)
            raise end

    with pytest.raises(end):
        use()
    assert closed


def test_what_was_never_begun_does_nothing():
    asked = []
    with closing(ahead(map(asked.append, range(3)))):
        pass
    ahead(map(asked.append, range(3)))
    assert not asked


def test_a_taken_item_is_not_kept_while_the_next_is_waited_for():
    class Item:
        pass

    given_up, taken_one = [], threading.Event()

    def items():
        yield Item()
        assert taken_one.wait(10)
        for _ in range(10_000):
            if given_up[0]() is None:
                break
            time.sleep(0.001)
        yield given_up[0]() is None

    with closing(ahead(items(), 1)) as taken:
        given_up.append(weakref.ref(next(taken)))
        taken_one.set()
        assert next(taken)


def test_the_iterator_is_closed_even_if_somebody_holds_it():
    items = failing_after(9)
    with closing(ahead(items)) as taken:
        next(taken)
    assert items.gi_frame is None


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_side_by_side_results_come_in_order_however_many_threads_make_them(workers):
    assert list(side_by_side(lambda step: step, range(5, 25), workers)) == list(range(5, 25))
    assert list(side_by_side(lambda step: step, range(0), workers)) == []


def test_side_by_side_is_at_the_same_time():
    both = threading.Barrier(2, timeout=10)
    assert len(list(side_by_side(lambda _: both.wait(), range(4), 2))) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_what_fails_side_by_side_fails_at_its_place(workers):
    def draw(step):
        if step == 3:
            raise Broken
        return step

    with closing(side_by_side(draw, range(9), workers)) as drawn:
        assert [next(drawn) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Broken):
            next(drawn)


@pytest.mark.parametrize("timeout", [0, 0.01, None])
def test_patience_ends_with_success(timeout):
    assert patiently(lambda seconds: 0 <= seconds <= 1, timeout)


def test_patience_ends_when_the_time_is_over_and_not_before_a_try():
    waits: list[float] = []

    def attempt(seconds: float) -> bool:
        waits.append(seconds)
        return False

    assert not patiently(attempt, 0)
    assert waits == [0]


def test_patience_without_an_end_tries_again():
    answers = iter([False, False, True])
    assert patiently(lambda _: next(answers))


def test_an_iterator_that_a_thread_is_still_at_is_closed_when_it_is_done(monkeypatch):
    """As when Ctrl-C meets a thread that is being started: its pool does not wait for it."""
    began, closed = threading.Event(), []

    def slow():
        try:
            began.set()
            time.sleep(0.2)
            yield 1
        finally:
            closed.append(True)

    def impatient(make, items, *_):
        threading.Thread(target=make, args=(None,)).start()
        began.wait()
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr("octedge.flow.side_by_side", impatient)
    with pytest.raises(KeyboardInterrupt):
        next(ahead(slow()))
    assert closed == [True]
