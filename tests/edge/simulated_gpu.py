"""A GPU with TensorRT-RTX on it, for machines without: its memory is ours, and ONNX Runtime computes what the plan would.

What is put into the stream happens when the stream is waited for, not before. Copies outside of what was allocated fail.
Names and values are those of the real packages; `tests/edge/test_trt.py` checks that these have all that is offered here.
"""

import ctypes
import itertools

import numpy as np
import onnxruntime
import tensorrt_rtx
from cuda.bindings import runtime

next_handle = itertools.count(1).__next__
OK, FULL = runtime.cudaError_t.cudaSuccess, runtime.cudaError_t.cudaErrorMemoryAllocation


class Cuda:
    """The CUDA runtime: functions that give a tuple, an error first."""

    cudaMemcpyKind = runtime.cudaMemcpyKind
    cudaHostAllocDefault = runtime.cudaHostAllocDefault

    def __init__(self, room=1 << 40):
        self.room = room
        self.memory = {}
        self.pending = []
        self.streams = set()

    def cudaMalloc(self, size):
        if size + sum(map(len, self.memory.values())) > self.room:
            return (FULL, None)
        made = (ctypes.c_ubyte * size)(*[0xAA] * min(size, 64))
        self.memory[ctypes.addressof(made)] = made
        return (OK, ctypes.addressof(made))

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaFree(self, address):
        del self.memory[address]
        return (OK,)

    cudaFreeHost = cudaFree

    def cudaStreamCreate(self):
        self.streams.add(stream := next_handle())
        return (OK, stream)

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (OK,)

    def cudaMemcpyAsync(self, to, of, size, kind, stream):
        assert stream in self.streams
        assert max(size, 1) <= min(len(self.memory[to]), len(self.memory[of]))
        self.pending.append(lambda: ctypes.memmove(to, of, size))
        return (OK,)

    def cudaStreamSynchronize(self, stream):
        while self.pending:
            self.pending.pop(0)()
        return (OK,)


class Context:
    def __init__(self, engine, config):
        self.engine, self.config = engine, config
        self.active_optimization_profile = 0
        self.shape, self.address = None, {}

    def set_optimization_profile_async(self, place, stream):
        self.active_optimization_profile = place
        self.shape, self.address = None, {}
        return 0 <= place < len(self.engine.profiles)

    def set_input_shape(self, name, shape):
        profile = self.engine.profiles[self.active_optimization_profile]
        lowest, highest = ((count, 1, profile.height, width) for count, width in (profile.least, profile.most))
        self.shape = shape
        return name == "image" and all(low <= size <= high for low, size, high in zip(lowest, shape, highest, strict=True))

    def set_tensor_address(self, name, address):
        self.address[name] = address
        return name in ("image", "scores", "labels")

    def execute_async_v3(self, stream):
        shape, address = self.shape, dict(self.address)
        if self.engine.fault:
            self.engine.log.log(tensorrt_rtx.ILogger.ERROR, self.engine.fault)
            return False
        self.engine.cuda.pending.append(lambda: self.compute(shape, address))
        return True

    def compute(self, shape, address):
        image = np.frombuffer(self.engine.cuda.memory[address["image"]], np.uint8)[: np.prod(shape)].reshape(shape)
        scores, labels = self.engine.session.run(["scores", "labels"], {"image": image})
        for name, found in (("scores", scores), ("labels", labels)):
            assert found.nbytes <= len(self.engine.cuda.memory[address[name]])
            ctypes.memmove(address[name], found.tobytes(), found.nbytes)
        self.engine.compiled.add(shape)


class Engine:
    def __init__(self, gpu, log):
        self.cuda, self.profiles, self.classes, self.fault, self.log = gpu.cuda, gpu.profiles, gpu.classes, gpu.fault, log
        self.session = onnxruntime.InferenceSession(gpu.onnx)
        self.compiled = set()

    def get_tensor_shape(self, name):
        return (-1, self.classes, -1, -1)

    def create_runtime_config(self):
        return Config(self)

    def create_execution_context(self, config):
        assert config.dynamic_shapes_kernel_specialization_strategy == tensorrt_rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        return Context(self, config)


class Config:
    def __init__(self, engine):
        self.engine = engine

    def create_runtime_cache(self):
        return Store(self.engine)

    def set_runtime_cache(self, store):
        return True


class Store:
    def __init__(self, engine):
        self.engine = engine

    def deserialize(self, data):
        self.engine.compiled |= {tuple(map(int, line.split())) for line in bytes(data).decode().splitlines()}
        return True

    def serialize(self):
        return "".join(" ".join(map(str, shape)) + "\n" for shape in sorted(self.engine.compiled)).encode()


class Runtime:
    def __init__(self, gpu, log):
        self.gpu, self.log = gpu, log

    def deserialize_cuda_engine(self, plan):
        if plan != b"plan":
            self.log.log(tensorrt_rtx.ILogger.ERROR, "no magic in it")
            return None
        return Engine(self.gpu, self.log)


class SimulatedGpu:
    """A library `trt` and a CUDA runtime `cuda`; the only plan that the library takes is `b"plan"`, and it computes the ONNX file."""

    def __init__(self, onnx, profiles, classes, room=1 << 40):
        self.onnx, self.profiles, self.classes, self.fault = onnx, profiles, classes, ""
        self.cuda = Cuda(room)
        names = {name: getattr(tensorrt_rtx, name) for name in ("ILogger", "DynamicShapesKernelSpecializationStrategy")}
        self.trt = Library(__name__="simulated", __version__="1.0", Runtime=lambda log: Runtime(self, log), **names)


class Library:
    """What stands for the module."""

    def __init__(self, **names):
        vars(self).update(names)
