"""What is done to samples: looks move nothing, geometry moves labels with pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.geometry import resample_rows
from octedge.metrics import IGNORED
from octedge.train import augment
from octedge.train.augment import LOOKS, cut, marks, motion, relit, scale, scaled, shifts

CHANGES = [change for change, _ in LOOKS]
SEEDS = st.integers(0, 10_000)


def layers(rows=48, columns=64):
    image = np.full((rows, columns), 30, np.uint8)
    image[14:24] = 220
    image[:, ::5] -= 20
    return image


def grey(image):
    return image.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@given(seed=SEEDS, strength=st.sampled_from([0.3, 1.0, 2.0]))
@settings(max_examples=15, deadline=None)
def test_a_look_changes_a_copy_and_depends_on_its_generator_alone(change, seed, strength):
    image = grey(layers())
    before = image.copy()
    first, second = (change(image, np.random.default_rng(seed), strength) for _ in range(2))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first, second)
    assert (first.dtype, first.shape) == (np.float32, image.shape)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_look_does_change_the_image_and_leaves_the_layer_where_it_is(change):
    image = grey(layers())
    found = [change(image, np.random.default_rng(seed), 1.0) for seed in range(20)]
    assert np.mean([np.abs(each - image).mean() for each in found]) > 1e-3
    profile = np.mean(found, axis=(0, 2))
    step = np.diff(profile)
    assert (int(step.argmax()), int(step.argmin())) == (13, 23)


@pytest.mark.parametrize(
    "change", [each for each in CHANGES if each.__name__ not in {"marks", "redrawn", "jpeg"}], ids=lambda c: c.__name__
)
def test_a_look_is_the_weaker_the_smaller_its_strength(change):
    image = grey(layers())

    def moved(strength):
        return np.mean([np.abs(change(image, np.random.default_rng(seed), strength) - image).mean() for seed in range(10)])

    assert moved(0.01) < 0.1 * moved(1.0)
    assert moved(1.0) < moved(2.0)


@given(SEEDS, st.integers(1, 40), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_marks_fit_images_of_every_size_and_brighten_some_of_it_only(seed, rows, columns):
    image = np.zeros((rows, columns), np.float32)
    marked = marks(image, np.random.default_rng(seed), 1.0)
    assert marked.shape == image.shape
    assert 0 <= marked.min() <= marked.max() <= 1


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_what_is_not_filled_stays_black(seed):
    filled = np.ones((48, 64), bool)
    filled[40:] = filled[:, 60:] = filled[:3, :5] = False
    image = np.where(filled, layers(), 0).astype(np.uint8)
    lit, names = relit(image, filled, np.random.default_rng(seed), 2.0)
    assert (lit.dtype, lit.shape) == (np.uint8, image.shape)
    assert (lit[~filled] == 0).all()
    assert set(names) <= {change.__name__ for change in CHANGES}
    again, _ = relit(image, filled, np.random.default_rng(seed), 2.0)
    np.testing.assert_array_equal(lit, again)


def test_relighting_an_image_without_content_gives_none():
    lit, _ = relit(np.zeros((8, 8), np.uint8), np.zeros((8, 8), bool), np.random.default_rng(0))
    assert not lit.any()


def test_every_look_is_used():
    drawn = [relit(layers(), np.ones((48, 64), bool), np.random.default_rng(seed))[1] for seed in range(80)]
    assert {name for names in drawn for name in names} == {change.__name__ for change in CHANGES}


def test_shadows_and_glare_take_whole_columns_and_rolloff_whole_rows():
    image = np.ones((20, 30), np.float32)
    for change in (augment.shadows, augment.glare):
        changed = change(image, np.random.default_rng(1), 1.0)
        assert (changed == changed[0]).all()
        assert np.ptp(changed[0]) > 0
    fallen = augment.rolloff(image, np.random.default_rng(1), 1.0)
    assert (fallen == fallen[:, :1]).all()


# --- geometry --------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 70), st.integers(2, 70), st.integers(2, 30), st.integers(2, 30))
@settings(deadline=None)
def test_scaling_follows_the_rule_of_the_runtime(seed, rows, columns, old_rows, old_columns):
    image = np.random.default_rng(seed).integers(0, 256, (old_rows, old_columns), np.uint8)
    got, _ = scaled(image, image, (rows, columns))
    expected = resample_rows(resample_rows(image.astype(np.float32), rows).T, columns).T
    assert np.abs(got - expected).max() <= 0.51


@given(st.integers(4, 60), st.integers(4, 60), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None)
def test_labels_are_scaled_with_their_pixels(rows, columns, down, along):
    reference = np.random.default_rng(rows).integers(0, 4, (rows, columns)).astype(np.uint8)
    image, moved = scaled(40 * reference, reference, (rows * down, columns * along))
    np.testing.assert_array_equal(moved, np.repeat(np.repeat(reference, down, axis=0), along, axis=1))
    if (down, along) == (1, 1):
        np.testing.assert_array_equal(image, 40 * reference)


@given(SEEDS, st.integers(1, 40), st.integers(1, 40), st.integers(-20, 50), st.booleans())
@settings(deadline=None)
def test_cutting_moves_labels_exactly_with_pixels_and_marks_what_comes_from_outside(seed, rows, columns, first, still):
    rng = np.random.default_rng(seed)
    address = np.arange(rows * columns).reshape(rows, columns)
    image, reference = (address % 200 + 1).astype(np.uint8), (address % 7).astype(np.uint8)
    shift = np.zeros(columns, np.intp) if still else rng.integers(-15, 16, columns)
    size = int(rng.integers(1, 60)), columns + int(rng.integers(0, 9))
    out, target, filled = cut(image, reference, shift, first, size)
    for row, column in np.ndindex(*size):
        source = row + first + shift[column] if column < columns else -1
        assert filled[row, column] == (0 <= source < rows)
        expected = (image[source, column], reference[source, column]) if filled[row, column] else (0, IGNORED)
        assert (out[row, column], target[row, column]) == expected


@given(SEEDS, st.integers(2, 300))
@settings(deadline=None)
def test_shifts_bend_softly_and_motion_jumps_a_few_rows(seed, columns):
    bent, moved = (make(columns, np.random.default_rng(seed)) for make in (shifts, motion))
    assert bent.shape == moved.shape == (columns,)
    assert np.abs(bent).max() <= 32
    assert np.abs(moved).max() <= 21
    assert columns < 200 or np.abs(np.diff(bent)).max() <= 2


@given(SEEDS, st.sampled_from([0.5, 1.0, 2.0]))
@settings(deadline=None)
def test_factors_stay_in_their_range(seed, strength):
    by = scale(np.random.default_rng(seed), strength)
    assert 2 ** (-0.9 * strength) <= by.rows <= 2 ** (1.1 * strength)
    assert 2 ** (-0.9 * strength) <= by.columns <= 2 ** (0.9 * strength)
