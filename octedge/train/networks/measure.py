"""What a network costs and how far it looks, counted and measured."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from octedge.train.networks.family import Family
from octedge.train.networks.graph import Graph


def parameters(graph: nn.Module) -> int:
    """Number of trained values."""
    return sum(value.numel() for value in graph.parameters())


def multiply_adds(shape: Family, classes: int, rows: int, columns: int) -> int:
    """Multiplications with addition in the convolutions of one image (rows, columns); nothing is computed for it."""
    total = 0

    def count(layer: nn.Module, given: tuple[Tensor], answer: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):  # every value of the answer is a sum over one kernel
            total += answer.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):  # every value given is spread by one kernel
            total += given[0].numel() * layer.weight[0].numel()

    with torch.device("meta"):
        network = shape.network(classes).eval()
        for layer in network.modules():
            layer.register_forward_hook(count)
        with torch.no_grad():
            network(torch.zeros(1, 1, rows, columns))
    return total


@torch.inference_mode()
def receptive_field(graph: Graph, grid: int) -> int:
    """How many columns to each side a column's scores depend on, measured: change one input column, see which scores move.

    The largest reach over noise images and over every place of the column on the grid.
    """
    rng = np.random.default_rng(0)
    width = grid * max(32, 1024 // grid)
    reach = 0
    for offset in range(0, grid, max(1, grid // 8)):
        image = rng.integers(0, 256, (1, 1, 4 * grid, width), np.uint8)
        changed = image.copy()
        column = width // 2 + offset
        changed[..., column] = 255 - changed[..., column]
        before, after = (_scores(graph, each) for each in (image, changed))
        moved = np.flatnonzero((before != after).any(axis=(0, 1, 2)))
        reach = max(reach, column - int(moved[0]), int(moved[-1]) - column)
    return reach


def _scores(graph: Graph, image: Any) -> Any:
    return graph(torch.from_numpy(image))[0].numpy()
