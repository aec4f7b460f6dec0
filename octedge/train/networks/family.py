"""What every family of networks is to the rest: values that are tuned, and a network made of them.

A family is one file: a `Family` whose fields are what a recipe may set. Its name goes into the union in `__init__.py`.
"""

import msgspec
from torch import nn


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family"):
    """The shape of one candidate. Every family has `downs`: heights and widths must be multiples of 2^downs."""

    downs: int = 4

    @property
    def tiles(self) -> bool:
        """Whether the family promises tiled == whole where the overlap covers the receptive field: nothing looks at the whole tile."""
        return True

    def network(self, classes: int) -> nn.Module:
        """A fresh network: float (N, 1, P, V) -> logits (N, C, P, V)."""
        raise NotImplementedError
