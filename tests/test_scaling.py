"""The parts of the benchmarks of scaling and of starting that decide what their tables say."""

import numpy as np
import pytest
from msgspec.structs import replace

import octedge
from benchmarks.scaling import FEW, MANY, Point, Report, Volume, _file, asked, draw, volumes
from benchmarks.start import imports

POINT = Point(axis="frames", frames=FEW, rows=9, columns=9, threads=0, ms_per_bscan=10.0, peak_mb=200.0, rounds=(10.0,))


def test_a_volume_repeats_its_first_bscans(tmp_path):
    scan = octedge.read(_file(Volume("frames", 6, 40, 32), tmp_path))
    frames = list(scan)
    assert (scan.frames, scan.rows, scan.columns) == (6, 40, 32)
    assert np.array_equal(frames[0], frames[4])
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.parametrize("quick", [True, False])
def test_every_axis_is_measured_and_all_else_stays_as_it_is(quick):
    found = volumes(quick)
    assert {volume.axis for volume in found} == {"frames", "columns", "rows", "threads"}
    for axis in ("frames", "columns", "rows"):
        mine = [volume for volume in found if volume.axis == axis]
        assert len({volume.value for volume in mine}) == len(mine) >= 2
        assert len({(volume.frames, volume.rows, volume.columns) for volume in mine}) == len(mine)
        assert len({getattr(volume, other) for volume in mine for other in {"frames", "columns", "rows"} - {axis}}) <= 2
    assert {FEW, MANY} <= {volume.frames for volume in volumes(False)}


def test_many_bscans_are_compared_with_few():
    many = replace(POINT, frames=MANY, ms_per_bscan=10.4, peak_mb=212.0)
    assert "peak memory x 1.060 (asked: at most 1.1), time per B-scan x 1.040 (asked: within 5%)" in asked([POINT, many])
    assert asked([POINT]) == asked([replace(POINT, axis="rows"), many]) == ""


def test_the_picture_has_a_panel_for_every_axis(tmp_path):
    points = [replace(POINT, axis=axis, threads=2, frames=frames) for axis in ("frames", "columns", "rows", "threads") for frames in (2, 4)]
    draw(Report(facts="", engine="one", points=tuple(points)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_imports_are_summed_by_package_without_what_they_import_themselves():
    told = """import time: self [us] | cumulative | imported package
import time:       300 |        300 |   json.decoder
import time:      1000 |      99000 | json
import time:      2500 |       2500 |   numpy.linalg
something else | 7 | 8
import time:      4000 |       6500 | numpy
"""
    assert imports(told) == {"numpy": 6.5, "standard library": 1.3}
