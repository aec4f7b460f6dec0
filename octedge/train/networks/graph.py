"""The graph around every network: uint8 in, log-probabilities and labels out, normalisation inside."""

import torch
from torch import Tensor, nn

BOUND = 50.0  # of the logits: a class e^100 times less likely than another is not told from one yet less likely


class Graph(nn.Module):
    """What is exported: `image` uint8 (N, 1, P, V) -> `scores` float32 (N, C, P, V), log-probabilities, and `labels` uint8 (N, P, V)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def logits(self, image: Tensor) -> Tensor:
        """The network behind the one normalisation there is: grey 0..255 -> about -1..3."""
        return self.network(image.float() * (4 / 255) - 1)  # type: ignore[no-any-return]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # The log-softmax, written out, of logits held within bounds that no exponential overflows: the engines' own operators for
        # softmax, and for sums and maxima over the classes, take longer than a small network. Pixels in one row keep OpenVINO from
        # turning the classes to the end before it looks for the best; the sum is a convolution, as TensorRT-RTX multiplies no
        # matrices in fp32 on GPUs before Ampere.
        rows, columns = image.shape[2:]
        logits = self.logits(image).float().flatten(2).clamp(-BOUND, BOUND)
        total = nn.functional.conv1d(logits.exp(), logits.new_ones(1, logits.shape[1], 1))
        scores = (logits - total.log()).view(-1, logits.shape[1], rows, columns)
        return scores, scores.argmax(1).to(torch.uint8)
