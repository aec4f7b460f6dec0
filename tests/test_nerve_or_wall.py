"""A column is nerve head or wall of the eye, never both: against brute force, and whatever the scores."""

import numpy as np
import pytest
from hypothesis import given, settings

from octedge.geometry import labels_from_surfaces
from octedge.ordered import Chain, chain_scores, decode, nerve_or_wall
from tests.test_ordered import anything, log_probabilities, paths, total

EYE = ("vitreous", "nfl", "rpe", "sclera", "disc", "fluid")
NERVE = EYE.index("disc")


def settled(scores: np.ndarray, chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    labels = np.fmax(scores, -np.inf).argmax(axis=0).astype(np.uint8)
    return nerve_or_wall(scores, chain, labels, decode(scores, chain, labels))


@given(log_probabilities(rows=5, columns=3, classes=6))
@settings(deadline=None)
def test_of_the_ordered_labellings_that_are_nerve_or_wall_the_best_is_found(scores: np.ndarray) -> None:
    chain = Chain.of(EYE)
    _, surfaces = settled(scores, chain)
    e = chain_scores(scores, chain)
    every = paths(5, scores.shape[1])
    possible = every[~((every == 4).any(axis=1) & np.isin(every, [2, 3]).any(axis=1))]
    best = e[possible, np.arange(scores.shape[1])].sum(axis=1).max(axis=0)
    np.testing.assert_allclose(total(e, labels_from_surfaces(surfaces, scores.shape[1])), best, atol=1e-9)


@given(anything().map(lambda scores: np.concatenate([scores, scores[:1]])))
@settings(deadline=None)
def test_no_column_is_nerve_and_wall_whatever_the_scores_and_surfaces_agree_with_labels(scores: np.ndarray) -> None:
    labels, surfaces = settled(scores, Chain.of(EYE))
    place = labels_from_surfaces(surfaces, len(labels))
    assert not ((place == NERVE).any(axis=0) & np.isin(place, [2, 3]).any(axis=0)).any()
    assert (np.diff(surfaces, axis=0) >= 0).all()
    assert ((labels == place) | (labels == EYE.index("fluid"))).all()


@given(log_probabilities(rows=8, columns=4, classes=6))
@settings(deadline=None)
def test_columns_that_are_one_or_the_other_stay_as_they_were_decoded(scores: np.ndarray) -> None:
    chain = Chain.of(EYE)
    before, after = decode(scores, chain), settled(scores, chain)
    place = labels_from_surfaces(before[1], scores.shape[1])
    fine = ~((place == NERVE).any(axis=0) & np.isin(place, [2, 3]).any(axis=0))
    np.testing.assert_array_equal(before[0][:, fine], after[0][:, fine])
    np.testing.assert_array_equal(before[1][:, fine], after[1][:, fine])


def test_the_dark_below_the_sclera_is_no_nerve_and_the_dark_below_the_nerve_no_sclera() -> None:
    wanted = np.array([[0, 1, 2, 3, 3, 3, 4, 4], [0, 1, 1, 4, 4, 4, 4, 3]]).T
    scores = np.where(np.arange(6)[:, None, None] == wanted, -0.1, -3.0)
    labels, _ = settled(scores, Chain.of(EYE))
    assert labels.T.tolist() == [[0, 1, 2, 3, 3, 3, 3, 3], [0, 1, 1, 4, 4, 4, 4, 4]]


@pytest.mark.parametrize("classes", [EYE[:4], ("vitreous", "nfl", "rpe", "sclera+disc"), ("vitreous", "nfl+rpe", "disc")])
def test_a_model_that_does_not_tell_them_apart_has_no_wall(classes: tuple[str, ...]) -> None:
    assert Chain.of(classes).wall == ()
