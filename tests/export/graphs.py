"""Networks as graphs, each exported once: in all test processes of a run together."""

import hashlib
import os
from functools import cache

import onnx

from export.to_onnx import to_graph
from octedge.results.files import make_folder, write_bytes
from tests.shared import folder_of
from tests.train.test_networks import network


@cache
def exported(shape) -> onnx.ModelProto:
    return once(network(shape), shape.downs)


def once(graph, downs: int) -> onnx.ModelProto:
    """`to_graph`, or what it gave for the same weights before."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return to_graph(graph, downs)
    digest = hashlib.sha256(repr(graph).encode())
    for name, value in graph.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    path = folder_of(run) / f"{digest.hexdigest()[:16]}.onnx"
    if not path.exists():
        make_folder(path.parent)
        write_bytes(path, to_graph(graph, downs).SerializeToString())
    return onnx.load(path)
