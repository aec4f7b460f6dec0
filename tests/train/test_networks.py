"""The contract of every family of candidate networks."""

from functools import cache
from typing import get_args

import msgspec
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from octedge.errors import UsageError
from octedge.geometry import Windowing
from octedge.ordered import Chain
from octedge.segment import Plan, segment
from octedge.train.manifest import Phantoms
from octedge.train.networks import Shape, UNet, build, multiply_adds, parameters, receptive_field
from octedge.train.networks.attention import AttentionUNet
from octedge.train.networks.deeplab import DeepLab
from octedge.train.networks.graph import BOUND, Graph
from octedge.train.networks.halved import HalvedUNet
from octedge.train.networks.relaynet import ReLayNet
from octedge.train.networks.residual import ResidualUNet
from octedge.train.networks.segresnet import SegResNet
from octedge.train.networks.strips import Strips
from octedge.train.networks.unetplusplus import UNetPlusPlus
from octedge.train.recipe import Recipe, read_recipe, write_recipe
from octedge.train.validate import TorchEngine

SMALL = {"convs": 1, "kernels": 4, "downs": 2, "widest": 6}
SHAPES = [
    UNet(**SMALL),
    UNet(convs=2, kernels=6, downs=3, widest=16),
    UNetPlusPlus(**SMALL),
    AttentionUNet(**SMALL),
    ResidualUNet(**SMALL),
    SegResNet(blocks=1, kernels=4, downs=2),
    DeepLab(**SMALL, rates=(1, 2)),
    DeepLab(**SMALL, rates=(1, 2), pooled=True),
    ReLayNet(convs=1, kernels=4, downs=2),
    Strips(**SMALL, rows=2, columns=2),
    HalvedUNet(**SMALL),
]
IDS = [f"{index}-{type(shape).__name__}" for index, shape in enumerate(SHAPES)]
CLASSES = ("vitreous", "nfl", "rpe", "choroid", "fluid")

every_family = pytest.mark.parametrize("shape", SHAPES, ids=IDS)


@cache
def network(shape):
    """Random weights, with batch statistics that are those of noise, so that folding them is seen and nothing fades away."""
    torch.manual_seed(0)
    graph = build(shape, len(CLASSES))
    image = torch.randint(0, 256, (2, 1, 64, 256), dtype=torch.uint8)
    for module in graph.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    with torch.no_grad():
        graph.train()(image)
    graph.eval()
    # One more 1 x 1 convolution brings the logits on noise to mean 0, far apart: every class occurs, a wrong pixel shows.
    spread = torch.nn.Conv2d(len(CLASSES), len(CLASSES), 1)
    with torch.no_grad():
        logits = graph.logits(image)
        scale = 5 / logits.std((0, 2, 3))
        spread.weight.copy_(torch.diag(scale)[:, :, None, None])
        spread.bias.copy_(-scale * logits.mean((0, 2, 3)))
    graph.network = torch.nn.Sequential(graph.network, spread)
    return graph


@cache
def reach(shape):
    return receptive_field(network(shape), 1 << shape.downs)


def test_every_family_of_the_recipe_is_held_to_the_contract():
    assert {type(shape) for shape in SHAPES} == set(get_args(Shape))


@every_family
def test_outputs_are_log_probabilities_and_their_argmax_for_odd_multiples_of_the_grid(shape):
    grid = 1 << shape.downs
    for rows, columns in ((5 * grid, 3 * grid), (grid, 7 * grid), (grid, grid)):
        with torch.inference_mode():
            scores, labels = network(shape)(torch.randint(0, 256, (2, 1, rows, columns), dtype=torch.uint8))
        assert scores.shape == (2, 5, rows, columns)
        assert labels.dtype == torch.uint8
        torch.testing.assert_close(scores.exp().sum(1), torch.ones(2, rows, columns))
        assert torch.equal(scores.argmax(1).to(torch.uint8), labels)


@every_family
def test_neither_the_order_nor_the_size_of_a_batch_changes_an_answer(shape):
    engine = TorchEngine(network(shape))
    images = np.random.default_rng(2).integers(0, 256, (3, 1, 32, 48), np.uint8)
    scores, labels = engine(images)
    turned, turned_labels = engine(images[::-1])
    np.testing.assert_allclose(turned[::-1], scores, atol=1e-4)
    np.testing.assert_array_equal(turned_labels[::-1], labels)
    for image, expected, places in zip(images, scores, labels, strict=True):
        alone, found = engine(image[None])
        np.testing.assert_allclose(alone[0], expected, atol=1e-4)
        np.testing.assert_array_equal(found[0], places)


def difference(shape, overlap):
    """The share of pixels with another label under tiling, windows as narrow as the overlap allows."""
    engine = TorchEngine(network(shape))
    frame = np.random.default_rng(0).integers(0, 256, (30, 700), np.uint8)
    grid = 1 << shape.downs
    chain = Chain.of(CLASSES)
    whole = segment(frame, engine, Plan(chain, Windowing(1024, 0, grid)))
    tiled = segment(frame, engine, Plan(chain, Windowing(overlap + 4 * grid, overlap, grid)))
    return (tiled.labels != whole.labels).mean()


@every_family
def test_tiled_equals_whole_where_promised_once_the_overlap_covers_the_receptive_field_and_not_before(shape):
    grid = 1 << shape.downs
    assert difference(shape, 0) > 0
    if shape.tiles:
        assert 0 < reach(shape) < 128
        assert difference(shape, -(-(2 * reach(shape) + 1) // grid) * grid) == 0
    else:
        assert difference(shape, 256) > 0


def test_what_looks_at_the_whole_tile_reaches_to_its_border_and_promises_nothing():
    whole = [shape for shape in SHAPES if not shape.tiles]
    assert whole
    assert all(reach(shape) >= 512 for shape in whole)


@every_family
def test_multiply_adds_are_those_that_torch_counts_while_running(shape):
    rows, columns = 3 << shape.downs, 5 << shape.downs
    network = build(shape, 5).network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, rows, columns))
    assert 2 * multiply_adds(shape, 5, rows, columns) == counter.get_total_flops()


def other(value):
    """A value of a field that should make another network."""
    if isinstance(value, bool):
        return not value
    return (*value, 3) if isinstance(value, tuple) else value + 1


@every_family
def test_every_field_makes_another_network_and_its_other_words(shape):
    for name in shape.__struct_fields__:
        changed = msgspec.structs.replace(shape, **{name: other(getattr(shape, name))})
        assert parameters(build(changed, 5)) != parameters(build(shape, 5)), name
        assert str(changed) != str(shape), name


@every_family
def test_training_lowers_the_loss_and_reaches_every_parameter(shape):
    torch.manual_seed(0)
    graph = build(shape, 3).train()
    image = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    target = (image[:, 0] // 86).long()
    optimiser = torch.optim.AdamW(graph.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(graph.logits(image), target)
        optimiser.zero_grad()
        loss.backward()
        for name, value in graph.named_parameters():
            assert value.grad is not None, name
            assert value.grad.abs().max() > 1e-7 or losses, name
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@every_family
def test_a_recipe_brings_the_shape_back(shape, tmp_path):
    recipe = Recipe(name="test", source=(Phantoms(),), candidates={"one": shape, "two": UNet()})
    write_recipe(recipe, tmp_path / "recipe.json")
    assert read_recipe(tmp_path / "recipe.json") == recipe


@pytest.mark.parametrize("family", get_args(Shape))
def test_a_recipe_names_the_family_and_a_wrong_field_is_refused_by_name(family, tmp_path):
    start = f'name = "test"\n[[source]]\nkind = "phantoms"\n[candidates.one]\nfamily = "{family.__struct_config__.tag}"\n'
    path = tmp_path / "recipe.toml"
    path.write_text(start, encoding="utf-8")
    assert read_recipe(path).candidates == {"one": family()}
    for line, words in (("depth = 3", "depth"), ("downs = 0", "downs"), ("kernels = 0", "kernels")):
        path.write_text(f"{start}{line}\n", encoding="utf-8")
        with pytest.raises(UsageError, match=words):
            read_recipe(path)


def test_an_unknown_family_is_refused_by_name(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text('name = "test"\n[[source]]\nkind = "phantoms"\n[candidates.one]\nfamily = "vnet"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="vnet"):
        read_recipe(path)


def test_kernels_double_with_the_level_up_to_the_widest():
    assert UNet(kernels=8, downs=4, widest=48).widths() == (8, 16, 32, 48, 48)


@pytest.mark.parametrize("size", [3.0, 1e4])
def test_the_log_softmax_written_out_is_torchs_and_finite_for_any_logits(size):
    class Given(torch.nn.Module):
        def forward(self, image):
            return logits[:, :, : image.shape[2], : image.shape[3]]

    logits = size * torch.randn(2, 5, 16, 32, generator=torch.Generator().manual_seed(0))
    scores, labels = Graph(Given())(torch.zeros(2, 1, 16, 32, dtype=torch.uint8))
    expected = logits.clamp(-BOUND, BOUND).log_softmax(1)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2, 16, 32), rtol=0, atol=1e-5)
    assert (labels == scores.argmax(1)).all()
