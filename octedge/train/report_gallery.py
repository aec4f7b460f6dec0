"""The B-scans that went worst, as pictures: the reference's boundaries beside the predicted ones."""

import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from octedge.anatomy import is_ordered, members, structure
from octedge.results.overlay import View, draw
from octedge.scan import Frame, Spacing
from octedge.segment import About
from octedge.train.cohort import Set
from octedge.train.evidence import Evidence, Seen, look_at
from octedge.train.report_plots import data_uri
from octedge.train.report_tables import words
from octedge.train.validate import Decoder

MOST = 20
WIDE, HIGH = 640, 420  # pixels a picture may have: twenty pairs of them stay below 4 MB
MARGIN = 24  # rows shown above and below the retina


@dataclass(frozen=True, slots=True)
class Item:
    """One B-scan of the gallery, named by its source and running numbers alone."""

    source: str
    number: int
    of: int
    patient: int
    dice: float
    reference: str
    predicted: str


def gallery(decoder: Decoder, structures: tuple[str, ...], sources: tuple[Evidence, ...]) -> list[Item]:
    """The worst B-scans of all sources by mean Dice over their layers, worst first."""
    ranked = sorted((float(each.dice[at]), index, at) for index, each in enumerate(sources) for at in each.worst())
    items = []
    for dice, index, at in ranked[:MOST]:
        data = sources[index].data
        seen = next(look_at(decoder, structures, replace(data, examples=data.examples[at : at + 1])))
        patient = data.patients.index(seen.example.patient) + 1
        items.append(Item(data.name, at + 1, len(data.examples), patient, dice, *pictures(seen, data)))
    return items


def pictures(seen: Seen, data: Set) -> tuple[str, str]:
    """Reference and prediction drawn into the same part of the B-scan, as data URIs."""
    given, image = seen.example, seen.example.image
    rows = _rows(np.concatenate([given.surfaces, seen.surfaces]), len(image))
    both = ((given.reference, given.surfaces), (seen.predicted, seen.surfaces))
    reference, predicted = (_picture(image[rows], labels[rows], surfaces - rows.start, data.groups) for labels, surfaces in both)
    return reference, predicted


def legend(data: Set) -> list[tuple[str, str]]:
    """CSS colour and name of every group whose upper boundary, or area, is drawn."""
    first = next(group for group in data.groups if is_ordered(group))
    return [("rgb({}, {}, {})".format(*structure(members(group)[0]).colour), words(group)) for group in data.groups if group != first]


def _rows(surfaces: NDArray[np.float64], rows: int) -> slice:
    """The rows that hold the boundaries, and a margin."""
    inside = surfaces[np.isfinite(surfaces) & (surfaces > 0) & (surfaces < rows - 1)]
    if not inside.size:
        return slice(0, rows)
    return slice(max(int(inside.min()) - MARGIN, 0), min(int(inside.max()) + MARGIN, rows))


def _picture(frame: Frame, labels: NDArray[np.uint8], surfaces: NDArray[np.float64], groups: tuple[str, ...]) -> str:
    """B-scan (H, W) with labels and boundaries in groups: every `step`-th column and row, so that it fits."""
    step = max(-(-frame.shape[1] // WIDE), -(-frame.shape[0] // HIGH))
    height, width = (size // step for size in frame.shape)
    small = frame[: height * step, : width * step].reshape(height, step, width, step).mean(axis=(1, 3)).round().astype(np.uint8)
    middle = slice(step // 2, width * step, step)
    lines = (fill(surfaces[:, middle], len(frame)) + 0.5) / step - 0.5
    marked = labels[step // 2 : height * step : step, middle]
    view = View(About("", 1, groups, (), Spacing(), "", ""), 0, marked, lines.astype(np.float32))
    file = io.BytesIO()
    Image.fromarray(draw(small, view, 2 if width * 2 <= WIDE else 1)).save(file, "WEBP", quality=78, method=4)
    return data_uri(file.getvalue(), "image/webp")


def fill(surfaces: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Where a boundary is missing (NaN) the next deeper one, or the end of the picture, takes its place: nothing is drawn there.

    >>> fill(np.array([[2.0, np.nan], [5.0, 7.0], [np.nan, 8.0]]), 10)
    array([[ 2.,  7.],
           [ 5.,  7.],
           [10.,  8.]])
    """
    out = np.where(np.isfinite(surfaces), surfaces, np.inf)
    return np.minimum(np.minimum.accumulate(out[::-1], axis=0)[::-1], rows)
