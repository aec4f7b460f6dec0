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
    """What a term compares: merged (N, G, pixels) probabilities of groups; target (N, pixels) groups, 0 where not known;
    known (N, pixels); tables (N, G, C).
    """

    merged: Tensor
    target: Tensor
    known: Tensor
    tables: Tensor


def cross_entropy(of: Compared) -> Tensor:
    """Mean over the known pixels; 0 where there is none."""
    picked = of.merged.gather(1, of.target[:, None])[:, 0]
    return -(picked.clamp_min(1e-6).log() * of.known).sum() / of.known.sum().clamp_min(1)


def dice(of: Compared) -> Tensor:
    """1 - mean soft Dice over the groups that occur in the references, each over all samples of its source together.

    Samples of one source share their table. Over the whole batch a group that is rare costs something where it is
    found and should not be, not only where it should be. 0 where no group occurs.
    """
    one_hot = torch.zeros_like(of.merged).scatter_(1, of.target[:, None], of.known[:, None].to(of.merged.dtype))
    shared = (of.merged * one_hot).sum(2)
    marked = one_hot.sum(2)
    total = (of.merged * of.known[:, None]).sum(2) + marked
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
    probability = logits.float().flatten(2).softmax(1)  # (N, C, pixels)
    reference = reference.flatten(1).long()
    known = reference != IGNORED
    compared = Compared(torch.bmm(tables, probability), torch.where(known, reference, 0), known, tables)
    return torch.stack([term(compared) for term in LOSSES[loss]]).sum()
