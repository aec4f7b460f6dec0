"""The residual U-Net of MONAI (Kerfoot et al. 2018): strided convolutions down, transposed ones up, batch norm.

Its kernels start at half size; at full size there is only the last unit, on the classes themselves.
"""

from torch import nn

from octedge.train.networks.family import Pyramid


class ResidualUNet(Pyramid, frozen=True, kw_only=True, tag="residual-unet"):
    """`convs` convolutions in every residual unit."""

    def network(self, classes: int) -> nn.Module:
        from monai.networks.nets.unet import UNet as Network  # late: it brings some three thousand modules

        strides = (2,) * self.downs
        network: nn.Module = Network(2, 1, classes, self.widths(), strides, num_res_units=self.convs, act="RELU", norm="BATCH", bias=False)
        return network

    def __str__(self) -> str:
        return f"residual U-Net: {self.levels()}"
