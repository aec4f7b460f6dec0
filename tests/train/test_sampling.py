"""Windows to train on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.metrics import IGNORED
from octedge.train.cohort import Example, Set
from octedge.train.networks import UNet
from octedge.train.recipe import Finish, Recipe, Sampling
from octedge.train.sampling import Sampler, relight, windows

NONE = Finish()
GROUPS = ("vitreous", "nfl", "choroid+sclera")


def example(rows=60, columns=90, top=20, name="a"):
    reference = np.zeros((rows, columns), np.uint8)
    reference[top : top + 8] = 1
    reference[top + 8 :] = 2
    return Example(name, name, (40 + 80 * reference).astype(np.uint8), reference, np.zeros((2, columns)))


def sampler(augment=True, seed=1, shares=(1.0, 1.0), finish=NONE):
    sets = tuple(Set(f"set{index}", GROUPS, (example(), example(100, 40, 50)), share) for index, share in enumerate(shares))
    sampling = Sampling(window=32, stride=16, heights=(64,), pixels=8 * 64 * 32, augment=augment)
    candidates = {"a": UNet(downs=2)}
    return Sampler(sets, Recipe(name="x", source=(), candidates=candidates, sampling=sampling, steps=100, finish=finish), seed)


@given(st.integers(1, 200), st.integers(1, 64), st.data())
def test_windows_cover_every_column_with_a_stride_below_their_width(columns, window, data):
    stride = data.draw(st.integers(1, window))
    found = windows((example(columns=columns),), window, stride)
    covered = np.zeros(columns, bool)
    for _, start in found:
        assert start == 0 or start + window <= columns
        covered[start : start + window] = True
    assert covered.all()
    steps = np.diff([start for _, start in found])
    assert (steps > 0).all()
    assert (steps <= stride).all()


@given(st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_a_batch_depends_on_seed_and_step_alone(step):
    a, b = sampler(), sampler()
    a.batch(step + 1)
    first, second = a.batch(step), b.batch(step)
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.reference, second.reference)
    assert not np.array_equal(first.images, sampler(seed=2).batch(step).images)


def test_batches_have_the_power_of_two_height_and_the_window_width():
    batch = sampler().batch(0)
    assert batch.images.shape == (8, 1, 64, 32)
    assert batch.reference.shape == (8, 64, 32)
    assert batch.tables.shape == (8, 3, 16)


def test_without_augmentation_a_sample_is_a_piece_of_the_scan_and_padding_is_at_the_bottom():
    batch = sampler(augment=False).batch(3)
    for image, reference in zip(batch.images[:, 0], batch.reference, strict=True):
        known = reference != IGNORED
        np.testing.assert_array_equal(image[known], 40 + 80 * reference[known])
        assert (image[~known] == 0).all()
        inside = known.any(axis=1)
        assert not (np.diff(inside.astype(int)) > 0).any()


def test_the_retina_stays_inside_a_sample_that_can_hold_it():
    for step in range(20):
        batch = sampler(augment=False).batch(step)
        assert (batch.reference == 1).any(axis=(1, 2)).all()


def test_sources_are_drawn_by_their_share():
    drawn = [int(table[0, 0]) for table in sampler().batch(0).tables]
    assert len(drawn) == 8
    only = sampler(shares=(0.0, 1.0))
    assert [each.name for each in only.sets] == ["set1"]


def test_in_the_last_steps_sources_are_drawn_by_their_last_shares():
    drawn = sampler(finish=Finish(after=0.8, shares={"set0": 0.0}))
    seen = []

    def note(source, *_, **__):
        seen.append(source)
        return np.zeros((64, 32), np.uint8), np.zeros((64, 32), np.uint8)

    drawn._sample = note
    drawn.batch(79)
    drawn.batch(80)
    assert seen == [0, 0, 0, 0, 1, 1, 1, 1] + [1] * 8


def test_in_the_last_steps_half_of_the_samples_stay_as_they_are():
    def untouched(step):
        batch = sampler(finish=Finish(after=0.8)).batch(step)
        pairs = zip(batch.images[:, 0], batch.reference, strict=True)
        return np.mean([(image[known := reference != IGNORED] == 40 + 80 * reference[known]).all() for image, reference in pairs])

    assert 0.35 < np.mean([untouched(step) for step in range(80, 100)]) < 0.75
    assert np.mean([untouched(step) for step in range(60, 80)]) < 0.3


def test_relighting_keeps_padding_black_and_moves_nothing():
    image = np.zeros((40, 50), np.uint8)
    image[:30] = 30
    image[12:18] = 220
    for seed in range(30):
        lit = relight(image, np.random.default_rng(seed))
        assert (lit[30:] == 0).all()
        assert lit[13:17].mean() > lit[2:8].mean()
