"""The ordered decode on an NVIDIA GPU: one thread per column, the answers of `octedge.ordered.decode` to the last bit.

The kernel is compiled for one chain and the GPU at hand, by NVRTC, when it is made; packages cuda-bindings and
nvidia-cuda-nvrtc. Its source is plain C apart from CUDA's own words, so that any compiler can check it.
"""

import ctypes
from typing import Any

from octedge.edge.trt_run import cuda
from octedge.errors import ModelError
from octedge.ordered import Chain

# CLASSES, FLUID (-1 for none), RETINA (a bit per place) and ORDERED are the chain's.
_SOURCE = """
typedef unsigned char Label;
typedef long long Index;

__device__ const Label ordered[CLASSES] = {ORDERED};

__device__ double held(double score) { return score > -1e9 ? (score < 1e9 ? score : 1e9) : -1e9; }  /* a NaN is impossible */

__device__ double e(const float *__restrict__ scores, Index pixels, Index at, int place) {
    double own = held(scores[ordered[place] * pixels + at]), either;
    if (FLUID < 0 || !(RETINA >> place & 1)) return own;
    either = held(scores[FLUID * pixels + at]) + own / 1024;
    return own > either ? own : either;
}

/* scores (C, H, W), argmax (H, W) -> labels (H, W), surfaces (L, W); left (H, W) is scratch */
__global__ void ordered_decode(const float *__restrict__ scores, const Label *__restrict__ argmax, unsigned *left,
                               Label *labels, float *surfaces, int rows, int columns) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const Index pixels = (Index)rows * columns;
    int begins[CLASSES + 1] = {0}; /* first row of each class, ROWS for none; one more, where a column out of order ends */
    int row, place = 0;
    if (column >= columns) return;
    for (row = 0; row < rows; row++) {
        while (place < CLASSES && ordered[place] != argmax[(Index)row * columns + column]) begins[++place] = row;
        if (place == CLASSES) break;
    }
    if (row == rows) { /* in order: its own answer */
        while (place + 1 < CLASSES) begins[++place] = rows;
    } else {
        double best[CLASSES] = {0};
        for (row = 0; row < rows; row++) {
            const Index at = (Index)row * columns + column;
            double shallower = -1e300;
            unsigned choices = 0;
            for (place = 0; place < CLASSES; place++) {
                double same = best[place] + e(scores, pixels, at, place);
                if (shallower > same) choices |= 1u << place, same = shallower;
                best[place] = shallower = same;
            }
            left[at] = choices;
        }
        for (row = rows - 1, place = CLASSES - 1; place > 0; begins[place--] = row + 1)
            while (row >= 0 && !(left[(Index)row * columns + column] >> place & 1)) row--;
    }
    for (place = 1; place < CLASSES; place++) {
        const int begin = begins[place];
        double depth = begin;
        if (begin > 0 && begin < rows) { /* between the classes `upper` and `lower`, where their scores cross */
            const Index at = (Index)begin * columns + column;
            int upper = place - 1, lower = place;
            while (begins[upper] == begin) upper--;
            while (lower + 1 < CLASSES && begins[lower + 1] == begin) lower++;
            const double before = e(scores, pixels, at - columns, upper) - e(scores, pixels, at - columns, lower);
            const double total = before + (e(scores, pixels, at, lower) - e(scores, pixels, at, upper));
            const double share = total > 0 ? before / total : 0.5;
            depth = begin - 1 + (share < 1 / 128. ? 1 / 128. : share > 127 / 128. ? 127 / 128. : share);
        }
        surfaces[(Index)(place - 1) * columns + column] = (float)depth;
    }
    for (row = place = 0; row < rows; row++) {
        const Index at = (Index)row * columns + column;
        while (place + 1 < CLASSES && begins[place + 1] <= row) place++;
        labels[at] = argmax[at] == FLUID && RETINA >> place & 1 ? FLUID : ordered[place];
    }
}
"""
_THREADS = 32  # per block: few, so that the columns of one B-scan spread over the GPU


def source(chain: Chain) -> str:
    """The kernel `ordered_decode` for a chain of at most 32 classes, in C with CUDA's words."""
    facts = {
        "CLASSES": len(chain.ordered),
        "FLUID": -1 if chain.fluid is None else chain.fluid,
        "RETINA": f"{sum(retina << place for place, retina in enumerate(chain.retina))}u",
        "ORDERED": ", ".join(map(str, chain.ordered)),
    }
    return "".join(f"#define {name} {value}\n" for name, value in facts.items()) + _SOURCE


def compiled(chain: Chain, capability: tuple[int, int]) -> bytes:
    """The kernel for a chain as machine code for GPUs of a compute capability. Raises `ModelError` if NVRTC is missing or fails."""
    text = f'extern "C" {{\n{source(chain)}}}\n'.encode()
    try:
        from cuda.bindings import nvrtc

        program = cuda(nvrtc.nvrtcCreateProgram, text, b"ordered.cu", 0, [], [])
    except (ImportError, RuntimeError) as error:  # the library is loaded with the first call
        reason = str(error).partition("\n")[0]
        raise ModelError(f"the decode cannot be compiled for the GPU ({reason}); install cuda-bindings and nvidia-cuda-nvrtc") from None
    options = ["--gpu-architecture=sm_{}{}".format(*capability).encode(), b"--fmad=false"]
    cuda(nvrtc.nvrtcCompileProgram, program, len(options), options)
    code = bytes(cuda(nvrtc.nvrtcGetCUBINSize, program))
    cuda(nvrtc.nvrtcGetCUBIN, program, code)
    cuda(nvrtc.nvrtcDestroyProgram, program)
    return code


class OrderedKernel:
    """The kernel for a chain, loaded on the current GPU of this thread. Raises `ModelError` if that fails."""

    def __init__(self, chain: Chain, capability: tuple[int, int]) -> None:
        from cuda.bindings import driver

        self._driver = driver
        self._library = cuda(driver.cuModuleLoadData, compiled(chain, capability))  # its code lives as long as this module is loaded
        self._function = cuda(driver.cuModuleGetFunction, self._library, b"ordered_decode")

    def __call__(self, stream: Any, addresses: tuple[int, int, int, int, int], rows: int, columns: int) -> None:
        """Put the decode into a stream: addresses on the GPU of scores float32 (C, H, W), argmax uint8 (H, W), scratch uint32 (H, W),
        labels uint8 (H, W) and surfaces float32 (L, W), the last three written."""
        values = (*addresses, rows, columns)
        types = (*[ctypes.c_void_p] * len(addresses), ctypes.c_int, ctypes.c_int)
        blocks = -(-columns // _THREADS)
        cuda(self._driver.cuLaunchKernel, self._function, blocks, 1, 1, _THREADS, 1, 1, 0, int(stream), (values, types), 0)
