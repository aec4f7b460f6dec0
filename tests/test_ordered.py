"""The ordered decode against brute force over all ordered labellings."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octedge import ordered
from octedge.geometry import labels_from_surfaces
from octedge.ordered import Chain, best_path, chain_scores, decode

CLASSES = ("vitreous", "nfl", "gcl+ipl", "choroid", "fluid")
CHAIN = Chain.of(CLASSES)
DRY = Chain.of(CLASSES[:-1])
FLUID = 4


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=0)
    return shifted - np.log(np.exp(shifted).sum(axis=0))


def noise(rows: int, columns: int, seed: int = 0, classes: int = 5) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(scale=3, size=(classes, rows, columns)).astype(np.float32))


def log_probabilities(rows: int = 5, columns: int = 3, classes: int = 5) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.just(classes), st.integers(1, rows), st.integers(1, columns))
    return hnp.arrays(np.float64, shapes, elements=st.integers(-6, 6)).map(log_softmax)


def anything() -> st.SearchStrategy[np.ndarray]:
    """Scores no network should give: NaN, infinities, huge numbers, constants."""
    odd = st.sampled_from([np.nan, -np.inf, np.inf, -3e38, 3e38, 0.0, -1.0])
    dtypes = st.sampled_from([np.float16, np.float32, np.float64])
    shapes = st.tuples(st.just(5), st.integers(1, 9), st.integers(1, 4))
    numbers = st.one_of(odd, st.floats(-20, 0, width=16))
    return st.tuples(hnp.arrays(np.float64, shapes, elements=numbers), dtypes).map(cast)


def cast(pair: tuple[np.ndarray, type]) -> np.ndarray:
    with np.errstate(over="ignore"):
        return pair[0].astype(pair[1])


def paths(classes: int, rows: int) -> np.ndarray:
    """All non-decreasing paths, (M, H)."""
    return np.array(list(combinations_with_replacement(range(classes), rows)))


def brute(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For scores (K, H, W): the highest sums (W,) and the best paths (H, W), the deeper class first from the bottom up."""
    every = paths(*scores.shape[:2])
    sums = scores[every, np.arange(scores.shape[1])].sum(axis=1)  # (M, W)
    best = [max((total, tuple(path[::-1])) for total, path in zip(column, every, strict=True))[1][::-1] for column in sums.T]
    return sums.max(axis=0), np.array(best).T


def chain_of(count: int) -> Chain:
    """A chain of so many classes, none of them retina."""
    return Chain(tuple(range(count)), None, (False,) * count)


def total(scores: np.ndarray, path: np.ndarray) -> np.ndarray:
    rows, columns = path.shape
    return scores[path, np.arange(rows)[:, None], np.arange(columns)].sum(axis=0)


def in_order(place: np.ndarray) -> np.ndarray:
    return np.array([all(a <= b for a, b in pairwise(column)) for column in place.T.tolist()])


def without_fluid(labels: np.ndarray, surfaces: np.ndarray) -> bool:
    """Whether labels are the number of surfaces at or above the row wherever they are not fluid."""
    expected = labels_from_surfaces(surfaces, len(labels))
    return bool(((labels == expected) | (labels == FLUID)).all())


# --- the best path ---------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3)), elements=st.integers(-3, 3)))
def test_the_best_path_is_the_best_of_all_paths(scores: np.ndarray) -> None:
    path = best_path(scores, chain_of(len(scores)))
    assert path.dtype == np.uint8
    assert in_order(path).all()
    _, expected = brute(scores)
    np.testing.assert_array_equal(path, expected)


@given(st.integers(0, 10_000))
def test_the_best_path_of_fractional_scores_has_the_highest_sum(seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(4, 7, 5))
    highest, _ = brute(scores)
    np.testing.assert_allclose(total(scores, best_path(scores, chain_of(4))), highest, rtol=1e-12)


def row_by_row(e: np.ndarray) -> np.ndarray:
    """The same dynamic programme as it reads: V_l(z) = e_l(z) + max over k <= l of V_k(z - 1), for e (K, H, W)."""
    classes, rows, columns = e.shape
    path = np.empty((rows, columns), np.uint8)
    for column in range(columns):
        best, chosen = list(e[:, 0, column]), []
        for row in range(1, rows):
            chosen.append([max(range(deepest + 1), key=lambda place: (best[place], place)) for deepest in range(classes)])
            best = [best[place] + e[deepest, row, column] for deepest, place in enumerate(chosen[-1])]
        place = max(range(classes), key=lambda place: (best[place], place))
        path[-1, column] = place
        for row in range(rows - 1, 0, -1):
            place = path[row - 1, column] = chosen[row - 1][place]
    return path


@given(anything() | log_probabilities(rows=40), st.sampled_from([CHAIN, DRY]), st.integers(1, 30))
@settings(deadline=None)
def test_the_best_path_is_that_of_the_programme_row_by_row_to_the_last_bit(scores: np.ndarray, chain: Chain, pixels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "_CHUNK", pixels)  # so that scores are prepared a few rows at a time
        path = best_path(scores, chain)
    np.testing.assert_array_equal(path, row_by_row(chain_scores(scores, chain)))


def test_the_best_path_of_a_whole_image_is_that_of_the_programme_row_by_row() -> None:
    classes, rows, columns = 15, 700, 60  # more pixels than are prepared at a time
    scores = np.random.default_rng(3).integers(-9, 0, (classes + 1, rows, columns)).astype(np.float32) / 4
    chain = Chain(tuple(range(classes)), classes, tuple(0 < place < 12 for place in range(classes)))
    assert rows * columns > ordered._CHUNK
    np.testing.assert_array_equal(best_path(scores, chain), row_by_row(chain_scores(scores, chain)))


# --- fluid and the impossible ----------------------------------------------------------------------------------------


def expected_chain_scores(scores: np.ndarray) -> np.ndarray:
    """e as defined, pixel by pixel: nfl and gcl+ipl are the retina of CLASSES."""
    e = np.empty((4, *scores.shape[1:]))
    for place in range(4):
        for at in np.ndindex(*scores.shape[1:]):
            own, fluid = (float(value) for value in (scores[place][at], scores[FLUID][at]))
            e[place][at] = max(own, fluid + own / 1024) if place in (1, 2) else own
    return e


@given(log_probabilities())
def test_fluid_counts_for_every_retinal_layer_and_for_no_other(scores: np.ndarray) -> None:
    np.testing.assert_allclose(chain_scores(scores, CHAIN), expected_chain_scores(scores), rtol=1e-12)


def test_without_fluid_the_scores_of_the_chain_are_the_scores() -> None:
    scores = noise(4, 3)[:4]
    np.testing.assert_array_equal(chain_scores(scores, DRY), scores)


@given(anything())
def test_chain_scores_are_finite_and_keep_what_was_finite(scores: np.ndarray) -> None:
    e = chain_scores(scores, DRY)
    assert np.isfinite(e).all()
    sound = np.abs(scores[:4].astype(np.float64)) < 1e6
    np.testing.assert_array_equal(e[sound], scores[:4][sound])
    assert (e[np.isnan(scores[:4])] == chain_scores(np.full((5, 1, 1), -np.inf), DRY)[0]).all()


def test_an_impossible_fluid_leaves_the_layers_as_they_are() -> None:
    scores = noise(4, 3)
    scores[FLUID] = np.nan
    np.testing.assert_array_equal(chain_scores(scores, CHAIN), scores[:4])


def test_rows_without_any_possible_class_do_not_hide_the_others() -> None:
    scores = noise(200, 6, classes=4)
    alone = best_path(scores, DRY)
    gap = np.insert(scores, [100] * 50, np.nan, axis=1)
    labels, _ = decode(gap, DRY)
    np.testing.assert_array_equal(np.delete(labels, np.s_[100:150], axis=0), alone)


# --- decode ----------------------------------------------------------------------------------------------------------


@given(log_probabilities())
def test_decode_is_the_best_ordered_labelling(scores: np.ndarray) -> None:
    labels, surfaces = decode(scores, CHAIN)
    place = labels_from_surfaces(surfaces, scores.shape[1])
    e = expected_chain_scores(scores)
    np.testing.assert_allclose(total(e, place), brute(e)[0], atol=1e-9)
    painted = (scores.argmax(axis=0) == FLUID) & np.isin(place, (1, 2))
    np.testing.assert_array_equal(labels, np.where(painted, FLUID, place))


@given(log_probabilities(rows=12, columns=6))
def test_a_column_whose_argmax_is_in_order_is_its_own_answer(scores: np.ndarray) -> None:
    argmax = scores.argmax(axis=0)
    sound = in_order(argmax) & (argmax != FLUID).all(axis=0)
    labels, _ = decode(scores, CHAIN)
    np.testing.assert_array_equal(labels[:, sound], argmax[:, sound])


@given(anything())
@example(np.zeros((5, 3, 2)))
@example(np.full((5, 3, 2), np.nan))
@example(np.full((5, 3, 2), -np.inf))
def test_surfaces_are_ordered_and_agree_with_labels_whatever_the_scores(scores: np.ndarray) -> None:
    labels, surfaces = decode(scores, CHAIN)
    rows, columns = scores.shape[1:]
    assert (labels.dtype, labels.shape) == (np.uint8, (rows, columns))
    assert (surfaces.dtype, surfaces.shape) == (np.float32, (3, columns))
    assert ((surfaces >= 0) & (surfaces <= rows)).all()
    assert (np.diff(surfaces, axis=0) >= 0).all()
    assert without_fluid(labels, surfaces)


@given(anything(), st.integers(0, 100))
def test_labels_of_the_graph_are_ordered_too_where_they_contradict_the_scores(scores: np.ndarray, seed: int) -> None:
    given_labels = np.random.default_rng(seed).integers(0, 5, scores.shape[1:]).astype(np.uint8)
    before = given_labels.copy()
    labels, surfaces = decode(scores, CHAIN, given_labels)
    np.testing.assert_array_equal(given_labels, before)
    assert (np.diff(surfaces, axis=0) >= 0).all()
    assert without_fluid(labels, surfaces)


def test_labels_of_the_graph_stand_for_the_argmax() -> None:
    scores = noise(40, 30)
    given_labels = scores.argmax(axis=0).astype(np.uint8)
    for with_labels, without in zip(decode(scores, CHAIN, given_labels), decode(scores, CHAIN), strict=True):
        np.testing.assert_array_equal(with_labels, without)


@given(st.integers(0, 50))
def test_nan_is_never_chosen_where_another_class_is_possible(seed: int) -> None:
    scores = noise(6, 8, seed)
    scores[3] = np.nan
    labels, _ = decode(scores, CHAIN)
    assert (labels != 3).all()


@given(log_probabilities(rows=10, columns=6))
def test_fluid_is_painted_inside_the_retina_only(scores: np.ndarray) -> None:
    labels, surfaces = decode(scores, CHAIN)
    layer = labels_from_surfaces(surfaces, scores.shape[1])
    assert np.isin(layer[labels == FLUID], (1, 2)).all()
    assert (scores.argmax(axis=0)[labels == FLUID] == FLUID).all()


def one_hot(column: str) -> np.ndarray:
    """Log-probabilities (5, H, 1) that are sure of one class per row, given by its digit."""
    wanted = np.array([int(digit) for digit in column])
    return log_softmax(np.where(np.arange(5)[:, None, None] == wanted[None, :, None], 5.0, -5.0))


@pytest.mark.parametrize(
    ("argmax", "decoded"),
    [
        ("0012233", "0012233"),
        ("0014423", "0014423"),  # fluid between nfl and gcl+ipl belongs to either
        ("0400123", "0000123"),  # fluid in the vitreous is not believed
        ("0123343", "0123333"),  # nor in the choroid
        ("0122123", "0122223"),  # a stray row
        ("444", "444"),
        ("3333", "3333"),
        ("0333", "0333"),  # layers may be absent
    ],
)
def test_columns_are_decoded_as_a_reader_would(argmax: str, decoded: str) -> None:
    labels, _ = decode(one_hot(argmax), CHAIN)
    assert "".join(str(label) for label in labels[:, 0]) == decoded


def test_surfaces_of_absent_classes_coincide() -> None:
    _, surfaces = decode(one_hot("0033"), CHAIN)
    np.testing.assert_allclose(surfaces[:, 0], 1.5)


def test_surfaces_beyond_the_image_lie_on_its_edges() -> None:
    _, surfaces = decode(one_hot("111"), CHAIN)
    np.testing.assert_array_equal(surfaces[:, 0], [0, 3, 3])


# --- below a row -----------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.floats(1.2, 9), min_size=3, max_size=3), st.floats(0.2, 8), st.sampled_from([np.float16, np.float32]))
def test_known_edges_are_found_within_a_twentieth_of_a_row(gaps: list[float], slope: float, dtype: type) -> None:
    edges = np.cumsum(gaps)
    bounds = np.array([-np.inf, *edges, np.inf])
    depth = np.arange(32)
    outside = np.maximum(np.maximum(bounds[:-1, None] - depth, depth - bounds[1:, None]), 0)  # (4, H): rows to the class's own band
    scores = log_softmax(-slope * outside)[:, :, None].astype(dtype)
    _, surfaces = decode(scores, DRY)
    np.testing.assert_allclose(surfaces[:, 0], edges, atol=0.05)


@given(log_probabilities(rows=8, columns=2))
def test_a_surface_lies_where_the_scores_of_its_two_classes_cross_fluid_counted(scores: np.ndarray) -> None:
    _, surfaces = decode(scores, CHAIN)
    rows = scores.shape[1]
    place, e = labels_from_surfaces(surfaces, rows), expected_chain_scores(scores)
    for index, column in np.ndindex(*surfaces.shape):
        below = int((place[:, column] <= index).sum())
        if 0 < below < rows:
            upper, lower = place[below - 1, column], place[below, column]
            before, after = (e[upper, row, column] - e[lower, row, column] for row in (below - 1, below))
            share = before / (before - after) if before > after else 0.5
            assert surfaces[index, column] == pytest.approx(below - 1 + np.clip(share, 1 / 128, 127 / 128), abs=1e-4)


# --- columns do not know each other ----------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.permutations(range(12)))
def test_the_order_of_columns_changes_nothing(seed: int, order: list[int]) -> None:
    scores = noise(20, 12, seed)
    labels, surfaces = decode(scores, CHAIN)
    shuffled_labels, shuffled_surfaces = decode(scores[:, :, order], CHAIN)
    np.testing.assert_array_equal(shuffled_labels, labels[:, order])
    np.testing.assert_array_equal(shuffled_surfaces, surfaces[:, order])


@given(st.integers(1, 9))
def test_the_size_of_a_block_changes_nothing(block: int) -> None:
    scores = noise(12, 25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered, "_BLOCK", block)
        in_blocks = decode(scores, CHAIN)
    for ours, reference in zip(in_blocks, decode(scores, CHAIN), strict=True):
        np.testing.assert_array_equal(ours, reference)


def with_a_stray_row(columns: int, wrong: list[int]) -> np.ndarray:
    """Log-probabilities (5, 7, W) in order, but for the columns `wrong`."""
    return np.concatenate([one_hot("0122123" if column in wrong else "0012233") for column in range(columns)], axis=2)


@given(st.lists(st.integers(0, 29), unique=True))
def test_whether_few_or_most_columns_need_it_those_alone_are_decoded(wrong: list[int]) -> None:
    scores = with_a_stray_row(30, wrong)
    scores[:2, 1] = scores[:2, 1].max(axis=0)  # as good: the argmax is the first of them, the decode takes the deeper one
    labels, surfaces = decode(scores, CHAIN)
    assert {"".join(map(str, column)) for column in np.delete(labels, wrong, axis=1).T} <= {"0012233"}
    assert {"".join(map(str, column)) for column in labels[:, wrong].T} <= {"0122223"}
    assert without_fluid(labels, surfaces)


def test_more_columns_than_a_block_decode_like_single_columns() -> None:
    scores = noise(16, ordered._BLOCK * 2 + 3)
    labels, surfaces = decode(scores, CHAIN)
    for column in range(0, scores.shape[2], 37):
        alone_labels, alone_surfaces = decode(scores[:, :, column : column + 1], CHAIN)
        np.testing.assert_array_equal(alone_labels[:, 0], labels[:, column])
        np.testing.assert_array_equal(alone_surfaces[:, 0], surfaces[:, column])


# --- the chain -------------------------------------------------------------------------------------------------------


def test_the_chain_of_classes_names_retina_and_fluid() -> None:
    assert Chain((0, 1, 2, 3), 4, (False, True, True, False)) == CHAIN
    assert Chain((0, 1, 2, 3), None, (False, True, True, False)) == DRY


def test_class_indices_are_returned_and_not_places_in_the_chain() -> None:
    # An unordered class in front, so that the two differ.
    chain = Chain((1, 2, 3), 0, (False, True, False))
    scores = log_softmax(5.0 * (np.arange(4)[:, None, None] == np.array([1, 2, 0, 3])[None, :, None]))
    labels, surfaces = decode(scores, chain)
    np.testing.assert_array_equal(labels[:, 0], [1, 2, 0, 3])
    np.testing.assert_array_equal(labels_from_surfaces(surfaces, 4)[:, 0], [0, 1, 1, 2])


def test_a_chain_of_one_class_has_no_surface() -> None:
    labels, surfaces = decode(np.zeros((1, 4, 3)), Chain.of(("vitreous",)))
    assert surfaces.shape == (0, 3)
    assert not labels.any()
