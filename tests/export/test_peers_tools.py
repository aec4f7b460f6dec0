"""The tools of others load our files as they are, and find the card in them."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch

from export.to_onnx import to_graph, write_onnx
from octedge.card import decode_card
from octedge.edge.bundle import REFERENCE
from octedge.edge.contract import CARD_KEY
from octedge.edge.variant import FILES
from octedge.train.networks import UNet, build
from tests.support import CARD

SHIPPED = sorted({file for file in FILES.values() if (REFERENCE / file).is_file()})


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A small network, exported now."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fresh") / "model.onnx"
    write_onnx(to_graph(build(UNet(convs=1, kernels=4, downs=2), len(CARD.structures)).eval(), CARD.downs), CARD, path)
    return path


@pytest.fixture(scope="module", params=["fresh", *SHIPPED])
def model(request):
    return request.getfixturevalue("fresh") if request.param == "fresh" else REFERENCE / request.param


@pytest.fixture
def card(model):
    return decode_card((REFERENCE / "card.json").read_bytes()) if model.parent == REFERENCE else CARD


def polygraphy(*arguments):
    """The tool's command line in a process of its own."""
    code = "from polygraphy.tools import main; raise SystemExit(main())"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)


def lint(model: Path, report: Path) -> dict:
    """What polygraphy's lint reports; it runs every node on a small image."""
    done = polygraphy("check", "lint", model, "--input-shapes", "image:[2,1,64,128]", "-o", report)
    assert report.is_file(), done.stderr
    return json.loads(report.read_text())


def test_the_shipped_model_is_among_the_files():
    assert "model.onnx" in SHIPPED


def test_onnx_checks_the_whole_file_and_infers_every_shape(model):
    graph = onnx.load(model)
    onnx.checker.check_model(graph, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True, data_prop=True).graph
    assert {name for node in graph.graph.node for name in node.output} == {each.name for each in (*inferred.value_info, *inferred.output)}


def test_polygraphy_shows_inputs_outputs_and_their_free_sizes(model, card):
    done = polygraphy("inspect", "model", model)
    assert done.returncode == 0, done.stderr
    grid = card.windowing.grid
    assert f"image [dtype=uint8, shape=('N', 1, '{grid}*rows', '{grid}*columns')]" in done.stdout
    assert f"scores [dtype=float32, shape=('N', {len(card.structures)}, '{grid}*rows', '{grid}*columns')]" in done.stdout
    assert f"labels [dtype=uint8, shape=('N', '{grid}*rows', '{grid}*columns')]" in done.stdout


def test_polygraphys_lint_runs_every_node_and_has_nothing_to_say(model, tmp_path):
    report = lint(model, tmp_path / "lint.json")
    assert report["lint_entries"] == []
    assert report["summary"]["failing"] == []
    assert len(report["summary"]["passing"]) == len(onnx.load(model).graph.node)


def test_the_lint_names_a_node_that_cannot_run(tmp_path):
    graph = onnx.load(REFERENCE / "model.onnx")
    first, _, third, *_ = (node for node in graph.graph.node if node.op_type == "Conv")
    third.input[1] = first.input[1]  # weights for another number of channels
    onnx.save(graph, tmp_path / "wrong.onnx")
    report = lint(tmp_path / "wrong.onnx", tmp_path / "lint.json")
    assert report["summary"]["failing"] == [third.name]
    assert "Input channels C is not equal" in report["lint_entries"][0]["message"]


def test_the_card_is_read_by_onnx_onnx_runtime_and_openvino(model, card):
    openvino = pytest.importorskip("openvino")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = [
        {each.key: each.value for each in onnx.load(model, load_external_data=False).metadata_props}[CARD_KEY],
        session.get_modelmeta().custom_metadata_map[CARD_KEY],
        openvino.Core().read_model(model).get_rt_info(["framework", CARD_KEY]).value,
    ]
    assert [decode_card(text.encode()) for text in found] == [card] * 3


def test_openvino_reads_the_same_inputs_and_outputs(model, card):
    openvino = pytest.importorskip("openvino")
    graph = openvino.Core().read_model(model)
    found = {each.any_name: (each.element_type.get_type_name(), len(each.partial_shape)) for each in (*graph.inputs, *graph.outputs)}
    assert found == {"image": ("u8", 4), "scores": ("f32", 4), "labels": ("u8", 3)}
    assert graph.output("scores").partial_shape[1].get_length() == len(card.structures)
