"""Opening an engine: by name, without silent substitution, and only with a certificate from this machine."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octedge.edge.bundle import Bundle
from octedge.edge.certificate import certify
from octedge.errors import ModelError, UsageError

ENGINES = ("auto", "ort", "openvino", "tensorrt", "rtx")


class NamedEngine(Protocol):
    """An engine that says what it is: library, version, device and precision, as results state it."""

    name: str

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


def quiet(_: str) -> None:
    """Tells nobody."""


def open_engine(bundle: Bundle, name: str = "auto", tell: Callable[[str], None] = quiet) -> NamedEngine:
    """The engine called `name` for this bundle, checked once per machine against the bundle's golden frames.

    Raises `ModelError` if it is not installed, not in this version, or does not give the reference answers.
    """
    engine = load_engine(bundle, name)
    certify(bundle, engine, engine.name, tell)
    return engine


def load_engine(bundle: Bundle, name: str = "auto") -> NamedEngine:
    """The engine as it is, without a certificate: for whoever is about to check it."""
    if name not in ENGINES:
        raise UsageError(f"no engine is called {name!r}; known are {', '.join(ENGINES)}")
    if name not in ("auto", "ort"):
        raise ModelError(f"engine {name} is not in this version of octedge; use --engine ort")
    try:
        from octedge.edge.ort import OrtEngine
    except ImportError as error:
        raise ModelError(f"onnxruntime cannot be imported ({error}); pip install octedge[cpu]") from error
    return OrtEngine(bundle.path / "model.onnx", bundle.card)
