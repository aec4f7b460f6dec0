"""octedge beside what one would write instead: the same weights, the same B-scans, in turns.

    python -m benchmarks.peers
    python -m benchmarks.peers --size 1024x1024 --frames 4 --rounds 5

The weights are those of the shipped model: torch gets them from the ONNX file, where batch norm is folded into the convolutions.
All compute in fp32 with as many threads as there are cores. "segment" tiles, runs and orders a B-scan that is in memory; "file to
file" is what the command `octedge segment` does with a DICOM volume, results as NPZ. The loops give the argmax of a whole B-scan
and nothing else. Labels are right where they are the phantom's. MONAI's sliding window (columns of 256, half of them shared,
Gaussian weights) is in torch. Every round goes through all; a first one warms up, and none is timed before torch and ONNX Runtime
agree.
"""

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from benchmarks.facts import facts, head, ms, row
from octedge.batch import Job, Options, run_one
from octedge.edge.bundle import Bundle, open_bundle
from octedge.edge.engine import load_engine
from octedge.edge.machine import cores
from octedge.edge.model import Model
from octedge.edge.variant import NamedEngine
from octedge.geometry import padded_height
from octedge.ordered import Chain
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import Source
from octedge.scan import Frame
from octedge.segment import plan, segment
from octedge.train.networks import Graph
from octedge.train.networks.halved import HalvedUNet

SHAPE = HalvedUNet(convs=1, kernels=24, downs=6, widest=128)  # of the shipped model
GRID = 1 << SHAPE.downs
ROI, OVERLAP = 256, 0.5
LEAST = 0.9999  # share of labels in which torch and ONNX Runtime agree

Labels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Contender:
    """Labels (H, W) of B-scans, and how many pixels its network is given for them."""

    name: str
    answer: Callable[[Sequence[Frame]], list[Labels]]
    pixels: list[int] = field(default_factory=list)


def in_torch(bundle: Bundle) -> Graph:
    """The bundle's network with its weights, without batch norm, as in its file."""
    initialisers = onnx.load(bundle.path / "model.onnx").graph.initializer
    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in initialisers}
    weights = {name: nn.Parameter(value) for name, value in values.items() if value.is_floating_point()}
    graph = Graph(SHAPE.network(len(bundle.card.structures))).eval()
    for name, module in list(graph.named_modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight = weights[f"{name}.weight"]
            module.bias = weights[f"{name}.weight_bias" if f"{name}.weight_bias" in weights else f"{name}.bias"]
        elif isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            setattr(graph.get_submodule(parent), child, nn.Identity())
    return graph


def of_segment(bundle: Bundle, engine: NamedEngine, name: str) -> Contender:
    """`segment` in memory."""
    pixels: list[int] = []

    def counted(windows: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        pixels.append(windows.size)
        return engine(windows)

    return Contender(name, lambda frames: [segment(each, counted, plan(bundle.card, len(each))).labels for each in frames], pixels)


def of_files(bundle: Bundle, engine: NamedEngine, source: Source, out: Path) -> Contender:
    """What the command does, from the DICOM file to the NPZ."""
    job = Job(Model(bundle, engine), out, Options(("npz",)))

    def answer(frames: Sequence[Frame]) -> list[Labels]:
        outcome = run_one(source, job)
        if outcome.status != "done":
            raise SystemExit(f"the phantom was refused: {outcome.error}")
        with np.load(out / outcome.outputs[0], allow_pickle=False) as result:
            return list(result["labels"])

    return Contender("octedge, file to file, ONNX Runtime", answer)


def of_onnxruntime(path: Path) -> Contender:
    """A loop as its documentation has it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return whole("bare ONNX Runtime loop", lambda image: session.run(["labels"], {"image": image})[0])


def of_openvino(path: Path) -> Contender:
    """A loop as its documentation has it, but in fp32 also where the processor has bf16."""
    load_engine(open_bundle(), "openvino-fp32")  # imports it without its telemetry
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return whole("bare OpenVINO loop", lambda image: compiled({"image": image})["labels"])


def of_torch(graph: Graph) -> Contender:
    """The whole B-scan through torch."""
    return whole("torch, whole image", lambda image: graph(torch.from_numpy(image))[1].numpy())


def of_monai(graph: Graph) -> Contender:
    """MONAI's sliding window in torch."""
    from monai.inferers.utils import sliding_window_inference

    pixels: list[int] = []

    def predict(windows: Tensor) -> Tensor:
        pixels.append(windows[:, 0].numel())
        return graph.logits(windows)

    def labels(image: NDArray[np.uint8]) -> Labels:
        given = torch.from_numpy(image).float()
        logits = sliding_window_inference(given, (image.shape[2], ROI), 4, predict, overlap=OVERLAP, mode="gaussian")
        assert isinstance(logits, Tensor)
        return logits.argmax(1).to(torch.uint8).numpy()

    return replace(whole("MONAI sliding window, torch", labels), pixels=pixels)


def whole(name: str, network: Callable[[NDArray[np.uint8]], Labels]) -> Contender:
    """B-scan by B-scan, padded at the bottom and the right as the network needs it."""
    pixels: list[int] = []

    def labels(frame: Frame) -> Labels:
        rows, columns = frame.shape
        image = np.pad(frame, ((0, padded_height(rows, GRID) - rows), (0, -columns % GRID)))
        pixels.append(image.size)
        return network(image[None, None])[0, :rows, :columns]

    return Contender(name, lambda frames: [labels(each) for each in frames], pixels)


@contextmanager
def contenders(size: tuple[int, int], frames: int) -> Iterator[tuple[list[Contender], list[Frame], Labels, Bundle]]:
    """All of them, their B-scans, the truth (F, H, W), and the bundle; the DICOM file and the results are gone afterwards."""
    bundle = open_bundle()
    look = replace(LOOKS["spectralis"], rows=size[0], columns=size[1], axial_um=bundle.card.axial_um[1], lateral_um=6000 / size[1])
    torch.set_num_threads(cores() or torch.get_num_threads())
    with TemporaryDirectory() as made, torch.inference_mode():
        source = Source((Path(made) / "phantom.dcm",), "phantom")
        phantom = Phantom(look, frames, 1)
        write_dicom(phantom, source.paths[0])
        path, graph = bundle.path / "model.onnx", in_torch(bundle)
        ort, openvino = (load_engine(bundle, name) for name in ("ort-fp32", "openvino-fp32"))
        yield (
            [
                of_onnxruntime(path),
                of_segment(bundle, ort, "octedge segment, ONNX Runtime"),
                of_files(bundle, ort, source, Path(made)),
                of_openvino(path),
                of_segment(bundle, openvino, "octedge segment, OpenVINO"),
                of_torch(graph),
                of_monai(graph),
            ],
            list(source.read()),
            np.stack([phantom.bscan(index).labels for index in range(frames)]),
            bundle,
        )


def out_of_order(labels: Sequence[Labels], chain: Chain) -> float:
    """Share of the columns in which a deeper structure lies above a shallower one; fluid lies anywhere."""
    wrong, columns = 0, 0
    for each in labels:
        place = np.full(256, -1, int)
        place[list(chain.ordered)] = range(len(chain.ordered))
        depth = place[each]
        deepest = np.maximum.accumulate(depth, axis=0)
        wrong += int(((depth >= 0) & (depth < deepest)).any(axis=0).sum())
        columns += each.shape[1]
    return wrong / columns


@click.command()
@click.option("--size", default="1024x512", show_default=True, help="Rows x columns.")
@click.option("--frames", default=3, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(size: str, frames: int, rounds: int) -> None:
    """Print a table as Markdown: median ms per B-scan, its ratio to the bare ONNX Runtime loop, and how the labels compare."""
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found:
        raise click.BadParameter(f"{size!r}; needed are rows x columns, as 1024x512")
    with contenders((int(found[1]), int(found[2])), frames) as (every, images, truth, bundle):
        first = every[0]
        answers = {each.name: each.answer(images) for each in every}  # warms up
        reference = np.stack(answers["torch, whole image"])
        equal, right = (
            {name: float(np.mean(np.stack(labels) == given)) for name, labels in answers.items()} for given in (reference, truth)
        )
        if equal[first.name] < LEAST:
            raise SystemExit(f"torch and ONNX Runtime agree on {equal[first.name]:.4%} of the labels only: not the same network")
        times: dict[str, list[float]] = {each.name: [] for each in every}
        for turn in range(rounds):
            for each in every:
                began = time.perf_counter()
                each.answer(images)
                times[each.name].append(1000 * (time.perf_counter() - began) / frames)
            print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    print(f"{facts('onnxruntime', 'openvino', 'torch', 'monai')}\n")
    print(f"{bundle.card.id}, {frames} B-scans of {size}, {rounds} rounds, medians\n")
    titles = ("ms per B-scan", "of the bare loop", "computed / needed", "labels as torch's", "labels right", "columns out of order")
    print(head("", *titles))
    for each in every:
        ratio = statistics.median(mine / bare for mine, bare in zip(times[each.name], times[first.name], strict=True))
        computed = f"{sum(each.pixels) / ((rounds + 1) * images[0].size * frames):.2f}" if each.pixels else "as segment"
        disorder = out_of_order(answers[each.name], bundle.card.chain)
        cells = (
            *ms([statistics.median(times[each.name])]),
            f"{ratio:.2f}",
            computed,
            f"{equal[each.name]:.2%}",
            f"{right[each.name]:.2%}",
            f"{disorder:.1%}",
        )
        print(row(each.name, *cells))


if __name__ == "__main__":
    main()
