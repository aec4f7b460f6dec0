"""Counts that add up, and scores that agree with brute force."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octedge.metrics import IGNORED, distance, overlap

LABELS = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 4))
REFERENCE = hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, IGNORED]))


@given(LABELS, REFERENCE)
def test_iou_and_dice_are_those_of_the_pixel_sets(predicted, reference):
    counts = overlap(predicted, reference, 4)
    known = reference != IGNORED
    for group in range(4):
        a, b = (predicted == group) & known, (reference == group) & known
        union = (a | b).sum()
        if union == 0:
            assert np.isnan(counts.iou[group])
            assert np.isnan(counts.dice[group])
        else:
            assert counts.iou[group] == (a & b).sum() / union
            assert counts.dice[group] == 2 * (a & b).sum() / (a.sum() + b.sum())


@given(LABELS, REFERENCE)
def test_scores_of_summed_parts_are_those_of_the_whole(predicted, reference):
    whole = overlap(predicted, reference, 4)
    parts = overlap(predicted[:, :3], reference[:, :3], 4) + overlap(predicted[:, 3:], reference[:, 3:], 4)
    np.testing.assert_array_equal(whole.iou, parts.iou)
    np.testing.assert_array_equal(whole.dice, parts.dice)


def test_boundary_errors_leave_ungraded_columns_out():
    found = distance(np.array([[1.0, 2.0, 3.0]]), np.array([[1.5, np.nan, 2.0]]))
    assert found.mean[0] == 0.75
    assert found.bias[0] == 0.25
    assert found.columns[0] == 2


def test_boundary_errors_add_up_over_scans():
    a = distance(np.array([[1.0]]), np.array([[0.0]])) + distance(np.array([[5.0, 5.0]]), np.array([[5.0, 5.0]]))
    assert abs(a.mean[0] - 1 / 3) < 1e-12


def test_a_surface_nobody_graded_has_no_error():
    assert np.isnan(distance(np.zeros((1, 2)), np.full((1, 2), np.nan)).mean[0])
