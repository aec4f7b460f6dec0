"""The ONNX Runtime engine keeps the contract, and refuses graphs that do not."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from octedge.card import encode_card
from octedge.edge.ort import PROVIDERS, OrtEngine
from octedge.errors import ModelError
from tests.support import CARD, tiny_graph


def engine_of(graph: onnx.ModelProto, folder: Path) -> OrtEngine:
    onnx.save(graph, folder / "model.onnx")
    return OrtEngine(folder / "model.onnx", CARD)


def test_scores_are_log_probabilities_and_labels_their_argmax(tmp_path):
    windows = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 24), dtype=np.uint8)
    scores, labels = engine_of(tiny_graph(), tmp_path)(windows)
    assert scores.shape == (3, 16, 32, 24)
    assert scores.dtype == np.float32
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, scores.argmax(axis=1))
    assert len(np.unique(labels)) > 3


def test_the_name_says_library_version_device_and_precision(tmp_path):
    assert engine_of(tiny_graph(), tmp_path).name == f"onnxruntime {onnxruntime.__version__} cpu fp32"


def test_a_path_with_spaces_and_umlauts_is_fine(tmp_path):
    folder = tmp_path / "ein Ger\u00e4t"
    folder.mkdir()
    engine_of(tiny_graph(), folder)


def test_a_graph_without_the_labels_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"needed is image .*labels tensor\(uint8\)"):
        engine_of(tiny_graph(labels="classes"), tmp_path)


def test_a_graph_with_other_classes_than_its_card_is_refused(tmp_path):
    fewer = msgspec.structs.replace(CARD, structures=CARD.structures[:9])
    with pytest.raises(ModelError, match="9 classes, its card 16"):
        engine_of(tiny_graph(fewer), tmp_path)


def test_another_card_inside_the_graph_is_refused(tmp_path):
    other = encode_card(msgspec.structs.replace(CARD, overlap=20))
    with pytest.raises(ModelError, match="the card inside differs"):
        engine_of(tiny_graph(metadata=other), tmp_path)


def test_a_graph_without_a_card_inside_is_accepted(tmp_path):
    graph = tiny_graph()
    del graph.metadata_props[:]
    engine_of(graph, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)])
def test_what_is_no_graph_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        OrtEngine(tmp_path / "model.onnx", CARD)


def test_a_failing_run_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="failed on windows"):
        engine_of(tiny_graph(), tmp_path)(np.zeros((1, 2, 16, 16), np.uint8))


def test_running_elsewhere_than_asked_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["AzureExecutionProvider", *PROVIDERS])
    with pytest.raises(ModelError, match="runs on AzureExecutionProvider, CPUExecutionProvider, asked for was CPUExecutionProvider"):
        engine_of(tiny_graph(), tmp_path)
