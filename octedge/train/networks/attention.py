"""The attention U-Net (Oktay et al. 2018): a gate on every skip, opened by what the deeper level has found.

Not MONAI's: there the joined levels go through instance norm, which is not exact under tiling, and the number of
convolutions is fixed.
"""

import torch
from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, Encoder, enlarged, joined
from octedge.train.networks.family import Pyramid


class AttentionUNet(Pyramid, frozen=True, kw_only=True, tag="attention-unet"):
    """A U-Net with gated skips."""

    def network(self, classes: int) -> nn.Module:
        return _AttentionUNet(self, classes)

    def __str__(self) -> str:
        return f"attention U-Net: {self.levels()}, gated skips"


class _Gate(nn.Module):
    """Each pixel of the skip times a number in 0..1, made from that pixel and the one below it alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 2)
        self.inner = nn.Sequential(nn.Conv2d(2 * width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True))
        self.open = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, deeper: Tensor) -> Tensor:
        return skip * torch.sigmoid(self.open(self.inner(joined(skip, deeper))))


class _AttentionUNet(nn.Module):
    """Exact under tiling: the gates are 1 x 1 convolutions."""

    def __init__(self, shape: AttentionUNet, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = Encoder(widths, shape.convs)
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for deeper, width in up)
        self.gates = nn.ModuleList(_Gate(width) for _, width in up)
        self.up = nn.ModuleList(Convolutions(2 * width, width, shape.convs) for _, width in up)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        *skips, x = self.down(x)
        for narrow, gate, block, skip in zip(self.narrow, self.gates, self.up, reversed(skips), strict=True):
            deeper = enlarged(narrow(x))
            x = block(joined(gate(skip, deeper), deeper))
        logits: Tensor = self.head(x)
        return logits
