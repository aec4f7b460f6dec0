"""The marginal losses for partial labels: probabilities of merged structures are summed before they are compared.

A set that marks GCL+IPL says nothing about either alone; the sum of both probabilities is what its label is about
(marginal cross-entropy, Fang & Yan 2020, arXiv 2007.03868, and the same for soft Dice).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from octedge.metrics import IGNORED


@dataclass(frozen=True, slots=True)
class Compared:
    """What a term compares: merged (N, pixels, G) probabilities of groups; target (N, pixels) groups, 0 where not known;
    picked (N, pixels), the probability of the target; known (N, pixels), 1 or 0; tables (N, G, C).
    """

    merged: Tensor
    target: Tensor
    picked: Tensor
    known: Tensor
    tables: Tensor


def cross_entropy(of: Compared) -> Tensor:
    """Mean over the known pixels; 0 where there is none."""
    return -(of.picked.clamp_min(1e-6).log() * of.known).sum() / of.known.sum().clamp_min(1)


def dice(of: Compared) -> Tensor:
    """1 - mean soft Dice over the groups that occur in the references, each over all samples of its source together.

    Samples of one source share their table. Over the whole batch a group that is rare costs something where it is
    found and should not be, not only where it should be. 0 where no group occurs.
    """
    none = of.merged.new_zeros(of.tables.shape[:2])
    shared, marked = (none.scatter_add(1, of.target, values) for values in (of.picked * of.known, of.known))
    total = torch.bmm(of.known[:, None], of.merged)[:, 0] + marked
    same = (of.tables[:, None] == of.tables[None]).flatten(2).all(2)
    source = torch.eye(len(of.tables), device=same.device)[same.int().argmax(1)]  # (N, N): a sample to the first one of its source
    shared, total, marked = (source.T @ count for count in (shared, total, marked))
    occurs = marked > 0
    return ((1 - (2 * shared + 1) / (total + 1)) * occurs).sum() / occurs.sum().clamp_min(1)


# What a recipe may name as its loss: the terms that are added.
LOSSES: dict[str, tuple[Callable[[Compared], Tensor], ...]] = {
    "ce+dice": (cross_entropy, dice),
    "ce": (cross_entropy,),
    "dice": (dice,),
}


def marginal(logits: Tensor, tables: Tensor, reference: Tensor, loss: str = "ce+dice") -> Tensor:
    """The named loss over each sample's own groups; 0, with no gradient, where no pixel is known.

    logits (N, C, P, V); tables (N, G, C) 0/1, unused groups all 0; reference (N, P, V) group indices or `IGNORED`.
    """
    # Classes last, as the network's last layer leaves them in memory.
    probability = logits.float().permute(0, 2, 3, 1).flatten(1, 2).softmax(2)  # (N, pixels, C)
    reference = reference.flatten(1).long()
    known = reference != IGNORED
    target = torch.where(known, reference, 0)
    merged = torch.bmm(probability, tables.mT)
    compared = Compared(merged, target, merged.gather(2, target[:, :, None])[:, :, 0], known.to(merged.dtype), tables)
    return torch.stack([term(compared) for term in LOSSES[loss]]).sum()
