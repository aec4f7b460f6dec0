"""A light network of strip kernels, in the spirit of LightReSeg (He et al. 2024) and ConvNeXt (Liu et al. 2022).

Layers lie across the rows: a tall strip sees their order at little cost, and only the wide one costs overlap.
"""

from itertools import pairwise

from torch import Tensor, nn

from octedge.train.networks.blocks import enlarged
from octedge.train.networks.family import Count, Pyramid


class Strips(Pyramid, frozen=True, kw_only=True, tag="strips"):
    """`convs` strip blocks per level; a strip sees `rows` rows up and down, then `columns` columns left and right."""

    convs: Count = 2
    rows: Count = 5
    columns: Count = 2

    def network(self, classes: int) -> nn.Module:
        return _Strips(self, classes)

    def __str__(self) -> str:
        size = f"{2 * self.rows + 1} x 1 and 1 x {2 * self.columns + 1}"
        return f"light network of strips: {self.levels()}, depth-wise kernels of {size}"


class _Strip(nn.Module):
    """Each channel for itself along the strips, then all channels of a pixel together; added to what came in."""

    def __init__(self, width: int, shape: Strips) -> None:
        super().__init__()
        rows, columns = shape.rows, shape.columns
        self.look = nn.Sequential(
            nn.Conv2d(width, width, (2 * rows + 1, 1), padding=(rows, 0), groups=width, bias=False),
            nn.Conv2d(width, width, (1, 2 * columns + 1), padding=(0, columns), groups=width, bias=False),
        )
        wide = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.mix = nn.Sequential(wide, nn.BatchNorm2d(2 * width), nn.ReLU(inplace=True), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.look(x))  # type: ignore[no-any-return]


class _Strips(nn.Module):
    """Exact under tiling: nothing in it looks at the whole tile."""

    def __init__(self, shape: Strips, classes: int) -> None:
        super().__init__()
        widths = shape.widths()
        steps = [nn.Conv2d(1, widths[0], 3, padding=1, bias=False)]
        steps += [nn.Conv2d(above, width, 2, stride=2, bias=False) for above, width in pairwise(widths)]
        up = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(step, nn.BatchNorm2d(width), *(_Strip(width, shape) for _ in range(shape.convs)))
            for step, width in zip(steps, widths, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(deeper, width, 1) for deeper, width in up)
        self.up = nn.ModuleList(_Strip(width, shape) for _, width in up)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float (N, 1, P, V) -> logits (N, C, P, V); P and V are multiples of 2^downs."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for narrow, block, skip in zip(self.narrow, self.up, skips[-2::-1], strict=True):
            x = block(skip + enlarged(narrow(x)))
        logits: Tensor = self.head(x)
        return logits
