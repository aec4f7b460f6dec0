"""The U-Net (Ronneberger et al. 2015): what the others are measured by."""

from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, Encoder, enlarged, joined
from octedge.train.networks.family import Pyramid


class UNet(Pyramid, frozen=True, kw_only=True, tag="unet"):
    """Convolutions per level, kernels at full size (doubled per level, at most `widest`), down-samplings."""

    def network(self, classes: int) -> nn.Module:
        return _UNet(self, classes)

    def __str__(self) -> str:
        return f"U-Net: {self.levels()}"


class _UNet(nn.Module):
    """Exact under tiling: nothing in it looks at the whole tile.

    On the way up, a 1 x 1 convolution first brings the deeper level to the width of the next one, at its own small size;
    then it is enlarged (bilinear) and joined with the skip.
    """

    def __init__(self, shape: UNet, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, next) from the bottom to full size
        self.down = Encoder(widths, shape.convs)
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for deeper, width in up)
        self.up = nn.ModuleList(Convolutions(2 * width, width, shape.convs) for _, width in up)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        *skips, x = self.down(x)
        for narrow, block, skip in zip(self.narrow, self.up, reversed(skips), strict=True):
            x = block(joined(skip, enlarged(narrow(x))))
        logits: Tensor = self.head(x)
        return logits
