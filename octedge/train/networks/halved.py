"""A light U-Net that works at half size: a strided convolution in, a transposed one out, which gives each pixel of a 2 x 2
block scores of its own (the sub-pixel convolution of Shi et al. 2016, arXiv 1609.05158).

A CPU spends most of a U-Net's time on its full-size level, whose few kernels do little. Here nothing but the scores has
full size; below it, every convolution sees twice as far for the same cost.
"""

from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, enlarged
from octedge.train.networks.family import Downs, Pyramid


class HalvedUNet(Pyramid, frozen=True, kw_only=True, tag="halved-unet"):
    """Convolutions per level, kernels at half size (doubled per level, at most `widest`), down-samplings, the first among them."""

    downs: Downs = 5

    def widths(self) -> tuple[int, ...]:
        """Kernels of each level, half size first."""
        return tuple(min(self.kernels << level, self.widest) for level in range(self.downs))

    def network(self, classes: int) -> nn.Module:
        return _HalvedUNet(self, classes)

    def __str__(self) -> str:
        return f"U-Net at half size: {self.levels()}"


class _HalvedUNet(nn.Module):
    """Exact under tiling. On the way up the deeper level is added to the skip, which halves the cost of joining them."""

    def __init__(self, shape: HalvedUNet, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, next) from the bottom to half size
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 6, stride=2, padding=2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.down = nn.ModuleList(
            Convolutions(above, width, shape.convs) for above, width in zip((widths[0], *widths), widths, strict=False)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for deeper, width in up)
        self.up = nn.ModuleList(Convolutions(width, width, shape.convs) for _, width in up)
        self.head = nn.ConvTranspose2d(widths[0], classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        x = self.stem(x)
        levels = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            levels.append(x)
        *skips, x = levels
        for narrow, block, skip in zip(self.narrow, self.up, reversed(skips), strict=True):
            x = block(skip + enlarged(narrow(x)))
        logits: Tensor = self.head(x)
        return logits
