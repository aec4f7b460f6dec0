"""Where windows lie and how rows are scaled: pure arithmetic, no pixels in a plan.

A `Windowing` is the rule (how wide, how much overlap, which grid); its `tiling(H, W)` is the fact for one size:
equal windows whose starts lie on the grid, each column owned by the window with the nearest centre. `split` and
`stitch` apply a tiling; `stitch(split(x)) == x` for every size. Padding is at the bottom and the right only, so a
pixel keeps its address.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octedge.errors import UsageError


def padded_height(rows: int, grid: int = 1) -> int:
    """The smallest power of two that holds `rows` rows and is a multiple of `grid` (itself a power of two).

    >>> padded_height(496), padded_height(512), padded_height(885), padded_height(3, grid=16)
    (512, 512, 1024, 16)
    """
    if rows < 1:
        raise UsageError(f"a B-scan of {rows} rows cannot be padded; at least 1 row is needed")
    return max(1 << (rows - 1).bit_length(), grid)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Windows for one size: N windows of V columns and P rows over an image of H rows and W columns.

    `starts` (N,) first column of each window; `owned` (N + 1,) the columns `owned[n]:owned[n + 1]` of the image
    come from window n.
    """

    rows: int
    columns: int
    height: int
    window: int
    starts: tuple[int, ...]
    owned: tuple[int, ...]

    @property
    def computed(self) -> float:
        """Redundancy: pixels computed per pixel needed."""
        return len(self.starts) * self.window * self.height / (self.rows * self.columns)


@dataclass(frozen=True, slots=True)
class Windowing:
    """The rule: windows of `window` columns, neighbours share at least `overlap` columns, starts on multiples of `grid`.

    `grid` is 2^downs of the network; `window` is a multiple of it. Raises `UsageError` if the rule cannot be kept.
    """

    window: int
    overlap: int
    grid: int

    def __post_init__(self) -> None:
        if self.grid < 1 or self.grid & (self.grid - 1):
            raise UsageError(f"grid {self.grid} is not a power of two; use 2^downs of the network")
        if self.window < self.grid or self.window % self.grid:
            wider = -(-max(self.window, 1) // self.grid) * self.grid
            raise UsageError(f"window {self.window} is not a multiple of the grid {self.grid}; try {wider}")
        if not 0 <= self.overlap <= self.window - self.grid:
            raise UsageError(
                f"overlap {self.overlap} does not fit a window of {self.window} columns that steps by at least {self.grid};"
                f" use 0 to {self.window - self.grid}"
            )

    def tiling(self, rows: int, columns: int) -> Tiling:
        """The windows for an image of `rows` x `columns`; as few as the rule allows, evenly spread.

        An image narrower than one window gets one window of its own width, rounded up to the grid.
        """
        return _tiling(self, rows, columns)


@lru_cache(maxsize=256)
def _tiling(rule: Windowing, rows: int, columns: int) -> Tiling:
    if columns < 1:
        raise UsageError(f"a B-scan of {columns} columns cannot be tiled; at least 1 column is needed")
    grid = rule.grid
    total = -(-columns // grid)  # in grid steps, as are window, slack and step
    window = min(rule.window // grid, total)
    slack = total - window
    step = (rule.window - rule.overlap) // grid
    gaps = -(-slack // step)
    starts = tuple(n * slack // max(gaps, 1) * grid for n in range(gaps + 1))
    # The border between two owners lies halfway between their centres; a column exactly there goes to the right one.
    borders = tuple((left + right + window * grid) // 2 for left, right in pairwise(starts))
    return Tiling(rows, columns, padded_height(rows, grid), window * grid, starts, (0, *borders, columns))


def split(image: NDArray[Any], tiling: Tiling) -> NDArray[Any]:
    """Cut (..., H, W) into windows (N, ..., P, V), padded with zeros at the bottom and the right."""
    _expect(image.shape[-2:], (tiling.rows, tiling.columns), "image")
    windows = np.zeros((len(tiling.starts), *image.shape[:-2], tiling.height, tiling.window), image.dtype)
    for window, start in zip(windows, tiling.starts, strict=True):
        part = image[..., start : start + tiling.window]
        window[..., : tiling.rows, : part.shape[-1]] = part
    return windows


def stitch(windows: Sequence[NDArray[Any]] | NDArray[Any], tiling: Tiling) -> NDArray[Any]:
    """Put windows (N, ..., P, V) back together as (..., H, W): each column from the window that owns it."""
    _expect((len(windows), *windows[0].shape[-2:]), (len(tiling.starts), tiling.height, tiling.window), "windows")
    parts = [
        window[..., : tiling.rows, first - start : last - start]
        for window, start, (first, last) in zip(windows, tiling.starts, pairwise(tiling.owned), strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _expect(got: tuple[int, ...], needed: tuple[int, ...], what: str) -> None:
    if got != needed:
        raise UsageError(f"{what} of size {got} given, the tiling is for {needed}; make a tiling for this size")


@dataclass(frozen=True, slots=True)
class AxialRange:
    """The row spacings a network was trained for, in um per px: from `low` to `high`, most at `nominal`."""

    low: float
    nominal: float
    high: float

    def factor(self, axial_um: float | None) -> float:
        """By which the rows must be scaled: 1 inside the range or for unknown spacing, else `axial_um / nominal`."""
        if axial_um is None or self.low <= axial_um <= self.high:
            return 1.0
        return axial_um / self.nominal


def scaled_rows(rows: int, factor: float) -> int:
    """The number of rows after scaling by `factor`, at least 1."""
    return max(1, round(rows * factor))


def resample_rows(image: NDArray[Any], rows: int) -> NDArray[Any]:
    """Scale (H, W) to (`rows`, W), same type: the mean over the old rows that a new row covers, linear between rows when enlarging."""
    old = len(image)
    if rows == old:
        return image
    scaled = _covered(image, rows) if rows < old else _between(image, rows)
    rounded: NDArray[Any] = np.rint(scaled) if np.issubdtype(image.dtype, np.integer) else scaled
    return rounded.astype(image.dtype, copy=False)


def _covered(image: NDArray[Any], rows: int) -> NDArray[np.floating]:
    """The mean over the rows that each of fewer rows covers: differences of the running sum, whatever the factor."""
    old = len(image)
    sums = np.zeros((old + 1, *image.shape[1:]))
    np.cumsum(image, axis=0, out=sums[1:])
    edges = np.arange(rows + 1) * (old / rows)
    above = np.minimum(edges.astype(np.intp), old - 1)
    sums = sums[above] + (edges - above)[:, None] * image[above]
    return np.asarray(np.diff(sums, axis=0) * (rows / old))


def _between(image: NDArray[Any], rows: int) -> NDArray[np.floating]:
    """More rows, each between the two nearest; the nearest alone at the border."""
    old = len(image)
    centre = np.clip((np.arange(rows) + 0.5) * old / rows - 0.5, 0, old - 1)
    above = np.minimum(centre.astype(np.intp), max(old - 2, 0))
    part = (centre - above).astype(np.float32)[:, None]
    image = image.astype(np.float32, copy=False)
    return np.asarray(image[above] * (1 - part) + image[np.minimum(above + 1, old - 1)] * part)


def rows_to_original(depth: NDArray[np.floating], old: int, new: int) -> NDArray[np.float32]:
    """Map depths measured in the `new` scaled rows back to the `old` ones; row centres are integers, 0 and H stay the edges."""
    back = (depth + 0.5) * (old / new) - 0.5
    back = np.where(depth <= 0, 0, np.where(depth >= new, old, np.clip(back, 0, old)))
    return np.asarray(back, np.float32)


def labels_from_surfaces(surfaces: NDArray[np.floating], rows: int) -> NDArray[np.uint8]:
    """Labels (H, W): the number of surfaces (L, W) at or above each row's centre."""
    depth = np.arange(rows, dtype=np.float32)[:, None]
    labels = np.zeros((rows, surfaces.shape[1]), np.uint8)
    for surface in surfaces:
        labels += surface <= depth
    return labels
