"""ONNX Runtime runs where it was asked to, on what the file says."""

import numpy as np
import onnxruntime
import pytest

from octedge.edge import ort
from octedge.edge.bundle import open_bundle
from octedge.edge.gpu import Gpu
from octedge.edge.ort import CPU, CUDA, OrtEngine
from octedge.edge.variant import FIRST, Variant
from octedge.errors import ModelError
from tests.edge.graphs import quantised_graph, saved
from tests.support import CARD, tiny_bundle, tiny_graph

CARD_OF_A_PC = Gpu("a card", (8, 6), "580.1", 1 << 33)
WINDOWS = np.random.default_rng(0).integers(0, 256, (1, 1, 64, 64), dtype=np.uint8)


def test_the_name_says_library_version_device_and_precision(tmp_path):
    assert OrtEngine(saved(tiny_graph(), tmp_path), CARD).name == f"onnxruntime {onnxruntime.__version__} cpu fp32"


def test_running_elsewhere_than_asked_is_refused(tmp_path, monkeypatch):
    path = saved(tiny_graph(), tmp_path)
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["AzureExecutionProvider", CPU])
    with pytest.raises(ModelError, match="runs on AzureExecutionProvider, CPUExecutionProvider, asked for was CPUExecutionProvider"):
        OrtEngine(path, CARD)


def test_a_quantised_graph_keeps_its_biases_in_floating_point(tmp_path):
    path = saved(quantised_graph(), tmp_path)
    literal = onnxruntime.SessionOptions()
    literal.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = onnxruntime.InferenceSession(path, literal, [CPU]).run(["scores"], {"image": WINDOWS})[0]
    usual = onnxruntime.InferenceSession(path, None, [CPU]).run(["scores"], {"image": WINDOWS})[0]
    assert np.abs(usual - expected).max() > 0.01  # the optimiser that the engine leaves out
    np.testing.assert_array_equal(OrtEngine(path, CARD, precision="int8")(WINDOWS)[0], expected)


def test_the_cpu_has_three_variants_and_the_first_one_is_among_them():
    on_cpu = [variant for variant in ort.BACKEND.variants() if not variant.device]
    assert list(map(str, on_cpu)) == ["ort-fp32", "ort-fp16", "ort-int8"]
    assert on_cpu[0] == FIRST


def test_a_gpu_adds_its_variants_where_this_build_can_use_it(monkeypatch):
    monkeypatch.setattr(ort, "gpus", lambda: (CARD_OF_A_PC,))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert len(ort.BACKEND.variants()) == 3
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert list(map(str, ort.BACKEND.variants()))[3:] == ["ort-cuda-fp32", "ort-cuda-fp16"]
    monkeypatch.setattr(ort, "gpus", tuple)
    assert len(ort.BACKEND.variants()) == 3


def test_a_build_without_cuda_and_a_machine_without_gpu_say_so_instead_of_using_the_cpu(tmp_path, monkeypatch):
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    monkeypatch.setattr(ort, "missing", lambda: "no GPU")
    for providers, words in (([CPU], "built without CUDA; pip uninstall"), ([CUDA, CPU], "CUDA cannot start: no GPU; install")):
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda providers=providers: providers)
        with pytest.raises(ModelError, match=words):
            ort.BACKEND.load(bundle, Variant("ort", "fp32", "cuda"), tmp_path)


def test_on_a_gpu_the_name_says_which_and_with_which_driver(monkeypatch):
    monkeypatch.setattr(ort, "gpus", lambda: (CARD_OF_A_PC,))
    assert ort._device("cuda") == "cuda a card driver 580.1"


@pytest.mark.parametrize("variant", [Variant("ort", "bf16"), Variant("ort", "int8", "cuda"), Variant("ort", "fp32", "gpu")])
def test_what_it_does_not_have_is_refused_and_not_run_as_something_else(variant, tmp_path):
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    with pytest.raises(ModelError, match=f"is not run as {variant} by octedge; use ort-fp32, ort-fp16, ort-int8"):
        ort.BACKEND.load(bundle, variant, tmp_path)


@pytest.mark.gpu
def test_on_a_gpu_the_labels_are_those_of_the_cpu(tmp_path):
    if Variant("ort", "fp32", "cuda") not in ort.BACKEND.variants():
        pytest.skip("needs onnxruntime-gpu and an NVIDIA GPU")
    path = saved(tiny_graph(), tmp_path)
    assert (OrtEngine(path, CARD, device="cuda")(WINDOWS)[1] == OrtEngine(path, CARD)(WINDOWS)[1]).mean() >= 0.9999
