"""The marginal loss for partial labels: probabilities of merged structures are summed before they are compared.

A set that marks GCL+IPL says nothing about either alone; the sum of both probabilities is what its label is about
(marginal cross-entropy, Fang & Yan 2020, arXiv 2007.03868, and the same for soft Dice).
"""

import torch
from torch import Tensor

from octedge.metrics import IGNORED


def marginal(logits: Tensor, tables: Tensor, reference: Tensor) -> Tensor:
    """Cross-entropy + Dice over each sample's own groups.

    logits (N, C, P, V); tables (N, G, C) 0/1, unused groups all 0; reference (N, P, V) group indices or `IGNORED`.
    """
    probability = logits.float().flatten(2).softmax(1)  # (N, C, pixels)
    merged = torch.bmm(tables, probability)  # (N, G, pixels)
    reference = reference.flatten(1).long()
    known = reference != IGNORED
    target = torch.where(known, reference, 0)
    picked = merged.gather(1, target[:, None])[:, 0]
    entropy = -(picked.clamp_min(1e-6).log() * known).sum() / known.sum().clamp_min(1)
    return entropy + _dice(merged, target, known, tables)


def _dice(merged: Tensor, target: Tensor, known: Tensor, tables: Tensor) -> Tensor:
    """1 - mean soft Dice over the groups that occur in the references, each over all samples of its source together.

    Samples of one source share their table. Over the whole batch a group that is rare costs something where it is
    found and should not be, not only where it should be.
    """
    one_hot = torch.zeros_like(merged).scatter_(1, target[:, None], known[:, None].to(merged.dtype))
    shared = (merged * one_hot).sum(2)
    marked = one_hot.sum(2)
    total = (merged * known[:, None]).sum(2) + marked
    same = (tables[:, None] == tables[None]).flatten(2).all(2)
    source = torch.eye(len(tables))[same.int().argmax(1)]  # (N, N): a sample to the first one of its source
    shared, total, marked = (source.T @ count for count in (shared, total, marked))
    return 1 - ((2 * shared + 1) / (total + 1))[marked > 0].mean()
