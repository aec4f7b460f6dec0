"""A TensorRT plan at work, on a simulated GPU: the answers of its graph, threads, memory, kernels that are kept."""

import gc
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
import tensorrt_rtx
from cuda.bindings import runtime

from octedge.edge.bundle import open_bundle
from octedge.edge.gpu import gpus, missing
from octedge.edge.ort import OrtEngine
from octedge.edge.trt import RTX, TENSORRT
from octedge.edge.trt_build import CURRENT, profiles
from octedge.edge.trt_files import Plan
from octedge.edge.trt_run import PlanEngine, cuda
from octedge.errors import ModelError
from octedge.segment import plan, segment
from tests.edge import simulated_gpu
from tests.edge.simulated_gpu import SimulatedGpu
from tests.edge.trt_parts import KEY, quiet, without_gpu
from tests.support import CARD


@pytest.fixture(scope="module")
def bundle(bundle):
    return open_bundle(bundle)


@pytest.fixture
def simulated(bundle, monkeypatch):
    """Makes an engine on a simulated GPU: of a card, with some room, keeping its kernels in a file; calls are small."""
    monkeypatch.setattr("octedge.segment.PIXELS_PER_CALL", 1 << 14)

    def make(kernels, card=bundle.card, room=1 << 40, data=b"plan", classes=16):
        rows = profiles(card, (48, 100))
        gpu = SimulatedGpu(bundle.path / "model.onnx", rows, classes, room)
        monkeypatch.setattr("cuda.bindings.runtime", gpu.cuda)
        key = msgspec.structs.replace(KEY, profiles=rows)
        return gpu, lambda: PlanEngine(gpu.trt, Plan(data, "5" * 64, key), card, kernels)

    return make


@pytest.mark.parametrize("exact", [True, False])
def test_a_plan_gives_what_its_graph_gives_at_every_size(bundle, simulated, tmp_path, exact):
    card = msgspec.structs.replace(CARD, exact=exact)
    gpu, make = simulated(tmp_path / "kernels", card)
    engine, reference = make(), OrtEngine(bundle.path / "model.onnx", CARD)
    assert (engine.name, engine.sha256) == (KEY.engine, "5" * 64)
    rng = np.random.default_rng(0)
    for size in ((48, 70), (100, 300), (64, 33), (64, 700), (128, 1)):
        frame = rng.integers(0, 256, size, np.uint8)
        found, known = (segment(frame, each, plan(card, size[0])) for each in (engine, reference))
        np.testing.assert_array_equal(found.labels, known.labels)
        np.testing.assert_array_equal(found.surfaces, known.surfaces)
    assert len(gpu.cuda.memory) == 6


def test_calls_from_several_threads_do_not_meet(bundle, simulated, tmp_path):
    engine, reference = simulated(tmp_path / "kernels")[1](), OrtEngine(bundle.path / "model.onnx", CARD)
    windows = [np.random.default_rng(each).integers(0, 256, (1, 1, 64, 64), np.uint8) for each in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for found, each in zip(pool.map(engine, windows), windows, strict=True):
            np.testing.assert_array_equal(found[1], reference(each)[1])


def test_nothing_of_a_closed_engine_stays_on_the_gpu(simulated, tmp_path):
    gpu, make = simulated(tmp_path / "kernels")
    engine = make()
    assert gpu.cuda.memory
    assert gpu.cuda.streams
    del engine
    gc.collect()
    assert not gpu.cuda.memory
    assert not gpu.cuda.streams


def test_a_full_gpu_is_named_and_what_was_taken_is_given_back(simulated, tmp_path):
    gpu, make = simulated(tmp_path / "kernels", room=500_000)
    with pytest.raises(ModelError, match=r"cudaMalloc fails on the GPU: cudaErrorMemoryAllocation \(2\)"):
        make()
    assert not gpu.cuda.memory
    assert not gpu.cuda.streams


def test_what_the_library_refuses_at_run_time_is_said_in_its_words(simulated, tmp_path):
    with pytest.raises(ModelError, match=r"simulated 1\.0 cannot load the plan \(no magic in it\); run octedge prepare BUNDLE again"):
        simulated(tmp_path / "kernels", data=b"nonsense")[1]()
    with pytest.raises(ModelError, match=r"the plan has 9 classes, its card 16"):
        simulated(tmp_path / "kernels", classes=9)[1]()
    gpu, make = simulated(tmp_path / "kernels")
    gpu.fault = "an illegal memory access"
    with pytest.raises(ModelError, match=r"fails on windows \(1, 1, 64, 8\) \(an illegal memory access\)"):
        make()(np.zeros((1, 1, 64, 8), np.uint8))


def test_kernels_compiled_on_the_way_are_kept_for_the_next_process(simulated, tmp_path):
    file = tmp_path / "kernels"
    _, make = simulated(file)
    make()(np.zeros((1, 1, 64, 8), np.uint8))
    assert file.read_text() == "1 1 64 8\n"
    again = make()
    again(np.zeros((1, 1, 128, 4), np.uint8))
    assert file.read_text() == "1 1 64 8\n1 1 128 4\n"
    stamp = file.stat().st_mtime_ns
    make()(np.zeros((1, 1, 64, 8), np.uint8))
    assert file.stat().st_mtime_ns == stamp
    unwritable = simulated(tmp_path / "no such folder" / "kernels")[1]()
    assert unwritable(np.zeros((1, 1, 64, 8), np.uint8))[1].shape == (1, 64, 8)


def test_a_library_without_a_store_for_kernels_runs_too(simulated, tmp_path, monkeypatch):
    monkeypatch.delattr(simulated_gpu.Engine, "create_runtime_config")
    monkeypatch.setattr(simulated_gpu.Engine, "create_execution_context", lambda self: simulated_gpu.Context(self, None))
    assert simulated(tmp_path / "kernels")[1]()(np.zeros((1, 1, 64, 8), np.uint8))[0].shape == (1, 16, 64, 8)
    assert not (tmp_path / "kernels").exists()


def test_the_simulated_gpu_offers_nothing_that_the_real_packages_lack():
    pairs = {
        simulated_gpu.Cuda: runtime,
        simulated_gpu.Context: tensorrt_rtx.IExecutionContext,
        simulated_gpu.Engine: tensorrt_rtx.ICudaEngine,
        simulated_gpu.Config: tensorrt_rtx.IRuntimeConfig,
        simulated_gpu.Store: tensorrt_rtx.IRuntimeCache,
        simulated_gpu.Runtime: tensorrt_rtx.Runtime,
    }
    for made, real in pairs.items():
        offered = {name for name in vars(made) if not name.startswith("_")} - {"compute"}
        assert offered
        assert not [name for name in offered if not hasattr(real, name)]
    for name in ("active_optimization_profile", "set_tensor_address"):
        assert hasattr(tensorrt_rtx.IExecutionContext, name)
    assert hasattr(tensorrt_rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")


@without_gpu
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cudaMalloc", (10,)),
        ("cudaHostAlloc", (10, runtime.cudaHostAllocDefault)),
        ("cudaMemcpyAsync", (16, 32, 8, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, runtime.cudaStream_t(0))),
        ("cudaStreamSynchronize", (runtime.cudaStream_t(0),)),
    ],
)
def test_cuda_takes_the_arguments_and_its_errors_are_named(name, arguments):
    with pytest.raises(ModelError, match=rf"{name} fails on the GPU: cudaErrorInsufficientDriver \(35\)"):
        cuda(getattr(runtime, name), *arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason=missing())
@pytest.mark.parametrize("backend", [TENSORRT, RTX])
def test_a_real_gpu_gives_the_reference_answers(bundle, tmp_path, backend):
    try:
        variant = backend.variants()[0]
    except ModelError as error:
        pytest.skip(str(error))
    backend.build(bundle, variant, tmp_path, quiet)
    engine = backend.load(bundle, variant, tmp_path)
    assert gpus()[0].name in engine.name
    for known in bundle.golden():
        found = segment(known.frame, engine, plan(bundle.card, len(known.frame)))
        assert np.mean(found.labels == known.labels) >= 0.9999
    again = backend.load(bundle, variant, tmp_path)
    assert (again.name, again.sha256) == (engine.name, engine.sha256)


def test_current_is_what_both_backends_build_for():
    assert RTX.capabilities == CURRENT
    assert TENSORRT.capabilities == ()
