"""The overlay: a B-scan beside itself with its surfaces drawn in, names, scale bars and what one must know."""

from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from octedge.anatomy import is_ordered, members, structure
from octedge.scan import Frame, Spacing
from octedge.segment import About

RGB = NDArray[np.uint8]

_LINE = 0.6  # half the width of a line, in picture pixels
_JUMP = 4  # a line reaches at most so many picture rows from its depth in a column; it breaks at a jump
_TINT = 0.45  # opacity of fluid
_SMALL = 700  # B-scans with fewer rows and columns are drawn twice as large
_PAD = 12
_FONT = 15
_ROW = 21  # height of a line of text
_BACK, _TEXT, _DIM = (18, 18, 20), (235, 235, 235), (165, 165, 165)


@dataclass(frozen=True, slots=True)
class View:
    """One B-scan's part of a result: its number among F, labels uint8 (H, W), surfaces float32 (L, W)."""

    about: About
    index: int
    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]


def write_overlay(file: BinaryIO, frame: Frame, view: View) -> None:
    """Write the overlay of B-scan uint8 (H, W) as PNG."""
    overlay(frame, view).save(file, "PNG", compress_level=1)


def overlay(frame: Frame, view: View) -> Image.Image:
    """The picture: raw B-scan and drawn one, side by side or one above the other, with title, legend, scale bars and notes."""
    zoom = 2 if max(frame.shape) < _SMALL else 1
    raw = np.repeat(np.repeat(frame, zoom, axis=0), zoom, axis=1)
    drawn = draw(frame, view, zoom)
    height, width = raw.shape
    beside = width < 1.5 * height
    first = (_PAD, _PAD + _ROW + 6)
    second = (first[0] + width + _PAD, first[1]) if beside else (first[0], first[1] + height + _PAD)
    legend_at = (second[0] + width + 2 * _PAD, first[1])
    bottom = max(second[1] + height, first[1] + _legend_height(view.about))
    notes = wrap(_notes(view.about), legend_at[0] + _legend_width(view.about) - 2 * _PAD, _font())
    size = (legend_at[0] + _legend_width(view.about), bottom + _PAD + len(notes) * _ROW + _PAD)
    picture = Image.new("RGB", size, _BACK)
    picture.paste(Image.fromarray(raw), first)
    picture.paste(Image.fromarray(drawn), second)
    pen = ImageDraw.Draw(picture)
    _title(pen, view, size[0])
    _scale_bars(pen, view.about.spacing, (first[0], first[1] + height), (height, width), zoom)
    _legend(pen, view.about, legend_at)
    for line, text in enumerate(notes):
        pen.text((_PAD, bottom + _PAD + line * _ROW), text, _DIM, _font())
    return picture


def draw(frame: Frame, view: View, zoom: int = 1) -> RGB:
    """B-scan (H, W) -> RGB (H * zoom, W * zoom, 3): fluid tinted, each surface a thin line in the colour of the layer below it."""
    about = view.about
    picture = np.repeat(frame[:, :, None], 3, axis=2).astype(np.float32)
    for index, group in enumerate(about.structures):
        if not is_ordered(group):
            inside = view.labels == index
            picture[inside] += _TINT * (np.array(_colour(group), np.float32) - picture[inside])
    picture = np.repeat(np.repeat(picture, zoom, axis=0), zoom, axis=1)
    below = [group for group in about.structures if is_ordered(group)][1:]
    columns = (np.arange(picture.shape[1] + 1) / zoom) - 0.5  # the left edge of every picture column, in B-scan columns
    ends = np.concatenate([view.surfaces[1:], np.full_like(view.surfaces[:1], len(frame))])
    for surface, end, group in zip(view.surfaces, ends, below, strict=True):
        present = (end - surface > 0) & (surface > 0)  # where the layer below is there, and begins inside the picture
        edges = (np.interp(columns, np.arange(len(surface)), surface) + 0.5) * zoom - 0.5
        own = (np.repeat(surface, zoom) + 0.5) * zoom - 0.5
        _line(picture, np.clip([edges[:-1], edges[1:]], own - _JUMP, own + _JUMP), np.repeat(present, zoom), _colour(group))
    return np.rint(picture).astype(np.uint8)


def _line(picture: NDArray[np.float32], ends: NDArray[np.floating], present: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Blend a line into (H, W, 3), anti-aliased; `ends` (2, W) its depths at the left and right edge of each column."""
    top, bottom = ends.min(axis=0), ends.max(axis=0)
    if not present.any():
        return
    first = max(int(top[present].min()) - 2, 0)
    last = min(int(bottom[present].max()) + 3, len(picture))
    rows = np.arange(first, last, dtype=np.float32)[:, None]
    covered = np.minimum(rows + 0.5, bottom + _LINE) - np.maximum(rows - 0.5, top - _LINE)
    opacity = np.clip(covered, 0, 1) * present
    band = picture[first:last]
    band += opacity[:, :, None] * (np.array(colour, np.float32) - band)


def _colour(group: str) -> tuple[int, int, int]:
    """A class has the colour of its first structure."""
    return structure(members(group)[0]).colour


@lru_cache(maxsize=4)
def _font(size: int = _FONT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _title(pen: ImageDraw.ImageDraw, view: View, width: int) -> None:
    """What this is, on the left; what it may be used for, on the right."""
    about = view.about
    pen.text((_PAD, _PAD - 3), f"{about.name}   B-scan {view.index + 1}/{about.frames}   model {about.model}", _TEXT, _font())
    use = "research use only"
    pen.text((width - _PAD - pen.textlength(use, _font()), _PAD - 3), use, (240, 170, 60), _font())


def _entries(about: About) -> list[tuple[str, str]]:
    """The legend's (class, words): every class but the topmost, which begins at no surface."""
    topmost = next(group for group in about.structures if is_ordered(group))
    return [(group, _words(group)) for group in about.structures if group != topmost]


def _words(group: str) -> str:
    """A structure's name; the usual short names where a class merges several."""
    keys = members(group)
    if len(keys) == 1:
        return structure(keys[0]).name
    return " + ".join(key.upper() if len(key) <= 3 else key for key in keys)


def _legend_width(about: About) -> int:
    return 30 + 2 * _PAD + int(max(_font().getlength(words) for words in ["upper boundary of", *(words for _, words in _entries(about))]))


def _legend_height(about: About) -> int:
    return (len(_entries(about)) + 1) * _ROW


def _legend(pen: ImageDraw.ImageDraw, about: About, at: tuple[int, int]) -> None:
    """Names beside a piece of line for a surface, a box for what is tinted."""
    left, top = at
    pen.text((left, top), "upper boundary of", _DIM, _font())
    for row, (group, words) in enumerate(_entries(about), start=1):
        y = top + row * _ROW + _ROW // 2
        half = 1 if is_ordered(group) else 6
        pen.rectangle((left, y - half, left + 20, y + half), _colour(group))
        pen.text((left + 30, y), words, _TEXT, _font(), anchor="lm")


def _scale_bars(pen: ImageDraw.ImageDraw, spacing: Spacing, at: tuple[int, int], size: tuple[int, int], zoom: int) -> None:
    """Bars in the lower left corner of the raw B-scan, for the known directions only."""
    left, bottom = at[0] + 14, at[1] - 14
    height, width = size
    if spacing.axial is None and spacing.lateral is None:
        _label(pen, (left, bottom), "scale unknown", "ls")
    if spacing.axial is not None:
        mm, pixels = _bar(spacing.axial / zoom, height / 4)
        pen.rectangle((left, bottom - pixels, left + 2, bottom), _TEXT)
        _label(pen, (left + 7, bottom - pixels // 2), _length(mm), "lm")
    if spacing.lateral is not None:
        mm, pixels = _bar(spacing.lateral / zoom, width / 4)
        pen.rectangle((left, bottom, left + pixels, bottom + 2), _TEXT)
        _label(pen, (left + pixels + 6, bottom + 3), _length(mm), "ls")


def _label(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, anchor: str) -> None:
    """Text that stays readable on any grey."""
    pen.text(at, text, _TEXT, _font(13), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _bar(mm_per_pixel: float, most: float) -> tuple[float, int]:
    """The longest bar of 1, 2 or 5 times a power of ten mm with at most `most` pixels: its mm and its pixels."""
    limit = most * mm_per_pixel
    power = 10.0 ** np.floor(np.log10(limit))
    mm = float(max(step * power for step in (1, 2, 5) if step * power <= limit))
    return mm, max(1, round(mm / mm_per_pixel))


def _length(mm: float) -> str:
    return f"{mm:g} mm" if mm >= 1 else f"{mm * 1000:g} um"


def _notes(about: About) -> str:
    """Pixel sizes with their source, then the notes."""
    known = about.spacing.axial is not None or about.spacing.lateral is not None
    return "; ".join((describe_spacing(about.spacing),) * known + about.notes)


def describe_spacing(spacing: Spacing) -> str:
    """The spacing in words, ASCII: "3.87 x 11.70 um per px, 120 um between B-scans (DICOM ...)"."""
    axial, lateral, between = (None if mm is None else mm * 1000 for mm in (spacing.axial, spacing.lateral, spacing.between))
    if axial is None and lateral is None:
        return "scale unknown"
    words = f"{_um(axial)} x {_um(lateral)} um per px"
    if between is not None:
        words += f", {between:.4g} um between B-scans"
    return f"{words} ({spacing.source})"


def _um(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"


def wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break text into lines of at most `width` pixels, between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
