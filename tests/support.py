"""A small model that answers at once, a small look of phantoms, and the command line in this process."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from octedge.anatomy import KEYS
from octedge.card import ModelCard, encode_card
from octedge.cli import main
from octedge.edge.bundle import write_sums
from octedge.edge.ort import OrtEngine
from octedge.phantom_look import LOOKS
from octedge.segment import plan, segment

HALF = 5  # rows and columns the tiny network sees to each side
CARD = ModelCard(
    id="tiny", structures=KEYS, window=64, overlap=16, downs=2, exact=True, receptive_field=HALF, axial_um=(3.0, 3.87, 4.5), heights=(64,)
)
LOOK = replace(LOOKS["spectralis"], rows=96, columns=140, span_mm=0.5)


def tiny_graph(card: ModelCard = CARD, *, metadata: bytes | None = None, labels: str = "labels", seed: int = 0) -> onnx.ModelProto:
    """A graph that keeps the contract: cast, one convolution, log-softmax and its argmax."""
    rng = np.random.default_rng(seed)
    classes, size = len(card.structures), 2 * HALF + 1
    weights = rng.normal(0, 0.02 / size, (classes, 1, size, size)).astype(np.float32)
    bias = rng.normal(0, 0.5, classes).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["grey", "weights", "bias"], ["raw"], pads=[HALF] * 4),
        helper.make_node("LogSoftmax", ["raw"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], [labels], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 1, "P", "V"])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes, "P", "V"]),
            helper.make_tensor_value_info(labels, TensorProto.UINT8, ["N", "P", "V"]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"octedge": (metadata or encode_card(card)).decode()})
    return model


def tiny_bundle(path: Path, card: ModelCard = CARD) -> Path:
    """A whole bundle of the tiny network in the new folder `path`, with two golden frames of its own answers."""
    path.mkdir(parents=True)
    onnx.save(tiny_graph(card), path / "model.onnx")
    (path / "card.json").write_bytes(encode_card(card))
    (path / "MODEL_CARD.md").write_text("# tiny\n\nFor tests.\n", newline="\n")
    engine = OrtEngine(path / "model.onnx", card)
    arrays: dict[str, Any] = {}
    for index, size in enumerate([(48, 70), (64, 33)]):
        frame = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
        answer = segment(frame, engine, plan(card, size[0]))
        arrays |= {f"frame_{index}": frame, f"labels_{index}": answer.labels, f"surfaces_{index}": answer.surfaces}
    np.savez_compressed(path / "golden.npz", **arrays)
    write_sums(path)
    return path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by relative path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def octedge_(*arguments: object) -> Result:
    """The command line in this process: it ends as it should, and says only what every console can show."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.output.isascii()
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    """What a command that ran with --json said, a value per line."""
    return [json.loads(line) for line in result.stdout.splitlines()]
