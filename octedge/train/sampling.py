"""Windows to train on: the second sets, and what is done to their samples.

A fixed-width window slides along each B-scan's width with a stride below its width; a sample is a window of that list,
padded at the bottom to a power of two. Samples of the training set are also scaled, bent, flipped and re-lit as other
devices would show them, see `augment`. Batch `k` depends on the seed and `k` alone, so a run can be resumed anywhere.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import RETINA, members
from octedge.geometry import padded_height
from octedge.train.augment import Rng, cut, lowered, motion, relit, scale, scaled, shifts
from octedge.train.cohort import Example, Set
from octedge.train.labelmaps import merge_table
from octedge.train.recipe import Recipe, Sampling

Bytes = NDArray[np.uint8]
# Pixels of a group below which a window does not count as holding it: a speck that scaling may lose.
_ENOUGH = 50
_VITREOUS = 8  # rows of it that are enough to be mirrored


@dataclass(frozen=True, slots=True)
class Batch:
    """images uint8 (N, 1, P, V), reference uint8 (N, P, V) group indices or IGNORED, tables float32 (N, G, C)."""

    images: Bytes
    reference: Bytes
    tables: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """image and reference uint8 (P, V), the number of its set, and the names of the changes it has undergone."""

    image: Bytes
    reference: Bytes
    source: int
    changes: tuple[str, ...] = ()


def windows(examples: tuple[Example, ...], window: int, stride: int) -> tuple[tuple[int, int], ...]:
    """(B-scan, first column) of every window over a first set, training or validation; the last one ends at the image's edge."""
    found = []
    for index, example in enumerate(examples):
        last = max(0, example.image.shape[1] - window)
        found += [(index, start) for start in [*range(0, last, stride), last]]
    return tuple(found)


def second_set(number: int, data: Set, sampling: Sampling) -> list[Sample]:
    """Every window of a set as it is, padded at the bottom to the power of two that holds its B-scan: the second validation set."""
    found = []
    for index, start in windows(data.examples, sampling.window, sampling.stride):
        image, reference = _between(data.examples[index], start, sampling.window)
        size = padded_height(len(image)), sampling.window
        image, reference, _ = cut(image, reference, np.zeros(image.shape[1], np.intp), 0, size)
        found.append(Sample(image, reference, number))
    return found


class Sampler:
    """Draws batches from the sets of a split: a source by its share, then any of its windows, all equally likely.

    A share `rare` of the samples is drawn otherwise: a group of the source, then any window that holds it. A group is
    the likelier the fewer pixels it has and the more windows lack it; what every window holds is not rare.
    """

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
        self.retina = [_retina(each.groups) for each in self.sets]
        pairs = zip(self.sets, self.windows, strict=True)
        self.rare = [rarity(held(each, places, sampling.window)) for each, places in pairs] if sampling.rare else []

    def batch(self, step: int) -> Batch:
        """The samples of one step."""
        drawn = self.samples(step)
        images, references = np.stack([each.image for each in drawn]), np.stack([each.reference for each in drawn])
        return Batch(images[:, None], references, np.stack([self.tables[each.source] for each in drawn]))

    def samples(self, step: int) -> list[Sample]:
        """The same, one by one, with what was done to each."""
        rng = np.random.default_rng((self.seed, step))
        height = int(rng.choice(self.sampling.heights))
        count = max(1, self.sampling.pixels // (height * self.sampling.window))
        # Sources by systematic draw: every batch holds each source as nearly as can be in its share.
        last = step >= self.finish_from
        edges = np.cumsum(self.last_shares if last else self.shares)
        points = (rng.random() + np.arange(count)) / count * edges[-1]
        chosen = np.searchsorted(edges, points, side="right").clip(0, len(self.sets) - 1)
        plain = self.finish.plain if last else self.sampling.plain
        return [self._sample(int(source), height, rng, changed=bool(rng.random() >= plain)) for source in chosen]

    def _sample(self, source: int, height: int, rng: Rng, changed: bool) -> Sample:
        index, start, focus = self._window(source, rng)
        example = self.sets[source].examples[index]
        width, strength, augment = self.sampling.window, self.sampling.strength, self.sampling.augment
        changed = changed and augment
        changes: tuple[str, ...] = ()
        if changed and rng.random() < 0.6:
            (image, reference), changes = _rescaled(example, (start, focus), width, rng, strength), ("scaled",)
        else:
            image, reference = _between(example, start, width)
        if augment and rng.random() < 0.5:
            image, reference, changes = image[:, ::-1], reference[:, ::-1], (*changes, "flipped")
        if changed and self.sampling.lowered and rng.random() < self.sampling.lowered:
            above = int(self.retina[source][reference].any(axis=1).argmax())  # 0 as well where there is no retina
            if above >= _VITREOUS:
                image, reference = lowered(image, reference, above, int(rng.integers(1, height // 2 + 1)))
                changes = (*changes, lowered.__name__)
        shift = np.zeros(image.shape[1], np.intp)
        for move, chance in ((shifts, 0.5), (motion, 0.08)):
            if changed and rng.random() < chance:
                shift += move(len(shift), rng, strength)
                changes = (*changes, move.__name__)
        first = _first_row(reference, self.retina[source], shift, height, rng)
        image, reference, filled = cut(image, reference, shift, first, (height, width))
        if changed and rng.random() < 0.7:
            image, looks = relit(image, filled, rng, strength)
            changes += looks
        return Sample(image, reference, source, changes)

    def _window(self, source: int, rng: Rng) -> tuple[int, int, int]:
        """B-scan, first column, and the column to keep in sight: the middle, or one that holds the rare group drawn."""
        places, width = self.windows[source], self.sampling.window
        if self.rare and rng.random() < self.sampling.rare and (weights := self.rare[source].weights).any():
            group = int(rng.choice(len(weights), p=weights))
            index, start = places[rng.choice(self.rare[source].holders[group])]
            columns = (self.sets[source].examples[index].reference[:, start : start + width] == group).any(axis=0)
            return index, start, start + int(rng.choice(np.flatnonzero(columns)))
        index, start = places[rng.integers(len(places))]
        return index, start, start + width // 2


@dataclass(frozen=True, slots=True)
class Rarity:
    """Of one source: the chance of each group (G,) in a draw for what is rare, all 0 where nothing is, and the windows that hold it."""

    weights: NDArray[np.float64]
    holders: tuple[NDArray[np.intp], ...]


def held(data: Set, places: tuple[tuple[int, int], ...], width: int) -> NDArray[np.int64]:
    """How many pixels of each group every window holds: (windows, G)."""
    sums = []
    for example in data.examples:
        columns = example.reference.shape[1]
        where = example.reference + np.arange(columns, dtype=np.int32) * 256
        counts = np.bincount(where.ravel(), minlength=256 * columns).reshape(columns, 256)[:, : len(data.groups)]
        sums.append(np.concatenate([np.zeros_like(counts[:1]), np.cumsum(counts, axis=0)]))
    return np.stack([sums[index][min(start + width, len(sums[index]) - 1)] - sums[index][start] for index, start in places])


def rarity(pixels: NDArray[np.int64]) -> Rarity:
    """Chances by inverse pixel frequency, times the share of windows without the group."""
    holds = pixels >= _ENOUGH
    lacking = 1 - holds.mean(axis=0)
    weights = np.where(holds.any(axis=0), lacking / np.maximum(pixels.sum(axis=0), 1), 0)
    return Rarity(weights / (weights.sum() or 1), tuple(np.flatnonzero(column) for column in holds.T))


def _retina(groups: tuple[str, ...]) -> NDArray[np.bool_]:
    """Whether a reference value (256,) is a layer of the retina."""
    found = np.zeros(256, np.bool_)
    found[: len(groups)] = [members(group)[0] in RETINA for group in groups]
    return found


def _between(example: Example, start: int, width: int) -> tuple[Bytes, Bytes]:
    return example.image[:, start : start + width], example.reference[:, start : start + width]


def _rescaled(example: Example, at: tuple[int, int], width: int, rng: Rng, strength: float) -> tuple[Bytes, Bytes]:
    """About the window that starts `at` a column, scaled; where less of the scan than a window is shown, the other column is in it."""
    by = scale(rng, strength)
    start, focus = at
    take = min(example.image.shape[1], round(width / by.columns))
    middle = start + width // 2 + int(rng.integers(-16, 17))
    if take < width:
        middle = int(np.clip(middle, focus - take // 3, focus + take // 3))
    first = int(np.clip(middle - take // 2, 0, example.image.shape[1] - take))
    image, reference = _between(example, first, take)
    return scaled(image, reference, (max(16, round(len(image) * by.rows)), min(width, max(16, round(take * by.columns)))))


def _first_row(reference: Bytes, retina: NDArray[np.bool_], shift: NDArray[np.intp], height: int, rng: Rng) -> int:
    """The top row of a sample of at most `height` rows: with the retina inside where it fits, elsewhere at random."""
    rows = len(reference)
    inside = retina[reference]
    graded = inside.any(axis=0)
    top, bottom = 0, rows
    if graded.any():
        top = int((inside.argmax(axis=0) - shift)[graded].min())
        bottom = int((rows - 1 - inside[::-1].argmax(axis=0) - shift)[graded].max())
    if rows > height:
        low, high = max(0, min(bottom + 12 - height, rows - height)), min(max(0, top - 12), rows - height)
        return int(rng.integers(min(low, high), max(low, high) + 1))
    # A shallower range: cut off some of the vitreous now and then. A column shifted up beyond the top brings its own rows along.
    return int(rng.integers(0, max(1, top - 12))) if rng.random() < 0.3 else min(0, max(top, bottom - height + 1))
