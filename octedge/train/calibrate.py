"""The temperature at which the standard deviations of surfaces (`octedge.spread`) fit a network's errors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.geometry import split, stitch
from octedge.ordered import decode
from octedge.segment import Engine, Plan
from octedge.spread import deviation
from octedge.train.cohort import Example, Set
from octedge.train.labelmaps import same_surfaces

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0)
EVERY = 4  # columns are looked at: neighbours err together, and every column costs
NORMAL = (0.683, 0.954)  # shares of a normal distribution within 1 and 2 standard deviations


@dataclass(frozen=True, slots=True)
class Errors:
    """n graded points of a set's surfaces: which surface (n,), error of the decode in px (n,), deviation in px (T, n) by temperature."""

    surface: NDArray[np.intp]
    error: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def at(self, temperature: float) -> "Errors":
        """With the deviations of one temperature (n,)."""
        return Errors(self.surface, self.error, self.deviation[TEMPERATURES.index(temperature)])

    def of(self, surface: int) -> "Errors":
        """The points of one surface."""
        own = self.surface == surface
        return Errors(self.surface[own], self.error[own], self.deviation[..., own])

    def within(self) -> tuple[float, float]:
        """Shares of the errors within 1 and 2 deviations (n,)."""
        size = np.abs(self.error) / self.deviation
        return float((size < 1).mean()), float((size < 2).mean())


def observe(data: Set, most: int, engine: Engine, how: Callable[[int], Plan], structures: tuple[str, ...]) -> Errors:
    """The errors on up to `most` B-scans of a set, evenly spread (0: all); `how` gives the plan for so many rows."""
    pick, given = same_surfaces(structures, data.groups)
    count = len(data.examples)
    used = data.examples if not most else [data.examples[index * count // min(most, count)] for index in range(min(most, count))]
    parts = list(_points(used, engine, how, pick, given))
    return Errors(*(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))


def _points(
    examples: Iterable[Example], engine: Engine, how: Callable[[int], Plan], pick: list[int], given: list[int]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]]:
    """Surface, error and deviations of the graded points of every B-scan."""
    for example in examples:
        own = how(len(example.image))
        tiling = own.windowing.tiling(*example.image.shape)
        scores = stitch([engine(window[None, None])[0][0] for window in split(example.image, tiling)], tiling)[:, :, ::EVERY]
        error = decode(scores, own.chain)[1][pick] - example.surfaces[given][:, ::EVERY]
        known = np.isfinite(error)
        found = np.stack([deviation(scores, own.chain, temperature)[pick][known] for temperature in TEMPERATURES])
        yield np.broadcast_to(np.array(pick)[:, None], error.shape)[known], error[known], found.astype(np.float64)


def misses(observed: Mapping[str, Errors]) -> dict[float, float]:
    """Temperature -> how far the shares within 1 and 2 deviations are from a normal distribution's, every source weighing the same."""
    found = {}
    for temperature in TEMPERATURES:
        one, two = np.mean([each.at(temperature).within() for each in observed.values()], axis=0)
        found[temperature] = float(abs(one - NORMAL[0]) + abs(two - NORMAL[1]))
    return found


def fitted(observed: Mapping[str, Errors]) -> float:
    """The temperature that comes closest."""
    found = misses(observed)
    return min(found, key=found.__getitem__)
