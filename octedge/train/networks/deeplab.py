"""Like DeepLabV3+ (Chen et al. 2018): dilated convolutions side by side at the bottom, one skip on the way up."""

from torch import Tensor, nn

from octedge.train.networks.blocks import Convolutions, Encoder, enlarged, joined
from octedge.train.networks.family import Count, Pyramid

SKIP = 1  # the level of the skip: half size, not a quarter as in the paper, for a layer may be three rows thin


class DeepLab(Pyramid, frozen=True, kw_only=True, tag="deeplab"):
    """An encoder, dilated convolutions of several `rates` on its deepest level, and, if `pooled`, the mean of the whole tile.

    The paper pools; then the answer depends on the tile, and a B-scan must be given whole.
    """

    rates: tuple[Count, ...] = (2, 4, 6)
    pooled: bool = False

    @property
    def tiles(self) -> bool:
        return not self.pooled

    def network(self, classes: int) -> nn.Module:
        return _DeepLab(self, classes)

    def __str__(self) -> str:
        rates = ", ".join(map(str, self.rates))
        return f"DeepLabV3+-like: {self.levels()}, dilations of {rates}{', mean of the whole' if self.pooled else ''}"


class _DeepLab(nn.Module):
    """Exact under tiling unless pooled."""

    def __init__(self, shape: DeepLab, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        deep, width = widths[-1], widths[SKIP]
        self.times = 1 << (shape.downs - SKIP)
        self.down = Encoder(widths, shape.convs)
        self.views = nn.ModuleList([Convolutions(deep, deep, 1, (1, 1)), *(_dilated(deep, rate) for rate in shape.rates)])
        self.project = nn.Sequential(nn.Conv2d(len(self.views) * deep, deep, 1, bias=False), nn.BatchNorm2d(deep))
        # No batch norm on the mean: it is one value per image and channel, of which a batch of one has no variance.
        whole = nn.Sequential(nn.Conv2d(deep, deep, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(deep, deep, 1, bias=False))
        self.whole = whole if shape.pooled else None
        self.narrow = nn.Conv2d(deep, width, 1)
        self.up = Convolutions(2 * width, width, shape.convs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        levels = self.down(x)
        deep = levels[-1]
        x = self.project(joined(*(view(deep) for view in self.views)))
        if self.whole is not None:
            x = x + self.whole(deep.mean((2, 3), keepdim=True))  # as one more view would be, but for its batch norm
        x = enlarged(self.narrow(x.relu()), self.times)
        return enlarged(self.head(self.up(joined(levels[SKIP], x))), 1 << SKIP)


def _dilated(width: int, rate: int) -> nn.Module:
    convolution = nn.Conv2d(width, width, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
