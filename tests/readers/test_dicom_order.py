"""The order of B-scans from places alone: positions, lines on the fundus image, the file's own numbers."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.readers import read
from octedge.readers._dicom_order import Place, stored_order
from tests.readers.opt_files import frames, item, write

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
