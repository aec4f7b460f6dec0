"""Every family of candidate networks on TensorRT-RTX: real engines for GPUs that are not here, built on the CPU."""

import struct

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx
from onnx import TensorProto, helper, numpy_helper

from export.fp16 import to_fp16
from export.int8 import to_int8
from octedge.edge.certificate import Gate
from octedge.edge.trt_build import PORTABLE, Options, Profile, build_plan, profiles
from octedge.errors import ModelError
from tests.export.graphs import exported
from tests.support import CARD
from tests.train.test_networks import CLASSES, IDS, SHAPES

# What the head of an engine says of itself, found out by building; NVIDIA does not document it.
VERSION, TARGETS = 0x18, 0x20
BITS = {"SM75": 0x01, "SM80": 0x02, "SM86": 0x04, "SM89": 0x08, "SM120": 0x10}


def card_of(shape):
    return msgspec.structs.replace(CARD, structures=CLASSES, downs=shape.downs, heights=(64, 128))


def built(model, card, folder, targets=PORTABLE, sizes=()):
    onnx.save(model, folder / "model.onnx")
    return build_plan(tensorrt_rtx, folder / "model.onnx", card, Options(sizes or profiles(card), targets), lambda _: None)


def targets_of(plan):
    """The names of the GPUs a plan says it is for."""
    (mask,) = struct.unpack_from("<I", plan, TARGETS)
    assert mask & ~sum(BITS.values()) == 0
    return {name for name, bit in BITS.items() if mask & bit}


def in_int8(model, card):
    """All of its convolutions, whatever that does to the answers."""
    noise = [np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8)]
    return to_int8(model, card, noise, noise, Gate())[0]


PRECISIONS = {"fp32": lambda model, _: model, "fp16": lambda model, _: to_fp16(model), "int8": in_int8}


# Half of the families in fp32, and the first in all precisions; the rest is for `make soak`.
BUILDS = [
    pytest.param(
        shape,
        precision,
        id=f"{precision}-{name}",
        marks=[pytest.mark.soak] * (shape is not SHAPES[0] and (precision != "fp32" or shape in SHAPES[5:])),
    )
    for shape, name in zip(SHAPES, IDS, strict=True)
    for precision in PRECISIONS
]


@pytest.mark.parametrize(("shape", "precision"), BUILDS)
def test_every_family_builds_in_every_precision_for_every_rtx_gpu_without_one(shape, precision, tmp_path):
    card = card_of(shape)
    model = PRECISIONS[precision](exported(shape), card)
    assert ("QuantizeLinear" in {node.op_type for node in model.graph.node}) == (precision == "int8")
    plan = built(model, card, tmp_path)
    assert targets_of(plan) == set(PORTABLE)
    assert ".".join(map(str, plan[VERSION : VERSION + 4])) == tensorrt_rtx.__version__


@pytest.mark.parametrize("target", BITS)
def test_a_plan_for_one_gpu_is_for_that_one(target, tmp_path):
    assert targets_of(built(exported(SHAPES[0]), card_of(SHAPES[0]), tmp_path, (target,))) == {target}


# ---- what the build finds that nothing before it does


def with_input(model, name):
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    renamed.graph.input[0].name = name
    for node in renamed.graph.node:
        node.input[:] = [name if each == "image" else each for each in node.input]
    return renamed


def test_another_input_name_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"the graph has frame uint8 of rank 4, .*; needed is image uint8 of rank 4"):
        built(with_input(exported(SHAPES[0]), "frame"), card_of(SHAPES[0]), tmp_path)


def test_sizes_off_the_grid_are_refused_with_the_librarys_reason(tmp_path):
    off = (Profile(64, (1, 4), (1, 770), (1, 1024)),)
    with pytest.raises(ModelError, match=r"cannot build it .*kOPT values for profile 0 violate shape constraints"):
        built(exported(SHAPES[0]), card_of(SHAPES[0]), tmp_path, sizes=off)
    high = (Profile(66, (1, 4), (1, 768), (1, 1024)),)
    with pytest.raises(ModelError, match=r"cannot build it .*axis 2 dimensions must be equal"):
        built(exported(SHAPES[0]), card_of(SHAPES[0]), tmp_path, sizes=high)


def small(nodes, constants):
    """A graph with the contract's ends: from `grey`, float32 (N, 1, P, V), to `raw`, (N, 5, P, V), by way of some nodes."""
    begin = [helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT)]
    end = [
        helper.make_node("LogSoftmax", ["raw"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, "P", "V"])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 5, "P", "V"])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", "P", "V"])
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph([*begin, *nodes, *end], "small", [image], [scores, labels], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def quantised(bias):
    """A convolution in int8, its bias quantised to int32 (as ONNX Runtime's quantiser does when left alone) or in floating point."""
    quantise, dequantise = "QuantizeLinear", "DequantizeLinear"
    nodes = [
        helper.make_node(quantise, ["grey", "scale", "zero"], ["image8"]),
        helper.make_node(dequantise, ["image8", "scale", "zero"], ["image32"]),
        helper.make_node(dequantise, ["weights8", "scale", "zero"], ["weights32"]),
    ]
    constants = {"scale": np.float32(2), "zero": np.int8(0), "weights8": np.ones((5, 1, 3, 3), np.int8)}
    if bias == np.int32:
        nodes.append(helper.make_node(dequantise, ["bias8", "scale", "zero32"], ["bias"]))
        constants |= {"bias8": np.arange(5, dtype=np.int32), "zero32": np.int32(0)}
    else:
        constants["bias"] = np.arange(5, dtype=np.float32)
    nodes.append(helper.make_node("Conv", ["image32", "weights32", "bias"], ["raw"], pads=[1] * 4))
    return small(nodes, constants)


def test_a_bias_quantised_to_int32_is_refused_with_the_librarys_reason_and_one_in_floating_point_is_not(tmp_path):
    card = card_of(SHAPES[0])
    with pytest.raises(ModelError, match=r"model\.onnx: tensorrt_rtx .* has type Int32 but must have type .*Int8"):
        built(quantised(np.int32), card, tmp_path)
    assert targets_of(built(quantised(np.float32), card, tmp_path)) == set(PORTABLE)


def test_what_parses_but_cannot_be_built_is_refused(tmp_path):
    """The largest of more than 3840 values: the parser takes it, the builder does not."""
    nodes = [
        helper.make_node("Reshape", ["grey", "row"], ["flat"]),
        helper.make_node("TopK", ["flat", "count"], ["largest", "where"], axis=1),
        helper.make_node("Slice", ["largest", "zeros", "one", "axis"], ["first"]),
        helper.make_node("Reshape", ["first", "point"], ["point1"]),
        helper.make_node("Mul", ["grey", "point1"], ["lit"]),
        helper.make_node("Conv", ["lit", "weights"], ["raw"]),
    ]
    constants = {
        "row": np.array([1, -1]), "count": np.array([4000]), "zeros": np.array([0]), "one": np.array([1]), "axis": np.array([1]),
        "point": np.array([1, 1, 1, 1]), "weights": np.ones((5, 1, 1, 1), np.float32),
    }  # fmt: skip
    with pytest.raises(ModelError, match=r"cannot build it \(.*(3840|TopK|topk|TOPK)"):
        built(small(nodes, constants), card_of(SHAPES[0]), tmp_path, sizes=(Profile(64, (1, 64), (1, 768), (1, 1024)),))
