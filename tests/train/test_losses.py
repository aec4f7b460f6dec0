"""The marginal losses."""

from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.metrics import IGNORED
from octedge.train.losses import LOSSES, marginal
from octedge.train.recipe import Recipe


def case(seed, merged):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(size=(2, 4, 3, 5)), dtype=torch.float64, requires_grad=True)
    table = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]] if merged else np.eye(4).tolist())
    reference = torch.tensor(rng.integers(0, len(table), (2, 3, 5)), dtype=torch.uint8)
    return logits, table.expand(2, -1, -1), reference


def cross_entropy(logits, tables, reference):
    """Written out pixel by pixel."""
    found = []
    for sample in range(len(logits)):
        for row in range(logits.shape[2]):
            for column in range(logits.shape[3]):
                if reference[sample, row, column] != IGNORED:
                    p = np.exp(logits[sample, :, row, column]) / np.exp(logits[sample, :, row, column]).sum()
                    found.append(-np.log((tables[sample] @ p)[reference[sample, row, column]]))
    return np.mean(found)


def dice(logits, tables, reference):
    """Counted over all samples that share a table."""
    found = []
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for table in np.unique(tables, axis=0):
        own = [sample for sample in range(len(logits)) if (tables[sample] == table).all()]
        for group, members in enumerate(table):
            truth = reference[own] == group
            if truth.any():
                q = np.tensordot(p[own], members, (1, 0)) * (reference[own] != IGNORED)
                found.append((2 * (q * truth).sum() + 1) / (q.sum() + truth.sum() + 1))
    return 1 - np.mean(found)


@given(st.integers(0, 200), st.booleans())
@settings(max_examples=20, deadline=None)
def test_it_is_cross_entropy_and_dice_of_the_summed_probabilities(seed, merged):
    logits, tables, reference = case(seed, merged)
    reference[0, 0] = IGNORED
    arrays = logits.detach().numpy(), tables.numpy(), reference.numpy()
    expected = cross_entropy(*arrays) + dice(*arrays)
    assert abs(float(marginal(logits.detach(), tables.float(), reference)) - expected) < 1e-4


def test_how_a_merged_pair_is_divided_does_not_matter():
    logits, tables, reference = case(3, merged=True)
    probability = logits.detach().softmax(1)
    moved = probability.clone()
    moved[:, 1] += 0.7 * probability[:, 2]
    moved[:, 2] -= 0.7 * probability[:, 2]
    both = [float(marginal(p.log(), tables.float(), reference)) for p in (probability, moved)]
    assert abs(both[0] - both[1]) < 1e-6


def test_ignored_pixels_have_no_gradient():
    logits, tables, reference = case(4, merged=True)
    reference[:, :, 2] = IGNORED
    marginal(logits, tables.float(), reference).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 2] == 0).all()
    assert (logits.grad[..., 1] != 0).any()


def test_a_recipe_may_name_every_loss_and_no_other():
    assert set(get_args(get_type_hints(Recipe)["loss"])) == set(LOSSES)


def test_a_named_loss_is_the_sum_of_its_terms():
    logits, tables, reference = case(5, merged=True)
    of = {name: float(marginal(logits.detach(), tables.float(), reference, name)) for name in LOSSES}
    arrays = logits.detach().numpy(), tables.numpy(), reference.numpy()
    assert abs(of["ce"] - cross_entropy(*arrays)) < 1e-4
    assert abs(of["dice"] - dice(*arrays)) < 1e-4
    assert abs(of["ce+dice"] - of["ce"] - of["dice"]) < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_where_nothing_is_known_nothing_is_learnt(loss):
    logits, tables, reference = case(6, merged=True)
    value = marginal(logits, tables.float(), torch.full_like(reference, IGNORED), loss)
    value.backward()
    assert float(value.detach()) == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_structure_without_a_pixel_and_a_sample_without_a_label_cost_a_finite_loss(loss):
    logits, tables, reference = case(7, merged=False)
    reference[reference == 2] = 1
    reference[1] = IGNORED
    value = marginal(logits, tables.float(), reference, loss)
    value.backward()
    assert torch.isfinite(value)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[1] == 0).all()
