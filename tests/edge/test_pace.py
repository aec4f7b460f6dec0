"""A device's pace: when B-scans are due, and what is said of a model that keeps up with it or does not."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.edge.ledger import Latency
from octedge.edge.model import Model, open_model
from octedge.edge.pace import FULL_SPEED, WARM_UP, Pace, Rhythm, replay
from octedge.edge.variant import NamedEngine
from octedge.errors import ModelError, UsageError
from octedge.scan import Spacing
from tests.support import tiny_bundle

RHYTHMS = st.builds(Rhythm, st.floats(100, 1e7), st.integers(1, 10_000), st.floats(0.001, 100))


@given(RHYTHMS, st.integers(0, 10**7))
def test_a_b_scan_is_due_when_the_device_has_it_however_many_came_before(rhythm, k):
    exact = k * rhythm.a_per_b * 10**9 / Fraction(rhythm.a_rate)
    assert abs(rhythm.due(k) - exact) <= Fraction(1, 2) + exact / 10**15
    assert rhythm.due(k) <= rhythm.due(k + 1)


@given(RHYTHMS)
def test_all_that_is_due_before_the_end_is_counted_and_no_more(rhythm):
    end = rhythm.seconds * 1e9
    assert rhythm.bscans >= 1
    assert rhythm.due(rhythm.bscans - 1) < end <= rhythm.due(rhythm.bscans)


def test_the_first_b_scan_is_due_at_once_and_the_rest_a_period_apart():
    rhythm = Rhythm(100_000, 512, 60)
    assert [rhythm.due(k) for k in (0, 1, 2, 1000)] == [0, 5_120_000, 10_240_000, 5_120_000_000]
    assert (rhythm.period_ms, rhythm.per_second, rhythm.bscans) == (5.12, 195.3125, 11719)


@pytest.mark.parametrize("wrong", [(0, 512, 60), (1000, 0, 60), (1000, 512, 0), (math.nan, 512, 60), (math.inf, 512, 60)])
def test_a_device_without_a_pace_is_refused(wrong):
    with pytest.raises(UsageError, match="needed are finite numbers above 0"):
        Rhythm(*wrong)


def pace(due: int, misses: int) -> Pace:
    return Pace(
        a_rate=1.0, a_per_b=1, seconds=1.0, period_ms=1.0, deadline_ms=1.0, under_way=4, due=due, answered=due, misses=misses,
        lag=Latency(1, 1, 1, 1, 1), stages={}, needed=1.0, sustained=1.0, headroom=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(("due", "allowed"), [(1, 0), (999, 0), (1000, 1), (1999, 1), (60_000, 60)])
def test_one_in_a_thousand_may_be_late_and_of_fewer_none(due, allowed):
    assert pace(due, allowed).keeps_up
    assert not pace(due, allowed + 1).keeps_up


@pytest.fixture
def model(tmp_path, monkeypatch) -> Model:
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return open_model(tiny_bundle(tmp_path / "tiny"))


FRAMES = list(np.random.default_rng(0).integers(0, 256, (3, 40, 64), np.uint8))


def test_a_slow_device_gets_every_answer(model):
    found = replay(model, FRAMES, Spacing(), Rhythm(64 * 20, 64, 0.5), deadline_ms=60_000)
    assert found.keeps_up
    assert (found.due, found.answered, found.misses) == (10, 10, 0)
    assert found.needed == 20
    assert found.headroom == pytest.approx(found.sustained / 20, abs=1e-3)
    assert list(found.stages) == ["receive", "tile", "engine", "stitch", "quality"]
    assert 0 < found.lag.p50 <= found.lag.max


def test_the_deadline_is_a_period_for_each_b_scan_that_may_be_under_way(model):
    found = replay(model, FRAMES, Spacing(), Rhythm(64 * 20, 64, 0.1))
    assert found.deadline_ms == found.period_ms * found.under_way == 200


def test_a_device_that_is_too_fast_waits_and_what_finds_no_room_in_time_is_missed(model):
    found = replay(model, FRAMES, Spacing(), Rhythm(64e6, 64, 0.3))
    assert not found.keeps_up
    assert 1 <= found.answered < found.due == 300_000
    assert found.due - found.answered <= found.misses <= found.due
    assert found.headroom < 1


def test_a_device_may_scan_more_than_it_shows_but_not_less(model):
    assert replay(model, FRAMES, Spacing(), Rhythm(2560, 128, 0.1)).due == 2
    with pytest.raises(UsageError, match="a B-scan of 64 columns has at least as many"):
        replay(model, FRAMES, Spacing(), Rhythm(1280, 63, 0.1))


class Failing:
    """An engine that fails after some calls."""

    def __init__(self, engine: NamedEngine, calls: int) -> None:
        self.name, self.sha256, self._engine, self._left = engine.name, engine.sha256, engine, calls

    def __call__(self, windows):
        self._left -= 1
        if self._left < 0:
            raise ModelError("the engine failed; replace it")
        return self._engine(windows)


def test_an_engine_that_fails_on_the_way_stops_the_device_at_once(model):
    with pytest.raises(ModelError, match="replace it"):
        replay(Model(model.bundle, Failing(model.engine, 2 * WARM_UP + FULL_SPEED + 1)), FRAMES, Spacing(), Rhythm(100, 64, 86_400))
