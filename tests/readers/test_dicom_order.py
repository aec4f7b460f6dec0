"""The order of B-scans from places alone: positions, lines on the fundus image, the file's own numbers."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.readers import read
from octedge.readers._dicom_order import Place, stored_order
from tests.readers.opt_files import frames, groups, item, pixels, write

ROWS = [Place(location=(float(row), 10.0, float(row), 500.0), fundus="1.2") for row in (30, 10, 20, 40)]


@given(
    angle=st.floats(-math.pi, math.pi), order=st.permutations(range(5)), flips=st.lists(st.booleans(), min_size=5, max_size=5),
    numbered=st.booleans(),
)  # fmt: skip
def test_parallel_lines_at_any_angle_give_the_order_they_lie_in(angle: float, order: list, flips: list, numbered: bool) -> None:
    """Lines of unequal length, each from either end, shifted along themselves: only the distance across counts."""
    along, across = np.array([math.sin(angle), math.cos(angle)]), np.array([math.cos(angle), -math.sin(angle)])
    found = []
    for place, flip in zip(order, flips, strict=True):
        first = 400 + 7.5 * place * across + 3 * place * along
        ends = [first, first + (200 + place) * along]
        line = tuple(float(value) for end in (reversed(ends) if flip else ends) for value in end)
        found.append(Place(location=line, fundus="1.2", stack=place + 1 if numbered else None))
    result = stored_order(found)
    places = [order[index] for index in result.indices]
    assert result.known == "by location on the fundus image"
    assert result.raster
    assert result.between is None
    assert places == sorted(places) if numbered else places in (sorted(places), sorted(places, reverse=True))


@pytest.mark.parametrize(
    ("found", "words", "apart"),
    [
        ([replace(ROWS[0], location=(5.0, 5.0, 5.0, 5.0)), *ROWS[1:]], "frame locations that are no lines", False),
        ([replace(ROWS[0], location=(5.0, 5.0, 90.0, 95.0)), *ROWS[1:]], "frame locations that are not parallel", False),
        ([ROWS[1], *ROWS[1:]], "frame locations that repeat", True),
        ([ROWS[0]] * 3, "frame locations that repeat", False),
        ([replace(ROWS[0], fundus="1.3"), *ROWS[1:]], "no plane positions", True),
        ([replace(ROWS[0], location=None), *ROWS[1:]], "no plane positions", True),
        ([replace(place, position=(0.0, 0.0, 1.0)) for place in ROWS], "all plane positions are the same", False),
        ([replace(ROWS[0], position=(0.0, 0.0, 1.0)), *ROWS[1:]], "no plane positions", True),
        ([Place((0.0, 0.0, 0.0)), Place((1.0, 0.0, 0.0)), Place((0.0, 1.0, 0.0))], "the plane positions do not lie on a line", True),
    ],
)  # fmt: skip
def test_places_that_tell_no_order_leave_it_as_stored_and_say_why(found: list, words: str, apart: bool) -> None:
    result = stored_order(found)
    assert result.indices == tuple(range(len(found)))
    assert (result.known, result.apart, result.raster) == ("as stored", apart, False)
    [note] = result.notes
    assert note.startswith("frame order as stored: ")
    assert words in note


def test_the_files_numbers_order_what_has_no_places() -> None:
    result = stored_order([Place(stack=number) for number in (3, 1, 2)])
    assert (result.indices, result.known) == ((1, 2, 0), "by InStackPositionNumber")
    assert stored_order([Place(stack=number) for number in (3, 1, 1)]).known == "as stored"


def test_one_b_scan_has_no_order() -> None:
    assert stored_order([ROWS[0]]).known == "one B-scan"


def test_spacing_that_is_the_same_down_and_across_is_said_to_be_odd(tmp_path: Path) -> None:
    def change(dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [item(PixelSpacing=["0.002", "0.002"])]

    scan = read(write(tmp_path / "a.dcm", frames(), change))
    assert (scan.spacing.axial, scan.spacing.lateral) == (0.002, 0.002)
    assert any(note.startswith("axial and lateral spacing are the same") for note in scan.notes)
    assert not any("are the same" in note for note in read(write(tmp_path / "b.dcm", frames())).notes)


@pytest.mark.parametrize(("second", "kept"), [("0.0116", 0.0116), ("0.0118", None)])
def test_two_items_for_one_frame_count_for_what_all_of_them_say(tmp_path: Path, second: str, kept: float | None) -> None:
    def change(dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence
        measures = [item(PixelMeasuresSequence=[item(PixelSpacing=["0.0039", value])]) for value in ("0.0116", second) * 3]
        dataset.PerFrameFunctionalGroupsSequence = measures

    scan = read(write(tmp_path / "a.dcm", frames(), change))
    assert scan.spacing.lateral == kept
    assert any("6 per-frame items for 3 frames" in note for note in scan.notes)


# Order of the frames of a file


@given(order=st.permutations(range(4)), normal=st.sampled_from(["z", "y"]))
@settings(max_examples=24, deadline=None)
def test_frames_come_in_the_order_of_their_positions(tmp_path_factory: pytest.TempPathFactory, order: list, normal: str) -> None:
    array = frames(4)
    path = tmp_path_factory.mktemp("order") / "a.dcm"
    if normal == "z":
        change = groups([(1.5, 2.5, 0.1 * place) for place in order])
    else:
        change = groups([(1.5, 0.1 * place, 2.5) for place in order], (1, 0, 0, 0, 0, -1))
    scan = read(write(path, array, change))
    stored = [list(order).index(place) for place in range(4)]
    falling = list(order) == [3, 2, 1, 0]
    assert np.array_equal(pixels(scan), array if falling else array[stored])
    assert scan.spacing.between == pytest.approx(0.1)
    assert scan.pattern == "volume"
    moved = list(order) not in ([0, 1, 2, 3], [3, 2, 1, 0])
    assert any("put in the order" in note for note in scan.notes) == moved
    assert scan.source_ids.get("FrameNumbers") == ("\\".join(str(index + 1) for index in stored) if moved else None)


def test_positions_that_repeat_do_not_order(tmp_path: Path) -> None:
    array = frames(4)
    scan = read(write(tmp_path / "a.dcm", array, groups([(0, 0, z) for z in (0.2, 0.1, 0.1, 0.3)])))
    assert np.array_equal(pixels(scan), array)
    assert "frame order as stored: plane positions repeat" in scan.notes
    assert scan.spacing.between == pytest.approx(0.12)  # the tag's


def test_positions_without_orientation_order_along_their_line(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        groups([(0, z, z) for z in (0.2, 0.1, 0.3)])(dataset)
        del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence

    array = frames()
    middle = pixels(read(write(tmp_path / "a.dcm", array, change)))[1]
    assert np.array_equal(middle, array[0])


def test_planes_that_are_not_parallel_stay_as_stored(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        groups([(0, 0, z) for z in (0.2, 0.1, 0.3)])(dataset)
        del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for angle, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            group.PlaneOrientationSequence = [item(ImageOrientationPatient=[np.cos(angle), 0, np.sin(angle), 0, 1, 0])]

    array = frames()
    scan = read(write(tmp_path / "a.dcm", array, change))
    assert np.array_equal(pixels(scan), array)
    assert "frame order as stored: the planes are not parallel" in scan.notes


def test_two_items_for_one_frame_are_not_used(tmp_path: Path) -> None:
    array = frames()
    scan = read(write(tmp_path / "a.dcm", array, groups([(0, 0, 0.1 * ((z * 5) % 6)) for z in range(6)])))
    assert np.array_equal(pixels(scan), array)
    assert scan.notes[0].startswith("6 per-frame items for 3 frames")


def test_uneven_steps_are_said(tmp_path: Path) -> None:
    scan = read(write(tmp_path / "a.dcm", frames(4), groups([(0, 0, z) for z in (0, 0.1, 0.2, 0.5)])))
    assert scan.spacing.between == pytest.approx(0.1)
    assert any("unevenly spaced: 0.1000 to 0.3000" in note for note in scan.notes)


# Directions on the fundus


def located(lines, kind="LINEAR"):
    """A change that gives every frame its line (row, column, row, column) on a picture of the fundus."""

    def change(dataset):
        location = [[item(ReferenceCoordinates=list(line), OphthalmicImageOrientation=kind)] for line in lines]
        dataset.PerFrameFunctionalGroupsSequence = [item(OphthalmicFrameLocationSequence=one) for one in location]

    return change


@pytest.mark.parametrize(
    ("orientation", "positions", "expected"),
    [
        ((1, 0, 0, 0, 1, 0), [(-3, 0, 1), (-3, 0, 0), (-3, 0, -1)], ("right", "down")),
        ((1, 0, 0, 0, 1, 0), [(-3, 0, -1), (-3, 0, 0), (-3, 0, 1)], ("right", "up")),
        ((-1, 0, 0, 0, 1, 0), [(3, 0, 1), (3, 0, 0), (3, 0, -1)], ("left", "down")),
        ((0, 0, 1, 0, 1, 0), [(-1, 0, -3), (0, 0, -3), (1, 0, -3)], ("up", "right")),
        ((0.995, 0, 0.1, 0, 1, 0), [(0.1, 0, -1), (0, 0, 0), (-0.1, 0, 1)], ("right", "up")),  # tilted a little
        ((0.71, 0, 0.71, 0, 1, 0), [(0.7, 0, -0.7), (0, 0, 0), (-0.7, 0, 0.7)], (None, None)),  # oblique
        ((1, 0, 0, 0, 1, 0), [(-3, 0, 1), (-2, 0, 1), (-1, 0, 1)], ("right", None)),  # beside each other
    ],
)
def test_planes_tell_where_columns_and_bscans_run_on_the_fundus(tmp_path, orientation, positions, expected):
    scan = read(write(tmp_path / "a.dcm", frames(3), groups(positions, orientation)))
    assert scan.directions == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([(10, 0, 10, 90), (20, 0, 20, 90), (30, 0, 30, 90)], ("right", "down")),
        ([(30, 0, 30, 90), (20, 5, 20, 95), (10, 0, 10, 90)], ("right", "up")),
        ([(0, 10, 90, 10), (0, 20, 90, 20), (0, 30, 90, 30)], ("down", "right")),
    ],
)
def test_lines_on_a_picture_of_the_fundus_tell_it_too(tmp_path, lines, expected):
    scan = read(write(tmp_path / "a.dcm", frames(3), located(lines)))
    assert (scan.directions, scan.pattern) == (expected, "volume")


def test_lines_that_are_not_parallel_are_no_volume(tmp_path):
    scan = read(write(tmp_path / "a.dcm", frames(3), located([(50, 0, 50, 90), (10, 10, 80, 80), (95, 45, 5, 45)])))
    assert (scan.directions, scan.pattern) == ((None, None), "unknown")


def test_without_planes_and_straight_lines_nothing_is_said_of_directions(tmp_path):
    assert read(write(tmp_path / "a.dcm", frames(3))).directions == (None, None)
    curved = located([(10, 0, 10, 90)] * 3, "NONLINEAR")
    assert read(write(tmp_path / "b.dcm", frames(3), curved)).directions == (None, None)


def test_planes_and_lines_that_contradict_each_other_are_not_used(tmp_path):
    def change(dataset):
        located([(30, 0, 30, 90), (20, 0, 20, 90), (10, 0, 10, 90)])(dataset)
        for place, one in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            one.PlanePositionSequence = [item(ImagePositionPatient=[0, 0, -place])]
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]

    scan = read(write(tmp_path / "a.dcm", frames(3), change))
    assert scan.directions == ("right", None)
    assert [note for note in scan.notes if note.startswith("where B-scans run on the fundus is not used")]
