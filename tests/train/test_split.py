"""The split is a function of persons: nobody in two parts, nobody moved by others, folds that cover everyone once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.errors import UsageError
from octedge.train.manifest import Facts
from octedge.train.split import Draw, Roster, SplitRule, assign, lacking, namesakes

NAMES = st.frozensets(st.text("abc123", min_size=1, max_size=4), max_size=12)
SALTS = st.text("xyz", max_size=3)


def roster(patients, name="a", **facts):
    return Roster(Facts(name=name, **facts), frozenset(patients))


@given(NAMES, NAMES, SALTS)
def test_adding_patients_or_sources_moves_nobody(old, new, salt):
    draw = Draw(salt, 0.4)
    before = assign([roster(old)], SplitRule(), draw)
    after = assign([roster(old | new), roster(new, "b")], SplitRule(), draw)
    assert before.items() <= after.items()


@given(NAMES, SALTS, st.integers(2, 6))
def test_every_patient_is_held_back_in_exactly_one_fold(patients, salt, folds):
    held = [
        patient
        for fold in range(folds)
        for (_, patient), part in assign([roster(patients)], SplitRule(folds=folds, fold=fold), Draw(salt, 0.2)).items()
        if part == "validation"
    ]
    assert sorted(held) == sorted(patients)


@given(NAMES, NAMES, SALTS, SALTS)
def test_who_is_known_to_a_locked_split_stays_under_any_salt(old, new, salt, other):
    before = assign([roster(old)], SplitRule(), Draw(salt, 0.5))
    locked = {part: {"a": tuple(name for (_, name), own in before.items() if own == part)} for part in ("train", "validation")}
    after = assign([roster(old | new)], SplitRule(locked=locked), Draw(other, 0.3))
    assert before.items() <= after.items()


@given(NAMES, NAMES, SALTS)
def test_sources_that_share_their_people_agree_on_everyone(left, right, salt):
    named = tuple(sorted(left))[:1]
    rosters = [roster(left, "a", people="x", validation=named), roster(right, "b", people="x")]
    parts = assign(rosters, SplitRule(), Draw(salt, 0.5))
    assert set(parts) == {("x", name) for name in left | right}
    assert all(parts[("x", name)] == "validation" for name in named)


def test_about_the_wanted_share_is_held_back_and_the_salt_matters():
    many = roster(f"p{number}" for number in range(2000))
    parts = assign([many], SplitRule(), Draw("s", 0.2))
    assert 300 < list(parts.values()).count("validation") < 500
    assert parts != assign([many], SplitRule(), Draw("t", 0.2))


def test_a_vendor_left_out_is_held_back_whole_and_an_unknown_one_refused():
    rosters = [roster("ab", "one", vendor="V"), roster("cd", "two", vendor="W", validation=("c",))]
    parts = assign(rosters, SplitRule(leave_out="V"), Draw("s", 0.2))
    assert parts == {("one", "a"): "validation", ("one", "b"): "validation", ("two", "c"): "validation", ("two", "d"): "train"}
    with pytest.raises(UsageError, match="vendors are V, W; name one"):
        assign(rosters, SplitRule(leave_out="X"), Draw("s", 0.2))


def test_a_lock_against_a_name_and_a_lock_that_is_in_two_minds_are_refused():
    with pytest.raises(UsageError, match="the locked split has trained"):
        assign([roster("ab", validation=("a",))], SplitRule(locked={"train": {"a": ("a",)}}), Draw("s", 0.2))
    with pytest.raises(UsageError, match="in both parts"):
        assign([roster("ab")], SplitRule(locked={"train": {"a": ("a",)}, "validation": {"a": ("a",)}}), Draw("s", 0.2))


def test_an_empty_part_is_told_with_whom_to_name():
    rosters = [roster("abc")]
    draw = Draw("s", 0.0)
    ((source, words),) = lacking(rosters, assign(rosters, SplitRule(), draw), SplitRule(), draw)
    assert source == "a"
    assert 'validation = ["' in words
    held = [roster("a", part="validation")]
    assert lacking(held, assign(held, SplitRule(), draw), SplitRule(), draw) == []


def test_namesakes_in_two_parts_are_told_unless_the_sources_say_whose_they_are():
    rosters = [roster("ab", "one", validation=("a",)), roster("ab", "two", validation=("b",))]
    assert [name for name, _ in namesakes(rosters, assign(rosters, SplitRule(), Draw("s", 0.2)))] == ["a", "b"]
    said = [roster("ab", "one", validation=("a",), people="x"), roster("ab", "two", validation=("b",), people="y")]
    assert namesakes(said, assign(said, SplitRule(), Draw("s", 0.2))) == []


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"folds": 3, "fold": 3}, {"folds": 3, "locked": "split.json"}])
def test_a_rule_that_cannot_be_is_refused(wrong):
    with pytest.raises(UsageError, match="split:"):
        SplitRule(**wrong)
