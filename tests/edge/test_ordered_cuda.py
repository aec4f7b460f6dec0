"""The kernel of the ordered decode against `ordered.decode`: its C by a compiler for this processor, the whole of it on a GPU."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octedge.edge.gpu import gpus, missing
from octedge.edge.ordered_cuda import OrderedKernel, compiled, source
from octedge.edge.trt_run import cuda
from octedge.errors import ModelError
from octedge.ordered import Chain, decode

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), "")
# What CUDA has and C has not.
WORDS = """
#define __global__
#define __device__ static
struct { int x; } blockIdx, blockDim = {1}, threadIdx;
"""
CHAINS = (
    Chain.of(("vitreous", "nfl", "gcl+ipl", "choroid", "fluid")),
    Chain.of(("vitreous", "nfl", "gcl+ipl", "choroid")),
    Chain((1, 3, 4), 0, (False, True, False)),  # with class 2 in no place
    Chain((0,), None, (False,)),
)
NVRTC = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The kernel of every chain, built for this processor."""
    if not COMPILER:
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("kernels")
    return [built(folder / f"{place}.c", source(chain)) for place, chain in enumerate(CHAINS)]


def built(path, text):
    path.write_text(WORDS + text, encoding="utf-8")
    library = path.with_suffix(".so")
    flags = ["-O2", "-Wall", "-Werror", "-Wno-parentheses", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, "-o", library, path], check=True)
    return ctypes.CDLL(str(library))


def on_processor(kernel, scores, argmax, chain):
    """Labels and surfaces from the kernel, one block of one thread per column."""
    rows, columns = argmax.shape
    labels, surfaces = np.full_like(argmax, 77), np.full((len(chain.ordered) - 1, columns), np.nan, np.float32)
    arrays = scores, argmax, np.full(argmax.shape, 0xAAAAAAAA, np.uint32), labels, surfaces
    block = ctypes.c_int.in_dll(kernel, "blockIdx")
    for block.value in range(columns + 1):  # one thread too many, as on a GPU
        kernel.ordered_decode(*(ctypes.c_void_p(array.ctypes.data) for array in arrays), rows, columns)
    return labels, surfaces


def require_same(found, scores, chain, argmax):
    for ours, expected in zip(found, decode(scores, chain, argmax), strict=True):
        np.testing.assert_array_equal(ours, expected)


def tied():
    """Few different scores, so that many labellings are equally good; NaN and the infinities among them."""
    numbers = st.integers(-4, 0).map(float) | st.sampled_from([np.nan, np.inf, -np.inf, -3e38, -5e8])
    shapes = st.tuples(st.just(5), st.integers(1, 12), st.integers(1, 4))
    return hnp.arrays(np.float32, shapes, elements=numbers, fill=st.nothing())


@given(tied(), st.sampled_from(range(len(CHAINS))), st.integers(0, 99))
@example(np.full((5, 3, 2), np.nan, np.float32), 0, 0)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tied_and_impossible_scores_are_decoded_as_by_numpy(kernels, scores, which, seed):
    chain = CHAINS[which]
    sound = np.fmax(scores, -np.inf).argmax(axis=0).astype(np.uint8)
    other = np.random.default_rng(seed).integers(0, 5, sound.shape, np.uint8)  # labels that contradict the scores
    for argmax in (sound, other, np.sort(other, axis=0)):
        require_same(on_processor(kernels[which], scores, argmax, chain), scores, chain, argmax)


def bscan(rows, columns):
    """Log-probabilities of noise, ordered in the first ten columns."""
    logits = np.random.default_rng(8).normal(scale=3, size=(5, rows, columns)).astype(np.float32)
    bands = np.arange(rows) * 4 // rows
    logits[:, :, :10] = 20 * (np.arange(5)[:, None, None] == bands[:, None])
    return logits - np.log(np.exp(logits).sum(axis=0))


@pytest.mark.parametrize("which", range(len(CHAINS)))
def test_a_whole_bscan_is_decoded_as_by_numpy_to_the_last_bit(kernels, which):
    scores = bscan(500, 70)
    argmax = scores.argmax(axis=0).astype(np.uint8)
    require_same(on_processor(kernels[which], scores, argmax, CHAINS[which]), scores, CHAINS[which], argmax)


def needs_nvrtc():
    try:
        NVRTC.nvrtcVersion()
    except RuntimeError:
        pytest.skip("nvidia-cuda-nvrtc is not installed")


@pytest.mark.parametrize("chain", CHAINS)
def test_nvrtc_compiles_it_without_a_gpu(chain):
    needs_nvrtc()
    assert compiled(chain, (9, 0)).startswith(b"\x7fELF")


def test_what_nvrtc_does_not_know_is_named():
    needs_nvrtc()
    with pytest.raises(ModelError, match="NVRTC_ERROR_INVALID_OPTION"):
        compiled(CHAINS[0], (1, 0))


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch):
    def not_found(*arguments):
        raise RuntimeError('Failure finding "libnvrtc.so.13"\nand more')

    monkeypatch.setattr(NVRTC, "nvrtcCreateProgram", not_found)
    with pytest.raises(ModelError, match=r"\(Failure finding .libnvrtc\.so\.13.\); install cuda-bindings and nvidia-cuda-nvrtc"):
        compiled(CHAINS[0], (9, 0))


def on_gpu(kernel, scores, argmax, chain):
    """Labels and surfaces from the kernel on the current GPU."""
    from cuda.bindings import runtime

    way = runtime.cudaMemcpyKind
    labels, surfaces = np.empty_like(argmax), np.empty((len(chain.ordered) - 1, argmax.shape[1]), np.float32)
    arrays = scores, argmax, np.empty(argmax.shape, np.uint32), labels, surfaces
    addresses = [int(cuda(runtime.cudaMalloc, max(array.nbytes, 1))) for array in arrays]
    stream = cuda(runtime.cudaStreamCreate)
    for array, address in zip(arrays[:2], addresses, strict=False):
        cuda(runtime.cudaMemcpy, address, array.ctypes.data, array.nbytes, way.cudaMemcpyHostToDevice)
    kernel(stream, tuple(addresses), *argmax.shape)
    cuda(runtime.cudaStreamSynchronize, stream)
    for array, address in zip(arrays[3:], addresses[3:], strict=True):
        cuda(runtime.cudaMemcpy, array.ctypes.data, address, array.nbytes, way.cudaMemcpyDeviceToHost)
    for address in addresses:
        cuda(runtime.cudaFree, address)
    cuda(runtime.cudaStreamDestroy, stream)
    return labels, surfaces


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason=missing())
@pytest.mark.parametrize("chain", CHAINS)
def test_a_real_gpu_decodes_as_numpy_does_to_the_last_bit(chain):
    needs_nvrtc()
    from cuda.bindings import runtime

    cuda(runtime.cudaFree, 0)  # makes the GPU this thread's
    kernel = OrderedKernel(chain, gpus()[0].capability)
    for scores in (bscan(500, 70), np.rint(bscan(96, 33))):
        argmax = scores.argmax(axis=0).astype(np.uint8)
        require_same(on_gpu(kernel, scores, argmax, chain), scores, chain, argmax)
