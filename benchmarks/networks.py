"""What every family of candidate networks costs and sees at its default shape; writes docs/networks.md.

python -m benchmarks.networks
"""

from pathlib import Path
from typing import get_args

import torch

from octedge.anatomy import KEYS
from octedge.train.networks import Family, Graph, Shape, build, multiply_adds, parameters, receptive_field
from octedge.train.networks.deeplab import DeepLab

PAGE = Path(__file__).parents[1] / "docs" / "networks.md"
SIDE = 512
HEAD = f"""# Candidate networks
Written by `python -m benchmarks.networks`. A recipe names a family and sets its fields:

```toml
[candidates.first]
family = "unet"
convs = 3
```

The table is of the default shapes with {len(KEYS)} classes. *Sees*: columns to each side that a column's scores depend on, measured on
random weights with the batch statistics of noise; a trained network's is measured again when it is exported. *Tiles*: whether
windows give the labels of the whole B-scan once they overlap by twice that and one. Costs are of one {SIDE} x {SIDE} image,
in thousand millions of multiplications with addition.

| family | network | parameters | sees | tiles | cost |
|---|---|--:|--:|---|--:|
"""


def main() -> None:
    """Measure and write."""
    shapes = [*(family() for family in get_args(Shape)), DeepLab(pooled=True)]
    lines = []
    for shape in shapes:
        lines.append(_line(shape))
        print(lines[-1], end="", flush=True)
    PAGE.write_text(HEAD + "".join(lines), encoding="utf-8", newline="\n")


def _line(shape: Shape) -> str:
    graph = _settled(shape)
    sees = str(receptive_field(graph, 1 << shape.downs)) if shape.tiles else "all"
    tiles = "exact" if shape.tiles else "whole only"
    cost = multiply_adds(shape, len(KEYS), SIDE, SIDE) / 1e9
    tag = shape.__struct_config__.tag
    return f"| `{tag}` | {shape} | {parameters(graph):,} | {sees} | {tiles} | {cost:.1f} |\n"


def _settled(shape: Family) -> Graph:
    """Random weights, and the batch statistics of noise, without which far columns fade below the last bit."""
    torch.manual_seed(0)
    graph = build(shape, len(KEYS))
    for layer in graph.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        graph.train()(torch.randint(0, 256, (2, 1, 128, 256), dtype=torch.uint8))
    return graph.eval()


if __name__ == "__main__":
    main()
