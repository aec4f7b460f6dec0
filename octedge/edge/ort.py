"""The ONNX Runtime engine on the CPU: the one every other engine is measured against."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as _native

from octedge.card import ModelCard, decode_card
from octedge.edge.machine import cores
from octedge.errors import ModelError

PROVIDERS = ["CPUExecutionProvider"]
CARD_KEY = "octedge"  # of the ONNX metadata
# ONNX Runtime's exceptions share no base class of their own.
_ERRORS = tuple(kind for kind in vars(_native).values() if isinstance(kind, type) and issubclass(kind, Exception))


class OrtEngine:
    """Runs `model.onnx` in fp32: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), labels uint8 (N, P, V).

    Raises `ModelError` if the graph cannot be loaded, is not what the card says, or would run elsewhere than asked.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        self.name = f"onnxruntime {onnxruntime.__version__} cpu fp32"
        try:
            self._session = onnxruntime.InferenceSession(path, _options(), providers=PROVIDERS)
        except _ERRORS as error:
            what = f"{path.name}: onnxruntime {onnxruntime.__version__} cannot load it ({_line(error)})"
            raise ModelError(f"{what}; upgrade onnxruntime or export the model anew") from error
        running = self._session.get_providers()
        if running != PROVIDERS:
            what = f"onnxruntime runs on {', '.join(running)}, asked for was {', '.join(PROVIDERS)}"
            raise ModelError(f"{what}; reinstall onnxruntime (see octedge doctor)")
        _check_graph(self._session, path.name, card)

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        try:
            scores, labels = self._session.run(["scores", "labels"], {"image": windows})
        except _ERRORS as error:
            what = f"{self.name} failed on windows {windows.shape}: {_line(error)}"
            raise ModelError(f"{what}; free memory, or export the model anew") from error
        return scores, labels


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.inter_op_num_threads = 1
    # Waiting threads sleep: between two calls the same cores decode and write.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors come as exceptions; warnings about the graph are the exporter's business
    return options


def _check_graph(session: onnxruntime.InferenceSession, name: str, card: ModelCard) -> None:
    """The contract: inputs, outputs, their types and ranks, the number of classes, and the card in the metadata."""
    classes = len(card.structures)
    found = {node.name: (node.type, len(node.shape)) for node in (*session.get_inputs(), *session.get_outputs())}
    needed = {"image": ("tensor(uint8)", 4), "scores": ("tensor(float)", 4), "labels": ("tensor(uint8)", 3)}
    if found != needed:
        raise ModelError(f"{name}: the graph has {_list(found)}; needed is {_list(needed)}; export the model anew")
    channels = next(node.shape[1] for node in session.get_outputs() if node.name == "scores")
    if isinstance(channels, int) and channels != classes:
        raise ModelError(f"{name}: the graph has {channels} classes, its card {classes}; card and graph do not belong together")
    inside = session.get_modelmeta().custom_metadata_map.get(CARD_KEY)
    if inside is not None and decode_card(inside.encode(), f"card inside {name}") != card:
        raise ModelError(f"{name}: the card inside differs from card.json; card and graph do not belong together; export the model anew")


def _list(nodes: dict[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of rank {rank}" for name, (kind, rank) in nodes.items())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
