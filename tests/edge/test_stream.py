"""Live streams: the answers of `segment` as they get ready, never more under way than wanted, and an end whatever happens."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.edge.ledger import Times
from octedge.edge.model import Model, open_model
from octedge.edge.ov import OpenVinoEngine
from octedge.edge.pipeline import Arrival, Pipeline
from octedge.edge.stream import ColumnStream, Stream
from octedge.errors import ModelError, ScanError, UsageError
from octedge.geometry import stitch
from octedge.quality import Gauge, certainty, frame_quality
from octedge.scan import Scan, Spacing
from octedge.segment import order, plan, prepare, run, segment
from tests.support import CARD, tiny_bundle

SIZE = (50, 171)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTEDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return open_model(tiny_bundle(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def noise(index, size=SIZE):
    return np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)


def same(answer, model, spacing=Spacing()):
    alone = segment(noise(answer.index), model.engine, plan(CARD, SIZE[0], spacing))
    assert np.array_equal(answer.layers.labels, alone.labels)
    assert np.allclose(answer.layers.surfaces, alone.surfaces, atol=1e-4)
    assert np.array_equal(answer.frame, noise(answer.index))


def same_quality(found, model, spacing):
    """The measures of the first B-scan are those of the whole one in a single window."""
    how = plan(CARD, SIZE[0], spacing, 1 << 30)
    prepared = prepare(noise(0), how)
    scores, labels = (stitch(each, prepared.tiling) for each in run(prepared.windows, model.engine, how))
    layers = order(scores, labels, how.chain, SIZE[0])
    gauge = Gauge.of(CARD.structures, spacing)
    alone = frame_quality(noise(0), layers.labels, layers.surfaces, certainty(scores, layers.labels, gauge), gauge)
    assert 0 < found.certainty == pytest.approx(alone.certainty, abs=1e-5)
    assert replace(found, certainty=0.0) == replace(alone, certainty=0.0)


@pytest.mark.parametrize("spacing", [Spacing(), Spacing(0.00195, 0.01, None, "a test")])
def test_the_measures_of_a_b_scan_depend_on_no_window_engine_or_way_it_came(model, spacing):
    scan = Scan("noise", 2, *SIZE, noise, spacing)
    whole = model.segment(scan)
    assert len(whole.quality) == 2
    same_quality(whole.quality[0], model, spacing)
    for engine in (model.engine, OpenVinoEngine(model.bundle.path / "model.onnx", CARD)):
        pipeline = Pipeline(engine, CARD, SIZE, spacing)
        pipeline.how = plan(CARD, SIZE[0], spacing, 1)
        assert len(pipeline.how.tiling(*SIZE).starts) > 1
        (answer,) = pipeline.answers(arrival for arrival in [Arrival(0, Times(), noise(0))])
        same_quality(answer.quality, model, spacing)
    for stream in (model.stream(*SIZE, spacing=spacing), model.column_stream(*SIZE, spacing=spacing)):
        with stream:
            stream.put(noise(0))
            same_quality(stream.get().quality, model, spacing)


class Broken:
    """An engine that fails at its third call."""

    name, sha256 = "broken", ""

    def __init__(self, engine):
        self.engine, self.calls = engine, 0

    def __call__(self, windows):
        self.calls += 1
        if self.calls == 3:
            raise ModelError("the engine is gone")
        return self.engine(windows)


class Held:
    """An engine that works when it is let."""

    name, sha256 = "held", ""

    def __init__(self, engine):
        self.engine, self.called, self.may = engine, threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, windows):
        self.called.release()
        assert self.may.acquire(timeout=30)
        return self.engine(windows)


def test_a_b_scan_put_is_answered_at_once(model):
    with model.stream(*SIZE) as stream:
        for index in range(5):
            stream.put(noise(index))
            answer = stream.get()
            assert answer.index == index
            same(answer, model)
            assert [span.stage for span in answer.times.spans] == ["receive", "tile", "engine", "stitch", "quality"]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("spacing", [Spacing(), Spacing(0.00195, None, None, "a test")])
def test_one_thread_puts_while_another_gets(model, depth, spacing):
    def put_all():
        memory = np.empty(SIZE, np.uint8)  # one for all, as a device has
        for index in range(12):
            memory[:] = noise(index)
            stream.put(memory)
        stream.close()

    with model.stream(*SIZE, spacing=spacing, depth=depth) as stream, ThreadPoolExecutor(1) as pool:
        done = pool.submit(put_all)
        answers = list(stream)
        done.result()
    assert [answer.index for answer in answers] == list(range(12))
    for answer in answers:
        same(answer, model, spacing)


def test_put_waits_while_as_many_as_wanted_are_under_way(model):
    with model.stream(*SIZE, depth=2) as stream:
        stream.put(noise(0))
        stream.put(noise(1))
        with pytest.raises(TimeoutError, match="no room for another B-scan within 0 s"):
            stream.put(noise(2), timeout=0)
        assert stream.get().index == 0
        stream.put(noise(2), timeout=0)  # one was taken


def test_get_waits_as_long_as_it_is_told_to(model):
    with model.stream(*SIZE) as stream:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
            stream.get(timeout=0.01)
        stream.put(noise(0))
        assert stream.get(timeout=30).index == 0


@pytest.mark.parametrize("frame", [np.zeros((50, 170), np.uint8), np.zeros((49, 171), np.uint8), np.zeros(SIZE, np.uint16)])
def test_a_b_scan_of_another_kind_is_refused_and_the_stream_goes_on(model, frame):
    with model.stream(*SIZE) as stream:
        with pytest.raises(ScanError, match=r"came; needed is uint8 \(50, 171\)"):
            stream.put(frame)
        stream.put(noise(0))
        same(stream.get(), model)


def test_what_is_under_way_is_answered_after_closing(model):
    with model.stream(*SIZE) as stream:
        for index in range(3):
            stream.put(noise(index))
        stream.close()
        with pytest.raises(UsageError, match="takes nothing more"):
            stream.put(noise(3))
        assert [answer.index for answer in stream] == [0, 1, 2]
        assert list(stream) == []
        with pytest.raises(UsageError, match="all answers were given"):
            stream.get()


@pytest.mark.parametrize(("kind", "calls"), [(Stream, 1), (ColumnStream, 4)])
def test_a_stream_that_is_left_finishes_the_b_scan_it_is_at_and_drops_the_others(model, kind, calls):
    called = []

    def engine(windows):
        called.append(windows.shape)
        while not stream._left:
            time.sleep(0.001)
        return model.engine(windows)

    with kind(engine, CARD, SIZE) as stream:
        for index in range(3):
            stream.put(noise(index))
        while not called:
            time.sleep(0.001)
    assert len(called) == calls


@pytest.mark.parametrize("kind", [Stream, ColumnStream])
def test_an_engine_that_dies_ends_the_stream_on_both_sides(model, kind):
    with kind(Broken(model.engine), CARD, SIZE, depth=8) as stream:

        def put_on():
            while True:
                stream.put(noise(0))

        with ThreadPoolExecutor(1) as pool:
            putting = pool.submit(put_on)
            with pytest.raises(ModelError, match="the engine is gone"):
                list(stream)
            with pytest.raises(UsageError, match="get\\(\\) says what went wrong"):
                putting.result()
        with pytest.raises(ModelError, match="the engine is gone"):
            stream.get()


@pytest.mark.parametrize("kind", [Stream, ColumnStream])
def test_at_least_one_b_scan_must_be_under_way(model, kind):
    with pytest.raises(UsageError, match="depth 0 given"):
        kind(model.engine, CARD, SIZE, depth=0)


def cut(frame, widths):
    """Parts of so many columns each, the last one of what is left."""
    ends = np.unique(np.minimum(np.cumsum([0, *widths, frame.shape[1]]), frame.shape[1]))
    return [frame[:, first:last] for first, last in pairwise(ends)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), max_size=12), st.sampled_from([Spacing(), Spacing(0.00195, None, None, "a test")]))
def test_columns_in_any_portions_give_the_answer_of_the_whole(model, widths, spacing):
    memory = np.empty(SIZE, np.uint8)  # one for all, as a device has
    with model.column_stream(*SIZE, spacing=spacing) as stream:
        for index in range(2):
            for part in cut(noise(index), widths):
                memory[:, : part.shape[1]] = part
                stream.put(memory[:, : part.shape[1]])
        stream.close()
        answers = list(stream)
    assert [answer.index for answer in answers] == [0, 1]
    for answer in answers:
        same(answer, model, spacing)
        assert {span.stage for span in answer.times.spans} == {"receive", "engine", "stitch", "quality"}


def test_a_window_is_run_before_the_last_column_is_there(model):
    engine = Held(model.engine)
    with ColumnStream(engine, CARD, SIZE) as stream:
        stream.put(noise(0)[:, :63])
        assert not engine.called.acquire(timeout=0.05)
        stream.put(noise(0)[:, 63:64])
        assert engine.called.acquire(timeout=30)
        engine.may.release(20)
        stream.put(noise(0)[:, 64:])
        same(stream.get(), model)


def test_a_window_is_as_wide_as_the_card_says(model):
    shapes = []

    def engine(windows):
        shapes.append(windows.shape)
        return model.engine(windows)

    with ColumnStream(engine, CARD, SIZE) as stream:
        stream.put(noise(0))
        stream.get()
    assert set(shapes) == {(1, 1, 64, 64)}


def test_columns_of_a_network_that_is_not_exact_are_refused(model):
    card = msgspec.structs.replace(CARD, exact=False)
    with pytest.raises(UsageError, match="tiny depend on the windows, for it is not exact"):
        replace(model, bundle=replace(model.bundle, card=card)).column_stream(*SIZE)


@pytest.mark.parametrize("shape", [(49, 9), (50, 72), (50, 0), (50,)])
def test_columns_that_do_not_fit_are_refused_and_the_stream_goes_on(model, shape):
    with model.column_stream(*SIZE) as stream:
        stream.put(noise(0)[:, :100])
        with pytest.raises(ScanError, match="came; needed is uint8"):
            stream.put(np.zeros(shape, np.uint8))
        stream.put(noise(0)[:, 100:])
        same(stream.get(), model)


def test_a_b_scan_without_its_last_columns_is_named(model):
    with model.column_stream(*SIZE) as stream:
        stream.put(noise(0))
        stream.put(noise(1)[:, :100])
        stream.close()
        same(stream.get(), model)
        with pytest.raises(ScanError, match="closed after 100 of 171 columns of B-scan 1"):
            stream.get()
