"""What every engine checks in the same words: that the file is the variant's, the graph the card's, and the windows on its grid."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard, decode_card
from octedge.edge.bundle import Bundle
from octedge.edge.variant import FILES, Variant
from octedge.errors import ModelError, OutOfMemory

CARD_KEY = "octedge"  # of the ONNX metadata
PRECISION_KEY = "octedge_precision"  # of the ONNX metadata; where it is absent, the graph is in fp32
NODES = {"image": ("uint8", 4), "scores": ("float32", 4), "labels": ("uint8", 3)}  # inputs and outputs: type, rank
_NO_MEMORY = re.compile(r"allocat|alloc_failed|bad_alloc|out of memory", re.IGNORECASE)  # of the system, of C++, of CUDA


def source(bundle: Bundle, variant: Variant) -> Path:
    """The file of the bundle that a variant is made from. Raises `ModelError` if the bundle has none."""
    path = bundle.path / variant.file
    if not path.is_file():
        raise ModelError(f"{bundle.card.id} has no {variant.file}, which {variant} needs; use an engine in fp32, or export it anew")
    return path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_graph(name: str, found: Mapping[str, tuple[str, Sequence[object]]], card: ModelCard) -> None:
    """Inputs and outputs by name are of the types and ranks of `NODES`, and there are as many scores as classes.

    `found` gives type and shape of each; a side that may be of any length is not an int there.
    """
    ranks = {each: (kind, len(shape)) for each, (kind, shape) in found.items()}
    if ranks != NODES:
        raise ModelError(f"{name}: the graph has {_words(ranks)}; needed is {_words(NODES)}; export the bundle anew")
    channels, classes = found["scores"][1][1], len(card.structures)
    if isinstance(channels, int) and channels != classes:
        raise ModelError(f"{name}: the graph has {channels} classes, its card {classes}; card and graph do not belong together")


def check_metadata(name: str, metadata: Mapping[str, str], card: ModelCard, precision: str) -> None:
    """The card inside the file is the bundle's, and the graph is in the precision that is asked for."""
    inside = metadata.get(CARD_KEY)
    if inside is not None and decode_card(inside.encode(), f"card inside {name}") != card:
        raise ModelError(f"{name}: the card inside differs from card.json; card and graph do not belong together; export the bundle anew")
    stated = metadata.get(PRECISION_KEY, "fp32")
    if FILES.get(stated) != FILES[precision]:
        raise ModelError(f"{name}: the graph inside is in {stated}, asked for was {precision}; files are mixed up; export the bundle anew")


def check_windows(windows: NDArray[np.uint8], card: ModelCard) -> None:
    """Windows are uint8 (N, 1, P, V), P and V multiples of the grid: some runtimes answer others with nonsense and no error."""
    grid = card.windowing.grid
    sides = windows.shape[2:]
    if windows.dtype != np.uint8 or windows.ndim != 4 or windows.shape[1] != 1 or 0 in windows.shape or any(side % grid for side in sides):
        what = f"got windows of {windows.dtype} {windows.shape}; {card.id} needs uint8 (N, 1, P, V), P and V multiples of {grid}"
        raise ModelError(f"{what}; tile B-scans with octedge.segment")


def check_answer(what: str, windows: NDArray[np.uint8], scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Windows (N, 1, P, V) get scores (N, C, P, V) and labels (N, P, V): some runtimes fail without an error, and give others."""
    count, _, *sides = windows.shape
    if labels.shape != (count, *sides) or (len(scores), *scores.shape[2:]) != labels.shape:
        raise ModelError(f"{what}: it gave labels {labels.shape} and scores {scores.shape}; free memory, or use another engine")


def call_failed(what: str, error: Exception, advice: str) -> ModelError:
    """What to raise where a library fails on windows: `OutOfMemory` if that is what its words say."""
    kind = OutOfMemory if _NO_MEMORY.search(str(error)) else ModelError
    return kind(f"{what}: {one_line(error)}; {advice}")


def one_line(error: Exception) -> str:
    """The start of what a library says, on one line."""
    return " ".join(str(error).split())[:200]


def _words(nodes: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{name} {kind} of rank {rank}" for name, (kind, rank) in nodes.items())
