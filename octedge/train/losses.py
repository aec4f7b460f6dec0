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
    return entropy + _dice(merged, target, known)


def _dice(merged: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 - mean soft Dice over the (sample, group) pairs that occur in the reference."""
    one_hot = torch.zeros_like(merged).scatter_(1, target[:, None], known[:, None].to(merged.dtype))
    shared = (merged * one_hot).sum(2)
    total = (merged * known[:, None]).sum(2) + one_hot.sum(2)
    present = one_hot.sum(2) > 0
    return 1 - ((2 * shared + 1) / (total + 1))[present].mean()
