"""The report's tables: numbers of `scores.json` and the confusion matrix, and how numbers, names and shades are written."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import KEYS, members, structure
from octedge.train.validate import Scores, SetScores

Colour = tuple[int, int, int]
BLUE: Colour = (0, 84, 140)
ORANGE: Colour = (213, 94, 0)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """IoU by structure group (rows, top to bottom of the eye) and source or vendor (columns); None where not annotated."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]


def heat_map(scores: Scores) -> HeatMap:
    """Sources first; then every vendor of several sources, the pixels of all its sources added up."""
    vendors: dict[str, list[str]] = {}
    for name, each in scores.sets.items():
        vendors.setdefault(each.vendor, []).append(name)
    several = {vendor: names for vendor, names in vendors.items() if len(names) > 1}
    columns = [(name, each.vendor) for name, each in scores.sets.items()] + [(vendor, "all its sources") for vendor in several]
    parts = [[name] for name in scores.sets] + list(several.values())
    found = {group for each in scores.sets.values() for group in each.groups}
    groups = sorted(found, key=lambda group: [KEYS.index(key) for key in members(group)])
    rows = [(group, tuple(_pooled(scores, names, group) for names in parts)) for group in groups]
    return HeatMap(tuple(columns), tuple(row for row in rows if any(value is not None for value in row[1])))


def _pooled(scores: Scores, names: Iterable[str], group: str) -> float | None:
    sets = [scores.sets[name] for name in names if group in scores.sets[name].groups]
    if not sets:
        return None
    counts = [(each.groups.index(group), each.overlaps()) for each in sets]
    shared = sum(int(each.shared[at]) for at, each in counts)
    either = sum(int(each.predicted[at] + each.reference[at] - each.shared[at]) for at, each in counts)
    return shared / either if either else None


@dataclass(frozen=True, slots=True)
class BoundaryRow:
    """A boundary's errors in px over all graded columns: mean of the absolute, mean of the signed (above 0: too deep)."""

    name: str
    mean: float
    bias: float
    columns: int


def boundary_rows(scores: SetScores) -> list[BoundaryRow]:
    """The boundaries that were graded, top to bottom."""
    found = scores.distances()
    rows = zip(scores.boundaries, found.mean.tolist(), found.bias.tolist(), found.columns.tolist(), strict=True)
    return [BoundaryRow(*row) for row in rows if row[3]]


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """A reference group at place `own`: its pixels, and the shares of them in every predicted group and in none of them."""

    group: str
    own: int
    pixels: int
    shares: tuple[float, ...]


def confusion_rows(groups: tuple[str, ...], pixels: NDArray[np.int64]) -> list[ConfusionRow]:
    """The rows of the confusion matrix (G, G + 1) that occur."""
    sums = pixels.sum(axis=1)
    shares = pixels / np.maximum(sums, 1)[:, None]
    return [ConfusionRow(group, row, int(sums[row]), tuple(shares[row].tolist())) for row, group in enumerate(groups) if sums[row]]


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number for people; a dash where there is none.

    >>> number(0.98765), number(-0.5, 1, True), number(None)
    ('0.988', '\N{MINUS SIGN}0.5', '\N{EN DASH}')
    """
    if value is None or value != value:
        return "\N{EN DASH}"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def words(group: str) -> str:
    """A structure's name; capital short names where a group merges several.

    >>> words("nfl"), words("gcl+ipl")
    ('nerve fibre layer', 'GCL + IPL')
    """
    parts = members(group)
    return structure(group).name if len(parts) == 1 else " + ".join(key.upper() if len(key) < 5 else key for key in parts)


def shade(value: float, colour: Colour) -> str:
    """CSS for a table cell: white at 0, `colour` at 1, and the text colour that stands out from it."""
    red, green, blue = (round(255 + (part - 255) * min(max(value, 0.0), 1.0)) for part in colour)
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    return f"background:#{red:02x}{green:02x}{blue:02x};color:{'#fff' if dark else '#1f2a33'}"
