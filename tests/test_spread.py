"""The spread of surfaces against brute force over all ordered labellings."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octedge import spread as module
from octedge.errors import UsageError
from octedge.ordered import Chain, chain_scores, decode
from octedge.spread import spread

CLASSES = ("vitreous", "nfl", "gcl+ipl", "choroid", "fluid")
CHAIN = Chain.of(CLASSES)
DRY = Chain.of(CLASSES[:-1])


def brute(e: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (L, W) over all labellings of e (K, H, W), each weighted with exp(sum / temperature)."""
    classes, rows = e.shape[:2]
    paths = np.array(list(combinations_with_replacement(range(classes), rows)))  # (M, H)
    depth = (paths[:, :, None] <= np.arange(classes - 1)).sum(axis=1)  # (M, L)
    sums = e[paths, np.arange(rows)].sum(axis=1) / temperature  # (M, W)
    weight = np.exp(sums - sums.max(axis=0))
    weight /= weight.sum(axis=0)
    mean = depth.T @ weight
    square = ((depth.T[:, :, None] - mean[:, None, :]) ** 2 * weight).sum(axis=1)
    return mean, np.sqrt(square)


def small(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.just(5), st.integers(1, 6), st.integers(1, 3))
    return hnp.arrays(np.float64, shapes, elements=numbers)


def noise(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-5, 3, size=(5, rows, columns)).astype(np.float32)


@given(small(st.floats(-9, 0)), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([CHAIN, DRY]))
@settings(deadline=None)
def test_mean_and_deviation_are_those_over_all_ordered_labellings(scores: np.ndarray, temperature: float, chain: Chain) -> None:
    mean, deviation = spread(scores, chain, temperature)
    assert (mean.dtype, deviation.dtype) == (np.float32, np.float32)
    assert mean.shape == deviation.shape == (3, scores.shape[2])
    for ours, expected in zip((mean, deviation), brute(chain_scores(scores, chain), temperature), strict=True):
        np.testing.assert_allclose(ours, expected, atol=2e-6)


@given(small(st.sampled_from([np.nan, -np.inf, np.inf, -1e30, -700.0, 0.0, -1.0])))
@settings(deadline=None)
def test_whatever_the_scores_mean_and_deviation_are_those_of_what_is_possible(scores: np.ndarray) -> None:
    mean, deviation = spread(scores, CHAIN)
    # Less each row's best, the same for all labellings: sums of 1e9 hold no fractions otherwise.
    e = chain_scores(scores, CHAIN)
    expected = brute(e - e.max(axis=0), 1.0)
    np.testing.assert_allclose(mean, expected[0], atol=2e-6)
    np.testing.assert_allclose(deviation, expected[1], atol=2e-6)


@given(st.integers(0, 100))
@settings(deadline=None)
def test_means_are_ordered_and_inside_the_image(seed: int) -> None:
    mean, deviation = spread(noise(40, 7, seed), CHAIN, 3.0)
    assert ((mean >= 0) & (mean <= 40)).all()
    assert (np.diff(mean, axis=0) >= 0).all()
    assert ((deviation >= 0) & (deviation <= 20)).all()


def sure(depths: tuple[int, ...], rows: int, by: float) -> np.ndarray:
    """Scores (5, H, 1) of 0 for the class that lies at a row, -by for all others, with surfaces below so many rows."""
    place = (np.arange(rows)[:, None] >= np.array(depths)).sum(axis=1)
    return np.where(np.arange(5)[:, None, None] == place[None, :, None], 0.0, -by)


def test_sure_scores_give_the_surfaces_of_the_decode_without_spread() -> None:
    scores = sure((300, 340, 700), 1024, 60.0)
    mean, deviation = spread(scores, CHAIN)
    np.testing.assert_allclose(mean[:, 0], [300, 340, 700], atol=1e-3)
    np.testing.assert_allclose(mean - 0.5, decode(scores, CHAIN)[1], atol=1e-3)
    assert (deviation < 1e-3).all()


def test_the_surfaces_of_an_absent_class_have_one_depth() -> None:
    scores = sure((3, 3, 7), 10, 50.0)
    mean, deviation = spread(scores, CHAIN)
    np.testing.assert_allclose(mean[:, 0], [3, 3, 7], atol=1e-4)
    assert (deviation < 1e-3).all()


def test_a_structure_beyond_the_image_puts_its_surface_on_the_edge() -> None:
    mean, _ = spread(sure((0, 12, 12), 12, 80.0), CHAIN)
    np.testing.assert_allclose(mean[:, 0], [0, 12, 12], atol=1e-4)


def test_blurred_borders_spread_more_than_sharp_ones() -> None:
    """A surface whose scores change by s per row is a discrete normal distribution of variance 1/s."""
    depth = np.arange(200)
    for slope in (1.0, 0.25, 0.01):
        ramp = slope * (depth - 99.5) / 2
        scores = np.full((5, 200, 1), -1e4)
        scores[0, :, 0], scores[1, :, 0] = -ramp, ramp
        mean, deviation = spread(scores, CHAIN)
        np.testing.assert_allclose(mean[0], 100, atol=1e-4)
        assert deviation[0, 0] == pytest.approx(slope**-0.5, rel=1e-3)


def test_a_higher_temperature_spreads_more() -> None:
    scores = sure((20, 30, 40), 64, 3.0)
    found = [spread(scores, CHAIN, temperature)[1] for temperature in (0.5, 1, 2, 4)]
    assert (np.diff(found, axis=0) > 0).all()


def test_rows_where_nothing_is_possible_leave_the_rest_as_exact() -> None:
    """Thousands of them: as sums of -1e9 they would swallow the scores of the others."""
    scores = noise(16, 4).astype(np.float64)
    scores[1:, 0] = scores[:3, -1] = -1e6  # so that all above is vitreous, all below choroid
    nothing = np.full((5, 4000, 4), np.nan)
    mean, deviation = spread(scores, DRY)
    gap_mean, gap_deviation = spread(np.concatenate([nothing, scores, nothing], axis=1), DRY)
    np.testing.assert_allclose(gap_deviation, deviation, atol=5e-5)
    np.testing.assert_allclose(gap_mean - 4000, mean, atol=1e-3)


@given(st.integers(1, 9))
@settings(deadline=None)
def test_the_size_of_a_block_changes_nothing(block: int) -> None:
    scores = noise(12, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        in_blocks = spread(scores, CHAIN)
    for ours, expected in zip(in_blocks, spread(scores, CHAIN), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_the_scores_stay_as_they_were() -> None:
    scores = noise(12, 5).astype(np.float64)
    before = scores.copy()
    spread(scores, DRY, 2.0)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        spread(noise(4, 2), CHAIN, temperature)


def test_a_chain_of_one_class_has_no_spread() -> None:
    mean, deviation = spread(np.zeros((1, 4, 3)), Chain.of(("vitreous",)))
    assert mean.shape == deviation.shape == (0, 3)
