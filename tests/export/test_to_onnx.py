"""From torch to one ONNX file: what the exporter, the tools and the runtimes do if they are left alone, and what we do."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from export.to_onnx import IR, OPSET, write_onnx
from octedge.card import decode_card
from octedge.edge.contract import CARD_KEY, PRECISION_KEY
from octedge.edge.ort import OrtEngine
from octedge.errors import ModelError
from tests.edge.graphs import saved
from tests.export.graphs import exported
from tests.support import CARD, tiny_graph
from tests.train.test_networks import CLASSES, SHAPES

ROOT = Path(__file__).parents[2]


def metadata(path):
    return {each.key: each.value for each in onnx.load(path).metadata_props}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_says_its_card_and_its_precision_and_nothing_of_the_tools_before(precision, tmp_path):
    model = tiny_graph()
    helper.set_model_props(model, {"onnx.infer": "some.tool"})
    write_onnx(model, CARD, tmp_path / "model.onnx", precision)
    found = metadata(tmp_path / "model.onnx")
    assert set(found) == {CARD_KEY, PRECISION_KEY}
    assert decode_card(found[CARD_KEY].encode()) == CARD
    assert found[PRECISION_KEY] == precision
    OrtEngine(tmp_path / "model.onnx", CARD, precision=precision)


def test_a_file_is_in_fp32_if_nothing_else_is_said(tmp_path):
    write_onnx(tiny_graph(), CARD, tmp_path / "model.onnx")
    assert metadata(tmp_path / "model.onnx")[PRECISION_KEY] == "fp32"


def test_polygraphy_drops_the_metadata_and_writing_last_puts_it_back(tmp_path):
    pytest.importorskip("polygraphy")
    write_onnx(tiny_graph(), CARD, tmp_path / "model.onnx")
    code = "from polygraphy.tools import main; raise SystemExit(main())"
    arguments = ["surgeon", "sanitize", "--fold-constants", "model.onnx", "-o", "sane.onnx"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sane = onnx.load(tmp_path / "sane.onnx")
    assert CARD_KEY not in {each.key for each in sane.metadata_props}
    write_onnx(sane, CARD, tmp_path / "again.onnx")
    assert metadata(tmp_path / "again.onnx") == metadata(tmp_path / "model.onnx")


def test_onnx_runtime_loads_no_ir_version_later_than_it_knows_so_ours_is_an_early_one_whatever_onnx_writes_by_default():
    made = helper.make_model(tiny_graph().graph, opset_imports=[helper.make_opsetid("", OPSET)])
    assert made.ir_version > IR == exported(SHAPES[0]).ir_version
    made.ir_version += 10  # as today's is to the runtime of some years ago
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match=r"[Uu]nsupported model IR version"):
        onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


def test_onnx_runtime_finds_a_width_off_the_grid_deep_in_the_network_and_our_engine_at_once(tmp_path):
    shape = SHAPES[1]
    card = msgspec.structs.replace(CARD, structures=CLASSES, downs=shape.downs)
    path = saved(exported(shape), tmp_path)
    off = np.zeros((1, 1, 64, 100), np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"Concat"):
        session.run(None, {"image": off})
    with pytest.raises(ModelError, match=r"\(1, 1, 64, 100\); .* P and V multiples of 8"):
        OrtEngine(path, card)(off)


CONSOLE = """
import sys, torch
from export.to_onnx import to_graph
from tests.train.test_networks import SHAPES, network
assert sys.stdout.encoding == "cp1252"
to_graph(network(SHAPES[0]), SHAPES[0].downs)
print("exported")
torch.onnx.export(network(SHAPES[0]), (torch.zeros(1, 1, 16, 16, dtype=torch.uint8),), dynamo=True, verbose=True)
"""


@pytest.mark.soak
def test_the_exporter_fails_on_a_console_of_one_byte_characters_and_ours_does_not(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", CONSOLE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="cp1252", check=False)
    assert done.stdout.splitlines()[0] == "exported"
    assert "UnicodeEncodeError: 'charmap' codec can't encode character" in done.stderr
    assert done.returncode == 1
