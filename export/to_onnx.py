"""A trained network to one ONNX file: opset 18, IR 10, dynamic batch, height and width, normalisation inside, card in the metadata."""

import logging
import warnings
from pathlib import Path

import onnx
import onnxslim
import torch
from torch.export import Dim

from octedge.card import ModelCard, encode_card
from octedge.edge.contract import CARD_KEY, PRECISION_KEY
from octedge.train.networks import Graph

OPSET = 18  # loads in ONNX Runtime 1.18 and later; the CUDA provider has no kernel for the later Resize
IR = 10


def to_graph(graph: Graph, downs: int) -> onnx.ModelProto:
    """The network as a clean graph: `image` uint8 (N, 1, P, V) -> `scores` float32 (N, C, P, V), `labels` uint8 (N, P, V)."""
    grid = 1 << downs
    shape = {0: Dim("N", min=1, max=1 << 10), 2: grid * Dim("rows", min=1, max=1 << 12), 3: grid * Dim("columns", min=1, max=1 << 12)}
    example = torch.zeros(2, 1, 2 * grid, 3 * grid, dtype=torch.uint8)
    for name in ("torch.onnx", "onnxscript"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own inner workings
        program = torch.onnx.export(
            graph.eval(),
            (example,),
            input_names=["image"],
            output_names=["scores", "labels"],
            dynamic_shapes={"image": shape},
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = onnxslim.slim(program.model_proto)
    _forget_origin(model)
    opset = {each.domain: each.version for each in model.opset_import}
    if opset.get("") != OPSET or model.ir_version != IR:
        raise RuntimeError(f"the exporter wrote opset {opset}, IR {model.ir_version}; needed are opset {OPSET}, IR {IR}")
    return model


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove what names source files of the exporting machine: stack traces in every node, doc strings."""
    model.doc_string = ""
    model.ir_version = IR
    for each in [*model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.graph.input, *model.graph.output]:
        each.doc_string = ""
        del each.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.functions[:]
    del model.graph.value_info[:]  # inner shapes; every runtime infers them itself


def write_onnx(model: onnx.ModelProto, card: ModelCard, path: Path, precision: str = "fp32") -> None:
    """Check the graph, put card and precision into its metadata (last, since other tools drop it), and write one file."""
    onnx.checker.check_model(model, full_check=True)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {CARD_KEY: encode_card(card).decode(), PRECISION_KEY: precision})
    path.write_bytes(model.SerializeToString(deterministic=True))
