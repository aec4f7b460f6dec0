"""Where the fovea is found, and where it is not: pits of known places, and phantoms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.errors import UsageError
from octedge.results.fovea import find_fovea
from tests.results.thick_scans import a_scan, measured, pitted


@given(column=st.floats(15, 45), frame=st.floats(6, 18))
@settings(max_examples=25, deadline=None)
def test_a_pit_is_found_wherever_it_lies(column, frame):
    scan = a_scan()
    found = find_fovea(pitted(scan, column, frame), 0.1, 0.25)
    assert found is not None
    assert np.hypot((found[0] - column) * 0.1, (found[1] - frame) * 0.25) < 0.1
    assert 0.3 <= found[2] <= 1


@pytest.mark.parametrize("depth", [0, 2])
def test_where_there_is_no_pit_no_fovea_is_found(depth):
    scan = a_scan()
    found = measured(scan, np.full((25, 61), 75.0) if depth == 0 else pitted(scan, depth=depth) + np.linspace(0, 20, 61))
    assert (found.fovea, found.grid) == (None, "b-scans")
    assert "no ETDRS grid: no fovea was found; give its column and frame" in found.notes


def test_a_pit_at_the_border_of_the_scan_is_not_taken_for_the_fovea():
    scan = a_scan()
    assert find_fovea(pitted(scan, column=4.0), 0.1, 0.25) is None
    assert find_fovea(pitted(scan, frame=23.0), 0.1, 0.25) is None


def test_of_two_pits_alike_neither_is_sure():
    scan = a_scan(columns=101)
    both = np.minimum(pitted(scan, column=20.0), pitted(scan, column=75.0))
    assert find_fovea(both, 0.1, 0.25) is None


def test_a_hole_with_a_swollen_side_is_not_taken_for_the_fovea():
    scan = a_scan()
    y, x = np.indices((25, 61))
    swollen = pitted(scan) + 90 * np.exp(-(((x - 40) * 0.1) ** 2) - ((y - 12) * 0.25) ** 2)
    assert find_fovea(swollen, 0.1, 0.25) is None
    assert find_fovea(pitted(scan, depth=70.0), 0.1, 0.25) is None


def test_a_fovea_given_by_hand_is_used_and_must_lie_in_the_scan():
    scan = a_scan()
    found = measured(scan, pitted(scan), fovea=(20.5, 10.0))
    assert (found.fovea.column, found.fovea.frame, found.fovea.confidence, found.fovea.source) == (20.5, 10.0, None, "given by the user")
    for outside in [(-1.0, 3.0), (61.0, 3.0), (3.0, 24.5), (float("nan"), 3.0)]:
        with pytest.raises(UsageError, match="fovea is said to lie"):
            measured(scan, pitted(scan), fovea=outside)
