"""The comparison with MONAI's BasicUNet: labels both sides share, and the margin between them."""

import numpy as np
import pytest

from benchmarks import basicunet
from benchmarks.basicunet import CLASSES, SHARED, margin, shared
from octedge.metrics import IGNORED
from octedge.train.cohort import Example, Set


def test_every_group_of_a_source_becomes_the_shared_group_it_is_part_of():
    groups = ("vitreous", "nfl", "ez", "os+rpe", "choroid+sclera", "fluid")
    reference = np.array([[0, 1, 2, 3, 4, 5, IGNORED]], np.uint8).T
    data = Set("a", groups, (Example("p", "s", reference, reference, np.zeros((4, 1))),), 1.0)
    (example,) = shared(data).examples
    expected = ["vitreous", "nfl", "ez+os+rpe", "ez+os+rpe", "choroid+sclera", "fluid"]
    assert [SHARED[value] for value in example.reference[:-1, 0]] == expected
    assert example.reference[-1, 0] == IGNORED
    background = basicunet._background(example.reference)[:, 0]
    assert [CLASSES[value] for value in background] == ["background", "nfl", "ez+os+rpe", "ez+os+rpe", "background", "fluid", "background"]


def test_both_decoders_agree_on_scores_that_are_in_order():
    wanted = np.repeat(np.array([0, 1, 2, 3, 7, 4, 5, 6, 0]), 3)
    scores = np.where(np.arange(len(CLASSES))[:, None] == wanted, -0.01, -6.0).astype(np.float32)[:, :, None]
    scores[3, wanted == 7] = -3.0  # inl is the likeliest layer below the fluid
    raw, ordered = basicunet._raw(scores), basicunet._ordered(scores)
    below = np.where(ordered.labels == SHARED.index("choroid+sclera"), 0, ordered.labels)
    np.testing.assert_array_equal(below, raw.labels)
    assert set(raw.labels.ravel()) == {*range(7), SHARED.index("fluid")}
    assert (raw.layers[raw.labels == SHARED.index("fluid")] == SHARED.index("inl")).all()


def test_the_margin_is_a_mean_over_sources_with_the_interval_of_paired_people():
    ours = {("a", "1"): 0.9, ("a", "2"): 0.8, ("b", "1"): 0.7, ("b", "2"): 0.6}
    low, high, mean = margin(ours, {person: value - 0.1 for person, value in ours.items()})
    assert (low, high, mean) == pytest.approx((0.1, 0.1, 0.1))
    low, high, mean = margin(ours, {("a", "1"): 0.8, ("a", "2"): 0.9, ("b", "1"): 0.6, ("b", "2"): 0.7})
    assert low < 0 < high
    assert mean == pytest.approx(0)
