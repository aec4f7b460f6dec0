"""Windows to train on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.metrics import IGNORED
from octedge.train.augment import lowered
from octedge.train.cohort import Example, Set
from octedge.train.networks import UNet
from octedge.train.recipe import Finish, Recipe, Sampling
from octedge.train.sampling import Sampler, held, rarity, second_set, windows

NONE = Finish()
GROUPS = ("vitreous", "nfl", "choroid+sclera")


def example(rows=60, columns=90, top=20, name="a"):
    reference = np.zeros((rows, columns), np.uint8)
    reference[top : top + 8] = 1
    reference[top + 8 :] = 2
    return Example(name, name, (40 + 80 * reference).astype(np.uint8), reference, np.zeros((2, columns)))


def sampler(augment=True, seed=1, shares=(1.0, 1.0), finish=NONE, **other):
    sets = tuple(Set(f"set{index}", GROUPS, (example(), example(100, 40, 50)), share) for index, share in enumerate(shares))
    sampling = Sampling(window=32, stride=16, heights=(64,), pixels=8 * 64 * 32, augment=augment, **other)
    candidates = {"a": UNet(downs=2)}
    return Sampler(sets, Recipe(name="x", source=(), candidates=candidates, sampling=sampling, steps=100, finish=finish), seed)


@given(st.integers(1, 200), st.integers(1, 64), st.data())
@settings(deadline=None)
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
    assert [each.source for each in drawn.samples(79)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [each.source for each in drawn.samples(80)] == [1] * 8


def test_in_the_last_steps_half_of_the_samples_stay_as_they_are():
    def untouched(step):
        batch = sampler(finish=Finish(after=0.8)).batch(step)
        pairs = zip(batch.images[:, 0], batch.reference, strict=True)
        return np.mean([(image[known := reference != IGNORED] == 40 + 80 * reference[known]).all() for image, reference in pairs])

    assert 0.35 < np.mean([untouched(step) for step in range(80, 100)]) < 0.75
    assert np.mean([untouched(step) for step in range(60, 80)]) < 0.3


def test_a_batch_is_its_samples():
    drawn = sampler()
    batch, samples = drawn.batch(4), drawn.samples(4)
    np.testing.assert_array_equal(batch.images[:, 0], [each.image for each in samples])
    np.testing.assert_array_equal(batch.reference, [each.reference for each in samples])


@given(st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_whatever_is_done_to_a_sample_padding_is_black_and_unchanged_samples_are_pieces_of_the_scan(step):
    for each in sampler(strength=2.0, lowered=0.5).samples(step):
        known = each.reference != IGNORED
        assert (each.image[~known] == 0).all()
        if set(each.changes) <= {"flipped", "shifts", "motion", "lowered"}:
            np.testing.assert_array_equal(each.image[known], 40 + 80 * each.reference[known])


def test_a_lowered_sample_has_more_vitreous_and_all_of_the_retina():
    def tops(share):
        drawn = [each for step in range(30) for each in sampler(shares=(1.0,), lowered=share).samples(step)]
        assert any("lowered" in each.changes for each in drawn) == (share > 0)
        assert all((each.reference == 1).any() for each in drawn)
        return np.mean([(each.reference == 1).any(axis=1).argmax() for each in drawn if "scaled" not in each.changes])

    assert tops(1.0) > tops(0.0) + 5


def test_vitreous_is_mirrored_as_often_as_needed():
    image = np.arange(12, dtype=np.uint8).reshape(6, 2)
    reference = np.repeat([0, 0, 0, 1, 1, 2], 2).reshape(6, 2).astype(np.uint8)
    more, labels = lowered(image, reference, 3, 7)
    np.testing.assert_array_equal(more[:, 0] // 2, [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(labels[:, 1], [0] * 10 + [1, 1, 2])


def test_the_second_validation_set_holds_every_column_as_it_is():
    data = Set("a", GROUPS, (example(columns=90), example(100, 40, 50)), 1.0)
    found = second_set(3, data, Sampling(window=32, stride=16, heights=(64,)))
    assert [each.image.shape for each in found] == [(64, 32)] * 5 + [(128, 32)] * 2
    assert {each.source for each in found} == {3}
    for each, (index, start) in zip(found, windows(data.examples, 32, 16), strict=True):
        image = data.examples[index].image[:, start : start + 32]
        np.testing.assert_array_equal(each.image[: len(image)], image)
        assert (each.reference[len(image) :] == IGNORED).all()


# --- what is rare ----------------------------------------------------------------------------------------------------

WET = (*GROUPS, "fluid")


def with_pocket(rows=60, columns=320, at=300, size=8):
    dry = example(rows, columns)
    reference = dry.reference.copy()
    reference[20:28, at : at + size] = 3
    return replace(dry, reference=reference, image=(40 + 60 * reference).astype(np.uint8))


@given(st.integers(1, 120), st.integers(1, 40), st.integers(0, 100))
@settings(deadline=None)
def test_windows_hold_as_many_pixels_of_a_group_as_can_be_counted_in_them(columns, width, seed):
    reference = np.random.default_rng(seed).choice([0, 1, 2, IGNORED], (7, columns)).astype(np.uint8)
    data = Set("a", GROUPS, (example(7, columns), replace(example(7, columns), reference=reference)), 1.0)
    places = windows(data.examples, width, max(1, width // 2))
    counted = [[(data.examples[index].reference[:, start : start + width] == group).sum() for group in range(3)] for index, start in places]
    np.testing.assert_array_equal(held(data, places, width), counted)


def test_a_group_is_the_likelier_the_fewer_pixels_it_has_and_what_every_window_holds_is_not_rare():
    found = rarity(np.array([[900, 100, 0], [900, 100, 100], [900, 0, 0], [900, 100, 100]]))
    assert found.weights[0] == 0
    assert found.weights[2] / found.weights[1] == pytest.approx((0.5 / 200) / (0.25 / 300))
    assert [each.tolist() for each in found.holders] == [[0, 1, 2, 3], [0, 1, 3], [1, 3]]


def test_without_anything_rare_windows_are_drawn_as_ever():
    every_one, none = sampler(rare=1.0), sampler()
    assert not every_one.rare[0].weights.any()
    np.testing.assert_array_equal(every_one.batch(2).reference.shape, none.batch(2).reference.shape)


@pytest.mark.parametrize("augment", [False, True])
def test_samples_drawn_for_what_is_rare_hold_it(augment):
    sets = (Set("wet", WET, (with_pocket(), example(columns=320)), 1.0),)

    def share(rare):
        sampling = Sampling(window=32, stride=16, heights=(64,), pixels=8 * 64 * 32, augment=augment, rare=rare)
        drawn = Sampler(sets, Recipe(name="x", source=(), candidates={"a": UNet(downs=2)}, sampling=sampling), 1)
        return np.mean([(each.reference == 3).any() for step in range(12) for each in drawn.samples(step)])

    assert share(0.0) < 0.25
    assert share(1.0) == 1.0
