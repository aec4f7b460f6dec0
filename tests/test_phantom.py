"""Phantoms: the truth is ordered, exact and really in the image; equal values give equal scans."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.anatomy import KEYS, RETINA, surface_names
from octedge.errors import UsageError
from octedge.geometry import labels_from_surfaces
from octedge.phantom import LAYERS, LOOKS, Phantom, random_phantom
from octedge.phantom_look import blur, cover, draw_steps, form_image
from octedge.scan import Laterality

SMALL = replace(LOOKS["spectralis"], columns=384, lateral_um=23.2)
FLUID = KEYS.index("fluid")
DISC = KEYS.index("disc")
SURFACES = surface_names(KEYS)


def thickness_um(phantom: Phantom, bscan, key: str):
    layer = KEYS.index(key)
    return (bscan.surfaces[layer] - bscan.surfaces[layer - 1]) * phantom.look.axial_um


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_surfaces_are_ordered_and_labels_follow_from_them_except_where_fluid_is_painted(seed):
    phantom = random_phantom(seed)
    rows, columns = phantom.look.rows, phantom.look.columns
    bscan = phantom.bscan(0)
    assert bscan.image.shape == bscan.labels.shape == (rows, columns)
    assert bscan.surfaces.shape == (14, columns)
    assert (bscan.image.dtype, bscan.labels.dtype, bscan.surfaces.dtype) == (np.uint8, np.uint8, np.float32)
    assert (np.diff(bscan.surfaces, axis=0) >= 0).all()
    assert bscan.surfaces.min() >= 0
    assert bscan.surfaces.max() <= rows
    chain = labels_from_surfaces(bscan.surfaces, rows)
    painted = bscan.labels == FLUID
    assert (bscan.labels[~painted] == chain[~painted]).all()
    assert np.isin(chain[painted], [KEYS.index(key) for key in RETINA]).all()
    assert phantom.fluid or not painted.any()


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_volume_with_fluid_holds_all_sixteen_structures(seed):
    phantom = Phantom(SMALL, 9, seed, field="wide")
    seen = set()
    for index in range(phantom.frames):
        seen |= set(np.unique(phantom.bscan(index).labels).tolist())
    assert seen == set(range(len(KEYS)))


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_each_look_gives_its_size_and_spacing(name):
    look = LOOKS[name]
    scan = Phantom(look, 3, 1).scan("p")
    assert (scan.rows, scan.columns, scan.frames, scan.name) == (look.rows, look.columns, 3, "p")
    assert scan.frame(1).shape == (look.rows, look.columns)
    assert (scan.spacing.axial, scan.spacing.lateral) == (look.axial_um / 1000, look.lateral_um / 1000)
    assert scan.spacing.between == pytest.approx(look.span_mm / 2)
    assert scan.spacing.source == "phantom"
    assert (scan.laterality, scan.pattern, scan.device) == ("R", "volume", f"phantom, {look.device}")


def test_the_sizes_are_those_the_devices_are_known_by():
    sizes = {name: (look.rows, look.columns) for name, look in LOOKS.items()}
    assert sizes == {
        "spectralis": (496, 768),
        "cirrus": (1024, 512),
        "maestro": (885, 1024),
        "triton": (992, 512),
        "plex": (1536, 1536),
    }


def test_a_single_bscan_is_a_line_with_no_spacing_between():
    scan = Phantom(SMALL, 1, 0).scan()
    assert scan.pattern == "line"
    assert scan.spacing.between is None


def test_a_wide_scan_states_the_lateral_spacing_it_was_made_with():
    phantom = Phantom(replace(SMALL, lateral_um=5.0), 1, 0, field="wide")
    assert phantom.spacing.lateral == pytest.approx(10 / 384)
    labels = phantom.bscan(0).labels
    runs = np.flatnonzero(np.diff((labels == DISC).any(axis=0).astype(int)))
    width_mm = (runs[1] - runs[0]) * phantom.spacing.lateral
    assert 1.0 < width_mm < 2.0  # a disc is about 1.8 mm wide


def test_a_bscan_does_not_depend_on_the_order_of_calls():
    forwards = Phantom(SMALL, 5, 11)
    first = [forwards.bscan(index) for index in range(5)]
    Phantom(SMALL, 5, 12).bscan(0)
    for index in (3, 0, 4):
        again = Phantom(SMALL, 5, 11).bscan(index)
        for name in ("image", "labels", "surfaces", "reach"):
            np.testing.assert_array_equal(getattr(again, name), getattr(first[index], name))


def test_every_frame_and_every_seed_is_different():
    look = replace(SMALL, span_mm=0.0)  # the same place again: speckle and movement still differ
    images = [Phantom(look, 3, seed).bscan(index).image for seed in (0, 1) for index in (0, 1)]
    for one, other in pairwise(images):
        assert (one != other).mean() > 0.3


def test_the_disc_is_on_the_right_of_a_right_eye_and_on_the_left_of_a_left_eye():
    eyes: tuple[tuple[Laterality, int], ...] = (("R", 1), ("L", -1))
    for eye, side in eyes:
        labels = Phantom(SMALL, 1, 5, eye=eye, field="wide").bscan(0).labels
        columns = np.flatnonzero((labels == DISC).any(axis=0))
        assert side * (columns.mean() - (labels.shape[1] - 1) / 2) > 50


def test_a_left_eye_is_the_mirror_of_the_right_one():
    flat = {eye: Phantom(SMALL, 1, 3, eye=eye).bscan(0) for eye in ("R", "L")}
    right, left = (np.diff(flat[eye].surfaces[:12], axis=0) for eye in ("R", "L"))
    moved = np.abs(right - left[:, ::-1]).max()  # the eye's movement goes with x, not with the columns
    assert moved < 0.5
    assert np.abs(right - left).max() > 3


def test_neighbouring_bscans_fit_together():
    phantom = Phantom(replace(SMALL, span_mm=0.12), 11, 2, fluid=False)
    total = [np.diff(phantom.bscan(index).surfaces[[0, 11]], axis=0)[0] for index in range(11)]
    steps = [np.abs(one - other).mean() for one, other in pairwise(total)]
    assert max(steps) < 1  # rows of 3.87 um, for B-scans 12 um apart
    assert np.abs(total[0] - total[-1]).mean() < 3


@pytest.mark.parametrize("seed", range(6))
def test_the_inner_retina_is_thinner_in_the_foveal_pit_than_around_it(seed):
    phantom = Phantom(SMALL, 1, seed, fluid=False)
    bscan = phantom.bscan(0)
    inner = sum(thickness_um(phantom, bscan, key) for key in ("nfl", "gcl", "ipl", "inl"))
    middle = bscan.image.shape[1] // 2
    parafovea = 43  # 1 mm
    assert inner[middle] < 20
    assert min(inner[middle - parafovea], inner[middle + parafovea]) > 80
    onl = thickness_um(phantom, bscan, "onl")
    assert onl[middle] > 1.2 * max(onl[middle - 100], onl[middle + 100])
    os = thickness_um(phantom, bscan, "os")
    assert os[middle] > 1.5 * max(os[middle - parafovea], os[middle + parafovea])


def test_mean_thicknesses_are_those_of_healthy_eyes():
    """ETDRS inner ring, temporal, 1 mm from the fovea; ranges wide enough for the devices' published normal means in um."""
    known = {"nfl": (12, 30), "gcl": (38, 55), "ipl": (30, 45), "inl": (28, 42), "opl": (20, 36), "onl": (48, 75), "rpe": (30, 44)}
    seeds = range(16)
    mean = dict.fromkeys(known, 0.0)
    for seed in seeds:
        phantom = Phantom(replace(SMALL, columns=128), 1, seed, fluid=False)
        bscan = phantom.bscan(0)
        temporal = 63 - 43
        for key in known:
            mean[key] += thickness_um(phantom, bscan, key)[temporal - 4 : temporal + 5].mean() / len(seeds)
    for key, (low, high) in known.items():
        assert low < mean[key] < high, (key, mean[key])


def test_thickness_in_um_does_not_depend_on_the_rows_spacing():
    fine = replace(SMALL, rows=1984, axial_um=SMALL.axial_um / 4)
    for key in LAYERS[:-1]:
        coarse, refined = (thickness_um(p, p.bscan(0), key) for p in (Phantom(SMALL, 1, 4), Phantom(fine, 1, 4)))
        np.testing.assert_allclose(coarse, refined, atol=0.02)


def test_in_the_disc_all_surfaces_below_the_nerve_fibres_coincide():
    bscan = Phantom(SMALL, 1, 0, field="disc").bscan(0)
    inside = (bscan.labels == DISC).any(axis=0)
    assert 20 < inside.sum() < 120
    assert (bscan.surfaces[1:, inside] == bscan.surfaces[1, inside]).all()
    assert (bscan.labels[-1, inside] == DISC).all()
    assert (bscan.surfaces[SURFACES.index("sclera|disc"), ~inside] == SMALL.rows).all()
    ends = np.flatnonzero(np.diff(inside))
    nfl = np.diff(bscan.surfaces[:2], axis=0)[0]
    assert min(nfl[ends[0]], nfl[ends[1] + 1]) > 2 * max(nfl[0], nfl[-1]) > 0  # thicker towards the disc


def test_fluid_is_dark_and_swells_the_retina():
    with_fluid, without = (Phantom(SMALL, 1, 1, fluid=fluid).bscan(0) for fluid in (True, False))
    assert (with_fluid.labels == FLUID).sum() > 100
    total = [np.diff(b.surfaces[[0, 11]], axis=0)[0] for b in (with_fluid, without)]
    columns = (with_fluid.labels == FLUID).any(axis=0)
    assert (total[0] - total[1])[columns].min() > 2
    fluid = with_fluid.image[with_fluid.labels == FLUID].mean()
    assert fluid < 0.8 * with_fluid.image[with_fluid.labels == KEYS.index("onl")].mean()


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_layers_have_the_brightness_order_of_real_scans(name):
    look = replace(LOOKS[name], columns=256)
    bscan = Phantom(look, 1, 2, fluid=False).bscan(0)
    grey = {key: bscan.image[bscan.labels == index].mean() for index, key in enumerate(KEYS[:13])}
    assert grey["rpe"] > grey["nfl"] > grey["ipl"] > grey["inl"] > grey["onl"] > grey["vitreous"]
    assert grey["ez"] > grey["mz"]
    assert grey["opl"] > max(grey["inl"], grey["onl"])
    assert grey["ipl"] > grey["gcl"]
    assert grey["rpe"] > grey["choroid"]


@pytest.mark.parametrize(("surface", "sign"), [("vitreous|nfl", 1), ("mz|ez", 1), ("rpe|choroid", -1)])
def test_the_image_steps_exactly_at_the_surfaces(surface, sign):
    """Aligned on a surface and averaged over columns, the steepest change of grey lies there within half a row."""
    phantom = Phantom(replace(LOOKS["spectralis"], looks=60, noise=0.05, rolloff=0), 1, 8, fluid=False)
    bscan = phantom.bscan(0)
    depth = bscan.surfaces[SURFACES.index(surface)]
    columns = np.arange(100, 260)  # temporal: away from pit and disc
    offsets = np.linspace(-4, 4, 161)
    rows = np.arange(phantom.look.rows)
    image = bscan.image.astype(float)
    profile = np.mean([np.interp(depth[c] + offsets, rows, image[:, c]) for c in columns], axis=0)
    width = 20  # one row
    change = sign * (profile[width:] - profile[:-width])
    assert change.max() > 15
    assert abs(offsets[change.argmax() + width // 2]) < 0.5


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_an_image_shows_the_tissue_as_far_down_as_its_reach_and_noise_below(name):
    look = replace(LOOKS[name], columns=256, subtract=0.0, noise=0.2)
    for field in ("macula", "disc"):
        phantom = Phantom(look, 1, 8, field=field, fluid=False)
        bscan = phantom.bscan(0)
        grey = bscan.image / (255 * look.gain) * (1 - look.black) + look.black
        intensity = grey ** (1 / look.compress) / look.noise**4  # of the noise
        away = (np.arange(look.rows)[:, None] - bscan.reach) * look.axial_um
        assert intensity[(away < -20) & (away > -60)].mean() > 1.3
        assert intensity[away > 20].mean() < 1.7
        assert intensity[away > 300].mean() == pytest.approx(1, abs=0.25)
        assert (bscan.reach >= bscan.surfaces[SURFACES.index("vitreous|nfl")]).all()


def test_a_device_without_noise_shows_everything():
    phantom = Phantom(replace(SMALL, noise=0.0), 1, 0, field="disc")
    assert (phantom.bscan(0).reach == SMALL.rows).all()


def test_steps_are_drawn_with_exact_coverage_of_each_row():
    edges = np.array([[1.25, -7.0], [1.25, 2.0], [9.0, 2.5]])
    tones = np.array([[0.0, 5.0], [3.0, 1.0], [1.0, 2.0], [4.0, 4.0]])
    fine = np.arange(-0.5, 5.5, 1 / 1024) + 1 / 2048
    place = (edges[:, None] <= fine[:, None]).sum(axis=0)
    expected = np.take_along_axis(tones, place, axis=0).reshape(6, 1024, 2).mean(axis=1)
    np.testing.assert_allclose(draw_steps(tones, edges, 6), expected, atol=1e-6)


def test_covering_paints_the_share_of_each_row_that_lies_between():
    tone = np.ones((5, 3), np.float32)
    cover(tone, np.array([0.5, 1.0, -9.0]), np.array([2.0, 1.25, -3.0]), 3.0, np.array([1.0, 0.5, 1.0]))
    np.testing.assert_allclose(tone, np.array([[1, 1, 1], [3, 1.25, 1], [2, 1, 1], [1, 1, 1], [1, 1, 1.0]]))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 6), st.floats(0, 6))
@settings(max_examples=40, deadline=None)
def test_blurring_keeps_size_and_flat_images(rows, columns, down, across):
    flat = np.full((rows, columns), 0.7, np.float32)
    np.testing.assert_allclose(blur(flat, down, across), flat, rtol=1e-5)


def test_speckle_has_the_looks_of_the_look():
    """Over a uniform tissue the intensity's variance is its squared mean over the looks."""
    for looks in (2.0, 6.0):
        look = replace(LOOKS["spectralis"], looks=looks, noise=0.0, subtract=0.0, rolloff=0.0, compress=1.0)
        grey = form_image(np.full((400, 400), 0.5, np.float32), look, 11.6, np.random.default_rng(0)).astype(float)
        assert grey.mean() == pytest.approx(255 * 0.5**4, rel=0.05)
        assert grey.mean() ** 2 / grey.var() == pytest.approx(looks, rel=0.3)


def test_random_phantoms_cover_scales_fields_and_eyes():
    drawn = [random_phantom(seed) for seed in range(300)]
    axial = [phantom.look.axial_um for phantom in drawn]
    assert min(axial) < 1.5
    assert max(axial) > 5.5
    assert {phantom.field for phantom in drawn} == {"macula", "disc", "wide"}
    assert {phantom.eye for phantom in drawn} == {"R", "L"}
    assert {phantom.fluid for phantom in drawn} == {True, False}
    assert all(256 <= phantom.look.rows <= 1024 for phantom in drawn)
    assert random_phantom(7) == random_phantom(7) != random_phantom(8)


def test_impossible_phantoms_are_refused():
    with pytest.raises(UsageError, match="at least 1 frame"):
        Phantom(SMALL, 0, 0)
    with pytest.raises(UsageError, match="seed -1"):
        Phantom(SMALL, 1, -1)
    with pytest.raises(UsageError, match=r"has B-scans 0\.\.2"):
        Phantom(SMALL, 3, 0).bscan(3)
