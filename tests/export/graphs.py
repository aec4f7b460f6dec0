"""Candidate networks as graphs, each exported once: in all test processes of a run together."""

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
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return to_graph(network(shape), shape.downs)
    path = folder_of(run) / f"{hashlib.sha256(repr(shape).encode()).hexdigest()[:16]}.onnx"
    if not path.exists():
        make_folder(path.parent)
        write_bytes(path, to_graph(network(shape), shape.downs).SerializeToString())
    return onnx.load(path)
