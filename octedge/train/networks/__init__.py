"""The candidate networks. A new family costs one file, and its name in `Shape`."""

from octedge.train.networks.attention import AttentionUNet
from octedge.train.networks.deeplab import DeepLab
from octedge.train.networks.family import Family
from octedge.train.networks.graph import Graph
from octedge.train.networks.halved import HalvedUNet
from octedge.train.networks.measure import multiply_adds, parameters, receptive_field
from octedge.train.networks.relaynet import ReLayNet
from octedge.train.networks.residual import ResidualUNet
from octedge.train.networks.segresnet import SegResNet
from octedge.train.networks.strips import Strips
from octedge.train.networks.unet import UNet
from octedge.train.networks.unetplusplus import UNetPlusPlus

Shape = UNet | UNetPlusPlus | AttentionUNet | ResidualUNet | SegResNet | DeepLab | ReLayNet | Strips | HalvedUNet

__all__ = ["Family", "Graph", "Shape", "UNet", "build", "multiply_adds", "parameters", "receptive_field"]


def build(shape: Family, classes: int) -> Graph:
    """A fresh network of a shape, behind its graph."""
    return Graph(shape.network(classes))
