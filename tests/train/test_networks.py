"""The contract of every candidate network."""

import numpy as np
import pytest
import torch

from octedge.geometry import Windowing
from octedge.ordered import Chain
from octedge.segment import Plan, segment
from octedge.train.networks import UNet, build, parameters
from octedge.train.validate import TorchEngine

SHAPES = [UNet(convs=1, kernels=4, downs=2), UNet(convs=2, kernels=6, downs=3, widest=16), UNet(convs=3, kernels=4, downs=1)]
CLASSES = ("vitreous", "nfl", "rpe", "choroid", "fluid")


def network(shape):
    """Random weights, with batch statistics that are not all 0 and 1, so that folding them is seen."""
    torch.manual_seed(0)
    graph = build(shape, len(CLASSES))
    for module in graph.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in ((module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 2)):
                assert values is not None
                values.uniform_(low, high)
    # Zero-mean logits on noise, far apart: every class occurs, so that a wrong pixel shows.
    graph.eval()
    image = torch.randint(0, 256, (1, 1, 64, 256), dtype=torch.uint8)
    with torch.inference_mode():
        logits = graph.logits(image)
    head = graph.network.get_submodule("head")
    assert isinstance(head, torch.nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        head.bias -= logits.mean((0, 2, 3))
        spread = logits.std((0, 2, 3))
        head.weight *= (5 / spread)[:, None, None, None]
        head.bias *= 5 / spread
    return graph


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_are_log_probabilities_and_their_argmax(shape):
    image = torch.randint(0, 256, (2, 1, 32, 48), dtype=torch.uint8)
    with torch.inference_mode():
        scores, labels = network(shape)(image)
    assert scores.shape == (2, 5, 32, 48)
    assert labels.dtype == torch.uint8
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2, 32, 48))
    assert torch.equal(scores.argmax(1).to(torch.uint8), labels)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiled_equals_whole_where_the_overlap_covers_the_receptive_field_and_not_where_it_does_not(shape):
    engine = TorchEngine(network(shape))
    frame = np.random.default_rng(0).integers(0, 256, (30, 700), np.uint8)
    grid = 1 << shape.downs
    chain = Chain.of(CLASSES)
    whole = segment(frame, engine, Plan(chain, Windowing(1024, 0, grid)))
    enough = segment(frame, engine, Plan(chain, Windowing(256, 160, grid)))
    np.testing.assert_array_equal(enough.labels, whole.labels)
    # The last bits may differ: other window sizes, other kernels.
    np.testing.assert_allclose(enough.surfaces, whole.surfaces, atol=1e-3)
    short = segment(frame, engine, Plan(chain, Windowing(4 * grid, 0, grid)))
    assert not np.array_equal(short.labels, whole.labels)


def test_wider_or_deeper_shapes_have_more_parameters_and_widest_bounds_them():
    small = UNet(kernels=8, downs=3, widest=16)
    for larger in (dict(kernels=12), dict(downs=4), dict(convs=3), dict(widest=64)):
        changed = UNet(**{**{name: getattr(small, name) for name in ("convs", "kernels", "downs", "widest")}, **larger})
        assert parameters(build(changed, 5)) > parameters(build(small, 5))
    assert max(replace_widest(small).widths()) == 12


def replace_widest(shape):
    return UNet(convs=shape.convs, kernels=shape.kernels, downs=shape.downs, widest=12)
