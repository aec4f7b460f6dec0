"""Which devices' pace a network keeps here, by measurement; what a GPU would need for the fastest of them, by arithmetic.

    python -m benchmarks.devices

Timed is the network alone, one B-scan of 1024 x 512 a call, in turns: the shipped model's, and that of `recipes/research.toml` (weights
are random: time does not depend on them). A B-scan of 1024 rows costs by its columns, so B-scans per second times columns is the
A-scan rate that is kept up. The arithmetic is of convolutions: two operations per multiplication with addition; bytes are every
convolution's input and output in fp16, once read and once written, which a compiler that fuses layers undercuts. A card's own figures
are its peak; networks as narrow as these reach a part of it.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.facts import facts, head, ms, row
from benchmarks.peers import SHAPE
from export.to_onnx import to_graph, write_onnx
from octedge.edge.bundle import open_bundle
from octedge.edge.ort import OrtEngine
from octedge.edge.ov import OpenVinoEngine
from octedge.phantom import Phantom
from octedge.phantom_look import LOOKS
from octedge.segment import Engine
from octedge.train.networks import Family, Graph, multiply_adds, parameters
from octedge.train.networks.halved import HalvedUNet

RESEARCH = HalvedUNet(convs=2, kernels=48, downs=5, widest=384)
ROWS, COLUMNS = 1024, 512


@dataclass(frozen=True, slots=True)
class Device:
    """A scanner's A-scans per second and per B-scan; sources in the makers' data sheets and data sets' descriptions."""

    name: str
    a_rate: int
    a_per_b: int


DEVICES = (
    Device("Cirrus 4000, macular cube", 27_000, 512),
    Device("Spectralis, first generation", 40_000, 768),
    Device("Cirrus 5000 AngioPlex", 68_000, 512),
    Device("Spectralis OCT2", 85_000, 768),
    Device("Triton", 100_000, 512),
    Device("Spectralis, newest", 125_000, 768),
    Device("DREAM", 200_000, 1024),
    Device("BMizar", 400_000, 1024),
)


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU's peak in fp16, summed in fp32 (TFLOP/s, without sparsity), and its memory's bandwidth (GB/s), as published."""

    name: str
    tflops: float
    gbytes: float


CARDS = (Card("RTX 4060", 30.2, 272), Card("RTX 4090", 165.2, 1008))


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Print three tables as Markdown."""
    classes = len(open_bundle().card.structures)
    shapes: dict[str, Family] = {"the shipped model's": SHAPE, "the research model's": RESEARCH}
    times = timed(shapes, rounds)
    print(f"{facts('onnxruntime', 'openvino', 'torch')}\n")
    print(head("network", "parameters", "engine", f"ms for {ROWS} x {COLUMNS}", "B-scans/s", "A-scans/s kept up"))
    best: dict[str, float] = {}
    for (name, engine), each in times.items():
        best[name] = min(best.get(name, each), each)
        count = f"{parameters(Graph(shapes[name].network(classes))):,}"
        print(row(name, count, engine, *ms([each]), f"{1000 / each:.1f}", f"{COLUMNS * 1000 / each:,.0f}"))
    print("\n" + head("device", "A-scans/s", "ms per B-scan", *(f"{name} needs, ms" for name in shapes)))
    for device in DEVICES:
        needs = [best[name] * device.a_per_b / COLUMNS for name in shapes]
        print(row(device.name, f"{device.a_rate:,}", f"{1000 * device.a_per_b / device.a_rate:.2f}", *ms(needs)))
    print("\n" + head("for 400,000 A-scans/s x 1024 rows", "TFLOP/s", "GB/s", *(f"of the peak of {card.name}" for card in CARDS)))
    for name, shape in shapes.items():
        pixels = DEVICES[-1].a_rate * ROWS / (ROWS * COLUMNS)
        tflops = 2 * multiply_adds(shape, classes, ROWS, COLUMNS) * pixels / 1e12
        gbytes = 2 * values(shape, classes) * pixels / 1e9
        shares = (f"{tflops / card.tflops:.0%} of its arithmetic, {gbytes / card.gbytes:.0%} of its bandwidth" for card in CARDS)
        print(row(name, f"{tflops:.1f}", f"{gbytes:.0f}", *shares))


def timed(shapes: dict[str, Family], rounds: int) -> dict[tuple[str, str], float]:
    """Median ms of a B-scan by network and engine, all in turns."""
    card = open_bundle().card
    frame = Phantom(LOOKS["spectralis"], 1, 1).bscan(0).image
    image = np.tile(frame, (3, 1))[None, None, :ROWS, :COLUMNS].copy()
    engines: dict[tuple[str, str], Engine] = {}
    with tempfile.TemporaryDirectory() as made:
        for index, (name, shape) in enumerate(shapes.items()):
            path = Path(made) / f"{index}.onnx"
            write_onnx(to_graph(Graph(shape.network(len(card.structures))), shape.downs), card, path)
            engines[name, "ONNX Runtime"] = OrtEngine(path, card)
            engines[name, "OpenVINO"] = OpenVinoEngine(path, card)
        found: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
        for turn in range(rounds + 1):  # the first warms up
            for key, engine in engines.items():
                began = time.perf_counter()
                engine(image)
                found[key] += [1000 * (time.perf_counter() - began)] * bool(turn)
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    return {key: statistics.median(each) for key, each in found.items()}


def values(shape: Family, classes: int) -> int:
    """How many values the convolutions of one B-scan read and write."""
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        nonlocal total
        total += given[0].numel() + answer.numel()

    with torch.device("meta"):
        network = shape.network(classes).eval()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.register_forward_hook(count)
        network(torch.zeros(1, 1, ROWS, COLUMNS))
    return total


if __name__ == "__main__":
    main()
