"""The fp16 graph: what it computes in, what it keeps in fp32, and how little that changes."""

from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.fp16 import fits, to_fp16
from export.to_onnx import IR, OPSET
from octedge.edge.bundle import REFERENCE, Golden
from octedge.edge.certificate import GATES, compare
from octedge.edge.ort import OrtEngine
from octedge.phantom import LOOKS, Phantom
from octedge.segment import plan, segment
from tests.edge.graphs import saved
from tests.export.graphs import exported
from tests.support import CARD, tiny_graph
from tests.train.test_networks import CLASSES, IDS, SHAPES

NOISE = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 96), np.uint8)


def engine(model, card, folder, precision="fp32"):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    helper.set_model_props(copy, {"octedge_precision": precision})
    return OrtEngine(saved(copy, folder, f"{precision}.onnx"), card, precision=precision)


def kinds(model):
    """Operator -> the element types it reads and gives, in all its places."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info, *graph.output)}
    types |= {each.name: each.data_type for each in graph.initializer}
    found = {}
    for node in graph.node:
        found.setdefault(node.op_type, Counter()).update({types[name] for name in (*node.input, *node.output) if name})
    return found


# Two families here; the rest is for `make soak`.
FEW = [pytest.param(shape, id=IDS[index], marks=[pytest.mark.soak] * (index > 1)) for index, shape in enumerate(SHAPES)]
few_families = pytest.mark.parametrize("shape", FEW)


@few_families
def test_every_family_gives_nearly_all_labels_of_fp32(shape, tmp_path):
    card = msgspec.structs.replace(CARD, structures=CLASSES, downs=shape.downs)
    fp32 = exported(shape)
    before = fp32.SerializeToString()
    fp16 = to_fp16(fp32)
    assert fp32.SerializeToString() == before
    assert (fp16.opset_import[0].version, fp16.ir_version) == (OPSET, IR)
    assert [*fp16.graph.input, *fp16.graph.output] == [*fp32.graph.input, *fp32.graph.output]
    scores, labels = engine(fp16, card, tmp_path, "fp16")(NOISE)
    _, expected = engine(fp32, card, tmp_path)(NOISE)
    assert scores.dtype == np.float32
    assert len(np.unique(expected)) == len(CLASSES)
    assert np.mean(labels == expected) > 0.995


@few_families
def test_all_between_the_first_layer_and_the_log_softmax_is_fp16_and_nothing_else(shape):
    found = kinds(to_fp16(exported(shape)))
    floats = {kind: set(types) & {TensorProto.FLOAT, TensorProto.FLOAT16} for kind, types in found.items()}
    outside = {"Mul", "Sub", "Exp", "Log", "ArgMax"}
    both = {"Cast", "Resize", "Conv", "Reshape"}
    assert all(kinds == {TensorProto.FLOAT16} for kind, kinds in floats.items() if kind not in both | outside and kinds)
    assert found["Conv"][TensorProto.FLOAT] == 1  # the sum of the exponentials
    assert all(floats[kind] == {TensorProto.FLOAT} for kind in outside - {"Mul"})
    assert floats.get("Resize", {TensorProto.FLOAT16}) >= {TensorProto.FLOAT16}  # what it enlarges by is float32
    assert found["Cast"].total() // 2 == 4  # from uint8, to fp16, back, to uint8: no conversion in the middle


@few_families
def test_the_same_graph_gives_the_same_bytes(shape):
    assert to_fp16(exported(shape)).SerializeToString() == to_fp16(exported(shape)).SerializeToString()


def test_the_shipped_network_keeps_the_gate_at_half_the_size(tmp_path):
    fp32 = onnx.load(REFERENCE / "model.onnx")
    card = msgspec.json.decode((REFERENCE / "card.json").read_bytes(), type=type(CARD))
    frame = Phantom(replace(LOOKS["spectralis"], columns=144), 1, 31, "R", "macula", True).bscan(0).image
    answer = segment(frame, OrtEngine(REFERENCE / "model.onnx", card), plan(card, len(frame)))
    fp16 = to_fp16(fp32)
    found = compare([Golden(frame, answer.labels, answer.surfaces)], engine(fp16, card, tmp_path, "fp16"), card)
    assert 0 < found.p99_px <= GATES["fp16"].p99_px
    assert found.equal > 0.998
    assert fp16.ByteSize() < 0.52 * fp32.ByteSize()


# ---- weights that fp16 does not hold


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([[1.0, -2.0], [0.0, 0.0]], True),
        ([[1.0, 1e-12], [1e-3, 1e-9]], True),  # nothing beside the others
        ([[1.0, 2.0], [7e4, 1.0]], False),
        ([[1.0, 2.0], [1e-9, 3e-9]], False),  # a channel that would be gone
        ([[1.0, 2.0], [1e-7, 2.2e-7]], False),  # one that would keep a digit
        ([1.0, 1e-9], True),
        ([1e-9, 3e-9], False),
        (1e-12, False),
    ],
)
def test_fp16_holds_weights_whose_every_row_keeps_its_digits(values, held):
    assert fits(numpy_helper.from_array(np.array(values, np.float32), "weights")) == held


def test_indices_are_no_weights():
    assert fits(numpy_helper.from_array(np.array([1 << 40]), "shape"))


def brighter(factor):
    """The tiny network behind a multiplication of grey values, its weights divided by the same: the answers stay."""
    graph = tiny_graph()
    weights, _ = graph.graph.initializer
    weights.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(weights) / factor).astype(np.float32), "weights"))
    graph.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    cast, *rest = graph.graph.node
    rest[0].input[0] = "bright"
    nodes = [cast, helper.make_node("Mul", ["grey", "factor"], ["bright"]), *rest]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


@pytest.mark.parametrize("factor", [1e-8, 1e7])
def test_a_layer_whose_weights_would_overflow_or_fade_away_stays_in_fp32(factor, tmp_path):
    model = brighter(factor)
    weights = numpy_helper.to_array(model.graph.initializer[0])
    with np.errstate(over="ignore"):
        lost = weights.astype(np.float16)
    assert np.isinf(lost).any() or not lost.any()
    fp16 = to_fp16(model)
    windows = NOISE[:, :, :64, :64]
    labels = engine(fp16, CARD, tmp_path, "fp16")(windows)[1]
    np.testing.assert_array_equal(labels, engine(model, CARD, tmp_path)(windows)[1])
    assert kinds(fp16)["Conv"] == Counter({TensorProto.FLOAT: 1})


def test_a_layer_whose_weights_fp16_holds_is_fp16():
    assert kinds(to_fp16(brighter(1.0)))["Conv"] == Counter({TensorProto.FLOAT16: 1})
