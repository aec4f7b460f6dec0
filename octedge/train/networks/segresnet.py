"""SegResNet (Myronenko 2018): residual blocks, more on the way down than up. MONAI's, with batch norm for its group norm."""

from torch import nn

from octedge.train.networks.family import Common, Count, Downs, counted


class SegResNet(Common, frozen=True, kw_only=True, tag="segresnet"):
    """Residual blocks (two convolutions each) per level on the way down, one on the way up; kernels double per level."""

    blocks: Count = 1
    kernels: Count = 8
    downs: Downs = 4

    def network(self, classes: int) -> nn.Module:
        from monai.networks.nets.segresnet import SegResNet as Network  # late: it brings some three thousand modules

        down, up = (self.blocks,) * (self.downs + 1), (1,) * self.downs
        network: nn.Module = Network(2, self.kernels, 1, classes, norm="BATCH", blocks_down=down, blocks_up=up)
        return network

    def __str__(self) -> str:
        kernels = ", ".join(str(self.kernels << level) for level in range(self.downs + 1))
        blocks, downs = counted(self.blocks, "residual block"), counted(self.downs, "down-sampling")
        return f"SegResNet: {blocks} per level, {kernels} kernels, {downs}, batch norm"
