"""OpenVINO: the processors of Intel and AMD, and Intel's GPUs."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.edge.bundle import Bundle
from octedge.edge.contract import call_failed, check_answer, check_graph, check_metadata, check_windows, one_line, sha256_of, source
from octedge.edge.machine import cores
from octedge.edge.variant import Backend, Variant
from octedge.errors import ModelError

# Importing openvino sends a message over the network and leaves a file in the home folder, unless its telemetry cannot be imported.
_hidden = "openvino_telemetry" not in sys.modules
if _hidden:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    import openvino
finally:
    if _hidden:
        del sys.modules["openvino_telemetry"]

VERSION = openvino.__version__.partition("-")[0]
TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}  # what is computed in where nothing is quantised


class OpenVinoEngine:
    """Runs an ONNX file of the bundle: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), labels uint8 (N, P, V).

    Raises `ModelError` if the graph cannot be loaded, is not what the card says, or would run in another way than asked.
    """

    def __init__(self, path: Path, card: ModelCard, *, precision: str = "fp32", device: str = "cpu", sha256: str = "") -> None:
        core, target, kind = openvino.Core(), device.upper(), TYPES[precision]
        try:
            model = core.read_model(path)
            _check(model, path.name, card, precision)
            self._compiled = core.compile_model(model, target, _settings(target, kind))
            self.name = f"openvino {VERSION} {_device(core, target)} {precision}"
        except RuntimeError as error:
            what = f"{path.name}: openvino {VERSION} cannot load it in {precision} on {device} ({_line(error)})"
            raise ModelError(f"{what}; use another engine, or another version of openvino") from error
        check_used(self._compiled, target, kind)
        self.sha256 = sha256 or sha256_of(path)
        self._card = card

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        check_windows(windows, self._card)
        count = len(windows)
        if windows.size == self._card.windowing.grid**2:  # OpenVINO 2026.4 gets some networks wrong on one window of one cell of the grid
            windows = np.repeat(windows, 2, axis=0)
        what = f"{self.name} failed on windows {windows.shape}"
        try:
            # A request of its own for every call costs nothing measurable, and calls from several threads do not meet.
            answer = self._compiled.create_infer_request().infer({"image": windows})
        except RuntimeError as error:
            raise call_failed(what, _plain(error), "free memory, or use another engine") from error
        check_answer(what, windows, answer["scores"], answer["labels"])
        return answer["scores"][:count], answer["labels"][:count]


@dataclass(frozen=True, slots=True)
class OpenVino:
    """The backend: it loads the bundle's files as they are. Compiling takes a tenth of a second, so nothing is kept in `folder`."""

    def variants(self) -> tuple[Variant, ...]:
        try:
            core = openvino.Core()
            kinds = {"fp32", *(each.lower() for each in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))}
            gpu = any(each.partition(".")[0] == "GPU" for each in core.available_devices)
        except RuntimeError as error:
            raise ModelError(f"openvino {VERSION} finds no device ({_line(error)}); use another engine") from error
        found = [Variant("openvino", precision) for precision in ("fp32", "bf16", "int8") if precision in kinds]
        return (*found, *(Variant("openvino", precision, "gpu") for precision in ("fp32", "fp16") if gpu))

    def build(self, bundle: Bundle, variant: Variant, folder: Path, tell: Callable[[str], None]) -> None:
        """Nothing needs to be made."""

    def load(self, bundle: Bundle, variant: Variant, folder: Path) -> OpenVinoEngine:
        path, sha256 = source(bundle, variant), bundle.sums.get(variant.file, "")
        return OpenVinoEngine(path, bundle.card, precision=variant.precision, device=variant.device or "cpu", sha256=sha256)


BACKEND: Backend = OpenVino()


def check_used(compiled: openvino.CompiledModel, target: str, kind: str) -> None:
    """It runs on the device and in the type asked for. OpenVINO takes another type without a word where the device lacks it."""
    devices = sorted({each.partition(".")[0] for each in compiled.get_property("EXECUTION_DEVICES")})
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if (devices, used) != ([target], kind):
        what = f"openvino {VERSION} would run on {', '.join(devices)} in {used}, asked for was {target} in {kind}"
        raise ModelError(f"{what}; use an engine in a precision that this machine has")


def _settings(target: str, kind: str) -> dict[str, object]:
    common: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": kind}
    if target != "CPU":
        return common
    # Threads bound to cores would meet those of other processes that are bound to the same ones.
    return common | {"INFERENCE_NUM_THREADS": cores(), "ENABLE_CPU_PINNING": False}


def _device(core: openvino.Core, target: str) -> str:
    """The device in words: a GPU with its full name, and its driver where OpenVINO tells."""
    if target == "CPU":
        return "cpu"
    words = [target.lower(), core.get_property(target, "FULL_DEVICE_NAME")]
    if "GPU_DRIVER_VERSION" in core.get_property(target, "SUPPORTED_PROPERTIES"):
        words += ["driver", core.get_property(target, "GPU_DRIVER_VERSION")]
    return " ".join(words)


def _check(model: openvino.Model, name: str, card: ModelCard, precision: str) -> None:
    nodes = (*model.inputs, *model.outputs)
    check_graph(name, {node.any_name: (node.element_type.to_dtype().name, _shape(node.partial_shape)) for node in nodes}, card)
    metadata = model.get_rt_info("framework").value if model.has_rt_info("framework") else {}
    check_metadata(name, metadata, card, precision)


def _shape(shape: openvino.PartialShape) -> list[int | None]:
    return [side.get_length() if side.is_static else None for side in shape]


def _line(error: Exception) -> str:
    return one_line(_plain(error))


def _plain(error: Exception) -> Exception:
    """What OpenVINO says, without the places in its own sources."""
    return RuntimeError(re.sub(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:", " ", str(error)))
