"""The table of structures and the classes a model may have."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.anatomy import KEYS, RETINA, STRUCTURES, check_classes, is_ordered, members, structure, surface_names
from octedge.errors import UsageError

# Deuteranopia on linear RGB: Machado, Oliveira, Fernandes 2009, severity 1.
DEUTERANOPIA = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
# sRGB to CIE XYZ, D65: IEC 61966-2-1.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: tuple[int, int, int], seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of an sRGB colour as seen through a matrix on linear RGB."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(seen @ linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_structures_are_the_sixteen_in_anatomical_order() -> None:
    assert " ".join(KEYS) == "vitreous nfl gcl ipl inl opl onl elm mz ez os rpe choroid sclera disc fluid"
    assert [s.key for s in STRUCTURES if not s.ordered] == ["fluid"]
    assert " ".join(RETINA) == "nfl gcl ipl inl opl onl elm mz ez os rpe"


def test_names_and_codes_are_unique() -> None:
    assert len({s.name for s in STRUCTURES}) == 16
    codes = [s.code[:2] for s in STRUCTURES if s.code]
    assert len(set(codes)) == len(codes)
    assert {scheme for scheme, _ in codes} == {"SCT", "UBERON"}
    assert all(value.isdecimal() for _, value in codes)


def test_every_colour_is_a_colour_of_its_own() -> None:
    assert len({s.colour for s in STRUCTURES}) == 16
    assert all(0 <= channel <= 255 for s in STRUCTURES for channel in s.colour)


NEIGHBOURS = [*pairwise(KEYS[:-1]), *((key, "fluid") for key in RETINA)]


@pytest.mark.parametrize(("upper", "lower"), NEIGHBOURS)
def test_neighbours_differ_in_colour_for_every_eye(upper: str, lower: str) -> None:
    # 20 is several times what is just seen side by side (about 2); without red-green vision too.
    for seen in (np.eye(3), DEUTERANOPIA):
        one, other = lab(structure(upper).colour, seen), lab(structure(lower).colour, seen)
        assert np.linalg.norm(one - other) > 20


@pytest.mark.parametrize(("upper", "lower"), list(pairwise(KEYS[:-1])))
def test_neighbouring_layers_differ_in_lightness(upper: str, lower: str) -> None:
    assert abs(lab(structure(upper).colour, np.eye(3))[0] - lab(structure(lower).colour, np.eye(3))[0]) > 8


def test_a_structure_is_found_by_its_key() -> None:
    assert [structure(key) for key in KEYS] == list(STRUCTURES)


@pytest.mark.parametrize("key", ["", "NFL", "rnfl", "nfl ", "gcl+ipl"])
def test_an_unknown_structure_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(UsageError, match=f"no structure is called {key!r}; known are vitreous, nfl, .*fluid".replace("+", r"\+")):
        structure(key)


def test_members_splits_a_group() -> None:
    assert members("gcl+ipl") == ("gcl", "ipl")
    assert members("nfl") == ("nfl",)
    with pytest.raises(UsageError, match="no structure is called ''"):
        members("gcl+")


def test_only_fluid_has_no_place_in_the_chain() -> None:
    assert [key for key in KEYS if not is_ordered(key)] == ["fluid"]
    assert is_ordered("gcl+ipl")


@st.composite
def sound_classes(draw: st.DrawFn) -> tuple[str, ...]:
    """Some of the structures, neighbours merged or not, fluid or not."""
    keys = [key for key in KEYS[:-1] if draw(st.booleans())]
    groups = "".join(key + draw(st.sampled_from(["+", " "])) for key in keys).rstrip("+ ").split()
    return (*groups, "fluid") if draw(st.booleans()) else tuple(groups)


@given(sound_classes())
def test_classes_in_order_are_accepted(classes: tuple[str, ...]) -> None:
    check_classes(classes)


@given(st.lists(st.sampled_from(KEYS), min_size=2, max_size=6))
def test_classes_are_accepted_exactly_if_sorted_without_repetition(keys: list[str]) -> None:
    sound = keys == sorted(set(keys), key=KEYS.index)
    if sound:
        check_classes(tuple(keys))
    else:
        with pytest.raises(UsageError, match="list each structure once, in the order vitreous, nfl"):
            check_classes(tuple(keys))


def test_the_first_offender_is_named() -> None:
    with pytest.raises(UsageError, match="'nfl' stands after 'inl'"):
        check_classes(("vitreous", "gcl+inl", "nfl", "ipl"))
    with pytest.raises(UsageError, match="'gcl' stands after 'ipl'"):
        check_classes(("vitreous", "ipl+gcl"))


def test_fluid_does_not_merge() -> None:
    with pytest.raises(UsageError, match=r"class 'disc\+fluid' mixes ordered and unordered"):
        check_classes(("vitreous", "disc+fluid"))


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(UsageError, match="no structure is called 'retina'"):
        check_classes(("vitreous", "retina"))


@given(sound_classes())
def test_a_surface_is_named_by_what_it_separates(classes: tuple[str, ...]) -> None:
    chain = [group for group in classes if group != "fluid"]
    names = surface_names(classes)
    assert len(names) == max(len(chain) - 1, 0)
    assert len(set(names)) == len(names)
    for name, upper, lower in zip(names, chain, chain[1:], strict=False):
        assert upper.endswith(name.split("|")[0])
        assert lower.startswith(name.split("|")[1])
