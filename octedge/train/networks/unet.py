"""The U-Net (Ronneberger et al. 2015): what the others are measured by."""

import torch
from torch import Tensor, nn

from octedge.train.networks.family import Family


class UNet(Family, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="unet"):
    """Convolutions per level, kernels at full size (doubled per level, at most `widest`), down-samplings."""

    convs: int = 2
    kernels: int = 16
    downs: int = 4
    widest: int = 96

    def widths(self) -> tuple[int, ...]:
        """Kernels of each level, full size first."""
        return tuple(min(self.kernels << level, self.widest) for level in range(self.downs + 1))

    def network(self, classes: int) -> nn.Module:
        return _UNet(self, classes)

    def __str__(self) -> str:
        kernels = ", ".join(map(str, self.widths()))
        return f"U-Net: {self.convs} convolutions per level, {kernels} kernels, {self.downs} down-samplings"


class Convolutions(nn.Sequential):
    """`count` times 3 x 3 convolution, batch norm, ReLU."""

    def __init__(self, channels: int, width: int, count: int) -> None:
        layers: list[nn.Module] = []
        for index in range(count):
            convolution = nn.Conv2d(width if index else channels, width, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class _UNet(nn.Module):
    """Exact under tiling: nothing in it looks at the whole tile.

    On the way up, a 1 x 1 convolution first brings the deeper level to the width of the next one, at its own small size;
    then it is enlarged (bilinear) and joined with the skip.
    """

    def __init__(self, shape: UNet, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (deeper, next) from the bottom to full size
        self.down = nn.ModuleList(Convolutions(above, width, shape.convs) for above, width in zip((1, *widths), widths, strict=False))
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for deeper, width in up)
        self.up = nn.ModuleList(Convolutions(2 * width, width, shape.convs) for _, width in up)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for narrow, block, skip in zip(self.narrow, self.up, skips[-2::-1], strict=True):
            x = nn.functional.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, x], 1))
        logits: Tensor = self.head(x)
        return logits
