"""ONNX Runtime: on the CPU the engine every other one is measured by, and on NVIDIA GPUs where its CUDA build is installed."""

import ctypes
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from octedge.card import ModelCard
from octedge.edge.bundle import Bundle
from octedge.edge.contract import call_failed, check_answer, check_graph, check_metadata, check_windows, one_line, sha256_of, source
from octedge.edge.gpu import gpus, missing
from octedge.edge.machine import cores
from octedge.edge.variant import Backend, Variant
from octedge.errors import ModelError

VERSION = onnxruntime.__version__
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {"cpu": (CPU, {}), "cuda": (CUDA, {"use_tf32": "0"})}  # without TF32, fp32 means fp32
PRECISIONS = {"cpu": ("fp32", "fp16", "int8"), "cuda": ("fp32", "fp16")}
KINDS = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
# ONNX Runtime's exceptions share no base class of their own.
_NATIVE = tuple(kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception))
_ERRORS: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_NATIVE)

onnxruntime.disable_telemetry_events()  # of its Windows build; the others heed what the package octedge.edge sets


class OrtEngine:
    """Runs an ONNX file of the bundle: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), labels uint8 (N, P, V).

    Raises `ModelError` if the graph cannot be loaded, is not what the card says, or would run elsewhere than asked.
    """

    def __init__(self, path: Path, card: ModelCard, *, precision: str = "fp32", device: str = "cpu", sha256: str = "") -> None:
        self._session = _session(path, precision, device)
        nodes = (*self._session.get_inputs(), *self._session.get_outputs())
        check_graph(path.name, {node.name: (KINDS.get(node.type, node.type), node.shape) for node in nodes}, card)
        check_metadata(path.name, self._session.get_modelmeta().custom_metadata_map, card, precision)
        self.name = f"onnxruntime {VERSION} {_device(device)} {precision}"
        self.sha256 = sha256 or sha256_of(path)
        self._card = card

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        check_windows(windows, self._card)
        what = f"{self.name} failed on windows {windows.shape}"
        try:
            scores, labels = self._session.run(["scores", "labels"], {"image": windows})
        except _ERRORS as error:
            raise call_failed(what, error, "free memory, or export the bundle anew") from error
        check_answer(what, windows, scores, labels)
        return scores, labels


@dataclass(frozen=True, slots=True)
class Ort:
    """The backend: it loads the bundle's files as they are."""

    def variants(self) -> tuple[Variant, ...]:
        found = [Variant("ort", precision) for precision in PRECISIONS["cpu"]]
        if CUDA in onnxruntime.get_available_providers() and gpus():
            found += [Variant("ort", precision, "cuda") for precision in PRECISIONS["cuda"]]
        return tuple(found)

    def build(self, bundle: Bundle, variant: Variant, folder: Path, tell: Callable[[str], None]) -> None:
        """Nothing needs to be made."""

    def load(self, bundle: Bundle, variant: Variant, folder: Path) -> OrtEngine:
        device = variant.device or "cpu"
        if variant.precision not in PRECISIONS.get(device, ()):
            raise ModelError(f"onnxruntime is not run as {variant} by octedge; use {', '.join(map(str, self.variants()))}")
        path, sha256 = source(bundle, variant), bundle.sums.get(variant.file, "")
        return OrtEngine(path, bundle.card, precision=variant.precision, device=device, sha256=sha256)


BACKEND: Backend = Ort()


def _session(path: Path, precision: str, device: str) -> onnxruntime.InferenceSession:
    """A session that computes on the device and nowhere else."""
    provider, options = PROVIDERS[device]
    # This one rounds the biases that a quantised graph keeps in floating point.
    unwanted = ["WeightBiasQuantization"] if precision == "int8" else []
    if provider == CUDA:
        _ready_cuda()
    try:
        session = onnxruntime.InferenceSession(
            path, _options(provider), providers=[(provider, options)], disabled_optimizers=unwanted, enable_fallback=0
        )
    except _ERRORS as error:
        reason, repair = one_line(error), "upgrade onnxruntime, or export the bundle anew"
        if provider == CUDA:
            fault = _cuda_fault()
            reason, repair = (fault, "pip install octedge[gpu]") if fault else (reason, "update NVIDIA's driver, or use ort-fp32")
        raise ModelError(f"{path.name}: onnxruntime {VERSION} cannot load it on {device} ({reason}); {repair}") from error
    running = session.get_providers()  # the CPU is listed behind any other, and alone where the other could not start
    if [each for each in running if each != CPU or provider == CPU] != [provider]:
        what = f"onnxruntime runs on {', '.join(running)}, asked for was {provider}"
        raise ModelError(f"{what}; reinstall onnxruntime (see octedge doctor)")
    return session


def _options(provider: str) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    # Waiting threads sleep: between two calls the same cores decode and write.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 4  # errors come as exceptions; warnings about the graph are the exporter's business
    return options


def _ready_cuda() -> None:
    """Find CUDA's libraries among the installed packages. Raises `ModelError` if there is no GPU or this build cannot use one."""
    if CUDA not in onnxruntime.get_available_providers():
        raise ModelError(f"onnxruntime {VERSION} is built without CUDA; pip uninstall -y onnxruntime && pip install octedge[gpu]")
    if why := missing():
        raise ModelError(f"CUDA cannot start: {why}; install NVIDIA's driver, or use ort-fp32")
    onnxruntime.set_default_logger_severity(4)  # what it would write to the console is in the error
    with redirect_stdout(io.StringIO()):
        onnxruntime.preload_dlls()


def _cuda_fault() -> str:
    """What keeps the CUDA provider from being loaded: the first missing library; empty if it can be.

    Only to be called after ONNX Runtime has tried: loaded before it, the provider would not find its host.
    """
    try:
        for library in (Path(onnxruntime.__file__).parent / "capi").glob("*onnxruntime_providers_cuda.*"):
            ctypes.CDLL(str(library))
    except OSError as error:
        return one_line(error)
    return ""


def _device(device: str) -> str:
    """The device in words: a GPU with its name and driver."""
    if device == "cpu":
        return "cpu"
    gpu = gpus()[0]
    return f"{device} {gpu.name} driver {gpu.driver}"
