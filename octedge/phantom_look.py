"""How a phantom B-scan is drawn: reflectivity of the tissue, then what a device makes of it.

Reflectivity is kept as *tone*: the fourth root of linear intensity, 1 = full scale, which is close to how the eye
sees an OCT. Surfaces are drawn with their exact sub-pixel coverage of each row. Speckle and the detector's noise are
one gamma field, since signal and noise add as fields (Goodman, Speckle Phenomena in Optics, ch. 3): intensity =
(tone^4 + noise) * gamma(looks).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """A device's geometry and grey scale, as it looks; no claim about the device itself.

    `span_mm` from the first to the last B-scan; `looks` the averaged speckle patterns; `noise` tone of the noise floor,
    `subtract` the share of it taken off before display; grey = ((intensity^compress - black) / (1 - black)) * gain;
    `psf_um` full width of the point spread (axial, lateral); `penetration_um` depth below the RPE over which tone falls
    to 1/e; `rolloff` loss of tone per mm of depth; `haze` tone of the vitreous.
    """

    device: str
    rows: int
    columns: int
    axial_um: float
    lateral_um: float
    span_mm: float = 6.0
    looks: float = 4.0
    noise: float = 0.15
    subtract: float = 0.0
    compress: float = 0.25
    black: float = 0.0
    gain: float = 1.0
    psf_um: tuple[float, float] = (7.0, 14.0)
    penetration_um: float = 250.0
    rolloff: float = 0.1
    haze: float = 0.04


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "spectralis": Look(
            "looks like Spectralis", 496, 768, 3.87, 11.6, looks=5, noise=0.17, subtract=0.85, psf_um=(6, 14), penetration_um=230,
        ),
        "cirrus": Look(
            "looks like Cirrus", 1024, 512, 1.95, 11.7, looks=1.7, noise=0.17, compress=0.11, black=0.40, gain=0.95,
            psf_um=(5, 20), penetration_um=170, rolloff=0.12,
        ),
        "maestro": Look(
            "looks like Maestro", 885, 1024, 2.6, 6.0, looks=2.4, noise=0.19, compress=0.10, black=0.36, gain=0.85,
            psf_um=(6, 18), penetration_um=180,
        ),
        "triton": Look(
            "looks like Triton", 992, 512, 2.6, 13.7, looks=2.2, noise=0.17, compress=0.10, black=0.42, gain=0.9,
            psf_um=(8, 20), penetration_um=420, rolloff=0.03,
        ),
        "plex": Look(
            "looks like Plex Elite", 1536, 1536, 1.95, 7.8, span_mm=9.0, looks=4, noise=0.14, compress=0.15, black=0.24,
            psf_um=(6.5, 18), penetration_um=450, rolloff=0.03,
        ),
    }
)  # fmt: skip

# Tones of the chain below the vitreous, nfl .. disc, measured on Spectralis scans of healthy eyes; and of fluid.
TONES: tuple[float, ...] = (0.69, 0.42, 0.50, 0.32, 0.455, 0.25, 0.47, 0.25, 0.90, 0.57, 0.94, 0.46, 0.52, 0.46)
FLUID_TONE = 0.11


@dataclass(frozen=True, slots=True)
class Section:
    """What a B-scan cuts, column by column; depths in rows, x and y in mm, the rest relative.

    `surfaces` (14, W); `disc` (W,) distance from the centre of the nerve head, 1 at its margin; `gain` (W,) brightness;
    `vessel` (W,) half-thickness in mm of a vessel below the inner surface, 0 where there is none; `reflex` (W,) strength
    of the inner surface's mirror reflex; `hyaloid` (W,) rows of the detached vitreous, or None; `fluid` pairs (top, bottom).
    """

    x: Array
    y: float
    surfaces: Array
    disc: Array
    gain: Array
    vessel: Array
    reflex: Array
    hyaloid: Array | None
    fluid: tuple[tuple[Array, Array], ...]


def random_look(rng: np.random.Generator) -> Look:
    """One of LOOKS with geometry, contrast and noise drawn anew: rows 256..1024, 0.6 to 1.6 times as deep as the look's own."""
    look = LOOKS[sorted(LOOKS)[rng.integers(len(LOOKS))]]
    axial = look.axial_um * math.exp(rng.uniform(math.log(0.6), math.log(1.6)))
    noise, compress = rng.uniform(0.1, 0.22), math.exp(rng.uniform(math.log(0.08), math.log(0.3)))
    return replace(
        look,
        device="random look",
        rows=int(np.clip(rng.uniform(800, 2600) / axial, 256, 1024)),
        columns=int(rng.integers(320, 769)),
        axial_um=axial,
        lateral_um=look.lateral_um * rng.uniform(0.7, 1.5),
        looks=rng.uniform(1.2, 8),
        noise=noise,
        subtract=rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 0.0,
        compress=compress,
        black=noise ** (4 * compress) * rng.uniform(0.6, 1.0),  # near the noise: no device spends its greys below
        gain=rng.uniform(0.75, 1.15),
        psf_um=(rng.uniform(4, 9), rng.uniform(10, 24)),
        penetration_um=math.exp(rng.uniform(math.log(100), math.log(600))),
        rolloff=rng.uniform(0, 0.25),
        haze=rng.uniform(0, 0.1),
    )


def waves(rng: np.random.Generator, shape: tuple[int, ...], shortest: float, longest: float) -> Array:
    """Waves (*shape, 3) of lengths in mm: two wave numbers per mm and a phase; the last axis of `shape` is summed by `field`."""
    wave = 2 * np.pi / rng.uniform(shortest, longest, shape)
    angle = rng.uniform(0, 2 * np.pi, shape)
    return np.stack([wave * np.cos(angle), wave * np.sin(angle), rng.uniform(0, 2 * np.pi, shape)], axis=-1)


def field(waves: Array, x: Array, y: float) -> Array:
    """A smooth random field of mean 0 and variance 1: (..., n, 3) -> (..., W)."""
    phase = waves[..., 0, None] * x + (waves[..., 1] * y + waves[..., 2])[..., None]
    return np.asarray(np.cos(phase).sum(axis=-2) * math.sqrt(2 / waves.shape[-2]))


def draw_steps(tones: NDArray[np.floating], edges: NDArray[np.floating], rows: int) -> Floats:
    """Columns that step from tones[k] to tones[k + 1] at edges[k]: (K + 1, W) and (K, W, in rows) -> (H, W).

    Each row gets the mean over [r - 0.5, r + 0.5], exactly; edges are in order and may coincide or lie outside.
    """
    steps = np.zeros((rows + 2, edges.shape[1]), np.float32)
    every = np.arange(edges.shape[1])
    for edge, step in zip(np.clip(edges, -0.5, rows - 0.5), np.diff(tones, axis=0), strict=True):
        row = np.floor(edge + 0.5).astype(np.intp)
        covered = row + 0.5 - edge
        steps[row, every] += step * covered
        steps[row + 1, every] += step * (1 - covered)
    steps[0] += tones[0]
    np.cumsum(steps, axis=0, out=steps)
    return steps[:rows]


def cover(tone: Floats, top: Array, bottom: Array, value: float, strength: NDArray[np.floating] | float = 1.0) -> None:
    """Paint `value` between `top` and `bottom` (W, in rows) over tone (H, W), with exact coverage, in place."""
    columns = np.flatnonzero((bottom > top) & (np.asarray(strength) > 0))
    if not len(columns):
        return
    first = max(0, int(np.floor(top[columns].min())))
    last = min(tone.shape[0], int(np.ceil(bottom[columns].max())) + 1)
    across = slice(columns[0], columns[-1] + 1)
    part = tone[first:last, across]
    rows = np.arange(first, first + len(part), dtype=np.float32)[:, None]
    low, high = top[across].astype(np.float32), bottom[across].astype(np.float32)
    share = np.clip(np.minimum(rows + 0.5, high) - np.maximum(rows - 0.5, low), 0, 1)
    share *= np.broadcast_to(np.asarray(strength, np.float32), tone.shape[1])[across]
    part += share * (np.float32(value) - part)


def tissue(section: Section, look: Look, seed: int) -> Floats:
    """Tone (H, W) of what the section cuts: layers, their inner structure, vessels with shadows, texture, fluid."""
    surfaces, per_um = section.surfaces, 1 / look.axial_um
    tones = np.empty((15, len(section.gain)))
    tones[0] = look.haze
    tones[1:] = np.array(TONES)[:, None] * section.gain
    # Nerve fibres that dive into the disc no longer lie across the beam, and darken.
    tones[1] *= 1 - 0.33 * rise((1.25 - section.disc) / 0.5)
    tones[2:] *= 1 - 0.45 * rise(section.vessel / 0.06)
    image = draw_steps(tones, surfaces, look.rows)
    inside = section.disc < 1
    image *= _texture(section, look, seed)
    # The interdigitation zone below the dark outer segments, and the dimmer feet of the pigment epithelium.
    gap = surfaces[9] + 0.55 * (surfaces[10] - surfaces[9])
    cover(image, gap, surfaces[10], 0.82, np.where(inside, 0, 0.8 * section.gain))
    cover(image, surfaces[11] - 9 * per_um, surfaces[11], 0.72, np.where(inside, 0, 0.6))
    # The wall of the nerve's canal scatters more than the nerve.
    wall = np.exp(-(((section.disc - 0.99) / 0.05) ** 2))
    cover(image, surfaces[1] + 90 * per_um, surfaces[1] + 240 * per_um, 0.5, np.where(inside, 0.3 * wall, 0))
    cover(image, surfaces[0], surfaces[0] + 7 * per_um, 0.85, section.reflex)
    round_um = section.vessel * 1000
    top = surfaces[0] + 12 * per_um
    cover(image, top, top + 2 * round_um * per_um, 0.42, np.where(inside, 0, 0.5 * (round_um > 0)))
    cover(image, top, top + 0.7 * round_um * per_um, 0.8, 0.8 * (round_um > 0))
    if section.hyaloid is not None:
        cover(image, section.hyaloid, section.hyaloid + 6 * per_um, 0.26, np.clip(section.gain - 0.4, 0, 1))
    for upper, lower in section.fluid:
        cover(image, upper, lower, FLUID_TONE)
    return image


def rise(value: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _texture(section: Section, look: Look, seed: int) -> Floats:
    """Factor (H, W) on the tone below the pigment epithelium (in the disc: below the nerve fibres), 1 above.

    Decay with depth; in the choroid dark lumina, small ones first and larger ones deeper; in the disc faint columns.
    """
    inside = section.disc < 1
    start = np.where(inside, section.surfaces[1], section.surfaces[11])
    depth_um = np.arange(look.rows) * look.axial_um
    small = _noise((seed, 3, 0), section, depth_um / 35, 0.055)
    large = _noise((seed, 3, 1), section, depth_um / 90, 0.16)
    deeper = rise((depth_um - 20) / 110)[:, None].astype(np.float32)
    lumen = np.clip((small * (1 - deeper) + large * deeper + 0.35) * np.float32(0.8), 0, 1)
    ends = ((section.surfaces[12] - start) * look.axial_um + 30).astype(np.float32)
    lumen *= np.clip((ends - depth_um[:, None].astype(np.float32)) / 50, 0, 1) * np.float32(0.52)
    strands = _noise((seed, 3, 2), section, depth_um / 500, 0.06)
    lumen[:, inside] = 0.12 + 0.10 * strands[:, inside]
    reach = np.where(inside, 1.3, 1.0) * look.penetration_um
    flat = np.empty((look.rows + 1, len(inside)), np.float32)
    flat[0] = 1
    np.multiply(1 - lumen, np.exp(-depth_um[:, None] / reach).astype(np.float32), out=flat[1:])
    row = np.arange(1, look.rows + 1, dtype=np.float32)[:, None] - np.clip(start, -look.rows, look.rows).astype(np.float32)
    np.clip(row, 0, look.rows, out=row)
    return np.take_along_axis(flat, row.astype(np.int32), axis=0)


def _noise(seed: tuple[int, ...], section: Section, deep: Array, cell: float) -> Floats:
    """Smooth noise (D, W) of variance about 1/2: one lattice for each step of y, interpolated, `cell` mm wide, at lattice depths `deep`."""
    low = math.floor(section.y / cell)
    part = section.y / cell - low
    columns = section.x / cell
    first = math.floor(columns.min())
    shape = (math.ceil(deep.max()) + 2, 512)
    total = np.zeros((shape[0], math.ceil(columns.max()) - first + 2))
    for sheet, weight in ((low, 1 - part), (low + 1, part)):
        # Lattice columns are drawn for a fixed stretch around the fovea, so that a part of it is the same in every frame.
        noise = np.random.Generator(np.random.PCG64((*seed, sheet + 10**6))).standard_normal(shape[::-1]).T
        total += weight * np.take(noise, np.arange(first, first + total.shape[1]) + shape[1] // 2, axis=1, mode="wrap")
    total /= math.hypot(part, 1 - part)
    return np.asarray(_lerp(_lerp(total.astype(np.float32).T, columns - first).T, deep))


def _lerp(values: Floats, position: Array) -> Floats:
    """Linear interpolation of values (n, ...) along the first axis at fractional positions (m,)."""
    low = np.minimum(position.astype(np.intp), len(values) - 2)
    part = (position - low).astype(np.float32)[:, None]
    return np.asarray(values[low] * (1 - part) + values[low + 1] * part)


def blur(image: Floats, sigma_rows: float, sigma_columns: float) -> Floats:
    """Gaussian of the given sigmas in pixels over (H, W), the border repeated."""
    for axis, sigma in ((0, sigma_rows), (1, sigma_columns)):
        reach = min(int(np.ceil(2.5 * sigma)), image.shape[axis] - 1)
        if sigma < 0.2 or reach < 1:
            continue
        kernel = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
        kernel /= 2 * kernel.sum() - kernel[0]
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        size = image.shape[axis]

        def shifted(by: int, padded: Floats = padded, axis: int = axis, first: int = reach, size: int = size) -> Floats:
            return padded[first + by : first + by + size] if axis == 0 else padded[:, first + by : first + by + size]

        image = shifted(0) * np.float32(kernel[0])
        for by in range(1, reach + 1):
            image += (shifted(by) + shifted(-by)) * np.float32(kernel[by])
    return image


def reach(tone: Floats, look: Look) -> NDArray[np.intp]:
    """Down to which row (W,) the device shows something of tone (H, W): from there on the signal stays below the noise floor."""
    seen = tone * _rolloff(look, len(tone)) >= look.noise
    return np.where(seen.any(axis=0), len(tone) - seen[::-1].argmax(axis=0), 0)


def _rolloff(look: Look, rows: int) -> Floats:
    """What is left of the tone (H, 1) at each depth."""
    return np.asarray(np.exp(-look.rolloff * np.arange(rows, dtype=np.float32)[:, None] * (look.axial_um / 1000)))


def form_image(tone: Floats, look: Look, lateral_um: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the device shows of tone (H, W): point spread, roll-off, speckle, noise, compression -> uint8 (H, W)."""
    axial, lateral = look.psf_um[0] / 2.355 / look.axial_um, look.psf_um[1] / 2.355 / lateral_um
    tone = blur(tone, axial, lateral)
    tone *= _rolloff(look, len(tone))
    # Smoothing the gamma field by the point spread averages neighbours: draw it that much rougher to keep the looks.
    independent = max(1.0, 3.5 * axial) * max(1.0, 3.5 * lateral)
    shape = max(look.looks / independent, 0.3)
    speckle = blur(rng.standard_gamma(shape, tone.shape, dtype=np.float32), axial, lateral)
    speckle /= np.float32(shape)
    np.square(tone, out=tone)
    np.square(tone, out=tone)
    floor = np.float32(look.noise**4)
    tone += floor
    tone *= speckle
    tone -= floor * np.float32(look.subtract)
    np.maximum(tone, 0, out=tone)
    grey = (tone ** np.float32(look.compress) - np.float32(look.black)) * np.float32(255 * look.gain / (1 - look.black))
    out: NDArray[np.uint8] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return out
