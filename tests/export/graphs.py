"""Candidate networks as graphs, each exported once."""

from functools import cache

import onnx

from export.to_onnx import to_graph
from tests.train.test_networks import network


@cache
def exported(shape) -> onnx.ModelProto:
    return to_graph(network(shape), shape.downs)
