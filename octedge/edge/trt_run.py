"""A plan at work: buffers on the GPU and beside it, made once for the largest call, and one stream."""

import ctypes
import math
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.edge.contract import check_windows
from octedge.edge.trt_build import Profile, kept, messages, reason
from octedge.edge.trt_files import Plan
from octedge.errors import ModelError, OutputError
from octedge.results.files import write_bytes


def profile_for(shape: tuple[int, ...], profiles: tuple[Profile, ...]) -> int:
    """The place of the profile for windows of a shape (N, 1, P, V). Raises `ModelError` if there is none."""
    count, _, height, width = shape
    heights = [each.height for each in profiles]
    if height not in heights:
        known = ", ".join(map(str, heights))
        raise ModelError(f"windows of {height} rows came, the engine was built for {known}; use --engine ort for this size")
    place = heights.index(height)
    (fewest, narrowest), (most, widest) = profiles[place].least, profiles[place].most
    if not (fewest <= count <= most and narrowest <= width <= widest):
        known = f"{fewest} to {most} windows of {narrowest} to {widest} columns"
        raise ModelError(f"windows {shape} came, the engine was built for {known}; use --engine ort for this size")
    return place


def cuda(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """What a function of the CUDA runtime gives. Raises `ModelError` naming it if it fails."""
    error, *found = function(*arguments)
    if int(error):
        raise ModelError(f"{function.__name__} fails on the GPU: {error.name} ({int(error)}); see octedge doctor, or use --engine ort")
    return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Buffer:
    """The same bytes twice: at an address on the GPU, and in locked memory beside it, which the GPU reads and writes by itself."""

    device: int
    address: int
    host: NDArray[np.uint8]


class PlanEngine:
    """Runs a plan: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), labels uint8 (N, P, V).

    `kernels` is the file for what TensorRT-RTX compiles for this GPU on the way. Raises `ModelError` if the library refuses the
    plan, the plan has other classes than the card, or the GPU has no room.
    """

    def __init__(self, trt: Any, plan: Plan, card: ModelCard, kernels: Path) -> None:
        from cuda.bindings import runtime

        self.name, self.sha256 = plan.key.engine, plan.sha256
        self._trt, self._cuda, self._card, self._kernels = trt, runtime, card, kernels
        self._profiles, self._classes = plan.key.profiles, len(card.structures)
        self._lock = Lock()  # calls from several threads share the buffers
        self._sizes: set[tuple[int, ...]] = set()
        messages(trt).errors.clear()
        with ExitStack() as made:
            self._stream = cuda(runtime.cudaStreamCreate)
            made.callback(runtime.cudaStreamDestroy, self._stream)
            self._runtime = trt.Runtime(messages(trt))
            self._engine = self._must(self._runtime.deserialize_cuda_engine(plan.data), "cannot load the plan")
            if (found := self._engine.get_tensor_shape("scores")[1]) != self._classes:
                raise ModelError(f"the plan has {found} classes, its card {self._classes}; export the bundle anew")
            self._context, self._store = self._open()
            pixels = max(math.prod((each.height, *each.most)) for each in self._profiles)
            sizes = {"image": pixels, "scores": 4 * self._classes * pixels, "labels": pixels}
            self._ends = {end: self._buffer(made, size) for end, size in sizes.items()}
            weakref.finalize(self, made.pop_all().close)

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        check_windows(windows, self._card)
        with self._lock:
            return self._run(windows)

    def _run(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        messages(self._trt).errors.clear()
        count, _, height, width = windows.shape
        self._set(windows.shape)
        image, scores, labels = self._ends.values()
        image.host[: windows.size] = windows.ravel()
        self._copy(image, windows.size, back=False)
        self._must(self._context.execute_async_v3(int(self._stream)), f"fails on windows {windows.shape}")
        self._copy(scores, 4 * self._classes * windows.size, back=True)
        self._copy(labels, windows.size, back=True)
        cuda(self._cuda.cudaStreamSynchronize, self._stream)
        if windows.shape not in self._sizes:
            self._sizes.add(windows.shape)
            self._keep()
        # Copies: the caller keeps the answers of all its calls, the next call writes here.
        found = scores.host[: 4 * self._classes * windows.size].view(np.float32).copy()
        return found.reshape(count, self._classes, height, width), labels.host[: windows.size].copy().reshape(count, height, width)

    def _set(self, shape: tuple[int, ...]) -> None:
        """Make the context ready for windows of a shape."""
        place, context = profile_for(shape, self._profiles), self._context
        if context.active_optimization_profile != place:
            self._must(context.set_optimization_profile_async(place, int(self._stream)), f"cannot change to {shape[2]} rows")
        self._must(context.set_input_shape("image", shape), f"refuses windows {shape}")
        for end, buffer in self._ends.items():
            self._must(context.set_tensor_address(end, buffer.device), f"refuses the memory of {end}")

    def _copy(self, buffer: Buffer, size: int, *, back: bool) -> None:
        kinds = self._cuda.cudaMemcpyKind
        if back:
            cuda(self._cuda.cudaMemcpyAsync, buffer.address, buffer.device, size, kinds.cudaMemcpyDeviceToHost, self._stream)
        else:
            cuda(self._cuda.cudaMemcpyAsync, buffer.device, buffer.address, size, kinds.cudaMemcpyHostToDevice, self._stream)

    def _buffer(self, made: ExitStack, size: int) -> Buffer:
        device = cuda(self._cuda.cudaMalloc, size)
        made.callback(self._cuda.cudaFree, device)
        address = cuda(self._cuda.cudaHostAlloc, size, self._cuda.cudaHostAllocDefault)
        made.callback(self._cuda.cudaFreeHost, address)
        return Buffer(int(device), int(address), np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address))))

    def _open(self) -> tuple[Any, Any]:
        """The context that runs the plan, and RTX's store of compiled kernels; None for TensorRT, whose plan holds its kernels."""
        create = getattr(self._engine, "create_runtime_config", None)
        config: Any = None if create is None else create()
        if not hasattr(config, "create_runtime_cache"):
            return self._must(self._engine.create_execution_context(), "cannot run the plan"), None
        store = config.create_runtime_cache()
        if data := kept(self._kernels):
            store.deserialize(data)  # refused if made for another GPU, driver or version: the store stays empty
        config.set_runtime_cache(store)
        # Otherwise other kernels take over once those for a size are compiled in the background: what was certified shall run.
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        return self._must(self._engine.create_execution_context(config), "cannot run the plan"), store

    def _keep(self) -> None:
        """Keep the compiled kernels for the next process; where they cannot be written, that one compiles again."""
        found = None if self._store is None else self._store.serialize()
        if found is not None and bytes(found) != kept(self._kernels):
            with suppress(OutputError):
                write_bytes(self._kernels, bytes(found))

    def _must(self, found: Any, what: str) -> Any:
        """What the library gave, if it is something. Raises `ModelError` with its reason."""
        if found is None or found is False:
            name = f"{self._trt.__name__} {self._trt.__version__}"
            raise ModelError(f"{name} {what} ({reason(self._trt)}); run octedge prepare BUNDLE again, or use --engine ort")
        return found
