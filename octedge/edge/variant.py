"""A variant: one way to run a bundle's network on a machine, and what every way of running it has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from octedge.edge.bundle import Bundle

# The file of the bundle that each precision is made from.
FILES = {"fp32": "model.onnx", "fp16": "model.fp16.onnx", "bf16": "model.onnx", "int8": "model.int8.onnx"}


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine, the precision it computes in, and the device if it is not the engine's usual one.

    >>> str(Variant("rtx", "fp16")), str(Variant("ort", "fp32", "cuda"))
    ('rtx-fp16', 'ort-cuda-fp32')
    """

    engine: str
    precision: str
    device: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.engine, self.device, self.precision)))

    @property
    def file(self) -> str:
        """The file of the bundle it is made from."""
        return FILES[self.precision]


FIRST = Variant("ort", "fp32")  # the one that every other is measured by; it certifies itself on first use


class NamedEngine(Protocol):
    """Runs the graph, and says what it is: windows uint8 (N, 1, P, V) -> scores float32 (N, C, P, V), labels uint8 (N, P, V).

    `name` holds all that its answers depend on besides the file: library and version, device with its driver, precision.
    `sha256` is of the file it runs.
    """

    name: str
    sha256: str

    def __call__(self, windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]: ...


class Backend(Protocol):
    """A library that runs networks."""

    def variants(self) -> tuple[Variant, ...]:
        """What it can run on this machine, without opening a network.

        Raises `ModelError` naming what is missing (library, driver, device) and what to do.
        """
        ...

    def build(self, bundle: Bundle, variant: Variant, folder: Path, tell: Callable[[str], None]) -> None:
        """Make in `folder` what `load` needs besides the bundle, unless it is there and fits; `tell` hears of the progress.

        Raises `ModelError` if it cannot be made.
        """
        ...

    def load(self, bundle: Bundle, variant: Variant, folder: Path) -> NamedEngine:
        """The engine, ready to run. Raises `ModelError` if it is missing, was made for something else, or would run elsewhere."""
        ...
