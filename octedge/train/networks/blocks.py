"""What several families are made of. All of it is local: no statistic over the tile, sizes that divide on the grid."""

import torch
from torch import Tensor, nn


class Convolutions(nn.Sequential):
    """`count` times convolution (3 x 3 if not said otherwise), batch norm, ReLU."""

    def __init__(self, channels: int, width: int, count: int, kernel: tuple[int, int] = (3, 3)) -> None:
        layers: list[nn.Module] = []
        padding = (kernel[0] // 2, kernel[1] // 2)
        for index in range(count):
            convolution = nn.Conv2d(width if index else channels, width, kernel, padding=padding, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class Encoder(nn.ModuleList):
    """Convolutions on every level; between levels, the largest of 2 x 2."""

    def __init__(self, widths: tuple[int, ...], convs: int) -> None:
        super().__init__(Convolutions(above, width, convs) for above, width in zip((1, *widths), widths, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 1, P, V) -> the answer of each level, full size first."""
        levels = []
        for level, block in enumerate(self):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            levels.append(x)
        return levels


def enlarged(x: Tensor, times: int = 2) -> Tensor:
    """Bilinear, every pixel a square (`align_corners` would depend on the width of the tile)."""
    return nn.functional.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False)


def joined(*parts: Tensor) -> Tensor:
    """Side by side, as channels."""
    return torch.cat(parts, 1)
