"""The int8 graph of a network: Q/DQ in front of its convolutions, but for those that measurably need floating point.

Weights are int8 per channel, what a convolution reads is int8 per tensor, both symmetric: what every engine takes. A
tensor's range is its largest value in a window, the mean over the windows: what lies beyond in a rare window is cut off,
which costs less than coarser steps for all. Biases, the log-softmax and the rest of the graph stay fp32; opset 18 has no fp16 scales.

Which convolutions stay in floating point is measured, on the engine of the edge. Each is quantised alone, and all are
ranked by how far that moves surfaces; left in floating point are the first of that ranking, as few as keep `LIMIT`.
"""

import tempfile
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from export.fp16 import softmax
from export.golden import answered
from octedge.card import ModelCard
from octedge.edge.certificate import GATES, Difference, Gate, compare
from octedge.edge.contract import PRECISION_KEY
from octedge.edge.ort import OrtEngine
from octedge.errors import ModelError
from octedge.geometry import split
from octedge.scan import Frame
from octedge.segment import plan

# Half the surface difference that a certificate may show: the scans to come are not those it is measured on.
LIMIT = Gate(equal=0.99, p99_px=GATES["int8"].p99_px / 2)


def to_int8(
    model: onnx.ModelProto, card: ModelCard, frames: Sequence[Frame], checked: Sequence[Frame], limit: Gate = LIMIT
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The fp32 graph in int8, calibrated on B-scans uint8 (H, W), and the names of the convolutions left in floating point.

    The B-scans `checked` are segmented about once per convolution.
    Raises `ModelError` where not even one convolution can be in int8.
    """
    nodes = model.graph.node
    names = [node.name for node, behind in zip(nodes, softmax(nodes), strict=True) if node.op_type == "Conv" and not behind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        full = _quantised(model, card, frames, folder)
        golden = answered(checked, _engine(_mixed(full, model, ()), card, folder), card)

        def measured(chosen: Collection[str]) -> Difference:
            return compare(golden, _engine(_mixed(full, model, chosen), card, folder), card)

        alone = {name: measured({name}) for name in names}
        ranked = sorted(names, key=lambda name: (alone[name].p99_px, alone[name].mean_px), reverse=True)
        fewest = bisect_left(range(len(ranked)), True, key=lambda count: _keeps(measured(ranked[count:]), limit))
    if fewest == len(ranked):
        what = f"with one of {fewest} convolutions in int8, surfaces move by more than {limit.p99_px:g} px (99th percentile)"
        raise ModelError(f"{what} or labels change on more than {1 - limit.equal:.2%} of the pixels; ship the network without int8")
    kept = tuple(name for name in names if name in ranked[:fewest])
    return _mixed(full, model, ranked[fewest:]), kept


def _keeps(found: Difference, limit: Gate) -> bool:
    return found.equal >= limit.equal and found.p99_px <= limit.p99_px


def _engine(model: onnx.ModelProto, card: ModelCard, folder: Path) -> OrtEngine:
    """The engine of the edge for a graph that is not in a bundle yet."""
    del model.metadata_props[:]
    helper.set_model_props(model, {PRECISION_KEY: "int8"})
    path = folder / "engine.onnx"
    path.write_bytes(model.SerializeToString())
    return OrtEngine(path, card, precision="int8")


def _quantised(model: onnx.ModelProto, card: ModelCard, frames: Sequence[Frame], folder: Path) -> onnx.ModelProto:
    """The graph with every convolution in int8, as ONNX Runtime's quantiser writes it into `folder`."""
    given = onnx.ModelProto()
    given.CopyFrom(model)  # the quantiser moves the weights of what it is given into a file
    helper.set_model_props(given, {"onnx.quant.pre_process": "onnxruntime.quant"})  # it is clean already; else the quantiser warns
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,  # TensorRT refuses int32
        "OpTypesToExcludeOutputQuantization": ["Conv"],  # the activation comes first, and is fused with the convolution
        "CalibMovingAverage": True,
    }
    quantize_static(
        given,
        folder / "full.onnx",
        _Windows(card, frames),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )
    return onnx.load(folder / "full.onnx")


class _Windows(CalibrationDataReader):  # type: ignore[misc]
    """Hands the quantiser one window after the other, as the edge would cut them."""

    def __init__(self, card: ModelCard, frames: Sequence[Frame]) -> None:
        self._windows = self._cut(card, frames)

    @staticmethod
    def _cut(card: ModelCard, frames: Sequence[Frame]) -> Iterator[NDArray[np.uint8]]:
        for frame in frames:
            yield from split(frame, plan(card, len(frame)).windowing.tiling(*frame.shape))[:, None, None]

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(({"image": window} for window in self._windows), None)


def _mixed(full: onnx.ModelProto, model: onnx.ModelProto, chosen: Collection[str]) -> onnx.ModelProto:
    """`model` with the `chosen` nodes as they are in `full`, and the Q/DQ in front of them; all other nodes read what they always did."""
    usual = {node.name: node for node in model.graph.node if node.name not in chosen}
    weights = {each.name: each for each in (*full.graph.initializer, *model.graph.initializer)}
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    graph = mixed.graph
    del graph.node[:], graph.initializer[:]
    wanted = {each.name for each in graph.output}
    nodes = []
    for each in reversed(full.graph.node):
        if not wanted.isdisjoint(each.output):
            nodes.append(usual.get(each.name, each))
            wanted.update(nodes[-1].input)
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(each for name, each in weights.items() if name in wanted)
    return mixed
