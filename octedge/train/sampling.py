"""Windows to train on: the second training set, and what is done to its samples.

A fixed-width window slides along each B-scan's width with a stride below its width; samples are windows of that list,
scaled, tilted, flipped and re-lit as other devices would show them, then padded at the bottom to a power of two.
Batch `k` depends on the seed and `k` alone, so a run can be resumed anywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import RETINA, members
from octedge.geometry import resample_rows
from octedge.metrics import IGNORED
from octedge.train.cohort import Example, Set
from octedge.train.labelmaps import merge_table
from octedge.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Batch:
    """images uint8 (N, 1, P, V), reference uint8 (N, P, V) group indices or IGNORED, tables float32 (N, G, C)."""

    images: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    tables: NDArray[np.float32]


def windows(examples: tuple[Example, ...], window: int, stride: int) -> tuple[tuple[int, int], ...]:
    """The second set: (B-scan, first column) of every window; the last one ends at the image's edge."""
    found = []
    for index, example in enumerate(examples):
        last = max(0, example.image.shape[1] - window)
        found += [(index, start) for start in [*range(0, last, stride), last]]
    return tuple(found)


class Sampler:
    """Draws batches from the sets of a split: a source by its share, then any of its windows, all equally likely."""

    def __init__(self, sets: tuple[Set, ...], recipe: Recipe, seed: int) -> None:
        structures, sampling = recipe.structures, recipe.sampling
        self.sets = tuple(each for each in sets if each.examples and each.share > 0)
        self.sampling = sampling
        self.seed = seed
        self.finish = recipe.finish
        self.finish_from = round(recipe.steps * recipe.finish.after)
        self.windows = [windows(each.examples, sampling.window, sampling.stride) for each in self.sets]
        self.shares = [each.share for each in self.sets]
        self.last_shares = [recipe.finish.shares.get(each.name, each.share) for each in self.sets]
        most = max(len(each.groups) for each in self.sets)
        merges = [merge_table(structures, each.groups) for each in self.sets]
        self.tables = [np.pad(table, ((0, most - len(table)), (0, 0))) for table in merges]
        self.retina = [np.array([members(group)[0] in RETINA for group in each.groups] + [False]) for each in self.sets]

    def batch(self, step: int) -> Batch:
        """The samples of one step."""
        rng = np.random.default_rng((self.seed, step))
        height = int(rng.choice(self.sampling.heights))
        count = max(1, self.sampling.pixels // (height * self.sampling.window))
        # Sources by systematic draw: every batch holds each source as nearly as can be in its share.
        last = step >= self.finish_from
        edges = np.cumsum(self.last_shares if last else self.shares)
        points = (rng.random() + np.arange(count)) / count * edges[-1]
        chosen = np.searchsorted(edges, points).clip(0, len(self.sets) - 1)
        plain = self.finish.plain if last else self.sampling.plain
        samples = [self._sample(int(source), height, rng, changed=bool(rng.random() >= plain)) for source in chosen]
        images, references = zip(*samples, strict=True)
        return Batch(np.stack(images)[:, None], np.stack(references), np.stack([self.tables[source] for source in chosen]))

    def _sample(self, source: int, height: int, rng: np.random.Generator, changed: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        index, start = self.windows[source][rng.integers(len(self.windows[source]))]
        example = self.sets[source].examples[index]
        retina = self.retina[source]
        width = self.sampling.window
        changed = changed and self.sampling.augment
        if changed:
            image, reference = _tilt(*_rescale(example, start, width, rng), rng)
        else:
            image, reference = example.image[:, start : start + width], example.reference[:, start : start + width]
        if self.sampling.augment and rng.random() < 0.5:
            image, reference = image[:, ::-1], reference[:, ::-1]
        image, reference = _place(image, reference, retina, (height, width), rng)
        return relight(image, rng) if changed and rng.random() < 0.7 else image, reference


def _rescale(example: Example, start: int, width: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Rows by 2^U(-0.9, 1.1) and columns by 2^U(-0.9, 0.9) in 60 % of the samples: other depths per row, other ranges."""
    scaled = rng.random() < 0.6
    rows_by = 2 ** rng.uniform(-0.9, 1.1) if scaled else 1.0
    columns_by = 2 ** rng.uniform(-0.9, 0.9) if scaled else 1.0
    take = min(example.image.shape[1], round(width / columns_by))
    first = int(np.clip(start + (width - take) // 2 + rng.integers(-16, 17), 0, example.image.shape[1] - take))
    image, reference = example.image[:, first : first + take], example.reference[:, first : first + take]
    rows, columns = max(16, round(len(image) * rows_by)), min(width, max(16, round(take * columns_by)))
    row = ((np.arange(rows) + 0.5) * len(image) / rows).astype(int)
    column = ((np.arange(columns) + 0.5) * take / columns).astype(int)
    image = resample_rows(resample_rows(image, rows).T, columns).T
    return image, reference[row[:, None], column]


def _tilt(image: NDArray[np.uint8], reference: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Shear by up to 40 rows over the window and bend by up to 12, in half of the samples; rows from outside are black and ignored."""
    if rng.random() < 0.5:
        return image, reference
    rows, columns = image.shape
    along = np.linspace(-0.5, 0.5, columns)
    bend = rng.uniform(0, 12) * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * along + rng.random()))
    shift = np.rint(along * rng.uniform(-40, 40) + bend).astype(int)
    row = np.arange(rows)[:, None] + shift
    outside = (row < 0) | (row >= rows)
    row = row.clip(0, rows - 1)
    column = np.arange(columns)
    return np.where(outside, 0, image[row, column]).astype(np.uint8), np.where(outside, IGNORED, reference[row, column]).astype(np.uint8)


def _place(
    image: NDArray[np.uint8], reference: NDArray[np.uint8], retina: NDArray[np.bool_], size: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cut to at most `height` rows with the retina inside where it fits, pad the rest at the bottom and the right."""
    height, width = size
    rows = len(image)
    inside = np.flatnonzero(retina[np.minimum(reference, len(retina) - 1)].any(axis=1))
    top, bottom = (int(inside[0]), int(inside[-1])) if len(inside) else (0, rows)
    if rows > height:
        low, high = max(0, min(bottom + 12 - height, rows - height)), min(max(0, top - 12), rows - height)
        first = int(rng.integers(min(low, high), max(low, high) + 1))
    else:  # a shallower range: cut off some of the vitreous now and then
        first = int(rng.integers(0, max(1, top - 12))) if rng.random() < 0.3 else 0
    image, reference = image[first : first + height], reference[first : first + height]
    out, target = np.zeros((height, width), np.uint8), np.full((height, width), IGNORED, np.uint8)
    out[: len(image), : image.shape[1]] = image
    target[: len(image), : image.shape[1]] = reference
    return out, target


def relight(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, gamma, speckle, gain, offset, noise, a shadow: the same tissue on another device. Padding (black) stays black."""
    x: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
    filled = image.any(axis=1)
    if rng.random() < 0.3:
        x = _blur(x, rng.uniform(0.4, 1.5))
    x = x ** np.float32(np.exp(rng.uniform(np.log(0.5), np.log(1.8))))
    if rng.random() < 0.5:
        looks = rng.uniform(2, 16)
        speckle = rng.standard_gamma(np.float32(looks), x.shape, dtype=np.float32) / np.float32(looks)
        x = x * _smooth_noise(speckle, rng)
    x = x * np.float32(rng.uniform(0.5, 1.4)) + np.float32(rng.uniform(-0.05, 0.2))
    if rng.random() < 0.5:
        x = x + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.06))
    if rng.random() < 0.2:
        span = int(rng.integers(3, 21))
        first = int(rng.integers(0, max(1, x.shape[1] - span)))
        x[:, first : first + span] *= np.float32(rng.uniform(0.2, 0.8))
    x[~filled] = 0
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def _smooth_noise(noise: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Speckle has the size of the device's focus, not of a pixel: half of the time it is a little blurred."""
    return _blur(noise, rng.uniform(0.4, 0.9)) if rng.random() < 0.5 else noise


def _blur(x: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur, separable, edges repeated."""
    reach = int(np.ceil(2.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(x, reach, mode="edge")
    rows, columns = x.shape
    down = np.zeros((rows, padded.shape[1]), np.float32)
    for index, weight in enumerate(kernel):
        down += weight * padded[index : index + rows]
    out = np.zeros_like(x)
    for index, weight in enumerate(kernel):
        out += weight * down[:, index : index + columns]
    return out
