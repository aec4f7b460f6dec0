"""Windows and row scaling, against brute force."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.errors import UsageError
from octedge.geometry import (
    AxialRange,
    Tiling,
    Windowing,
    labels_from_surfaces,
    padded_height,
    resample_rows,
    rows_to_original,
    scaled_rows,
    split,
    stitch,
)


@st.composite
def rules(draw: st.DrawFn) -> Windowing:
    grid = 2 ** draw(st.integers(0, 4))
    window = grid * draw(st.integers(1, 6))
    return Windowing(window, draw(st.integers(0, window - grid)), grid)


ROWS = st.integers(1, 40)
COLUMNS = st.integers(1, 200)
DTYPES = st.sampled_from([np.uint8, np.uint16, np.float16, np.float32, np.float64, np.bool_])


def noise(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape).astype(dtype)


# --- windows ---------------------------------------------------------------------------------------------------------


@given(rules(), ROWS, COLUMNS, st.lists(st.integers(1, 3), max_size=2), DTYPES)
def test_stitch_undoes_split(rule: Windowing, rows: int, columns: int, leading: list[int], dtype: type) -> None:
    image = noise((*leading, rows, columns), dtype)
    tiling = rule.tiling(rows, columns)
    windows = split(image, tiling)
    assert windows.shape == (len(tiling.starts), *leading, tiling.height, tiling.window)
    for back in (stitch(windows, tiling), stitch(list(windows), tiling)):
        assert back.dtype == image.dtype
        np.testing.assert_array_equal(back, image)


@given(rules(), ROWS, COLUMNS)
def test_windows_cover_every_column_and_start_on_the_grid(rule: Windowing, rows: int, columns: int) -> None:
    tiling = rule.tiling(rows, columns)
    covered = {column for start in tiling.starts for column in range(start, start + tiling.window)}
    assert covered >= set(range(columns))
    assert all(start % rule.grid == 0 for start in tiling.starts)
    assert tiling.window % rule.grid == 0
    assert tiling.window <= rule.window
    assert max(covered) < columns + rule.grid  # no window reaches further beyond the image than the grid demands


@given(rules(), ROWS, COLUMNS)
def test_neighbouring_windows_share_at_least_the_overlap(rule: Windowing, rows: int, columns: int) -> None:
    starts, window = rule.tiling(rows, columns).starts, rule.tiling(rows, columns).window
    for left, right in pairwise(starts):
        assert left < right
        assert left + window - right >= rule.overlap


@given(rules(), ROWS, COLUMNS)
def test_there_are_as_few_windows_as_the_rule_allows(rule: Windowing, rows: int, columns: int) -> None:
    longest_step = max(step for step in range(rule.grid, rule.window + 1, rule.grid) if rule.window - step >= rule.overlap)
    start, needed = 0, 1
    while start + rule.window < columns:
        start += longest_step
        needed += 1
    assert len(rule.tiling(rows, columns).starts) == needed


@given(rules(), ROWS, COLUMNS)
def test_steps_differ_by_no_more_than_one_grid_step(rule: Windowing, rows: int, columns: int) -> None:
    steps = np.diff(rule.tiling(rows, columns).starts)
    assert np.ptp(steps) <= rule.grid if len(steps) else True


@given(rules(), ROWS, COLUMNS)
def test_each_column_belongs_to_the_window_with_the_nearest_centre(rule: Windowing, rows: int, columns: int) -> None:
    tiling = rule.tiling(rows, columns)
    marked = np.empty((len(tiling.starts), tiling.height, tiling.window))
    marked[:] = np.arange(len(tiling.starts))[:, None, None]
    owners = stitch(marked, tiling)
    for column in range(columns):
        distance = [abs(start + tiling.window / 2 - (column + 0.5)) for start in tiling.starts]
        nearest = max(n for n, d in enumerate(distance) if d == min(distance))  # a tie goes to the right
        assert (owners[:, column] == nearest).all()


@given(rules(), ROWS, COLUMNS)
def test_padding_is_zero_and_at_the_bottom_and_the_right_only(rule: Windowing, rows: int, columns: int) -> None:
    tiling = rule.tiling(rows, columns)
    windows = split(np.ones((rows, columns), np.uint8), tiling)
    for window, start in zip(windows, tiling.starts, strict=True):
        inside = min(tiling.window, columns - start)
        assert window[:rows, :inside].all()
        assert not window[rows:].any()
        assert not window[:, inside:].any()


@given(rules(), ROWS, COLUMNS)
def test_an_image_no_wider_than_a_window_gets_one_window_of_its_own_width(rule: Windowing, rows: int, columns: int) -> None:
    columns = min(columns, rule.window)
    tiling = rule.tiling(rows, columns)
    assert tiling.starts == (0,)
    assert columns <= tiling.window < columns + rule.grid


@given(st.integers(1, 5000), st.integers(0, 6))
def test_the_padded_height_is_the_smallest_power_of_two_on_the_grid(rows: int, downs: int) -> None:
    powers = [2**n for n in range(14) if 2**n >= rows and 2**n % 2**downs == 0]
    assert padded_height(rows, 2**downs) == powers[0]


def test_computed_counts_the_pixels_of_all_windows() -> None:
    assert Windowing(64, 0, 16).tiling(32, 128).computed == 1
    assert Windowing(64, 32, 16).tiling(24, 128).computed == pytest.approx(3 * 64 * 32 / (24 * 128))


@pytest.mark.parametrize(
    ("window", "overlap", "grid", "message"),
    [
        (64, 0, 0, "grid 0 is not a power of two"),
        (64, 0, 12, "grid 12 is not a power of two"),
        (64, 0, -16, "grid -16 is not a power of two"),
        (60, 0, 16, "window 60 is not a multiple of the grid 16; try 64"),
        (8, 0, 16, "window 8 is not a multiple of the grid 16; try 16"),
        (0, 0, 16, "window 0 is not a multiple of the grid 16; try 16"),
        (-32, 0, 16, "window -32 is not a multiple of the grid 16; try 16"),
        (64, -1, 16, "overlap -1 .* use 0 to 48"),
        (64, 49, 16, "overlap 49 .* use 0 to 48"),
        (16, 16, 16, "overlap 16 .* use 0 to 0"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(window: int, overlap: int, grid: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Windowing(window, overlap, grid)


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(UsageError, match="0 columns"):
        Windowing(64, 0, 16).tiling(10, 0)
    with pytest.raises(UsageError, match="0 rows"):
        Windowing(64, 0, 16).tiling(0, 10)


def test_an_image_of_another_size_than_the_tiling_is_refused() -> None:
    tiling = Windowing(64, 0, 16).tiling(30, 100)
    with pytest.raises(UsageError, match=r"image of size \(30, 99\) given, the tiling is for \(30, 100\)"):
        split(np.zeros((30, 99)), tiling)
    with pytest.raises(UsageError, match="windows of size"):
        stitch(np.zeros((1, 32, 64)), tiling)
    with pytest.raises(UsageError, match="windows of size"):
        stitch(np.zeros((2, 30, 64)), tiling)


# --- exactness -------------------------------------------------------------------------------------------------------

RECEPTIVE_FIELD = 19  # of `network`: 9 columns on either side, see there
GRID = 4


def convolve(image: np.ndarray, kernel: np.ndarray, bias: int) -> np.ndarray:
    """3 x 3 over (..., P, V), zeros beyond the border; integers, so that equality is exact."""
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(1, 1), (1, 1)])
    rows, columns = image.shape[-2:]
    return bias + sum(kernel[i, j] * padded[..., i : i + rows, j : j + columns] for i in range(3) for j in range(3))


def network(windows: np.ndarray) -> np.ndarray:
    """Labels (N, P, V) by convolution, 4 x 4 pooling, convolution, enlarging, convolution.

    An output column x sees x +- 1 after the last convolution, one pooled column more on either side (at most
    3 + 4 columns) after the one before, and 1 column more after the first: 9 on either side.
    """
    kernel = np.random.default_rng(1).integers(-9, 10, (3, 3, 3))
    x = np.maximum(convolve(windows.astype(np.int64), kernel[0], 5), 0) % 1009
    n, rows, columns = x.shape
    pooled = x.reshape(n, rows // GRID, GRID, columns // GRID, GRID).max(axis=(2, 4))
    deep = np.maximum(convolve(pooled, kernel[1], 7), 0) % 1009
    wide = deep.repeat(GRID, axis=1).repeat(GRID, axis=2)
    return convolve(wide + x, kernel[2], 3) % 5


def tiled(image: np.ndarray, tiling: Tiling, run: Callable[[np.ndarray], np.ndarray] = network) -> np.ndarray:
    return stitch(run(split(image, tiling)), tiling)


def whole(image: np.ndarray) -> np.ndarray:
    columns = -(-image.shape[1] // GRID) * GRID
    return tiled(image, Windowing(columns, 0, GRID).tiling(*image.shape))


def test_the_receptive_field_of_the_network_is_as_stated() -> None:
    image = noise((16, 64))
    reach = 0
    for column in range(24, 40):
        other = image.copy()
        other[:, column] += 101
        changed = np.flatnonzero((whole(other) != whole(image)).any(axis=0))
        reach = max(reach, *np.abs(changed - column))
    assert 2 * reach + 1 == RECEPTIVE_FIELD


@given(st.integers(6, 12), st.integers(0, 3), st.integers(1, 33), COLUMNS)
def test_tiled_equals_whole_where_the_overlap_covers_the_receptive_field(steps: int, extra: int, rows: int, columns: int) -> None:
    rule = Windowing(GRID * steps, min(RECEPTIVE_FIELD + extra, GRID * steps - GRID), GRID)
    image = noise((rows, columns))
    np.testing.assert_array_equal(tiled(image, rule.tiling(rows, columns)), whole(image))


@pytest.mark.parametrize("overlap", [0, 4, 8, 12, 16])
def test_tiled_differs_from_whole_where_the_overlap_is_too_small(overlap: int) -> None:
    image = noise((32, 400))
    # One step per window, so that the overlap is used to the full.
    tiling = Windowing(24, overlap, GRID).tiling(*image.shape)
    assert (tiled(image, tiling) != whole(image)).any()


def test_windows_off_the_grid_differ_from_the_whole() -> None:
    image = noise((32, 128))
    off = Tiling(32, 128, 32, 64, (0, 32 + 1, 64), (0, 48, 80, 128))
    assert (tiled(image, off) != whole(image)).any()


@given(st.randoms(use_true_random=False), st.integers(1, 9))
def test_order_and_batch_size_of_windows_change_nothing(random: object, batch: int) -> None:
    image = noise((20, 190))
    tiling = Windowing(32, 20, GRID).tiling(*image.shape)
    order = list(range(len(tiling.starts)))
    random.shuffle(order)  # type: ignore[attr-defined]

    def in_batches(windows: np.ndarray) -> np.ndarray:
        out = np.empty_like(windows, np.int64)
        for first in range(0, len(order), batch):
            out[order[first : first + batch]] = network(windows[order[first : first + batch]])
        return out

    np.testing.assert_array_equal(tiled(image, tiling, in_batches), whole(image))


# --- row scaling -----------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 60)


@given(SIZES, SIZES, st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]), st.integers(0, 255))
def test_a_constant_image_stays_constant(old: int, new: int, dtype: type, value: int) -> None:
    scaled = resample_rows(np.full((old, 3), value, dtype), new)
    assert scaled.shape == (new, 3)
    assert scaled.dtype == dtype
    np.testing.assert_allclose(scaled, value, rtol=1e-5)


@given(st.integers(1, 20), st.integers(1, 6), st.booleans())
def test_integer_factors_keep_the_mean(rows: int, factor: int, enlarge: bool) -> None:
    old, new = (rows, rows * factor) if enlarge else (rows * factor, rows)
    image = noise((old, 5), np.float32)
    np.testing.assert_allclose(resample_rows(image, new).mean(axis=0), image.mean(axis=0), rtol=1e-4)


@given(st.integers(1, 20), st.integers(1, 6))
def test_reducing_by_an_integer_takes_the_mean_of_each_block(rows: int, factor: int) -> None:
    image = noise((rows * factor, 4), np.float32)
    np.testing.assert_allclose(resample_rows(image, rows), image.reshape(rows, factor, 4).mean(axis=1), rtol=1e-4)


@given(SIZES)
def test_the_same_size_changes_nothing(rows: int) -> None:
    image = noise((rows, 4))
    np.testing.assert_array_equal(resample_rows(image, rows), image)


@given(SIZES, SIZES)
def test_integers_are_rounded_and_stay_in_range(old: int, new: int) -> None:
    image = np.where(noise((old, 6)) > 127, np.uint8(255), np.uint8(0))
    exact = resample_rows(image.astype(np.float64), new)
    assert np.abs(resample_rows(image, new) - exact).max() <= 0.5 + 1e-3


@given(st.integers(2, 60), st.integers(2, 60))
def test_a_depth_measured_in_scaled_rows_comes_back(old: int, new: int) -> None:
    # A ramp says of every scaled row which depth it shows.
    ramp = np.arange(old, dtype=np.float32)[:, None]
    shown = resample_rows(ramp, new)[:, 0]
    back = rows_to_original(np.arange(new, dtype=np.float32), old, new)
    inside = (np.arange(new) > 0) & (back < old - 1)
    # A row covered in part pulls the mean off the centre, by an eighth of a row at most.
    tolerance = 1e-3 if old % new == 0 or new > old else 0.126
    np.testing.assert_allclose(back[inside], shown[inside], atol=tolerance)


@given(st.integers(20, 60), st.floats(0.3, 3), st.floats(0.3, 0.7))
def test_an_edge_is_found_where_it_was_after_scaling_there_and_back(old: int, factor: float, place: float) -> None:
    edge = place * old - 0.5  # rows whose centre lies above it are dark
    image = np.clip(np.arange(old) - edge + 0.5, 0, 1).astype(np.float32)[:, None]
    new = scaled_rows(old, factor)
    scaled = resample_rows(image, new)[:, 0]
    depth = np.array([new - 0.5 - scaled.sum()], np.float32)  # the area below the edge says where it lies
    assert abs(rows_to_original(depth, old, new)[0] - edge) < 0.1


@given(SIZES, SIZES, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_scaling_back_keeps_the_order_and_the_edges_of_the_image(old: int, new: int, shares: list[float]) -> None:
    depth = np.sort(np.array([0, *shares, 1], np.float32)) * new
    back = rows_to_original(depth, old, new)
    assert back.dtype == np.float32
    assert (np.diff(back) >= 0).all()
    assert (back[0], back[-1]) == (0, old)


@given(st.lists(st.lists(st.floats(-2, 14, width=32), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 12))
def test_a_label_is_the_number_of_surfaces_at_or_above_the_row(depths: list[list[float]], rows: int) -> None:
    surfaces = np.sort(np.array(depths, np.float32), axis=0)
    labels = labels_from_surfaces(surfaces, rows)
    assert labels.dtype == np.uint8
    for row in range(rows):
        for column in range(5):
            assert labels[row, column] == sum(float(surface[column]) <= row for surface in surfaces)


def test_only_a_known_spacing_outside_the_range_is_scaled() -> None:
    trained = AxialRange(low=3.0, nominal=3.9, high=4.5)
    assert [trained.factor(um) for um in (None, 3.0, 3.5, 4.5)] == [1, 1, 1, 1]
    assert trained.factor(1.95) == pytest.approx(0.5)
    assert trained.factor(7.8) == pytest.approx(2)


def test_scaled_rows_are_rounded_and_never_none() -> None:
    assert [scaled_rows(*given) for given in ((496, 0.5), (5, 0.5), (7, 0.5), (3, 0.01))] == [248, 2, 4, 1]
