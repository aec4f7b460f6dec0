"""What every family of networks is to the rest: values that are tuned, and a network made of them.

A family is one file: a `Family` that is a `Common`, whose fields are what a recipe may set. Its name goes into the union in
`__init__.py`; the recipe, its schema, the contract tests, the export and the table in docs/networks.md take it from there.
"""

from typing import Annotated, Protocol

import msgspec
from torch import nn

Count = Annotated[int, msgspec.Meta(ge=1)]
Downs = Annotated[int, msgspec.Meta(ge=1, le=6)]


class Family(Protocol):
    """The shape of one candidate; `str()` of it is the architecture in words, for the model card."""

    @property
    def downs(self) -> int:
        """Heights and widths must be multiples of 2^downs."""

    @property
    def tiles(self) -> bool:
        """Whether the family promises tiled == whole where the overlap covers the receptive field: nothing looks at the whole tile."""

    def network(self, classes: int) -> nn.Module:
        """A fresh network: float (N, 1, P, V) -> logits (N, C, P, V)."""


class Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="family"):
    """What all families have in common."""

    downs: Downs = 4

    @property
    def tiles(self) -> bool:
        return True


class Pyramid(Common, frozen=True, kw_only=True):
    """Convolutions per level, kernels at full size (doubled per level, at most `widest`), down-samplings."""

    convs: Count = 2
    kernels: Count = 16
    downs: Downs = 4
    widest: Count = 96

    def widths(self) -> tuple[int, ...]:
        """Kernels of each level, full size first."""
        return tuple(min(self.kernels << level, self.widest) for level in range(self.downs + 1))

    def levels(self) -> str:
        """Convolutions, kernels and down-samplings in words."""
        kernels = ", ".join(map(str, self.widths()))
        return f"{counted(self.convs, 'convolution')} per level, {kernels} kernels, {counted(self.downs, 'down-sampling')}"


def counted(number: int, what: str) -> str:
    """1 convolution, 2 convolutions."""
    return f"{number} {what}{'s' if number > 1 else ''}"
