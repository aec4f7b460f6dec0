"""The int8 graph: what is in int8, what is left in floating point and why, and what the tools would have done."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from export.int8 import LIMIT, to_int8
from export.to_onnx import IR, OPSET
from octedge.edge.bundle import Golden
from octedge.edge.certificate import GATES, Gate, compare
from octedge.edge.contract import PRECISION_KEY
from octedge.edge.ort import OrtEngine
from octedge.edge.trt_build import PORTABLE, Options, build_plan, profiles
from octedge.errors import ModelError
from octedge.segment import plan, segment
from tests.edge.graphs import saved
from tests.export.graphs import exported
from tests.support import CARD
from tests.train.test_networks import CLASSES, SHAPES, every_family

ROOT = Path(__file__).parents[2]
ALL = Gate()  # every convolution in int8, whatever that does
# The networks' weights are random, and balanced on noise: on it every class occurs.
FRAMES = list(np.random.default_rng(1).integers(0, 256, (3, 64, 96), np.uint8))
OTHER = np.random.default_rng(2).integers(0, 256, (2, 1, 64, 96), np.uint8)


def card_of(shape):
    return msgspec.structs.replace(CARD, structures=CLASSES, downs=shape.downs, exact=shape.tiles, heights=(64,))


def engine(model, card, folder, precision="fp32"):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    helper.set_model_props(copy, {PRECISION_KEY: precision})
    return OrtEngine(saved(copy, folder, f"{precision}.onnx"), card, precision=precision)


def convolutions(model):
    """Convolution -> whether what it reads, and its weights, were int8 before."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes = [node for node in model.graph.node if node.op_type == "Conv"]
    found = {node.name: {made_by.get(name) == "DequantizeLinear" for name in node.input[:2]} for node in nodes}
    assert all(len(each) == 1 for each in found.values())
    return {name: each.pop() for name, each in found.items()}


@every_family
def test_every_family_gives_most_labels_of_fp32_on_other_noise(shape, tmp_path):
    card, fp32 = card_of(shape), exported(shape)
    before = fp32.SerializeToString()
    int8, kept = to_int8(fp32, card, FRAMES, FRAMES[:1], ALL)
    assert fp32.SerializeToString() == before
    assert kept == ()
    assert [*convolutions(int8).values()].count(False) == 1  # the sum in the log-softmax
    labels = engine(int8, card, tmp_path, "int8")(OTHER)[1]
    assert np.mean(labels == engine(fp32, card, tmp_path)(OTHER)[1]) > 0.9


@every_family
def test_only_what_convolutions_read_is_int8_and_all_else_as_it_was(shape):
    fp32 = exported(shape)
    int8, _ = to_int8(fp32, card_of(shape), FRAMES[:1], FRAMES[:1], ALL)
    onnx.checker.check_model(int8, full_check=True)
    assert [(each.domain, each.version) for each in int8.opset_import] == [("", OPSET)]
    assert int8.ir_version == IR
    assert [*int8.graph.input, *int8.graph.output] == [*fp32.graph.input, *fp32.graph.output]
    others = {node.name: node for node in int8.graph.node if not node.op_type.endswith("Linear") and node.op_type != "Conv"}
    assert others == {node.name: node for node in fp32.graph.node if node.op_type != "Conv"}
    tensors = {each.name: numpy_helper.to_array(each) for each in int8.graph.initializer}
    linear = [node for node in int8.graph.node if node.op_type.endswith("Linear")]
    assert {tensors[node.input[2]].dtype for node in linear} == {np.dtype(np.int8)}
    assert not any(tensors[node.input[2]].any() for node in linear)  # symmetric
    assert {tensors[node.input[1]].dtype for node in linear} == {np.dtype(np.float32)}
    for node in linear:
        if node.input[0] in tensors:
            assert tensors[node.input[1]].shape == (len(tensors[node.input[0]]),)  # a scale for every channel


# ---- which convolutions stay in floating point


def chain(uneven):
    """Three convolutions in a row. Between the first two, one channel is `uneven` times as large as the others: in floating point
    that changes nothing, in int8 with one scale for all channels it leaves nothing of the others."""
    rng = np.random.default_rng(0)
    sizes = {"first": (8, 1, 3, 3), "second": (8, 8, 3, 3), "third": (5, 8, 1, 1)}
    weights = {name: rng.normal(0, (2 / np.prod(size[1:])) ** 0.5, size).astype(np.float32) for name, size in sizes.items()}
    weights["first"][0] *= uneven
    weights["second"][:, 0] /= uneven
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["grey", "scale"], ["read_by_first"]),
    ]
    for name, following in (("first", "second"), ("second", "third")):
        convolution = helper.make_node("Conv", [f"read_by_{name}", f"of_{name}"], [name], name=name, pads=[1] * 4)
        nodes += [convolution, helper.make_node("Relu", [name], [f"read_by_{following}"])]
    nodes += [
        helper.make_node("Conv", ["read_by_third", "of_third"], ["third"], name="third"),
        helper.make_node("LogSoftmax", ["third"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    for index, node in enumerate(nodes):
        node.name = node.name or f"node{index}"
    constants = {"scale": np.float32(4 / 255)} | {f"of_{name}": values for name, values in weights.items()}
    ends = {"image": (TensorProto.UINT8, 1), "scores": (TensorProto.FLOAT, 5), "labels": (TensorProto.UINT8, None)}
    image, scores, labels = (
        helper.make_tensor_value_info(name, kind, ["N", *([count] if count else []), "P", "V"]) for name, (kind, count) in ends.items()
    )
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "chain", [image], [scores, labels], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)


CHAIN = msgspec.structs.replace(CARD, structures=CLASSES, downs=0)


@pytest.mark.parametrize(("uneven", "expected"), [(1, ()), (1000, ("second",))])
def test_the_one_convolution_that_needs_floating_point_is_found_and_no_other_left_out(uneven, expected, tmp_path):
    model = chain(uneven)
    int8, kept = to_int8(model, CHAIN, FRAMES, FRAMES)
    assert kept == expected
    assert convolutions(int8) == {name: name not in expected for name in ("first", "second", "third")}
    answers = [segment(frame, engine(model, CHAIN, tmp_path), plan(CHAIN, len(frame))) for frame in OTHER[:, 0]]
    golden = [Golden(frame, answer.labels, answer.surfaces) for frame, answer in zip(OTHER[:, 0], answers, strict=True)]
    assert compare(golden, engine(int8, CHAIN, tmp_path, "int8"), CHAIN).p99_px <= GATES["int8"].p99_px
    whole = to_int8(model, CHAIN, FRAMES, FRAMES, ALL)[0]
    assert (compare(golden, engine(whole, CHAIN, tmp_path, "int8"), CHAIN).p99_px > GATES["int8"].p99_px) == bool(expected)


def test_a_stricter_limit_leaves_the_same_convolutions_in_floating_point_and_more():
    shape = SHAPES[3]
    found = [set(to_int8(exported(shape), card_of(shape), FRAMES[:1], FRAMES[:1], Gate(equal=equal))[1]) for equal in (0.98, 0.9, 0.0)]
    assert found[0] > found[1] >= found[2] == set()


def test_a_network_that_does_not_bear_int8_is_refused_and_the_limit_named():
    with pytest.raises(ModelError, match=r"one of 3 convolutions in int8, surfaces move by more than 0 px .* without int8"):
        to_int8(chain(1), CHAIN, FRAMES, FRAMES, Gate(equal=1.0, p99_px=0.0))


def test_the_limit_is_half_of_what_a_certificate_allows():
    assert LIMIT.p99_px == GATES["int8"].p99_px / 2
    assert LIMIT.equal > GATES["int8"].equal


# ---- what is left behind


AGAIN = """
import sys
import numpy as np, onnx
from export.int8 import to_int8
from tests.export.test_int8 import ALL, FRAMES, card_of
from tests.train.test_networks import SHAPES
model, _ = to_int8(onnx.load(sys.argv[1]), card_of(SHAPES[0]), FRAMES, FRAMES[:1], ALL)
sys.stdout.buffer.write(model.SerializeToString(deterministic=True))
"""


def test_another_process_in_another_folder_writes_the_same_bytes_and_leaves_no_file(tmp_path):
    path = saved(exported(SHAPES[0]), tmp_path / "given")
    room = tmp_path / "room"
    room.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "TMPDIR": str(room), "TEMP": str(room), "TMP": str(room)}
    done = subprocess.run([sys.executable, "-c", AGAIN, path], cwd=room, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert list(room.iterdir()) == []
    assert list(path.parent.iterdir()) == [path]
    here = to_int8(exported(SHAPES[0]), card_of(SHAPES[0]), FRAMES, FRAMES[:1], ALL)[0]
    assert done.stdout == here.SerializeToString(deterministic=True)
    assert not [trace for trace in (str(room), tempfile.gettempdir(), str(ROOT), "onnxruntime") if trace.encode() in done.stdout]


# ---- what the tools would have done


class OneWindow(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self):
        self.left = [{"image": FRAMES[0][None, None]}]

    def get_next(self):
        return self.left.pop() if self.left else None


def by_default(model, path):
    """What ONNX Runtime's quantiser makes of convolutions if it is left alone."""
    quantize_static(model, path, OneWindow(), op_types_to_quantize=["Conv"], per_channel=True)
    return path


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def test_biases_in_int32_are_refused_by_tensorrt_and_ours_are_taken(tmp_path):
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    card = card_of(SHAPES[0])
    path = by_default(copied(exported(SHAPES[0])), tmp_path / "default.onnx")
    how = Options(profiles(card), PORTABLE[:1])
    with pytest.raises(ModelError, match=r"bias.* has type Int32 but must have type .*Int8"):
        build_plan(tensorrt_rtx, path, card, how, lambda _: None)
    int8, _ = to_int8(exported(SHAPES[0]), card, FRAMES[:1], FRAMES[:1], ALL)
    assert build_plan(tensorrt_rtx, saved(int8, tmp_path), card, how, lambda _: None)


def test_the_quantiser_moves_the_weights_of_the_graph_it_is_given_into_a_file_that_is_gone(tmp_path):
    given = copied(exported(SHAPES[1]))
    by_default(given, tmp_path / "default.onnx")
    moved = [each for each in given.graph.initializer if each.data_location == TensorProto.EXTERNAL]
    assert moved
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(given, full_check=True)


def quantised_layer(kind, opset):
    """A convolution whose weights are small, Q/DQ on all sides, bias and scales of this kind, which opset 18 does not know for fp16."""
    rng = np.random.default_rng(0)
    small = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    weights = rng.normal(0, 0.01, (8, 16, 3, 3))
    scales = np.abs(weights).max((1, 2, 3)) / 127
    constants = {
        "weights8": np.round(weights / scales[:, None, None, None]).astype(np.int8), "scales": scales.astype(small),
        "zeros": np.zeros(8, np.int8), "scale": small(1 / 64), "zero": np.int8(0), "bias": rng.normal(0, 0.5, 8).astype(small),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["given"], ["value"], to=kind),
        helper.make_node("QuantizeLinear", ["value", "scale", "zero"], ["value8"]),
        helper.make_node("DequantizeLinear", ["value8", "scale", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weights8", "scales", "zeros"], ["weights"], axis=0),
        helper.make_node("Conv", ["read", "weights", "bias"], ["answer"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["answer", "scale", "zero"], ["answer8"]),
        helper.make_node("DequantizeLinear", ["answer8", "scale", "zero"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["result"], to=TensorProto.FLOAT),
    ]
    given = helper.make_tensor_value_info("given", TensorProto.FLOAT, ["N", 16, "P", "V"])
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["N", 8, "P", "V"])
    initial = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "layer", [given], [result], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR)


def change_by_optimiser(model):
    """By how much ONNX Runtime's optimiser of biases changes the answer, and the largest answer."""
    value = np.random.default_rng(1).uniform(0, 2, (1, 16, 32, 32)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    on, off = (
        onnxruntime.InferenceSession(model.SerializeToString(), options, disabled_optimizers=each).run(None, {"given": value})[0]
        for each in ([], ["WeightBiasQuantization"])
    )
    return np.abs(on - off).max(), np.abs(off).max()


def test_int8_with_fp16_goes_wrong_in_onnx_runtime_with_its_optimiser_of_biases_so_ours_is_int8_with_fp32():
    change, largest = change_by_optimiser(quantised_layer(TensorProto.FLOAT16, 21))
    assert change > largest  # the scale of a bias in int32 is the product of two scales, and that is 0 in fp16
    change, largest = change_by_optimiser(quantised_layer(TensorProto.FLOAT, OPSET))
    assert change < largest / 16  # one step of 1 / 64; a few on processors without VNNI, whose sums of two products saturate
    with pytest.raises(onnx.shape_inference.InferenceError, match=r"QuantizeLinear.* unsupported type: tensor\(float16\)"):
        onnx.checker.check_model(quantised_layer(TensorProto.FLOAT16, OPSET), full_check=True)
