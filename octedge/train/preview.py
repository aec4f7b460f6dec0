"""Pictures of a source with its labels, and the data sheet of a cohort: which source separates, merges or lacks what."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from octedge.anatomy import KEYS, members, structure
from octedge.train.annotations import Example
from octedge.train.cohort import Set, load_whole
from octedge.train.manifest import AnySource, Phantoms

_TINT = 0.5
_PAD, _LINE, _FONT = 12, 22, 15
_BACK, _TEXT, _DIM = (18, 18, 20), (235, 235, 235), (165, 165, 165)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A source, all its B-scans, and the pixels (G,) of each of its groups."""

    source: AnySource
    whole: Set
    pixels: NDArray[np.int64]


def sheets(sources: tuple[AnySource, ...], data: Path) -> Iterator[Sheet]:
    """Every source, read whole, one after the other.

    Raises `UsageError` or `ScanError` where it cannot be read.
    """
    for source in sources:
        whole = load_whole(source, data)
        pixels = sum((np.bincount(each.reference.ravel(), minlength=256) for each in whole.examples), np.zeros(256, np.int64))
        yield Sheet(source, whole, pixels[: len(whole.groups)])


def picture(whole: Set, count: int = 3) -> Image.Image:
    """A few B-scans of different patients, each beside itself with its labels in the anatomy's colours, and their names."""
    chosen = _chosen(whole.examples, count)
    font = ImageFont.load_default(size=_FONT)
    rows = [_pair(example, whole.groups) for example in chosen]
    height = sum(len(row) + _LINE + _PAD for row in rows) + _LINE + _PAD
    legend = max(int(font.getlength(group)) for group in (*whole.groups, "not graded")) + 60
    wide = max(row.shape[1] for row in rows)
    size = (wide + 3 * _PAD + legend, max(height, (len(whole.groups) + 3) * _LINE))
    canvas = Image.new("RGB", size, _BACK)
    pen = ImageDraw.Draw(canvas)
    pen.text((_PAD, _PAD // 2), f"{whole.name}   {len(whole.patients)} patients, {len(whole.examples)} B-scans", _TEXT, font)
    top = _LINE + _PAD
    for example, row in zip(chosen, rows, strict=True):
        pen.text((_PAD, top), f"{example.name}   patient {example.patient}   eye {example.eye or 'unknown'}", _DIM, font)
        canvas.paste(Image.fromarray(row), (_PAD, top + _LINE))
        top += len(row) + _LINE + _PAD
    for place, group in enumerate(whole.groups):
        y = _LINE + _PAD + place * _LINE
        pen.rectangle((wide + 2 * _PAD, y + 4, wide + 2 * _PAD + 18, y + 17), _colour(group))
        pen.text((wide + 2 * _PAD + 26, y), group, _TEXT, font)
    pen.text((wide + 2 * _PAD, _LINE + _PAD + len(whole.groups) * _LINE), "untinted: not graded", _DIM, font)
    return canvas


def _chosen(examples: tuple[Example, ...], count: int) -> list[Example]:
    """The middle B-scan of patients spread over the source."""
    patients = sorted({example.patient for example in examples})
    spread = np.linspace(0, len(patients) - 1, min(count, len(patients))).round().astype(int)
    own = [[example for example in examples if example.patient == patients[index]] for index in spread]
    return [each[len(each) // 2] for each in own]


def _pair(example: Example, groups: tuple[str, ...]) -> NDArray[np.uint8]:
    grey = np.repeat(example.image[:, :, None], 3, axis=2)
    tinted = grey.astype(np.float32)
    for index, group in enumerate(groups):
        inside = example.reference == index
        tinted[inside] += _TINT * (np.array(_colour(group), np.float32) - tinted[inside])
    gap = np.full((len(grey), _PAD, 3), _BACK, np.uint8)
    return np.concatenate([grey, gap, tinted.astype(np.uint8)], axis=1)


def _colour(group: str) -> tuple[int, int, int]:
    """A group has the colour of its first structure."""
    return structure(members(group)[0]).colour


def data_sheet(found: list[Sheet]) -> str:
    """The sheet as Markdown: the sources, then what each makes of every structure.

    A structure is "own" where a source separates it, else the group it is merged into, "-" where the source lacks it.
    Shares are of the graded pixels.
    """
    lines = ["# Data sheet", "", "| source | patients | eyes R / L / unknown | B-scans | vendor | device | mode | licence | origin |"]
    lines.append("|---|--:|---|--:|---|---|---|---|---|")
    lines += [_row(each) for each in found]
    lines += ["", "| structure | " + " | ".join(_cell(each.source.name) for each in found) + " |", "|---|" + "---|" * len(found)]
    for key in KEYS:
        lines.append(f"| {key} | " + " | ".join(_coverage(key, each) for each in found) + " |")
    return "\n".join(lines) + "\n"


def _row(sheet: Sheet) -> str:
    source, whole = sheet.source, sheet.whole
    eyes = {(example.patient, example.eye) for example in whole.examples}
    counts = " / ".join(str(sum(eye == wanted for _, eye in eyes)) for wanted in ("R", "L", ""))
    if isinstance(source, Phantoms):
        facts = ["octedge", "phantom", "synthetic", "Apache-2.0", "made by octedge"]
    else:
        facts = [source.vendor, source.device, source.mode, source.licence, source.origin]
    cells = [source.name, str(len(whole.patients)), counts, str(len(whole.examples)), *facts]
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _coverage(key: str, sheet: Sheet) -> str:
    for group, pixels in zip(sheet.whole.groups, sheet.pixels, strict=True):
        if key in members(group):
            share = pixels / max(int(sheet.pixels.sum()), 1)
            return f"{'own' if group == key else 'in ' + group} {share:.1%}"
    return "-"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
