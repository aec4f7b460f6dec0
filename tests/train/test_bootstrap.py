"""Intervals against a brute-force resampler, and against the truth of simulated patients."""

import random

import numpy as np
import pytest

from octedge.train.bootstrap import Source, draw, interval, observed, resample, too_few, weakness


def source(name="x", vendor="maker", candidates=2, seeds=3, patients=5, seed=0):
    """Counts of two layers: patients differ, seeds differ less, candidates by a little."""
    rng = np.random.default_rng(seed)
    size = (candidates, seeds, patients, 2)
    union = rng.integers(500, 1500, (1, 1, patients, 2)) + np.zeros(size, int)
    level = 0.7 + 0.1 * rng.standard_normal((1, 1, patients, 1)) + 0.02 * rng.standard_normal(size)
    return Source(name, vendor, np.rint(union * level.clip(0, 1)).astype(int), union)


def brute_force(sources, times):
    """One draw after the other with plain loops: patients of each source and seeds, counts added, mean and worst vendor."""
    rng = random.Random(1)
    seeds = sources[0].shared.shape[1]
    found = []
    for _ in range(times):
        taken = [rng.choices(range(each.shared.shape[2]), k=each.shared.shape[2] - 1) for each in sources]
        lucky = rng.choices(range(seeds), k=seeds - 1)
        row = []
        for candidate in range(sources[0].shared.shape[0]):
            ious = []
            for each, who in zip(sources, taken, strict=True):
                own = []
                for seed in lucky:
                    shared = sum(each.shared[candidate, seed, patient] for patient in who)
                    union = sum(each.union[candidate, seed, patient] for patient in who)
                    own.append(np.mean([a / b for a, b in zip(shared, union, strict=True) if b]))
                ious.append(sum(own) / len(own))
            by_vendor = {}
            for each, iou in zip(sources, ious, strict=True):
                by_vendor.setdefault(each.vendor, []).append(iou)
            row.append((np.mean(ious), min(np.mean(values) for values in by_vendor.values())))
        found.append(row)
    return np.array(found)


def test_the_draws_are_those_of_a_brute_force_resampler():
    sources = [source("a", "one"), source("b", "one", patients=4, seed=1), source("c", "two", patients=7, seed=2)]
    found, expected = resample(sources, 4000), brute_force(sources, 1500)
    for measure, values in (("mean", expected[..., 0]), ("worst", expected[..., 1]), ("score", expected.mean(2))):
        own = getattr(found, measure)
        np.testing.assert_allclose(own.std(0), values.std(0), rtol=0.1)
        np.testing.assert_allclose(own.std(0) > 0, True)
        width = values.std(0).max()
        np.testing.assert_allclose(np.quantile(own, [0.025, 0.5, 0.975], 0), np.quantile(values, [0.025, 0.5, 0.975], 0), atol=0.35 * width)
        assert (own[:, 0] - own[:, 1]).std() == pytest.approx((values[:, 0] - values[:, 1]).std(), rel=0.1)


def test_the_variance_of_the_mean_of_few_patients_is_right():
    values = np.array([0.1, 0.5, 0.6])
    weights = draw(3, 40000, np.random.default_rng(0))
    assert (weights.sum(1) == 2).all()
    assert (weights @ values / 2).var() == pytest.approx(values.var(ddof=1) / 3, rel=0.03)


def test_as_it_is_everybody_counts_once():
    one, two = source("a", "one", patients=1), source("b", "two", patients=3, seed=3)
    iou = [(each.shared.sum(2) / each.union.sum(2)).mean((1, 2)) for each in (one, two)]
    found = observed([one, two])
    np.testing.assert_allclose(found.mean[0], np.mean(iou, 0))
    np.testing.assert_allclose(found.worst[0], np.min(iou, 0))


def test_a_layer_that_nobody_drawn_has_does_not_count():
    counts = np.array([[[[8, 0], [6, 0], [4, 5]]]])
    rare = Source("rare", "maker", counts, np.array([[[[10, 0], [10, 0], [10, 10]]]]))
    assert {round(value, 3) for value in resample([rare], 200).mean[:, 0]} == {0.8, 0.7, 0.6, 0.55, 0.5, 0.45}


def test_the_same_draws_again():
    np.testing.assert_array_equal(resample([source()], 50).score, resample([source()], 50).score)
    assert not np.array_equal(resample([source()], 50).score, resample([source()], 50, seed=1).score)


def test_two_copies_of_a_candidate_differ_in_no_draw():
    twice = source(candidates=1)
    copies = Source("x", "maker", np.repeat(twice.shared, 2, 0), np.repeat(twice.union, 2, 0))
    found = resample([copies], 300).score
    assert (found[:, 0] == found[:, 1]).all()
    assert found[:, 0].std() > 0.01


def test_about_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(5)
    hits = 0
    for time in range(300):
        iou = rng.normal(0.7, 0.08, (1, 1, 12, 1)).clip(0, 1)
        union = np.full(iou.shape, 100_000)
        low, high = interval(resample([Source("x", "maker", np.rint(iou * union).astype(int), union)], 400, seed=time).mean[:, 0])
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_one_or_two_patients_allow_no_interval_and_few_make_it_weak():
    assert too_few([source("a", patients=2), source("b", patients=1), source("c")]) == "a: 2 patients, b: 1 patient"
    assert not too_few([source(patients=3)])
    assert weakness([source("a", patients=5), source("b", patients=6)]) == ("intervals too narrow, for few patients: a 5",)
    assert weakness([source("a", patients=6, seeds=1)])[0].startswith("weak comparison: 1 seed;")
    assert weakness([source(patients=2)])[0].startswith("no intervals, for x: 2 patients;")
    assert not weakness([source(patients=6)])
