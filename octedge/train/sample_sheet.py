"""A sheet of samples, to look at before training: what the networks will see, and what it is labelled."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from octedge.anatomy import members, structure
from octedge.metrics import IGNORED
from octedge.results.overlay import wrap
from octedge.train.cohort import Split
from octedge.train.recipe import Recipe
from octedge.train.sampling import Sample, Sampler, second_set

_TINT = 0.45  # opacity of the reference
_ROW, _GAP = 14, 6
_ACROSS = 4  # samples side by side, each beside its reference


def sheet(recipe: Recipe, split: Split, seed: int = 1, batches: int = 2) -> Image.Image:
    """First a window of every source's second validation set, as it is; then the first `batches` of training, with what was done to each.

    Every sample stands twice: as the network sees it, and tinted with its reference; what nobody graded is hatched.
    """
    sampler = Sampler(split.train, recipe, seed)
    groups = {each.name: each.groups for each in (*split.train, *split.validation)}
    cells = []
    for number, each in enumerate(split.validation):
        found = second_set(number, each, recipe.sampling)
        if found:
            cells.append(_cell(found[len(found) // 2], groups[each.name], f"{each.name}, validation"))
    for step in range(batches):
        for sample in sampler.samples(step):
            name = sampler.sets[sample.source].name
            cells.append(_cell(sample, groups[name], name))
    return _grid(cells)


def _cell(sample: Sample, groups: tuple[str, ...], title: str) -> Image.Image:
    """The sample, the same with its reference, and below both where it comes from and what was done."""
    rows, columns = sample.image.shape
    lines = [title, *wrap(", ".join(sample.changes) or "as it is", 2 * columns, _font())]
    cell = Image.new("RGB", (2 * columns + 2, rows + _ROW * len(lines) + _GAP), (18, 18, 20))
    cell.paste(Image.fromarray(sample.image), (0, 0))
    cell.paste(Image.fromarray(tinted(sample, groups)), (columns + 2, 0))
    pen = ImageDraw.Draw(cell)
    for number, text in enumerate(lines):
        pen.text((2, rows + 1 + number * _ROW), text, (235, 235, 235) if number == 0 else (165, 165, 165), _font())
    return cell


def tinted(sample: Sample, groups: tuple[str, ...]) -> NDArray[np.uint8]:
    """RGB (P, V, 3): the image under the colours of the groups, hatched where the reference is ignored."""
    colours = np.full((256, 3), 90.0, np.float32)
    colours[: len(groups)] = [structure(members(group)[0]).colour for group in groups]
    row, column = np.indices(sample.image.shape)
    hatched = (sample.reference == IGNORED) & ((row + column) % 8 > 0)
    opacity = np.where(hatched, 0, _TINT).astype(np.float32)[:, :, None]
    grey = sample.image[:, :, None].astype(np.float32)
    return np.rint(grey + opacity * (colours[sample.reference] - grey)).astype(np.uint8)


def _grid(cells: list[Image.Image]) -> Image.Image:
    """Cells left to right, top to bottom; rows as high as their highest."""
    rows = [cells[first : first + _ACROSS] for first in range(0, len(cells), _ACROSS)]
    heights = [max(cell.height for cell in row) for row in rows]
    width = max(cell.width for cell in cells)
    picture = Image.new("RGB", (min(_ACROSS, len(cells)) * (width + _GAP), sum(heights) + _GAP * len(rows)), (18, 18, 20))
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for number, cell in enumerate(row):
            picture.paste(cell, (number * (width + _GAP), top))
        top += height + _GAP
    return picture


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=11)
