"""The same tissue on other devices: small changes of a sample, each a function of an image and a random generator.

Changes of the look take and return grey values float32 (H, W), 1 = white, and move nothing. Those of the geometry
(`scaled`, `shifts`) say where pixels go, and labels go with them. `strength` stretches the range every change draws
from: 1 as written here, above 0; which changes a sample gets does not depend on it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from octedge.geometry import resample_rows
from octedge.metrics import IGNORED
from octedge.phantom_look import blur

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Rng = np.random.Generator


def defocus(image: Floats, rng: Rng, strength: float) -> Floats:
    """Out of focus: blurred along the row, hardly in depth, which coherence resolves and not the lens."""
    return blur(image, 0.3 * strength, strength * rng.uniform(1, 3))


def soft(image: Floats, rng: Rng, strength: float) -> Floats:
    """Smoothed by the device's software."""
    sigma = strength * rng.uniform(0.4, 1.5)
    return blur(image, sigma, sigma)


def gamma(image: Floats, rng: Rng, strength: float) -> Floats:
    """Another grey scale, by a power of 0.5 to 1.8."""
    return np.asarray(np.maximum(image, 0) ** np.float32(np.exp(strength * rng.uniform(np.log(0.5), np.log(1.8)))))


def contrast(image: Floats, rng: Rng, strength: float) -> Floats:
    """Another contrast and brightness: the vitreous black or grey, the pigment epithelium grey or clipped."""
    gain = np.exp(strength * rng.uniform(np.log(0.5), np.log(1.4)))
    return image * np.float32(gain) + np.float32(strength * rng.uniform(-0.05, 0.2))


def speckle(image: Floats, rng: Rng, strength: float) -> Floats:
    """Multiplied by speckle of 2 to 16 looks; half of the time its grains are larger than a pixel."""
    looks = rng.uniform(2, 16) / strength**2
    grain = strength * rng.uniform(0.4, 0.9) if rng.random() < 0.5 else 0.0
    return image * blur(_grains(image.shape, looks, rng), grain, grain)


def redrawn(image: Floats, rng: Rng, strength: float) -> Floats:
    """Back to intensity (a fourth power), with a noise floor and 1.5 to 8 looks of speckle, and compressed anew, as most devices do
    nearly by a logarithm: a grey, grainy background and little contrast. See `phantom_look`.
    """
    compress = np.exp(rng.uniform(np.log(0.08), np.log(0.3)))
    floor = (strength * rng.uniform(0.10, 0.22)) ** 4
    black = np.float32(floor**compress * rng.uniform(0.5, 1.0))
    field = blur(_grains(image.shape, rng.uniform(1.5, 8) / strength**2, rng), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.9))
    tone = np.maximum(image, 0) ** 4 + np.float32(floor)
    return np.asarray(((tone * field) ** np.float32(compress) - black) / (1 - black))


def noise(image: Floats, rng: Rng, strength: float) -> Floats:
    """The detector's noise, the same everywhere."""
    return image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(strength * rng.uniform(0, 0.06))


def shadows(image: Floats, rng: Rng, strength: float) -> Floats:
    """One to four vessels, or an opacity of the lens, hold light back from the columns below them: soft edges."""
    column = np.arange(image.shape[1])
    light = np.ones(len(column))
    for _ in range(rng.integers(1, 5)):
        half = rng.uniform(1.5, 9) if rng.random() < 0.8 else rng.uniform(10, 45)
        away = (column - rng.uniform(0, len(column))) / half
        light *= np.exp(-strength * rng.uniform(0.2, 1.5) / (1 + away**4))
    return image * light.astype(np.float32)


def rolloff(image: Floats, rng: Rng, strength: float) -> Floats:
    """Sensitivity that falls with depth or, where the device images from behind, rises."""
    depth = np.linspace(0, 1, len(image), dtype=np.float32)[:, None]
    return np.asarray(image * np.exp(-np.float32(strength * rng.uniform(-0.5, 1.3)) * depth))


def glare(image: Floats, rng: Rng, strength: float) -> Floats:
    """Columns that saturate where a surface mirrors the beam: brighter over the whole depth, white where the tissue was bright."""
    light = np.zeros(image.shape[1], np.float32)
    for _ in range(rng.integers(1, 4)):
        first, span = rng.integers(0, len(light)), rng.integers(1, 7)
        light[first : first + span] = strength * rng.uniform(0.3, 1.5)
    return image * (1 + light) + np.float32(0.15) * light


def marks(image: Floats, rng: Rng, strength: float) -> Floats:
    """Text, a scale bar, a ruler or a logo burnt into corners. Labels below stay: the tissue goes on there, and so must the answer."""
    image = image.copy()
    for _ in range(rng.integers(1, 3)):
        draw = (_text, _scale_bar, _ruler, _logo)[rng.integers(4)]
        mark = draw(rng)[: len(image), : image.shape[1]]
        room = np.array(image.shape) - mark.shape
        top, left = (int(np.clip(rng.integers(2, 14), 0, free)) for free in room)
        top, left = (int(free - gap) if rng.random() < 0.5 else gap for free, gap in zip(room, (top, left), strict=True))
        under = image[top : top + mark.shape[0], left : left + mark.shape[1]]
        under[mark > 0] = mark[mark > 0] * np.float32(min(1.0, strength * rng.uniform(0.7, 1.0)))
    return image


def _text(rng: Rng) -> Floats:
    """Glyph-like marks, 5 x 3 strokes each, once or twice as large."""
    count, size = int(rng.integers(3, 16)), int(rng.integers(1, 3))
    glyphs = np.zeros((5, 4 * count), np.float32)
    for index in range(count):
        glyphs[:, 4 * index : 4 * index + 3] = rng.random((5, 3)) < 0.6
    return np.repeat(np.repeat(glyphs, size, axis=0), size, axis=1)


def _scale_bar(rng: Rng) -> Floats:
    """Two arms with a common corner."""
    bars, thick = np.zeros((rng.integers(15, 50), rng.integers(20, 70)), np.float32), int(rng.integers(1, 4))
    bars[-thick:] = bars[:, :thick] = 1
    return bars


def _ruler(rng: Rng) -> Floats:
    """Ticks along a line, down or across."""
    step, count = int(rng.integers(5, 15)), int(rng.integers(5, 16))
    ticks = np.zeros((8, step * count), np.float32)
    ticks[0] = 1
    ticks[:, ::step] = 1
    return ticks if rng.random() < 0.5 else ticks.T


def _logo(rng: Rng) -> Floats:
    """A box with writing, dark on bright."""
    text = _text(rng)
    box = np.ones((len(text) + 6, text.shape[1] + 6), np.float32)
    box[3:-3, 3:-3] -= np.float32(0.8) * text
    return box


def jpeg(image: Floats, rng: Rng, strength: float) -> Floats:
    """Blocks of 8 x 8, as JPEG of quality 80 down to 15 leaves them."""
    quality = 100 - round(min(0.95, strength * rng.uniform(0.2, 0.85)) * 100)
    file = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(file, "JPEG", quality=quality)
    with Image.open(file) as again:
        return np.asarray(again, np.float32) / np.float32(255)


Change = Callable[[Floats, Rng, float], Floats]

# In the order in which light, detector, display and export follow each other, each with the share of samples that get it.
LOOKS: tuple[tuple[Change, float], ...] = (
    (soft, 0.25),
    (defocus, 0.1),
    (rolloff, 0.2),
    (shadows, 0.2),
    (glare, 0.06),
    (redrawn, 0.2),
    (gamma, 0.9),
    (speckle, 0.4),
    (contrast, 0.9),
    (noise, 0.4),
    (marks, 0.08),
    (jpeg, 0.1),
)


def relit(image: Bytes, filled: NDArray[np.bool_], rng: Rng, strength: float = 1.0) -> tuple[Bytes, tuple[str, ...]]:
    """The image (H, W) as another device would show it, and what was done; pixels that are not `filled` (H, W) become black."""
    deep = np.flatnonzero(filled.any(axis=1))
    rows = int(deep[-1]) + 1 if len(deep) else 1
    grey = image[:rows].astype(np.float32) / np.float32(255)
    chosen = [change for change, chance in LOOKS if rng.random() < chance]
    for change in chosen:
        grey = change(grey, rng, strength)
    out = np.zeros_like(image)
    out[:rows] = np.where(filled[:rows], to_bytes(grey), 0)
    return out, tuple(change.__name__ for change in chosen)


def to_bytes(image: Floats) -> Bytes:
    """Grey values clipped to 0..1, as uint8."""
    return (np.clip(image, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _grains(shape: tuple[int, ...], looks: float, rng: Rng) -> Floats:
    """Fully developed speckle of mean 1, averaged over `looks` patterns."""
    return rng.standard_gamma(looks, shape, dtype=np.float32) / np.float32(looks)


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors of rows and columns."""

    rows: float
    columns: float


def scale(rng: Rng, strength: float = 1.0) -> Scale:
    """Other depths per row and other widths of the scan: rows by 2^U(-0.9, 1.1), columns by 2^U(-0.9, 0.9)."""
    return Scale(float(2 ** (strength * rng.uniform(-0.9, 1.1))), float(2 ** (strength * rng.uniform(-0.9, 0.9))))


def scaled(image: Bytes, reference: Bytes, size: tuple[int, int]) -> tuple[Bytes, Bytes]:
    """Image and reference (H, W) on `size` (rows, columns): the image by area or linearly, the reference from the pixel at each centre."""
    row, column = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, image.shape, strict=True))
    grey = resample_rows(resample_rows(image.astype(np.float32), size[0]).T, size[1]).T
    return np.ascontiguousarray(np.rint(grey).astype(np.uint8)), reference[row[:, None], column]


def lowered(image: Bytes, reference: Bytes, above: int, more: int) -> tuple[Bytes, Bytes]:
    """Image and reference (H, W) with `more` rows on top: the first `above` rows, free of tissue, mirrored as often as needed."""
    room = ((more, 0), (0, 0))
    first, second = (np.concatenate([np.pad(each[:above], room, mode="symmetric")[:more], each]) for each in (image, reference))
    return first, second


def shifts(columns: int, rng: Rng, strength: float = 1.0) -> NDArray[np.intp]:
    """Rows (W,) by which columns lie deeper than in the result: a tilt of up to 40 over the window, a bend of up to 12."""
    along = np.linspace(-0.5, 0.5, columns)
    bend = rng.uniform(0, 12) * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * along + rng.random()))
    return np.rint(strength * (along * rng.uniform(-40, 40) + bend)).astype(np.intp)


def motion(columns: int, rng: Rng, strength: float = 1.0) -> NDArray[np.intp]:
    """Rows (W,) by which the eye moved while the device scanned: one to four jumps of up to 5, at times a tremble of one row."""
    moved = np.zeros(columns)
    for start in rng.integers(0, columns, rng.integers(1, 5)):
        moved[start:] += rng.uniform(-5, 5)
    if rng.random() < 0.5:
        moved += rng.uniform(-1, 1, columns)
    return np.rint(strength * moved).astype(np.intp)


def cut(
    image: Bytes, reference: Bytes, shift: NDArray[np.intp], first: int, size: tuple[int, int]
) -> tuple[Bytes, Bytes, NDArray[np.bool_]]:
    """`size` (P, V) of image and reference (H, W), from row `first` on, every column moved up by its shift (W,).

    Also which pixels came from the image, bool (P, V); the others are black, and IGNORED in the reference.
    """
    rows, columns = image.shape
    row = np.arange(first, first + size[0])[:, None] + shift
    inside = (row >= 0) & (row < rows)
    place = row.clip(0, rows - 1) * columns + np.arange(columns)
    out, target, filled = np.zeros(size, np.uint8), np.full(size, IGNORED, np.uint8), np.zeros(size, np.bool_)
    filled[:, :columns] = inside
    out[:, :columns] = image.ravel()[place] * inside
    target[:, :columns] = reference.ravel()[place] | (~inside * np.uint8(IGNORED))
    return out, target, filled
