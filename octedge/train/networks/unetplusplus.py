"""The U-Net++ (Zhou et al. 2018): on every level a chain of nodes, each joined with all before it and the one below.

Not MONAI's: that one is fixed at four down-samplings and two convolutions, carries three heads that deep supervision
alone would train, and enlarges with `align_corners` unless by transposed convolutions.
"""

from itertools import pairwise

from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, Encoder, enlarged, joined
from octedge.train.networks.family import Count, Pyramid


class UNetPlusPlus(Pyramid, frozen=True, kw_only=True, tag="unet++"):
    """A U-Net with nested skips; narrower than the U-Net, for its nodes at full size are many."""

    kernels: Count = 8

    def network(self, classes: int) -> nn.Module:
        return _UNetPlusPlus(self, classes)

    def __str__(self) -> str:
        return f"U-Net++: {self.levels()}, nested skips"


class _Node(nn.Module):
    def __init__(self, before: int, width: int, deeper: int, convs: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(deeper, width, 1)
        self.block = Convolutions((before + 1) * width, width, convs)

    def forward(self, before: list[Tensor], deeper: Tensor) -> Tensor:
        x: Tensor = self.block(joined(*before, enlarged(self.narrow(deeper))))
        return x


class _Round(nn.ModuleList):
    """One more node on every level that still has one below: each round ends one level higher."""

    def forward(self, chains: list[list[Tensor]]) -> list[list[Tensor]]:
        new = [node(chain, below[-1]) for node, (chain, below) in zip(self, pairwise(chains), strict=True)]
        return [[*chain, node] for chain, node in zip(chains, new, strict=False)]


class _UNetPlusPlus(nn.Module):
    """Exact under tiling: nothing in it looks at the whole tile."""

    def __init__(self, shape: UNetPlusPlus, classes: int) -> None:
        super().__init__()
        widths, convs = shape.widths(), shape.convs
        self.down = Encoder(widths, convs)
        self.rounds = nn.ModuleList(
            _Round(_Node(before, widths[level], widths[level + 1], convs) for level in range(shape.downs + 1 - before))
            for before in range(1, shape.downs + 1)
        )
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        chains = [[level] for level in self.down(x)]
        for nodes in self.rounds:
            chains = nodes(chains)
        logits: Tensor = self.head(chains[0][-1])
        return logits
