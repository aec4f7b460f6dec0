"""The fp16 graph of a network: half the bytes, and the arithmetic that GPUs are fast at.

In fp32 stay the way from the image to the first layer (it costs nothing, and grey values keep their distances), the
log-softmax, which begins with the exponentials, and all that follows (`scores` are float32 whatever computes them), each
layer whose weights fp16 cannot hold, and what an operator takes in fp32 only. All else is fp16, enlarging included: one
layer left out in the middle costs a conversion on either side.
"""

from collections.abc import Iterator, Sequence, Set

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LAYERS = frozenset({"Conv", "ConvTranspose"})
SOFTMAX = frozenset({"LogSoftmax", "Exp"})  # as one operator, or written out
# Of the length of a channel's weights: rounding takes 0.0005 at most. More is lost where weights overflow or fade away.
LOSS = 0.01
NAMES: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The fp32 graph in fp16, by the rule above; inputs, outputs and opset stay as they are."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    _Rewriting(half).run()
    onnx.checker.check_model(half, full_check=True)
    return half


def fits(tensor: TensorProto) -> bool:
    """Whether fp16 holds the weights: rounding takes nothing worth mentioning from any row of them, nor from a list."""
    if tensor.data_type != TensorProto.FLOAT:
        return True
    values = numpy_helper.to_array(tensor).astype(np.float64)
    rows = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
    with np.errstate(over="ignore"):
        lost = np.linalg.norm(rows.astype(np.float16) - rows, axis=1)
    return bool(np.all(lost <= LOSS * np.linalg.norm(rows, axis=1)))


def softmax(nodes: Sequence[NodeProto]) -> Iterator[bool]:
    """Of every node of a graph, whether it is of the log-softmax or comes after it."""
    return _from(nodes, SOFTMAX)


class _Rewriting:
    """A graph on its way to fp16, node by node in the order of computation."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opsets = {each.domain: each.version for each in model.opset_import}
        self.weights = {each.name: each for each in model.graph.initializer}
        self.kinds = _kinds(model)  # of every value as it is by now
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        graph, nodes = self.graph, list(self.graph.node)
        for node, within, behind in zip(nodes, _from(nodes, LAYERS), softmax(nodes), strict=True):
            held = all(fits(self.weights[name]) for name in node.input if name in self.weights)
            self._rewrite(node, TensorProto.FLOAT16 if within and not behind and held else TensorProto.FLOAT)
            self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(each for name, each in self.weights.items() if name in read)

    def _rewrite(self, node: NodeProto, kind: int) -> None:
        """Let a node compute in this kind: what it reads is converted first, what it gives is known to be of it."""
        rule = onnx.defs.get_schema(node.op_type, self.opsets[node.domain], node.domain)
        letters = set()
        for index, name in enumerate(node.input):
            slot = rule.inputs[min(index, len(rule.inputs) - 1)]
            if self.kinds.get(name) in NAMES and "tensor(float16)" in slot.types:
                node.input[index] = self._converted(name, kind)
                letters.add(slot.type_str)
        for index, name in enumerate(node.output):
            slot = rule.outputs[min(index, len(rule.outputs) - 1)]
            if self.kinds.get(name) in NAMES and slot.type_str in letters:
                self.kinds[name] = kind

    def _converted(self, name: str, kind: int) -> str:
        """The name of the same value in this kind, made where it is not there yet."""
        if self.kinds[name] == kind:
            return name
        other = f"{name}_{NAMES[kind]}"
        if other in self.kinds:
            return other
        self.kinds[other] = kind
        if name in self.weights:
            values = numpy_helper.to_array(self.weights[name])
            self.weights[other] = numpy_helper.from_array(values.astype(np.float16), other)
        else:
            self.nodes.append(helper.make_node("Cast", [name], [other], name=f"{other}_cast", to=kind))
        return other


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value of a graph, weights included."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info, *graph.output)}
    return kinds | {each.name: each.data_type for each in graph.initializer}


def _from(nodes: Sequence[NodeProto], kinds: Set[str]) -> Iterator[bool]:
    """Of every node, whether it is of these kinds or comes after one that is."""
    values: set[str] = set()
    for node in nodes:
        reached = node.op_type in kinds or not values.isdisjoint(node.input)
        if reached:
            values.update(filter(None, node.output))
        yield reached
