"""Every engine that loads the bundle's own files keeps one contract, and refuses what does not."""

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.card import encode_card
from octedge.edge import ort, ov
from octedge.edge.bundle import open_bundle
from octedge.edge.contract import check_windows
from octedge.edge.ort import OrtEngine
from octedge.edge.ov import OpenVinoEngine
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from tests.edge.graphs import in_precision, quantised_graph, saved
from tests.support import CARD, tiny_bundle, tiny_graph

every_engine = pytest.mark.parametrize("engine", [OrtEngine, OpenVinoEngine])
every_backend = pytest.mark.parametrize("backend", [ort.BACKEND, ov.BACKEND])


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


@every_engine
def test_scores_are_log_probabilities_and_labels_their_argmax(engine, tmp_path):
    windows = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 24), dtype=np.uint8)
    scores, labels = engine(saved(tiny_graph(), tmp_path), CARD)(windows)
    assert scores.shape == (3, 16, 32, 24)
    assert scores.dtype == np.float32
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores.argmax(axis=1))
    assert len(np.unique(labels)) > 3


@every_engine
def test_a_later_call_leaves_earlier_answers_alone(engine, tmp_path):
    run = engine(saved(tiny_graph(), tmp_path), CARD)
    windows = np.random.default_rng(1).integers(0, 256, (2, 1, 16, 16), dtype=np.uint8)
    scores, labels = run(windows)
    kept = scores.copy(), labels.copy()
    run(255 - windows)
    assert np.array_equal(scores, kept[0])
    assert np.array_equal(labels, kept[1])


@every_engine
def test_a_path_with_spaces_and_umlauts_is_fine(engine, tmp_path):
    engine(saved(tiny_graph(), tmp_path / "ein Ger\u00e4t"), CARD)


@every_engine
def test_the_sum_is_that_of_the_file_it_runs(engine, tmp_path):
    path = saved(tiny_graph(), tmp_path)
    assert engine(path, CARD).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@every_engine
def test_a_graph_without_the_labels_is_refused(engine, tmp_path):
    with pytest.raises(ModelError, match=r"has .*classes uint8 of rank 3; needed is image .*labels uint8 of rank 3"):
        engine(saved(tiny_graph(labels="classes"), tmp_path), CARD)


@every_engine
def test_a_graph_with_other_classes_than_its_card_is_refused(engine, tmp_path):
    fewer = msgspec.structs.replace(CARD, structures=CARD.structures[:9])
    with pytest.raises(ModelError, match="9 classes, its card 16"):
        engine(saved(tiny_graph(fewer), tmp_path), CARD)


@every_engine
def test_another_card_inside_the_graph_is_refused(engine, tmp_path):
    other = encode_card(msgspec.structs.replace(CARD, overlap=20))
    with pytest.raises(ModelError, match="the card inside differs"):
        engine(saved(tiny_graph(metadata=other), tmp_path), CARD)


@every_engine
def test_a_graph_without_a_card_inside_is_accepted(engine, tmp_path):
    graph = tiny_graph()
    del graph.metadata_props[:]
    engine(saved(graph, tmp_path), CARD)


@every_engine
@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)])
def test_what_is_no_graph_is_refused_in_one_line(engine, tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"^model\.onnx: \w+ [\d.]+ cannot load it[^\n]*; (use|upgrade)[^\n]*$"):
        engine(tmp_path / "model.onnx", CARD)


shapes = st.lists(st.integers(0, 17), min_size=1, max_size=5).map(tuple) | st.tuples(*map(st.integers, (0, 0, 0, 0), (2, 2, 17, 17)))


@given(shapes, st.sampled_from([np.uint8, np.float32]))
def test_windows_are_taken_if_and_only_if_they_lie_on_the_grid(shape, kind):
    grid = CARD.windowing.grid
    windows = np.zeros(shape, kind)
    if kind is np.uint8 and len(shape) == 4 and shape[1] == 1 and 0 not in shape and shape[2] % grid == shape[3] % grid == 0:
        check_windows(windows, CARD)
    else:
        with pytest.raises(ModelError, match=rf"got windows of {windows.dtype} .*P and V multiples of {grid}; tile"):
            check_windows(windows, CARD)


@every_engine
def test_windows_off_the_grid_are_refused_by_the_engine_itself(engine, tmp_path):
    run = engine(saved(tiny_graph(), tmp_path), CARD)
    for shape in ((1, 1, 16, 18), (1, 1, 18, 16), (1, 2, 16, 16)):
        with pytest.raises(ModelError, match="multiples of 4"):
            run(np.zeros(shape, np.uint8))


@every_engine
def test_a_window_of_one_cell_of_the_grid_is_answered_as_beside_another(engine, tmp_path):
    run = engine(saved(tiny_graph(), tmp_path), CARD)
    windows = np.random.default_rng(3).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
    for alone, beside in zip(run(windows[:1]), run(windows), strict=True):
        assert alone.shape == (1, *beside.shape[1:])
        assert np.allclose(alone, beside[:1], atol=1e-5)


@every_engine
def test_a_failing_run_is_a_model_error(engine, tmp_path):
    short = tiny_graph()
    short.graph.node[1].attribute[0].ints[:] = [0] * 4  # without padding nothing is left of a narrow window
    with pytest.raises(ModelError, match=r"cpu fp32 failed on windows \(1, 1, 4, 8\): [^\n]*; free memory"):
        engine(saved(short, tmp_path), CARD)(np.zeros((1, 1, 4, 8), np.uint8))


@every_engine
def test_a_file_in_another_precision_than_asked_for_is_refused(engine, tmp_path):
    for asked, inside in (("fp32", "int8"), ("int8", "fp32"), ("bf16", "fp16"), ("int8", "a new one")):
        graph = in_precision(tiny_graph(), inside)
        with pytest.raises(ModelError, match=f"the graph inside is in {inside}, asked for was {asked}; files are mixed up"):
            engine(saved(graph, tmp_path), CARD, precision=asked)


@every_engine
def test_a_quantised_graph_answers_as_it_is_written(engine, tmp_path):
    windows = np.random.default_rng(2).integers(0, 256, (1, 1, 64, 64), dtype=np.uint8)
    whole = engine(saved(tiny_graph(), tmp_path), CARD)
    rounded = engine(saved(quantised_graph(), tmp_path), CARD, precision="int8")
    assert rounded.name == whole.name.replace("fp32", "int8")
    assert (rounded(windows)[1] == whole(windows)[1]).mean() > 0.95
    assert np.abs(rounded(windows)[0] - whole(windows)[0]).max() > 0.01  # not the fp32 network under another name


@every_backend
def test_a_backend_loads_what_it_says_it_can_run(backend, bundle, tmp_path):
    for precision in ("fp16", "int8"):
        graph = quantised_graph() if precision == "int8" else in_precision(tiny_graph(), precision)
        saved(graph, bundle.path, f"model.{precision}.onnx")
    names = set()
    for variant in backend.variants():
        backend.build(bundle, variant, tmp_path / "engines", print)
        engine = backend.load(bundle, variant, tmp_path / "engines")
        assert engine.name.endswith(variant.precision)
        assert engine.sha256 == hashlib.sha256((bundle.path / variant.file).read_bytes()).hexdigest()
        names.add(engine.name)
    assert len(names) == len(backend.variants()) >= 2
    assert not (tmp_path / "engines").exists()


@every_backend
def test_a_file_that_the_bundle_lacks_is_named(backend, bundle, tmp_path):
    variant = Variant("any", "int8")
    with pytest.raises(ModelError, match=r"tiny has no model\.int8\.onnx, which any-int8 needs; use an engine in fp32"):
        backend.load(bundle, variant, tmp_path)
