"""The graph around every network: uint8 in, log-probabilities and labels out, normalisation inside."""

import torch
from torch import Tensor, nn


class Graph(nn.Module):
    """What is exported: `image` uint8 (N, 1, P, V) -> `scores` float32 (N, C, P, V), log-probabilities, and `labels` uint8 (N, P, V)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def logits(self, image: Tensor) -> Tensor:
        """The network behind the one normalisation there is: grey 0..255 -> about -1..3."""
        return self.network(image.float() * (4 / 255) - 1)  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.logits(image).float()
        # The log-softmax, written out: ONNX Runtime's own operator turns the classes to the end and back, on one core, which
        # took longer than a small network.
        below = logits - logits.amax(1, keepdim=True)
        scores = below - below.exp().sum(1, keepdim=True).log()
        return scores, scores.argmax(1).to(torch.uint8)
