"""Label maps: what a set's values mean, and what of it can be compared with a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.anatomy import KEYS
from octedge.errors import ScanError, UsageError
from octedge.metrics import IGNORED
from octedge.train.labelmaps import LabelMap, boundary_reference, group_surfaces, merge_table, ordered_groups, to_groups

DUKE = LabelMap(values={1: "nfl", 2: "gcl+ipl", 3: "inl", 4: "opl", 5: "onl+elm+mz", 6: "ez", 7: "os+rpe", 8: "fluid"}, outside=0)
GROUPS = ("vitreous", "nfl", "gcl+ipl", "inl", "opl", "onl+elm+mz", "ez", "os+rpe", "choroid+sclera", "fluid")


def test_groups_come_in_anatomical_order_with_fluid_last():
    assert DUKE.groups() == GROUPS


def test_a_structure_in_two_groups_is_refused():
    with pytest.raises(UsageError, match="once"):
        ordered_groups({"gcl+ipl", "ipl"})


def test_outside_means_vitreous_above_choroid_below_and_nothing_where_a_column_is_not_graded():
    mask = np.array([[0, 0, 0], [1, 0, 0], [8, 1, 0], [7, 7, 0], [0, 0, 0]])
    names = [[GROUPS[value] if value != IGNORED else None for value in row] for row in DUKE.reference(mask, "m")]
    assert names == [
        ["vitreous", "vitreous", None],
        ["nfl", "vitreous", None],
        ["fluid", "nfl", None],
        ["os+rpe", "os+rpe", None],
        ["choroid+sclera", "choroid+sclera", None],
    ]


def test_outside_between_layers_is_not_graded():
    assert DUKE.reference(np.array([[1], [0], [7]]), "m")[1, 0] == IGNORED


def test_an_unknown_value_is_refused_by_name():
    with pytest.raises(ScanError, match=r"scan3: mask holds the values \[77\]"):
        DUKE.reference(np.array([[0, 77]]), "scan3")


def test_ignored_values_count_nowhere():
    known = LabelMap(values={1: "nfl", 2: "inl"}, ignored=(9,))
    assert known.reference(np.array([[1, 9, 2]]), "m").tolist() == [[0, IGNORED, 1]]


def test_every_group_sums_over_its_own_classes():
    table = merge_table(KEYS, GROUPS)
    for group, row in zip(GROUPS, table, strict=True):
        assert {key for key, one in zip(KEYS, row, strict=True) if one} == set(group.split("+"))


def test_a_set_that_separates_what_the_model_merges_is_refused():
    with pytest.raises(UsageError, match="ez"):
        merge_table(("vitreous", "mz+ez", "rpe"), ("vitreous", "ez", "rpe"))


def test_classes_a_set_does_not_annotate_match_none_of_its_groups():
    table = merge_table(KEYS, ("nfl", "inl"))
    assert to_groups(np.array([[KEYS.index("nfl"), KEYS.index("inl"), KEYS.index("rpe")]], np.uint8), table).tolist() == [[0, 1, 2]]


@given(st.lists(st.floats(0, 20), min_size=2, max_size=5), st.integers(8, 24))
def test_boundaries_give_the_reference_that_gives_them_back_to_half_a_row(depths, rows):
    surfaces = np.sort(np.array(depths))[:, None]
    reference = boundary_reference(surfaces, rows)
    groups = ("vitreous", "nfl", "gcl", "ipl", "inl", "opl")[: len(depths) + 1]
    back = group_surfaces(reference, groups)
    for depth, found in zip(surfaces[:, 0], back[:, 0], strict=True):
        if np.isfinite(found):
            assert abs(found - depth) <= 0.5
        else:
            assert depth <= 0 or depth > rows - 1


def test_a_crossing_is_mended_and_a_missing_boundary_leaves_the_column_ungraded():
    reference = boundary_reference(np.array([[2.0, 2.0], [1.0, np.nan]]), 5)
    assert reference[:, 0].tolist() == [0, 0, 2, 2, 2]
    assert (reference[:, 1] == IGNORED).all()


def test_fluid_inside_a_layer_does_not_move_its_boundaries():
    column = [0, 1, 2, 9, 2, 3]
    with_fluid = group_surfaces(np.array(column, np.uint8)[:, None], GROUPS)
    without = group_surfaces(np.array([0, 1, 2, 2, 2, 3], np.uint8)[:, None], GROUPS)
    np.testing.assert_array_equal(with_fluid, without)


@pytest.mark.parametrize("between", [9, IGNORED])
def test_where_fluid_or_nothing_known_lies_between_two_groups_their_boundary_is_not_graded(between):
    column = np.array([0, 1, 2, between, between, 3, 4], np.uint8)[:, None]
    names = ("vitreous|nfl", "nfl|gcl", "ipl|inl", "inl|opl")
    found = dict(zip(names, group_surfaces(column, GROUPS)[:4, 0].tolist(), strict=True))
    assert np.isnan(found.pop("ipl|inl"))
    assert found == {"vitreous|nfl": 0.5, "nfl|gcl": 1.5, "inl|opl": 5.5}
