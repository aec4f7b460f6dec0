"""ReLayNet (Roy et al. 2017, made for retinal layers): tall kernels, and places of maxima handed to the way up."""

import torch
from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, joined
from octedge.train.networks.family import Common, Count, Downs, counted

TALL = (7, 3)  # rows, columns of its kernels


class ReLayNet(Common, frozen=True, kw_only=True, tag="relaynet"):
    """Convolutions per level and kernels, the same on every level (the paper: 1, 64, 3 down-samplings)."""

    convs: Count = 1
    kernels: Count = 32
    downs: Downs = 3

    def network(self, classes: int) -> nn.Module:
        return _ReLayNet(self, classes)

    def __str__(self) -> str:
        size = f"{self.kernels} kernels of {TALL[0]} x {TALL[1]}"
        return f"ReLayNet: {counted(self.convs, 'convolution')} per level, {size}, {counted(self.downs, 'down-sampling')}, unpooling"


class _ReLayNet(nn.Module):
    """Exact under tiling: nothing in it looks at the whole tile."""

    def __init__(self, shape: ReLayNet, classes: int) -> None:
        super().__init__()
        width = shape.kernels
        self.down = nn.ModuleList(Convolutions(width if level else 1, width, shape.convs, TALL) for level in range(shape.downs + 1))
        self.up = nn.ModuleList(Convolutions(2 * width, width, shape.convs, TALL) for _ in range(shape.downs))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        skips, largest = [], []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.up):
                skips.append(x)
                x = nn.functional.max_pool2d(x, 2)
                largest.append(x)
        for block, skip, pooled in zip(self.up, reversed(skips), reversed(largest), strict=True):
            x = block(joined(skip, _unpooled(x, skip, pooled)))
        logits: Tensor = self.head(x)
        return logits


def _unpooled(x: Tensor, before: Tensor, pooled: Tensor) -> Tensor:
    """`x` where `before` had the largest value of its 2 x 2, 0 elsewhere.

    The places are found by comparing, not by index: MaxUnpool is missing in TensorRT, and its indices count through the
    whole tile. Where several are the largest (all four 0, mostly) each of them gets the value.
    """
    return torch.where(before == _repeated(pooled), _repeated(x), 0.0)


def _repeated(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2, mode="nearest")
