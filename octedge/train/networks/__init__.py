"""The candidate networks. A new family costs one file, and its name in `Shape`."""

from octedge.train.networks.family import Family
from octedge.train.networks.graph import Graph, parameters
from octedge.train.networks.unet import UNet

Shape = UNet

__all__ = ["Family", "Graph", "Shape", "UNet", "build", "parameters"]


def build(shape: Family, classes: int) -> Graph:
    """A fresh network of a shape, behind its graph."""
    return Graph(shape.network(classes))
