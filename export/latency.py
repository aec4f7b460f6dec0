"""What shapes cost on the engine that will run them: exported with random weights, timed end to end."""

import gc
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import nn

from export.to_onnx import to_graph, write_onnx
from octedge.card import ModelCard
from octedge.edge.bundle import Bundle
from octedge.edge.engine import backend, quiet, variant_named
from octedge.edge.machine import describe
from octedge.scan import Frame
from octedge.segment import plan, segment
from octedge.train.networks import Family, Graph, receptive_field


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Times `segment` (tiling, engine, ordered decode) of one B-scan of H x W pixels, on this machine, in this process.

    The time is what a B-scan costs at most: the weights are random and every class wins pixels everywhere, so all columns need
    the decode. Of each shape the median over `rounds` times `runs` calls is taken; every round goes through all shapes, so that
    a machine that grows slower on the way is slower for all, and opens each engine anew, warmed up by one call.
    """

    structures: tuple[str, ...]
    size: tuple[int, int] = (496, 768)
    engine: str = "ort"
    rounds: int = 5
    runs: int = 3
    say: Callable[[str], None] = quiet  # hears how far it is: minutes, where shapes are many

    def __post_init__(self) -> None:
        variant_named(self.engine)

    def __str__(self) -> str:
        return f"{self.engine}, {self.size[0]} x {self.size[1]}, {describe()}"

    def __call__(self, shapes: Sequence[Family]) -> list[float]:
        """The ms of each shape. Raises `ModelError` where the engine is not here or cannot run a shape."""
        frame = np.random.default_rng(0).integers(0, 256, self.size, np.uint8)
        with tempfile.TemporaryDirectory() as folder:
            bundles = []
            for index, shape in enumerate(shapes, 1):
                self.say(f"timing: exporting shape {index} of {len(shapes)}")
                bundles.append(self.bundle(shape, Path(folder) / str(index)))
            times: list[list[float]] = [[] for _ in bundles]
            for turn in range(1, self.rounds + 1):
                self.say(f"timing: round {turn} of {self.rounds}")
                for bundle, found in zip(bundles, times, strict=True):
                    found += self._time(bundle, frame)
                    gc.collect()  # the engine goes before the next one comes: one at a time in memory
        return [statistics.median(found) for found in times]

    def _time(self, bundle: Bundle, frame: Frame) -> list[float]:
        variant = variant_named(self.engine)
        backend(variant.engine).build(bundle, variant, bundle.path, quiet)
        engine, how = backend(variant.engine).load(bundle, variant, bundle.path), plan(bundle.card, len(frame))
        segment(frame, engine, how)
        times = []
        for _ in range(self.runs):
            began = perf_counter()
            segment(frame, engine, how)
            times.append((perf_counter() - began) * 1000)
        return times

    def bundle(self, shape: Family, folder: Path) -> Bundle:
        """The shape as a bundle of a graph and a card, tiled as an export would tile it."""
        graph = random_graph(shape, len(self.structures))
        grid = 1 << shape.downs
        reach = receptive_field(graph, grid)
        overlap = -(-(2 * reach + 1) // grid) * grid
        card = ModelCard(
            id="shape",
            structures=self.structures,
            window=1 << (2 * overlap - 1).bit_length(),
            overlap=overlap,
            downs=shape.downs,
            exact=shape.tiles,
            receptive_field=reach,
            axial_um=(1.0, 1.0, 1.0),
            heights=(),
        )
        folder.mkdir()
        write_onnx(to_graph(graph, shape.downs), card, folder / "model.onnx")
        return Bundle(folder, card, {})


def random_graph(shape: Family, classes: int) -> Graph:
    """The network with random weights, and its outputs brought to mean 0 and variance 1 on noise: else one class wins everywhere."""
    torch.manual_seed(0)
    balance = nn.BatchNorm2d(classes, affine=False, momentum=None)
    graph = Graph(nn.Sequential(shape.network(classes), balance)).eval()
    balance.train()
    grid = 1 << shape.downs
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 4 * grid, 4 * grid), np.uint8)
    with torch.inference_mode():
        graph(torch.from_numpy(noise))
    return graph.eval()
