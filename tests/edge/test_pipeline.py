"""The pipeline: the answers of `segment`, in order, in the memory of a few B-scans, whatever goes wrong."""

import threading
import tracemalloc
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from octedge.edge.contract import call_failed
from octedge.edge.ledger import Times, note, now
from octedge.edge.model import Model
from octedge.edge.ort import OrtEngine
from octedge.edge.pipeline import WAITING, Arrival, Pipeline
from octedge.errors import ModelError, OutOfMemory, ScanError
from octedge.scan import Scan, Spacing
from octedge.segment import plan, segment
from tests.edge.graphs import saved
from tests.support import CARD, tiny_graph

SIZE = (50, 171)


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> OrtEngine:
    return OrtEngine(saved(tiny_graph(), tmp_path_factory.mktemp("graph")), CARD)


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def noise(index, size=SIZE):
    return np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)


def arriving(count, bad=(), size=SIZE):
    for index in range(count):
        yield Arrival(index, Times(), None if index in bad else noise(index, size), "torn" if index in bad else "")


def same(answer, alone):
    assert np.array_equal(answer.layers.labels, alone.labels)
    assert np.array_equal(answer.layers.surfaces, alone.surfaces)


class Recording:
    """An engine that keeps the shapes of its calls."""

    name, sha256 = "recording", ""

    def __init__(self, engine, refuse=lambda windows: None):
        self.engine, self.refuse, self.shapes = engine, refuse, []

    def __call__(self, windows):
        self.shapes.append(windows.shape)
        self.refuse(windows)
        return self.engine(windows)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.sets(st.integers(0, 6)), st.sampled_from([None, 0.00195]))
def test_the_answers_are_those_of_segment_in_order_whatever_shares_a_call(engine, count, batch, bad, axial):
    spacing = Spacing(axial, source="a test" if axial else "unknown")
    pipeline = Pipeline(engine, CARD, SIZE, spacing, batch)
    found = list(pipeline.answers(arriving(count, bad)))
    assert [answer.index for answer in found] == list(range(count))
    for answer in found:
        if answer.index in bad:
            assert (answer.fault, answer.frame) == ("torn", None)
            assert (answer.layers.labels == 255).all()
            assert np.isnan(answer.layers.surfaces).all()
        else:
            same(answer, segment(noise(answer.index), engine, plan(CARD, SIZE[0], spacing)))


@pytest.mark.parametrize(("batch", "calls"), [(1, [1] * 5), (2, [2, 2, 1]), (9, [5])])
def test_b_scans_share_a_call_up_to_the_batch(engine, batch, calls):
    recording = Recording(engine)
    list(Pipeline(recording, CARD, SIZE, batch=batch).answers(arriving(5)))
    assert [shape[0] for shape in recording.shapes] == calls


def test_no_call_is_larger_than_one_b_scan_may_make_it(engine):
    card = msgspec.structs.replace(CARD, exact=False)
    recording = Recording(engine)
    pipeline = Pipeline(recording, card, SIZE, batch=9)
    pipeline.how = replace(pipeline.how, pixels=64 * 64 * 8)  # room for 8 windows; a B-scan has 4
    found = list(pipeline.answers(arriving(5)))
    assert [shape[0] for shape in recording.shapes] == [8, 8, 4]
    for answer in found:
        same(answer, segment(noise(answer.index), engine, plan(card, SIZE[0])))


def test_few_b_scans_are_under_way_however_many_come(engine):
    came = threading.Semaphore(0)

    def counted():
        for arrival in arriving(30):
            came.release()
            yield arrival

    with closing(Pipeline(engine, CARD, SIZE).answers(counted())) as answers:
        next(answers)
        for _ in range(1 + WAITING + 1):  # taken, waiting for the writer, waiting for the order
            assert came.acquire(timeout=30)
        assert not came.acquire(timeout=0.1)
    assert WAITING <= 4


def test_memory_does_not_grow_with_the_volume(engine):
    size = (60, 400)
    model = Model.__new__(Model)
    for name, value in (("bundle", type("Bundle", (), {"card": CARD})), ("engine", Recording(engine)), ("batch", 1)):
        object.__setattr__(model, name, value)
    peaks = []
    for frames in (8, 8, 64):  # the first makes caches
        tracemalloc.start()
        run = model.run(Scan("noise", frames, *size, lambda index: noise(index, size), Spacing()))
        assert sum(1 for _ in run.answers()) == frames
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one = size[0] * size[1] * (1 + 4 * len(CARD.structures))  # an answer with its scores
    assert peaks[2] - peaks[1] < one
    assert peaks[2] < 8 * one


@pytest.mark.parametrize("kind", [OutOfMemory, MemoryError])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_engine_without_memory_gets_narrower_windows(engine, kind, batch):
    def refuse(windows):
        if windows.shape[0] * windows.shape[3] > 150:
            raise kind("too much")

    recording = Recording(engine, refuse)
    pipeline = Pipeline(recording, CARD, SIZE, batch=batch)
    found = list(pipeline.answers(arriving(4)))
    refused = [shape for shape in recording.shapes if shape[0] * shape[3] > 150]
    assert refused == [(count, 1, 64, 172) for count in range(batch, 0, -1)]  # once known, it is kept to
    assert recording.shapes[len(refused) :] == [(1, 1, 64, 128)] * 8
    assert pipeline.notes == ("the engine ran out of memory with 172 columns at a time: 128 were taken",)
    for answer in found:
        same(answer, segment(noise(answer.index), engine, plan(CARD, SIZE[0])))


def test_there_is_an_end_to_narrowing_at_the_cards_window(engine):
    def refuse(_):
        raise OutOfMemory("too much")

    recording = Recording(engine, refuse)
    with pytest.raises(ScanError, match=r"no memory for 64 columns, and fewer cannot be taken \(too much\)"):
        list(Pipeline(recording, CARD, SIZE).answers(arriving(4)))
    assert recording.shapes[-1] == (1, 1, 64, 64)


def test_a_network_that_is_not_exact_keeps_its_window(engine):
    card = msgspec.structs.replace(CARD, exact=False)

    def refuse(windows):
        if len(windows) > 1:
            raise OutOfMemory("too much")

    recording = Recording(engine, refuse)
    found = list(Pipeline(recording, card, SIZE).answers(arriving(2)))
    assert {shape[2:] for shape in recording.shapes} == {(64, 64)}
    for answer in found:
        same(answer, segment(noise(answer.index), engine, plan(card, SIZE[0])))


def greedy_graph() -> onnx.ModelProto:
    """The tiny network, with a detour over more memory than any machine has."""
    model = tiny_graph()
    model.graph.node[-3].output[0] = "modest"
    detour = [
        helper.make_node("Shape", ["image"], ["shape"], start=2, end=3),
        helper.make_node("Mul", ["shape", "huge"], ["much"]),
        helper.make_node("ConstantOfShape", ["much"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["modest", "zero"], ["scores"]),
    ]
    for node in detour:
        model.graph.node.insert(len(model.graph.node) - 2, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 22] * 2, np.int64), "huge"))
    return model


def test_onnx_runtime_without_memory_is_understood(tmp_path):
    greedy = OrtEngine(saved(greedy_graph(), tmp_path), CARD)
    with pytest.raises(OutOfMemory, match=r"failed on windows \(1, 1, 64, 64\)"):
        greedy(np.zeros((1, 1, 64, 64), np.uint8))


WORDS = {
    "[CPU] Convolution node with name 'a' Failed to allocate 67108864 bytes of memory": OutOfMemory,  # OpenVINO
    "std::bad_alloc": OutOfMemory,
    "CUDA failure 2: out of memory ; GPU=0": OutOfMemory,
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED": OutOfMemory,
    "CUDA failure 700: an illegal memory access was encountered": ModelError,
    "Invalid rank for input: image": ModelError,
}


@pytest.mark.parametrize("words", WORDS)
def test_the_words_of_libraries_without_memory_are_known(words):
    assert type(call_failed("it failed", RuntimeError(words), "stop")) is WORDS[words]


def test_an_engine_that_fails_otherwise_ends_the_run(engine):
    def refuse(_):
        raise ModelError("gone")

    with pytest.raises(ModelError, match="gone"):
        list(Pipeline(Recording(engine, refuse), CARD, SIZE).answers(arriving(4)))


def test_answers_may_be_left_at_any_time(engine):
    for taken in range(4):
        with closing(Pipeline(engine, CARD, SIZE).answers(arriving(4))) as answers:
            for _ in range(taken):
                next(answers)


def test_an_engine_may_tell_the_parts_of_its_calls(engine):
    def parts(_):
        start = now()
        note("copy", start, start + 5)
        note("engine", start + 5, start + 10)

    [answer] = Pipeline(Recording(engine, parts), CARD, SIZE).answers(arriving(1))
    assert [span.stage for span in answer.times.spans] == ["tile", "copy", "engine", "stitch", "quality"]
    [answer] = Pipeline(engine, CARD, SIZE).answers(arriving(1))
    assert [span.stage for span in answer.times.spans] == ["tile", "engine", "stitch", "quality"]
