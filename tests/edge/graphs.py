"""Graphs for tests of engines."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from octedge.card import encode_card
from tests.support import CARD, HALF, tiny_graph


def saved(graph: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    folder.mkdir(exist_ok=True)
    onnx.save(graph, folder / name)
    return folder / name


def in_precision(graph: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The graph, said to be in this precision."""
    helper.set_model_props(graph, {"octedge": encode_card(CARD).decode(), "octedge_precision": precision})
    return graph


def quantised_graph() -> onnx.ModelProto:
    """The tiny network with weights and activations in int8 and a bias in floating point, which is how bundles are quantised."""
    graph = tiny_graph()
    weights, bias = map(numpy_helper.to_array, graph.graph.initializer)
    scale = np.abs(weights).max() / np.float32(127)
    values = {
        "weights_int8": np.round(weights / scale).astype(np.int8), "weights_scale": scale, "grey_scale": np.float32(2),
        "raw_scale": np.float32(0.05), "zero": np.int8(0), "bias": bias,
    }  # fmt: skip
    cast, _, *rest = graph.graph.node
    rest[0].input[0] = "raw_again"
    nodes = [
        cast,
        *_there_and_back("grey", "grey_scale"),
        helper.make_node("DequantizeLinear", ["weights_int8", "weights_scale", "zero"], ["weights"]),
        helper.make_node("Conv", ["grey_again", "weights", "bias"], ["raw"], pads=[HALF] * 4),
        *_there_and_back("raw", "raw_scale"),
        *rest,
    ]
    inputs, outputs = graph.graph.input, graph.graph.output
    made = helper.make_graph(nodes, "quantised", inputs, outputs, [numpy_helper.from_array(value, name) for name, value in values.items()])
    return in_precision(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "int8")


def _there_and_back(name: str, scale: str) -> list[onnx.NodeProto]:
    """To int8 and back: `name` -> `name`_again."""
    return [
        helper.make_node("QuantizeLinear", [name, scale, "zero"], [f"{name}_int8"]),
        helper.make_node("DequantizeLinear", [f"{name}_int8", scale, "zero"], [f"{name}_again"]),
    ]
