"""Phantom: synthetic OCT of a macula and an optic disc, with known anatomy in every pixel.

An eye is a set of functions of (x, y) in mm, the fovea at the origin, x towards the nose, y upwards: Bruch's membrane,
the thickness of each layer, the nerve head, vessels, fluid. A B-scan evaluates them along one row, so that neighbouring
B-scans fit together, each is made when asked for, and none depends on the others. What the device makes of it is in
`phantom_look.py`. Mean thicknesses follow published ETDRS means of healthy eyes, rounded; nothing here is a person's.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import KEYS, RETINA
from octedge.errors import UsageError
from octedge.geometry import labels_from_surfaces
from octedge.phantom_look import LOOKS, TONES, Floats, Look, cover, draw_steps, form_image
from octedge.scan import Laterality, Scan, Spacing

Field = Literal["macula", "disc", "wide"]
Array = NDArray[np.float64]

LAYERS = KEYS[1:13]  # nfl .. choroid: the layers with a thickness
_BM = 11  # the surface rpe|choroid, from which the layers are stacked
_FLUID = KEYS.index("fluid")
_WIDE_MM = 10.0  # what a `wide` B-scan covers at least: fovea and disc

# Random streams, so that no draw depends on how many were made for something else.
_ANATOMY, _POSE, _FRAME, _TEXTURE, _CHOICE = range(5)


def _rng(seed: int, stream: int, *index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64((seed, stream, *index)))


@dataclass(frozen=True, slots=True)
class Bscan:
    """One B-scan and its truth: image and labels uint8 (H, W), labels index `anatomy.KEYS`; surfaces float32 (14, W) in rows."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Cyst:
    """A pocket of fluid: centre (mm), half-width and half-height (mm), in which layer (index into LAYERS)."""

    x: float
    y: float
    radius: float
    height: float
    layer: int

    def profile(self, x: Array, y: float) -> Array:
        """Half-height (W,) in mm along a row, 0 outside."""
        distance = ((x - self.x) ** 2 + (y - self.y) ** 2) / self.radius**2
        return self.height * np.sqrt(np.clip(1 - distance, 0, None))


@dataclass(frozen=True, slots=True)
class _Eye:
    """What differs from eye to eye; waves are (..., n, 3): two wave numbers per mm and a phase."""

    scale: Array  # (12,) thickness of LAYERS relative to the mean eye
    waves: Array  # (12, n, 3) slow variation of the thicknesses
    ripple: Array  # (12, n, 3) fine roughness of the surfaces
    relief: Array  # (n, 3) of Bruch's membrane
    gain: Array  # (n, 3) brightness from column to column
    vessels: Array  # (n, 3) a field whose zero lines are the vessels
    disc: tuple[float, float, float, float]  # centre and half-axes, mm
    cup: tuple[float, float]  # depth in mm, share of the radius
    cysts: tuple[_Cyst, ...]


def _waves(rng: np.random.Generator, shape: tuple[int, ...], shortest: float, longest: float) -> Array:
    length = rng.uniform(shortest, longest, shape)
    angle = rng.uniform(0, 2 * np.pi, shape)
    phase = rng.uniform(0, 2 * np.pi, shape)
    return np.stack([2 * np.pi / length * np.cos(angle), 2 * np.pi / length * np.sin(angle), phase], axis=-1)


def _field(waves: Array, x: Array, y: float) -> Array:
    """A smooth random field of mean 0 and variance 1: (..., n, 3) -> (..., W)."""
    phase = waves[..., 0, None] * x + (waves[..., 1] * y + waves[..., 2])[..., None]
    return np.cos(phase).sum(axis=-2) * math.sqrt(2 / waves.shape[-2])


@lru_cache(maxsize=8)
def _eye(seed: int, fluid: bool) -> _Eye:
    rng = _rng(seed, _ANATOMY)
    spread = np.array([0.15, 0.11, 0.11, 0.11, 0.12, 0.10, 0.05, 0.07, 0.07, 0.08, 0.08, 0.25])
    scale = np.exp(np.clip(rng.normal(0, 1, 12), -2, 2) * spread)
    disc = (rng.uniform(4.2, 4.9), rng.uniform(0.2, 0.9), rng.uniform(0.72, 0.95), rng.uniform(0.8, 1.05))
    return _Eye(
        scale,
        _waves(rng, (12, 6), 1.2, 5.0),
        _waves(rng, (12, 8), 0.12, 0.6),
        _waves(rng, (6,), 1.5, 6.0),
        _waves(rng, (8,), 0.5, 4.0),
        _waves(rng, (7,), 0.9, 2.6),
        disc,
        (rng.uniform(0.15, 0.55), rng.uniform(0.3, 0.65)),
        _cysts(_rng(seed, _ANATOMY, 1)) if fluid else (),
    )


def _cysts(rng: np.random.Generator) -> tuple[_Cyst, ...]:
    """A few groups of cysts around the fovea, the first on it, sometimes fluid under the retina."""
    cysts = []
    for group in range(rng.integers(1, 4)):
        reach = 0.25 if group == 0 else 1.8
        x, y = rng.uniform(-1, 1, 2) * (1.0 if group == 0 else reach, reach)
        for _ in range(rng.integers(2, 7)):
            layer = int(rng.choice([3, 4, 5], p=[0.4, 0.2, 0.4]))
            radius = rng.uniform(0.07, 0.32)
            cysts.append(_Cyst(x + rng.normal(0, 0.3), y + rng.normal(0, 0.12), radius, min(rng.uniform(0.3, 0.7) * radius, 0.13), layer))
    if rng.random() < 0.4:
        cysts.append(_Cyst(rng.normal(0, 0.5), rng.normal(0, 0.3), rng.uniform(0.4, 1.1), rng.uniform(0.03, 0.12), 9))
    return tuple(cysts)


def _rise(value: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


def _disc_radius(eye: _Eye, x: Array, y: float) -> Array:
    """Distance from the disc's centre in units of its radius: 1 is the margin."""
    cx, cy, rx, ry = eye.disc
    return np.hypot((x - cx) / rx, (y - cy) / ry)


def _thickness(eye: _Eye, x: Array, y: float) -> Array:
    """Thickness (12, W) in mm of LAYERS along a row, fluid included; also defined (and unused but for the rim) inside the disc."""
    r = np.hypot(x, y)
    u = _disc_radius(eye, x, y)
    margin = np.clip(u - 1, 0, None) * (eye.disc[2] + eye.disc[3]) / 2  # mm from the disc's margin
    ring = (r / 1.05) ** 2 * np.exp(1 - (r / 1.05) ** 2)  # 1 at the parafovea, 0 at the fovea and far out

    def pit(width: float, power: float = 1.5) -> Array:
        return (1 - np.exp(-((r / width) ** 2))) ** power

    upward = np.abs(y - eye.disc[1]) / np.maximum(np.hypot(x - eye.disc[0], y - eye.disc[1]), 1e-6)
    bundles = (66 + 62 * upward**1.5) * (np.exp((0.85 - margin) / 1.8) + 0.7 * np.exp(-margin / 0.3))
    arcade = 20 * np.exp(-((abs(y) - 2.6) ** 2)) * _rise((x + 4) / 5)
    um = np.stack(
        [
            (bundles + arcade + 9) * pit(0.85),
            (26 + 22 * ring) * pit(0.62),
            (26 + 14 * ring) * pit(0.55),
            (26 + 10 * ring) * pit(0.48),
            (24 + 4 * ring) * pit(0.34, 1.2),
            44 + 14 * ring + 62 * np.exp(-((r / 0.55) ** 2)),
            7.5 + 0 * r,
            13 + 4 * np.exp(-((r / 0.4) ** 2)),
            15 + 2 * np.exp(-((r / 0.5) ** 2)),
            12 + 18 * np.exp(-((r / 0.35) ** 2)),
            36 + 0 * r,
            (150 + 150 * np.exp(-(((x + 0.8) / 4.0) ** 2) - (y / 4.5) ** 2)) * (0.45 + 0.55 * _rise(margin / 1.2)),
        ]
    )
    um *= eye.scale[:, None] * (1 + 0.06 * np.clip(_field(eye.waves, x, y), -2.5, 2.5)) * (1 + 0.02 * _field(eye.ripple, x, y))
    # Towards the disc the layers end one after another, the nerve fibres alone go on.
    reach = np.array([0.5, 0.4, 0.35, 0.3, 0.3, 0.15, 0.15, 0.12, 0.12])
    um[1:10] *= 0.05 + 0.95 * _rise(margin / reach[:, None])
    thickness = um / 1000
    for cyst in eye.cysts:
        near = np.exp(-((x - cyst.x) ** 2 + (y - cyst.y) ** 2) / (1.3 * cyst.radius**2))
        thickness[cyst.layer] += 2 * cyst.profile(x, y) if cyst.layer == 9 else 1.4 * cyst.height * near
    return thickness


def _stack(thickness: Array, bruch: Array, u: Array, cup: tuple[float, float]) -> Array:
    """Surfaces (14, W) in mm from thickness (12, W) and Bruch's membrane (W,); columns with u < 1 lie in the disc."""
    surfaces = np.empty((14, len(bruch)))
    surfaces[_BM + 1 :] = bruch + thickness[11], np.full(len(bruch), np.inf)
    surfaces[: _BM + 1] = bruch - np.concatenate([np.cumsum(thickness[10::-1], axis=0)[::-1], np.zeros((1, len(bruch)))])
    inside = u < 1
    sunk = 1 - _rise((u[inside] - cup[1] * 0.5) / (1 - cup[1] * 0.5))
    top = surfaces[0, inside] + sunk * (cup[0] + thickness[:11, inside].sum(axis=0))
    surfaces[0, inside] = top
    surfaces[1:, inside] = top + thickness[0, inside] * _rise((u[inside] - 0.55) / 0.45)
    return surfaces


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic scan of `frames` B-scans of one eye; equal values give equal scans, on every machine.

    The disc lies nasally: on the right of the image for a right eye. Fluid lies around the fovea. `wide` covers fovea
    and disc, if need be with a wider lateral spacing than the look's own. Raises `UsageError` for impossible values.
    """

    look: Look
    frames: int
    seed: int
    eye: Laterality = "R"
    field: Field = "macula"
    fluid: bool = True

    def __post_init__(self) -> None:
        if self.frames < 1 or self.seed < 0 or min(self.look.rows, self.look.columns) < 1:
            raise UsageError(
                f"a phantom of {self.frames} frames of {self.look.rows} x {self.look.columns} with seed {self.seed}: sizes must be at least 1, the seed at least 0"
            )

    @property
    def spacing(self) -> Spacing:
        """True distances in mm; of a single B-scan there is none between."""
        lateral = self.look.lateral_um / 1000
        if self.field == "wide":
            lateral = max(lateral, _WIDE_MM / self.look.columns)
        between = self.look.span_mm / (self.frames - 1) if self.frames > 1 else None
        return Spacing(self.look.axial_um / 1000, lateral, between, "phantom")

    def scan(self, name: str = "phantom") -> Scan:
        """The phantom as a Scan whose frames are made when asked for."""
        look = self.look
        pattern = "volume" if self.frames > 1 else "line"
        return Scan(
            name, self.frames, look.rows, look.columns, lambda i: self.bscan(i).image, self.spacing, self.eye, pattern, f"phantom, {look.device}"
        )

    def bscan(self, index: int) -> Bscan:
        """B-scan `index`, the same whenever it is asked for.

        Raises `UsageError` if the phantom has no such B-scan.
        """
        if not 0 <= index < self.frames:
            raise UsageError(f"B-scan {index} asked for, but the phantom has B-scans 0..{self.frames - 1}")
        look, rng, eye = self.look, _rng(self.seed, _FRAME, index), _eye(self.seed, self.fluid)
        x, y = self._row(eye, index, rng)
        depth = _stack(_thickness(eye, x, y), self._bruch(eye, x, y, rng), _disc_radius(eye, x, y), eye.cup)
        exact = depth * (1000 / look.axial_um)
        surfaces = np.clip(exact, 0, look.rows).astype(np.float32)
        tone = _tone(self, eye, exact, x, y)
        labels = labels_from_surfaces(surfaces, look.rows)
        _paint_fluid(self, eye, tone, labels, exact, x, y)
        return Bscan(form_image(tone, look, (self.spacing.lateral or 0) * 1000, rng), labels, surfaces)

    def _row(self, eye: _Eye, index: int, rng: np.random.Generator) -> tuple[Array, float]:
        """Where B-scan `index` lies: x (W,) and y in mm, with the eye's movement."""
        spacing = self.spacing
        centre = {"macula": (0.0, 0.0), "disc": eye.disc[:2], "wide": (eye.disc[0] / 2, eye.disc[1] / 2)}[self.field]
        across = (np.arange(self.look.columns) - (self.look.columns - 1) / 2) * (spacing.lateral or 0)
        y = centre[1] + ((self.frames - 1) / 2 - index) * (spacing.between or 0)
        return centre[0] + (across if self.eye == "R" else -across) + rng.normal(0, 0.008), float(y)

    def _bruch(self, eye: _Eye, x: Array, y: float, rng: np.random.Generator) -> Array:
        """Depth of Bruch's membrane (W,) in mm in the image: position, tilt, curvature, relief, movement."""
        pose = _rng(self.seed, _POSE)
        depth = self.look.rows * self.look.axial_um / 1000
        free = max(depth - 0.65, 0.1)
        half = self.look.columns * (self.spacing.lateral or 0) / 2
        from_centre = x - x.mean()
        bend = min(pose.choice([0.01, 0.03, 0.06]) * pose.uniform(-0.2, 1.0), 0.7 * free / half**2)
        tilt = float(np.clip(pose.normal(0, 0.03), -0.2 * free / half, 0.2 * free / half))
        place = min(0.45 + pose.uniform(0.15, 0.5) * free, 0.75 * depth)
        sag = bend * (from_centre**2 + y**2) / 2
        return place + bend * half**2 / 4 - sag + tilt * from_centre + 0.01 * _field(eye.relief, x, y) + rng.normal(0, 0.012)


def _tone(phantom: Phantom, eye: _Eye, surfaces: Array, x: Array, y: float) -> Floats:
    """Tone (H, W) of the tissue without fluid: layers, their inner structure, vessels and shadows, texture below the RPE."""
    look = phantom.look
    inside = _disc_radius(eye, x, y) < 1
    gain = 1 + 0.05 * np.clip(_field(eye.gain, x, y), -2, 2)
    vessel = _vessel(eye, x, y)
    tones = np.array([look.haze, *(TONES[key] for key in KEYS[1:15])])[:, None] * gain
    tones[2:] *= 1 - 0.4 * vessel
    image = draw_steps(tones, surfaces, look.rows)
    start = np.where(inside, surfaces[1], surfaces[_BM])
    image *= _below(phantom, start, surfaces[_BM + 1], inside, x, y)
    return image


def _vessel(eye: _Eye, x: Array, y: float) -> Array:
    """How much of a vessel lies over each column (W,), 0..1: vessels follow the zero lines of a smooth field."""
    step = 0.005
    value = _field(eye.vessels, x, y)
    slope = np.hypot(_field(eye.vessels, x + step, y) - value, _field(eye.vessels, x, y + step) - value) / step
    distance = np.abs(value) / np.maximum(slope, 0.3)
    return np.exp(-((distance / 0.035) ** 4)) * _rise((np.hypot(x, y) - 0.5) / 1.0)


def _below(phantom: Phantom, start: Array, sclera: Array, inside: NDArray[np.bool_], x: Array, y: float) -> Floats:
    """Factor (H, W) on the tone below `start`: decay and texture of choroid, sclera and disc; 1 above."""
    look = phantom.look
    depth_um = np.arange(look.rows) * look.axial_um
    texture = _sheet(phantom.seed, depth_um, x, y)
    decay = np.exp(-depth_um / look.penetration_um)[:, None]
    flat = np.concatenate([np.ones((1, len(x)), np.float32), (decay * texture).astype(np.float32)])
    row = np.arange(look.rows, dtype=np.float32)[:, None] - np.clip(start, -look.rows, look.rows).astype(np.float32)
    return np.take_along_axis(flat, np.clip(row + 1, 0, look.rows).astype(np.intp), axis=0)


def _sheet(seed: int, depth_um: Array, x: Array, y: float) -> Array:
    """Choroidal texture (D, W): lattices of noise, one for each step of y, interpolated; dark lumina in brighter stroma."""
    cell = 0.09
    low = math.floor(y / cell)
    part = y / cell - low
    deep = np.log1p(depth_um / 80) / 0.35
    across = (x + 12) / cell
    total = np.zeros((len(depth_um), len(x)))
    for sheet, weight in ((low, 1 - part), (low + 1, part)):
        noise = _rng(seed, _TEXTURE, sheet + 100_000).standard_normal((16, 320))
        total += weight * _lerp(_lerp(noise, deep, 0), across, 1)
    total /= math.hypot(part, 1 - part)
    return np.asarray(1.0 - 0.45 * _rise((total + 0.2) * 1.2))


def _lerp(values: Array, position: Array, axis: int) -> Array:
    """Linear interpolation of values along `axis` at fractional positions."""
    position = np.clip(position, 0, values.shape[axis] - 1.001)
    low = position.astype(np.intp)
    part = (position - low)[:, None] if axis == 0 else position - low
    return np.take(values, low, axis) * (1 - part) + np.take(values, low + 1, axis) * part


def _paint_fluid(phantom: Phantom, eye: _Eye, tone: Floats, labels: NDArray[np.uint8], surfaces: Array, x: Array, y: float) -> None:
    """Fluid into tone and labels (H, W), in place, within the retina only."""
    per_mm = 1000 / phantom.look.axial_um
    rows = np.arange(phantom.look.rows)[:, None]
    for cyst in eye.cysts:
        half = cyst.profile(x, y) * per_mm
        columns = np.flatnonzero(half > 0)
        if not len(columns):
            continue
        span = slice(columns[0], columns[-1] + 1)
        under = cyst.layer == 9  # below the retina: fluid rests on the RPE
        lower = surfaces[10, span] if under else (surfaces[cyst.layer, span] + surfaces[cyst.layer + 1, span]) / 2 + half[span]
        upper = np.maximum(lower - 2 * half[span], surfaces[0, span])
        lower = np.minimum(lower, surfaces[_BM, span])
        cover(tone[:, span], upper, lower, TONES["fluid"])
        part = labels[:, span]
        part[(rows >= upper) & (rows < lower) & (part >= 1) & (part <= len(RETINA))] = _FLUID


def random_phantom(seed: int) -> Phantom:
    """A phantom of one B-scan with everything drawn at random: for training on the geometry and contrast of any device."""
    rng = _rng(seed, _CHOICE)
    look = LOOKS[sorted(LOOKS)[rng.integers(len(LOOKS))]]
    axial = look.axial_um * math.exp(rng.uniform(math.log(0.6), math.log(1.6)))
    look = replace(
        look,
        device="random",
        rows=int(np.clip(rng.uniform(800, 2600) / axial, 256, 1024)),
        columns=int(rng.integers(320, 769)),
        axial_um=axial,
        lateral_um=look.lateral_um * rng.uniform(0.7, 1.5),
        span_mm=0.0,
        looks=rng.uniform(1.2, 8),
        noise=rng.uniform(0.1, 0.24),
        subtract=rng.choice([0.0, rng.uniform(0.3, 1.0)]),
        compress=math.exp(rng.uniform(math.log(0.07), math.log(0.3))),
        gain=rng.uniform(0.75, 1.2),
        psf_um=(rng.uniform(4, 9), rng.uniform(10, 24)),
        penetration_um=math.exp(rng.uniform(math.log(100), math.log(600))),
        rolloff=rng.uniform(0, 0.25),
        haze=rng.uniform(0, 0.1),
    )
    # Black just above the noise: no device spends its greys on nothing.
    look = replace(look, black=look.noise ** (4 * look.compress) * rng.uniform(0.6, 1.0))
    field: Field = rng.choice(np.array(["macula", "macula", "macula", "disc", "wide"])).item()
    return Phantom(look, 1, seed, "R" if rng.random() < 0.5 else "L", field, bool(rng.random() < 0.4))
