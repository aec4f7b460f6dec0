"""Thickness of layers. eyepy's grids, a quadrature in polar coordinates and the phantom's own formulas are the oracles."""

import csv
import io
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.phantom import LOOKS, Phantom, _eye, _rng, _thickness
from octedge.readers import read
from octedge.readers.vol import device_lines
from octedge.results.sectors import circle, etdrs, sides
from octedge.results.thickness import Thickness, layers, thickness, thickness_csv, thickness_maps
from octedge.scan import Scan, Spacing
from tests.results.thick_scans import MODEL, ROWS, a_scan, about, measured, pitted, surfaces

NAMED = ("nasal", "inferior", "temporal", "superior")


def means(found: Thickness, layer="retina") -> dict:
    return {each.region: each.mean for each in found.regions if each.layer == layer}


def coverages(found: Thickness, layer="retina") -> dict:
    return {each.region: each.coverage for each in found.regions if each.layer == layer}


def test_a_model_has_the_layers_it_separates_and_no_others():
    assert layers(MODEL) == {
        "nfl": (0, 1), "gcl+ipl": (1, 2), "inl+opl+onl+elm+mz+ez+os": (2, 3), "rpe": (3, 4), "choroid": (4, 5), "retina": (0, 4)
    }  # fmt: skip
    known = layers(KEYS)
    assert list(known) == [*KEYS[1:13], "retina", "gcl+ipl"]
    assert (known["retina"], known["gcl+ipl"], known["choroid"]) == ((0, 11), (1, 3), (11, 12))
    assert "choroid" not in layers(("vitreous", "nfl", "gcl", "ipl", "rpe", "choroid"))  # its outer surface is not there
    merged = layers(("vitreous", "nfl+gcl", "ipl", "inl", "rpe+choroid", "sclera"))
    assert list(merged) == ["nfl+gcl", "ipl", "inl", "rpe+choroid"]  # neither the retina nor gcl+ipl ends where a surface is
    assert layers(("nfl", "gcl", "rpe")) == {"gcl": (0, 1)}


def test_known_thickness_is_measured_in_micrometres_everywhere():
    scan = a_scan()
    retina = pitted(scan)
    found = measured(scan, np.full_like(retina, 80.0), fovea=(30.0, 12.0))
    assert (found.unit, found.grid) == ("um", "etdrs")
    assert all(each.coverage == 1 for each in found.regions)
    assert {each.mean for each in found.regions if each.layer == "retina"} == {320.0}
    assert {each.mean for each in found.regions if each.layer == "choroid"} == {200.0}
    areas = {each.region: each.area_mm2 for each in found.regions if each.layer == "retina"}
    exact = {"centre": np.pi / 4, "inner": np.pi * 2 / 4, "outer": np.pi * (9 - 2.25) / 4}
    assert all(value == pytest.approx(exact[name.split()[0]], abs=1e-4) for name, value in areas.items() if name != "all")
    total = sum(each.volume_mm3 for each in found.regions if each.layer == "retina" and each.volume_mm3 is not None)
    assert total == pytest.approx(0.32 * np.pi * 9, rel=1e-4)


def test_without_the_distance_of_rows_thickness_is_in_pixels_and_says_so():
    scan = a_scan(spacing=Spacing(None, 0.1, 0.25, "a test"))
    found = measured(scan, np.full((25, 61), 80.0), fovea=(30.0, 12.0))
    assert (found.unit, means(found)["centre"]) == ("px", 80.0)
    assert "the distance of rows is unknown: thickness is in pixels" in found.notes
    assert all(each.volume_mm3 is None for each in found.regions)


@pytest.mark.parametrize("eye", ["R", "L"])
def test_sectors_are_as_eyepy_has_them(eye):
    grids = pytest.importorskip("eyepy.core.grids", reason="eyepy, the independent implementation, is not installed")
    size, mm = 251, 0.025
    scan = a_scan(size, size, mm, mm, laterality=eye)
    y, x = (np.indices((size, size)) - (size - 1) / 2) * mm
    retina = 70 + 6 * x - 4 * y + 3 * x * y + 2 * np.cos(3 * x) * y**2
    found = means(measured(scan, retina, fovea=((size - 1) / 2, (size - 1) / 2)))
    masks = grids.grid(
        (size, size), (0.5, 1.5, 3.0), "OD" if eye == "R" else "OS", (1, 4, 4), (0, 45, 45), smooth_edges=True, radii_scale=mm
    )
    # Counted against the clock from the nasal side.
    names = ["centre", *(f"{ring} {side}" for ring in ("inner", "outer") for side in ("superior", "temporal", "inferior", "nasal"))]
    for name, mask in zip(names, masks.values(), strict=True):
        assert found[name] == pytest.approx(4 * (retina * mask).sum() / mask.sum(), abs=1.0), name
    assert len({round(value) for value in found.values()}) > 6  # sectors differ, so a mix-up would show


def quadrature(function, inner: float, outer: float, middle: float, half: float) -> float:
    """Mean of function(x, y) in mm over a piece of a ring, angles in degrees against the clock from the right, y upwards."""
    radius = np.sqrt(np.linspace(inner**2, outer**2, 61)[:-1] + (outer**2 - inner**2) / 120)  # equal areas
    angle = np.deg2rad(middle + np.linspace(-half, half, 91)[:-1] + half / 90)
    return float(np.mean(function(radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle))))


PIECES = {
    "centre": (0, 0.5, 0, 180),
    **{f"{ring} {side}": (*radii, middle, 45) for ring, radii in (("inner", (0.5, 1.5)), ("outer", (1.5, 3.0)))
       for side, middle in (("nasal", 0), ("superior", 90), ("temporal", 180), ("inferior", 270))},
}  # fmt: skip


@pytest.mark.parametrize(("frames", "between"), [(25, 0.25), (13, 0.52), (64, 0.1)])
def test_between_distant_bscans_thickness_is_interpolated_linearly(frames, between):
    """However the raster, a sector's mean is that of the linear interpolation over its area."""
    rng = np.random.default_rng(frames)
    scan = a_scan(frames, 91, 0.07, between)
    retina = 75 + 10 * np.cumsum(rng.normal(size=(frames, 91)), axis=1) / 9 + rng.normal(0, 6, (frames, 1))
    fovea = 45.3, (frames - 1) / 2 + 0.1

    def interpolated(x, y):
        at_column, at_frame = fovea[0] + x / 0.07, fovea[1] - y / between
        low, places = np.floor(at_frame).astype(int).ravel(), at_column.ravel()
        lines = np.stack([np.interp(places, np.arange(91), line) for line in retina])
        first, second = lines[low, np.arange(len(low))], lines[low + 1, np.arange(len(low))]
        return (first + (at_frame.ravel() - low) * (second - first)) * 4

    found = means(measured(scan, retina, fovea=fovea))
    for name in ("centre", "inner superior", "inner nasal", "outer temporal"):
        if name != "outer temporal" or frames != 64:
            assert found[name] == pytest.approx(quadrature(interpolated, *PIECES[name]), abs=0.3), name


@pytest.fixture(scope="module", params=["R", "L"])
def eye(request) -> tuple[Phantom, np.ndarray]:
    """A phantom of the macula with its exact surfaces (F, L, W)."""
    phantom = Phantom(replace(LOOKS["spectralis"], columns=256, lateral_um=25.0, span_mm=6.4), 49, 5, request.param, fluid=False)
    sections = [phantom._section(index, _rng(phantom.seed, 2, index)).surfaces for index in range(phantom.frames)]
    return phantom, np.clip(np.stack(sections), 0, phantom.look.rows).astype(np.float32)


def test_a_phantom_is_measured_to_a_micrometre(eye):
    """Against the formulas the phantom is made of, on a fine raster; x runs to the nose, y upwards."""
    phantom, exact = eye
    scan = phantom.scan()
    found = thickness(scan, about(scan, KEYS), exact, fovea=((scan.columns - 1) / 2, (scan.frames - 1) / 2))
    x, y = np.arange(-3, 3, 0.03) + 0.015, np.arange(-3, 3, 0.04) + 0.02
    anatomy = _eye(phantom.seed, False)
    true = 1000 * np.stack([_thickness(anatomy, x, height) for height in y], axis=1)
    radius, angle = np.hypot(x, y[:, None]), np.rad2deg(np.arctan2(y[:, None], x))
    errors = []
    for name, (inner, outer, middle, half) in PIECES.items():
        inside = (radius >= inner) & (radius < outer) & (np.abs((angle - middle + 180) % 360 - 180) <= half)
        errors += [means(found, layer)[name] - true[place, inside].mean() for place, layer in enumerate(KEYS[1:13])]
    assert np.abs(errors).mean() <= 0.3
    assert np.abs(errors).max() <= 1.0


def test_the_fovea_of_a_phantom_is_found_within_a_tenth_of_a_millimetre(eye):
    phantom, exact = eye
    found = thickness(phantom.scan(), about(phantom.scan(), KEYS), exact).fovea
    assert found.source == "found from the surfaces"
    assert found.confidence > 0.6
    away = (found.column - (phantom.look.columns - 1) / 2) * 0.025, (found.frame - 24) * 6.4 / 48
    assert np.hypot(*away) < 0.1


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_mirrored_left_eye_measures_as_the_right_eye(seed):
    rng = np.random.default_rng(seed)
    scan = a_scan()
    retina = pitted(scan) + rng.normal(0, 1, (25, 61))
    right = measured(scan, retina, fovea=(33.0, 12.5))
    left = measured(replace(scan, laterality="L"), retina[:, ::-1], fovea=(27.0, 12.5))
    assert means(left) == pytest.approx(means(right), abs=2e-3)


@given(turn=st.sampled_from([("left", "down"), ("right", "up"), ("left", "up"), ("up", "right"), ("down", "left")]))
@settings(max_examples=5, deadline=None)
def test_sectors_follow_the_directions_of_columns_and_bscans(turn):
    scan = a_scan(61, 61, 0.11, 0.11)
    retina = 70 + np.add.outer(np.linspace(0, 9, 61) ** 1.5, np.linspace(0, 30, 61))
    straight = means(measured(scan, retina, fovea=(30.0, 30.0)))
    seen = {"left": retina[:, ::-1], "right": retina}[turn[0]] if turn[0] in ("left", "right") else retina.T
    if turn[0] in ("left", "right"):
        seen = seen[::-1] if turn[1] == "up" else seen
    else:
        seen = seen[:, ::-1] if turn[0] == "up" else seen
        seen = seen[::-1] if turn[1] == "left" else seen
    turned = means(measured(replace(scan, directions=turn), seen, fovea=(30.0, 30.0)))
    assert turned == pytest.approx(straight, abs=0.2)


@given(factor=st.floats(0.3, 3))
@settings(max_examples=10, deadline=None)
def test_rows_of_another_depth_measure_the_same(factor):
    scan = a_scan()
    retina = pitted(scan)
    other = replace(scan, spacing=replace(scan.spacing, axial=scan.spacing.axial / factor), rows=round(ROWS * factor) + 1)
    first = measured(scan, retina)
    second = thickness(other, about(other), surfaces(scan, retina) * np.float32(factor))
    assert means(second) == pytest.approx(means(first), rel=1e-4)
    assert second.fovea.column == pytest.approx(first.fovea.column, abs=2e-3)


def test_what_is_not_known_of_the_scan_names_no_side():
    def regions(**changes):
        scan = a_scan(**changes)
        found = measured(scan, pitted(scan))
        return [each.region.removeprefix("inner ") for each in found.regions if each.layer == "retina"][2:6], " ".join(found.notes)

    names, notes = regions()
    assert names == ["superior", "nasal", "inferior", "temporal"]
    assert "not known" not in notes
    names, notes = regions(laterality=None)
    assert names == ["superior", "left", "inferior", "right"]
    assert "the eye is not known" in notes
    names, notes = regions(directions=("right", None))
    assert names == ["first frames", "nasal", "last frames", "temporal"]
    assert "where the B-scans run on the fundus is not known" in notes
    names, notes = regions(directions=(None, None))
    assert names == ["first frames", "first columns", "last frames", "last columns"]
    assert "where the columns run on the fundus is not known" in notes
    assert sides(("left", "up"), "L") == ("nasal", "superior", "temporal", "inferior")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pattern": "radial"}, "no volume of parallel B-scans (pattern: radial, B-scans: 25)"),
        ({"pattern": "unknown"}, "no volume of parallel B-scans (pattern: unknown"),
        ({"spacing": Spacing(0.004, None, 0.25, "x")}, "the distances of columns and of B-scans are not both known"),
        ({"spacing": Spacing(0.004, 0.1, None, "x")}, "the distances of columns and of B-scans are not both known"),
    ],
)
def test_without_a_grid_every_bscan_has_its_mean_and_the_reason_is_said(changes, why):
    scan = a_scan(**changes)
    retina = pitted(a_scan())
    found = measured(scan, retina)
    assert found.grid == "b-scans"
    assert [note for note in found.notes if note.startswith("no ETDRS grid: ") and why in note]
    expected = {f"B-scan {index + 1}": pytest.approx(4 * line.mean(), abs=1e-2) for index, line in enumerate(retina)}
    assert means(found) == {"all": pytest.approx(4 * retina.mean(), abs=1e-2), **expected}


def test_one_line_has_one_mean():
    scan = a_scan(1, 61, pattern="line", spacing=Spacing(0.004, 0.1, None, "x"))
    assert list(means(measured(scan, np.full((1, 61), 80.0)))) == ["all"]


def test_a_model_that_does_not_separate_the_retina_needs_the_fovea_from_the_user():
    model = ("vitreous", "nfl", "gcl+ipl", "inl+opl+onl+elm+mz+ez+os+rpe+choroid", "sclera")
    scan = a_scan()
    made = surfaces(scan, pitted(scan), model)
    assert "the model does not separate the whole retina" in thickness(scan, about(scan, model), made).notes[0]
    assert thickness(scan, about(scan, model), made, fovea=(30.0, 12.0)).grid == "etdrs"


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_failed_bscans_lower_the_coverage_and_not_the_mean(data):
    scan = a_scan()
    failed = data.draw(st.sets(st.integers(0, 24), max_size=24))
    made = surfaces(scan, np.full((25, 61), 80.0))
    made[sorted(failed)] = np.nan
    found = thickness(scan, about(scan), made, fovea=(30.0, 12.0))
    assert {each.mean for each in found.regions if each.layer == "retina"} <= {320.0, None}
    for region, share in coverages(found).items():
        assert 0 <= share <= 1
        assert (share == 1) == (not lost(failed, region))
    assert coverages(found)["all"] == pytest.approx(1 - len(failed) / 25, abs=1e-4)


def lost(failed, region):
    """Whether any of the B-scans that reach into the region failed: frames are 0.25 mm apart, the fovea on frame 12."""
    low, high = {
        "all": (0, 24), "centre": (10, 14), "inner superior": (6, 11), "inner inferior": (13, 18), "outer superior": (0, 8),
        "outer inferior": (16, 24), "inner nasal": (7, 17), "inner temporal": (7, 17), "outer nasal": (3, 21), "outer temporal": (3, 21),
    }[region]  # fmt: skip
    return any(low <= frame <= high for frame in failed)


def test_a_sector_that_was_not_scanned_has_no_mean_and_one_scanned_in_part_says_how_much():
    scan = a_scan()  # 6 mm by 6 mm
    found = measured(scan, np.full((25, 61), 80.0), fovea=(5.0, 12.0))  # half a mm from the first column
    assert coverages(found)["outer temporal"] == 0
    assert means(found)["outer temporal"] is None
    assert coverages(found)["centre"] == pytest.approx(1, abs=0.01)
    assert 0 < coverages(found)["inner temporal"] < 0.2
    half = measured(scan, np.full((25, 61), 80.0), fovea=(30.0, 0.0))
    assert coverages(half)["centre"] == pytest.approx(0.5, abs=0.01)
    assert means(half)["centre"] == 320.0


def test_layers_cut_off_by_the_image_are_not_measured():
    scan = a_scan()
    made = surfaces(scan, np.full((25, 61), 80.0))
    made[:, 0, :10] = 0  # the retina begins above the image
    made[:, -1, 50:] = ROWS  # the choroid ends below it
    maps = thickness_maps(made, about(scan), ROWS)
    assert np.isnan(maps["nfl"][:, :10]).all()
    assert np.isnan(maps["retina"][:, :10]).all()
    assert (maps["retina"][:, 10:] == 80).all()
    assert np.isnan(maps["choroid"][:, 50:]).all()
    assert (maps["choroid"][:, :50] == 50).all()


def test_nothing_is_measured_in_the_optic_disc():
    phantom = Phantom(replace(LOOKS["spectralis"], columns=192, lateral_um=30.0), 1, 5, field="disc", fluid=False)
    bscan = phantom.bscan(0)
    maps = thickness_maps(bscan.surfaces[None], about(phantom.scan(), KEYS), phantom.look.rows)
    disc = (bscan.labels == KEYS.index("disc")).any(axis=0)
    choroid = (bscan.labels == KEYS.index("choroid")).any(axis=0)
    assert disc.sum() > 30
    assert np.isnan(maps["retina"][0, disc & ~choroid]).all()
    assert np.isnan(maps["nfl"][0, disc & ~choroid]).all()
    assert not np.isnan(maps["retina"][0, ~disc & choroid]).any()


def test_a_layer_that_is_absent_is_nothing_thick():
    scan = a_scan()
    made = surfaces(scan, np.full((25, 61), 80.0))
    made[:, 1] = made[:, 0]
    assert means(thickness(scan, about(scan), made), "nfl")["all"] == 0


def ring_scan(**changes) -> Scan:
    return a_scan(1, 720, 0.015, None, pattern="circle", directions=("tsnit", None), spacing=Spacing(0.004, 0.015, None, "x"), **changes)


def test_a_circle_from_the_temporal_side_has_sectors_and_quadrants_around_the_disc():
    scan = ring_scan()
    angle = (np.arange(720) + 0.5) / 2
    found = measured(scan, 60 + angle[None] / 10)
    assert found.grid == "circle"
    assert means(found) == pytest.approx({
        "all": 312, "temporal": 312, "temporal superior": 267, "nasal superior": 285, "nasal": 312, "nasal inferior": 339,
        "temporal inferior": 357, "quadrant temporal": 312, "quadrant superior": 276, "quadrant nasal": 312, "quadrant inferior": 348,
    })  # fmt: skip
    counted = [sum(columns[place] for name, columns in circle(720) if not name.startswith("quadrant")) for place in range(720)]
    assert set(counted) == {1}


def test_a_circle_of_unknown_direction_is_refused_sectors():
    scan = replace(ring_scan(), directions=(None, None))
    found = measured(scan, np.full((1, 720), 80.0))
    assert means(found) == {"all": 320.0}
    assert "no sectors around the disc: where the circle begins and which way it turns is not known" in found.notes


def test_surfaces_of_another_scan_are_refused():
    scan = a_scan()
    with pytest.raises(UsageError, match="surfaces of shape"):
        thickness(scan, about(scan), surfaces(a_scan(3), np.full((3, 61), 80.0)))


def test_weights_of_the_sectors_add_up_to_their_areas():
    for _, area, weights in etdrs((25, 61), (30.0, 12.0), (0.1, 0.25), NAMED):
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(area, rel=1e-9)


def test_the_table_has_a_line_for_each_region_and_json_says_the_same():
    scan = a_scan(notes=("a note",))
    found = measured(scan, pitted(scan))
    lines = list(csv.DictReader(io.StringIO(thickness_csv(found).decode("utf-8"))))
    assert len(lines) == len(found.regions) == 6 * 10
    for line, region in zip(lines, found.regions, strict=True):
        assert (line["scan"], line["eye"], line["layer"], line["region"], line["unit"]) == ("scan7", "R", region.layer, region.region, "um")
        assert float(line["mean"]) == region.mean
    assert {line["use"] for line in lines} == {"Research use only. Not a medical device."}
    again = msgspec.json.decode(msgspec.json.encode(found), type=Thickness)
    assert again == found
    assert again.notes[-1] == "a note"
    assert thickness_csv(measured(scan, pitted(scan))) == thickness_csv(found)


def test_the_real_circle_scan_is_thick_where_nerve_fibres_run(data):
    """The device's own lines around the disc of a healthy eye: the bundles arch above and below (Garway-Heath 2000)."""
    path = data / "spectralis-vol" / "Willis_B_716_2.vol"
    scan, lines = read(path), device_lines(path)
    model = ("vitreous", "nfl", "gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe", "choroid+sclera")
    found = thickness(scan, about(scan, model), np.stack([lines["ILM"], lines["NFL"], lines["BM"]], axis=1))
    nfl = means(found, "nfl")
    assert (found.grid, found.unit) == ("circle", "um")
    assert 70 < nfl["all"] < 130
    assert min(nfl["quadrant superior"], nfl["quadrant inferior"]) > 1.15 * max(nfl["quadrant temporal"], nfl["quadrant nasal"])
