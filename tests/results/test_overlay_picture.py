"""The overlay shows the answer where it is, and says what it does not know."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from octedge.anatomy import surface_names
from octedge.results import overlay as module
from octedge.results.overlay import View, describe_spacing, draw, overlay, write_overlay
from octedge.scan import Spacing
from octedge.segment import About

CLASSES = ("vitreous", "nfl", "gcl+ipl", "choroid", "fluid")
NFL, GCL, CHOROID, FLUID = (230, 159, 0), (0, 114, 178), (204, 121, 167), (20, 40, 255)
BLACK = np.zeros((60, 80), np.uint8)


def view(surfaces: list[float] | np.ndarray, labels: np.ndarray | None = None, spacing: Spacing = Spacing(), frames: int = 1) -> View:
    depths = np.asarray(surfaces, np.float32)
    depths = np.broadcast_to(depths[:, None], (3, 80)) if depths.ndim == 1 else depths
    labels = np.zeros((60, 80), np.uint8) if labels is None else labels
    return View(About("scan7", frames, CLASSES, surface_names(CLASSES), spacing, "tiny", "ort"), frames - 1, labels, depths)


@given(st.floats(3, 50), st.sampled_from([1, 2]))
def test_a_line_lies_at_its_depth_to_a_part_of_a_row(depth, zoom):
    picture = draw(BLACK, view([depth, 60, 60]), zoom).astype(float).sum(axis=2)
    rows = np.arange(len(picture))[:, None]
    centre = (picture * rows).sum(axis=0) / picture.sum(axis=0)
    assert np.allclose((centre + 0.5) / zoom - 0.5, depth, atol=0.11)


def test_a_line_has_the_colour_of_the_layer_below_it():
    picture = draw(BLACK, view([10, 20, 40]))
    assert [tuple(picture[row, 30]) for row in (10, 20, 40)] == [NFL, GCL, CHOROID]


def test_a_layer_that_is_absent_has_no_line():
    depths = np.full((3, 80), [[10], [20], [40]], np.float32)
    depths[1, 40:] = 40  # no nerve fibres' end before the choroid begins: gcl+ipl is absent here
    picture = draw(BLACK, view(depths))
    assert picture[20, 20].any()
    assert not picture[20, 42:].any()
    assert tuple(picture[40, 60]) == CHOROID


@pytest.mark.parametrize("depths", [[0, 0, 0], [60, 60, 60]])
def test_surfaces_outside_the_picture_are_not_drawn(depths):
    assert not draw(BLACK, view(depths)).any()


def test_a_steep_line_has_no_gaps_and_a_jump_is_no_line():
    steep = np.stack([np.linspace(5, 55, 80), np.full(80, 60), np.full(80, 60)])
    assert (draw(BLACK, view(steep)).max(axis=2).max(axis=0) > 100).all()
    jump = np.stack([np.where(np.arange(80) < 40, 5, 55), np.full(80, 60), np.full(80, 60)])
    assert not draw(BLACK, view(jump))[15:45].any()


def test_fluid_is_tinted_and_nothing_else_is():
    labels = np.zeros((60, 80), np.uint8)
    labels[25:35, 20:30] = CLASSES.index("fluid")
    grey = np.full((60, 80), 100, np.uint8)
    picture = draw(grey, view([60, 60, 60], labels))
    tinted = (picture != 100).any(axis=2)
    assert np.array_equal(tinted, labels == CLASSES.index("fluid"))
    assert picture[30, 25, 2] > 150 > picture[30, 25, 0]


@pytest.mark.parametrize("shape", [(60, 80), (300, 200), (500, 800), (800, 720), (4, 3)])
def test_the_raw_b_scan_is_in_the_picture_as_it_is(shape):
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    about = About("s", 1, CLASSES, surface_names(CLASSES), Spacing(), "m", "e")
    file = io.BytesIO()
    write_overlay(file, frame, View(about, 0, np.zeros(shape, np.uint8), np.zeros((3, shape[1]), np.float32)))
    picture = np.asarray(Image.open(file))
    zoom = 2 if max(shape) < 700 else 1
    top, left = module._PAD + module._ROW + 6, module._PAD
    raw = picture[top : top + shape[0] * zoom : zoom, left : left + shape[1] * zoom : zoom, 0]
    free = raw.shape[0] - 40 // zoom  # the words on the scale stand at the bottom
    assert np.array_equal(raw[: max(free, 0)], frame[: max(free, 0)])


def white_runs(spacing: Spacing) -> tuple[int, int]:
    """The longest vertical and horizontal run of the text's white in the raw part, in pixels."""
    frame = np.zeros((600, 800), np.uint8)
    labels = np.zeros((600, 800), np.uint8)
    about = About("s", 1, CLASSES, surface_names(CLASSES), spacing, "m", "e")
    picture = np.asarray(overlay(frame, View(about, 0, labels, np.zeros((3, 800), np.float32))))
    top, left = module._PAD + module._ROW + 6, module._PAD
    white = (picture[top : top + 600, left : left + 800] == module._TEXT).all(axis=2)
    return max(map(run, white.T)), max(map(run, white))


def run(line: np.ndarray) -> int:
    """The longest run of True."""
    return max(map(len, "".join("x" if one else " " for one in line).split()), default=0)


def test_scale_bars_are_there_for_known_directions_only():
    vertical, horizontal = white_runs(Spacing(0.004, 0.01))
    assert abs(vertical - 0.5 / 0.004) <= 3  # the bar of 500 um
    assert abs(horizontal - 2 / 0.01) <= 3  # the bar of 2 mm
    vertical, horizontal = white_runs(Spacing(0.004, None))
    assert vertical > 100
    assert horizontal < 20
    vertical, horizontal = white_runs(Spacing(None, 0.01))
    assert vertical < 20
    assert horizontal > 150
    assert max(white_runs(Spacing())) < 20  # words alone


@given(st.floats(1e-4, 0.2), st.floats(8, 2000))
def test_a_bar_is_a_round_length_drawn_true(spacing, most):
    mm, pixels = module._bar(spacing, most)
    assert f"{mm:e}".startswith(("1.000000", "2.000000", "5.000000"))
    assert abs(pixels - mm / spacing) <= 1
    assert most / 2.6 - 1 <= pixels <= most + 1


def test_spacing_is_said_with_its_source():
    assert describe_spacing(Spacing()) == "scale unknown"
    assert describe_spacing(Spacing(0.00387, 0.0117, 0.12, "a header")) == "3.87 x 11.70 um per px, 120 um between B-scans (a header)"
    assert describe_spacing(Spacing(0.00387, source="a header")) == "3.87 x ? um per px (a header)"
