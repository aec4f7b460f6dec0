"""Phantom: synthetic OCT of a macula and an optic disc, with known anatomy in every pixel.

An eye is a set of functions of (x, y) in mm, the fovea at the origin, x towards the nose, y upwards: Bruch's membrane,
the thickness of each layer, the nerve head, vessels, fluid. A B-scan evaluates them along one row, so that neighbouring
B-scans fit together, each is made when asked for, and none depends on the others. What the device makes of it is in
`phantom_look.py`. Mean thicknesses follow published ETDRS means of healthy eyes, rounded; no phantom is a person.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import KEYS, RETINA
from octedge.errors import UsageError
from octedge.geometry import labels_from_surfaces
from octedge.phantom_look import LOOKS, Array, Look, Section, field, form_image, random_look, reach, rise, tissue, waves
from octedge.scan import Laterality, Scan, Spacing

Field = Literal["macula", "disc", "wide"]

LAYERS = KEYS[1:13]  # nfl .. choroid: the layers with a thickness
_OS, _CHOROID = LAYERS.index("os"), LAYERS.index("choroid")
_FLUID = KEYS.index("fluid")
_WIDE_MM = 10.0  # what a B-scan of the field "wide" covers at least: fovea and disc

# Random streams: no draw depends on how many were made for something else. `phantom_look` draws texture from stream 3.
_EYE, _POSE, _FRAME, _CHOICE = 0, 1, 2, 4

__all__ = ["LAYERS", "LOOKS", "Bscan", "Look", "Phantom", "random_phantom"]


def _rng(seed: int, *stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64((seed, *stream)))


@dataclass(frozen=True, slots=True)
class Bscan:
    """One B-scan and its truth: image and labels uint8 (H, W), labels index `anatomy.KEYS`; surfaces float32 (14, W) in rows.

    The truth is exact down to the last row; the image shows nothing of it from row `reach` (W,) on, where the signal stays
    below the noise. There nobody can tell sclera from the nerve, which goes on to the bottom of its columns.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    surfaces: NDArray[np.float32]
    reach: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Pocket:
    """A pocket of fluid: centre, half-width and half-height in mm, in which layer (index into LAYERS; os: under the retina)."""

    x: float
    y: float
    radius: float
    height: float
    layer: int

    def distance2(self, x: Array, y: float) -> Array:
        """Squared distance (W,) from the centre in half-widths: 1 at the edge."""
        return np.asarray(((x - self.x) ** 2 + (y - self.y) ** 2) / self.radius**2)

    def half(self, x: Array, y: float) -> Array:
        """Half-height (W,) in mm along a row, 0 outside: an ellipse, or a flat dome under the retina."""
        return self.height * np.clip(1 - self.distance2(x, y), 0, None) ** (1.0 if self.layer == _OS else 0.5)


@dataclass(frozen=True, slots=True)
class _Eye:
    """What differs from eye to eye. Waves are (..., n, 3): two wave numbers per mm and a phase, see `phantom_look.field`."""

    scale: Array  # (12,) thickness of LAYERS relative to the mean eye
    slow: Array  # (12, n, 3) variation of the thicknesses
    fine: Array  # (12, n, 3) roughness of the surfaces
    relief: Array  # (n, 3) of Bruch's membrane
    gain: Array  # (n, 3) brightness of the columns
    vessels: tuple[Array, Array]  # (n, 3) fields whose zero lines are the vessels: large, small
    disc: tuple[float, float, float, float]  # centre and half-axes, mm
    cup: tuple[float, float]  # depth below Bruch's membrane in mm (negative: above), share of the disc's radius
    hyaloid: float  # height of the detached vitreous above the retina in mm, 0 for none
    pockets: tuple[_Pocket, ...]


@lru_cache(maxsize=8)
def _eye(seed: int, fluid: bool) -> _Eye:
    rng = _rng(seed, _EYE)
    spread = np.array([0.15, 0.12, 0.12, 0.12, 0.13, 0.10, 0.05, 0.08, 0.08, 0.10, 0.08, 0.25])
    return _Eye(
        scale=np.exp(np.clip(rng.normal(0, 1, 12), -2, 2) * spread),
        slow=waves(rng, (12, 6), 1.2, 5.0),
        fine=waves(rng, (12, 8), 0.08, 0.5),
        relief=waves(rng, (6,), 2.0, 6.0),
        gain=waves(rng, (8,), 0.3, 5.0),
        vessels=(waves(rng, (7,), 1.6, 4.0), waves(rng, (7,), 0.8, 2.0)),
        disc=(rng.uniform(4.2, 4.9), rng.uniform(0.2, 0.9), rng.uniform(0.72, 0.95), rng.uniform(0.8, 1.05)),
        cup=(rng.uniform(-0.15, 0.25), rng.uniform(0.25, 0.65)),
        hyaloid=rng.uniform(0.03, 0.3) * (rng.random() < 0.3),
        pockets=tuple(_pockets(_rng(seed, _EYE, 1))) if fluid else (),
    )


def _pockets(rng: np.random.Generator) -> Iterator[_Pocket]:
    """A few groups of cysts around the fovea, the first close to it; in some eyes also fluid under the retina."""
    for group in range(rng.integers(1, 4)):
        x, y = rng.uniform(-1, 1, 2) * ((1.0, 0.15) if group == 0 else (1.8, 1.8))
        for _ in range(rng.integers(2, 7)):
            layer = int(rng.choice([3, 4, 5], p=[0.4, 0.15, 0.45]))  # inl, opl, onl
            radius = rng.uniform(0.06, 0.30)
            height = min(rng.uniform(0.35, 0.8) * radius, 0.08)
            yield _Pocket(x + rng.normal(0, 0.35), y + rng.normal(0, 0.12), radius, height, layer)
    if rng.random() < 0.4:
        yield _Pocket(rng.normal(0, 0.5), rng.normal(0, 0.3), rng.uniform(0.4, 1.2), rng.uniform(0.02, 0.09), _OS)


def _from_disc(eye: _Eye, x: Array, y: float) -> Array:
    """Distance (W,) from the disc's centre in units of its radius: 1 at the margin."""
    cx, cy, rx, ry = eye.disc
    return np.asarray(np.hypot((x - cx) / rx, (y - cy) / ry))


def _mean_um(eye: _Eye, x: Array, y: float, margin: Array) -> Array:
    """Thickness (12, W) in um of LAYERS in the mean eye, `margin` (W,) mm away from the disc."""
    r2 = x**2 + y**2
    ring = r2 / 1.1 * np.exp(1 - r2 / 1.1)  # 1 at the parafovea, 0 at the fovea and far out

    def pit(width: float, power: float) -> Array:
        return (1 - np.exp(-r2 / width**2)) ** power

    upward = np.abs(y - eye.disc[1]) / np.sqrt((x - eye.disc[0]) ** 2 + (y - eye.disc[1]) ** 2 + 0.25)
    bundles = (66 + 62 * upward**1.5) * (np.exp((0.85 - margin) / 1.8) + 0.4 * np.exp(-margin / 0.3))
    arcade = 20 * np.exp(-((abs(y) - 2.6) ** 2)) * rise((x + 4) / 5)
    choroid = 150 + 150 * np.exp(-(((x + 0.8) / 4.0) ** 2) - (y / 4.5) ** 2)
    return np.stack(
        [
            (bundles + arcade + 17) * pit(0.85, 1.3),
            (29 + 22 * ring) * pit(0.65, 1.5),
            (28 + 15 * ring) * pit(0.58, 1.3),
            (27 + 10 * ring) * pit(0.50, 1.2),
            (24 + 4 * ring) * pit(0.36, 1.0),
            46 + 14 * ring + 48 * np.exp(-r2 / 0.6**2),
            np.full_like(x, 7.5),
            12 + 4 * np.exp(-r2 / 0.4**2),
            15 + 2 * np.exp(-r2 / 0.5**2),
            11 + 17 * np.exp(-r2 / 0.35**2),
            np.full_like(x, 38),
            choroid * (0.45 + 0.55 * rise(margin / 1.2)),
        ]
    )


def _thickness(eye: _Eye, x: Array, y: float) -> Array:
    """Thickness (12, W) in mm of LAYERS along a row, with the room that fluid takes. Inside the disc it goes on as at the margin."""
    beyond = np.clip(_from_disc(eye, x, y) - 1, 0, None) * (eye.disc[2] + eye.disc[3]) / 2
    margin = np.sqrt(beyond**2 + 0.01) - 0.1  # mm, without a kink at the margin
    um = _mean_um(eye, x, y, margin) * eye.scale[:, None] * (1 + 0.06 * np.clip(field(eye.slow, x, y), -2.5, 2.5))
    um += 0.5 * np.clip(field(eye.fine, x, y), -2.5, 2.5) * um / (um + 10)
    # Towards the disc the layers end one after another; the nerve fibres alone go on.
    ends = np.array([0.42, 0.36, 0.3, 0.26, 0.24, 0.14, 0.14, 0.1, 0.1])[:, None]
    ending = um[1:10] * 0.96 * (1 - rise(beyond / ends))
    um[1:10] -= ending
    um[0] += 0.75 * ending.sum(axis=0)  # the fibres fill what the other layers leave
    room = np.zeros_like(um)
    for pocket in eye.pockets:
        if pocket.layer == _OS:
            um[_OS] += 2000 * pocket.half(x, y)
        else:
            spread2 = pocket.distance2(x, y) * (pocket.radius / (pocket.radius + 0.45)) ** 2
            room[pocket.layer] += (1900 * pocket.height * np.exp(-spread2)) ** 3
    return np.asarray((um + np.cbrt(room)) / 1000)


def _stack(eye: _Eye, thickness: Array, bruch: Array, disc: Array) -> Array:
    """Surfaces (14, W) in mm from thickness (12, W) and depth of Bruch's membrane (W,); columns with disc < 1 lie in the nerve head."""
    surfaces = np.empty((14, len(bruch)))
    surfaces[12] = bruch + thickness[_CHOROID]
    surfaces[13] = np.inf
    surfaces[11] = bruch
    surfaces[:11] = bruch - np.cumsum(thickness[10::-1], axis=0)[::-1]
    inside = disc < 1
    depth, share = eye.cup
    sunk = 1 - rise((disc[inside] - 0.3 * share) / (min(1.0, share + 0.35) - 0.3 * share))
    surfaces[0, inside] += sunk * np.maximum(depth + bruch[inside] - surfaces[0, inside], 0.05)
    surfaces[1:, inside] = surfaces[0, inside] + thickness[0, inside] * rise((disc[inside] - 0.5) / 0.5)
    return surfaces


def _vessels(eye: _Eye, x: Array, y: float) -> Array:
    """Half-thickness (W,) in mm of the vessel below the inner surface, 0 where there is none; none at the fovea."""
    half = np.zeros_like(x)
    step = 0.002
    for lines, radius in zip(eye.vessels, (0.055, 0.028), strict=True):
        value = field(lines, x, y)
        slope = np.hypot(field(lines, x + step, y) - value, field(lines, x, y + step) - value) / step
        width = radius * rise((slope - 0.8) / 1.5)  # a field hardly rising, at a saddle, would make one vessel of many columns
        half = np.maximum(half, width**2 - (value / np.maximum(slope, 0.8)) ** 2)
    return np.asarray(np.sqrt(half) * rise((np.hypot(x, y) - 0.5) / 1.5))


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic scan of `frames` B-scans of one eye; equal values give equal scans.

    The disc lies nasally: on the right of the image for a right eye. Fluid lies around the fovea. "wide" covers fovea
    and disc, if need be with a wider lateral spacing than the look's own. Raises `UsageError` for impossible values.
    """

    look: Look
    frames: int
    seed: int
    eye: Laterality = "R"
    field: Field = "macula"
    fluid: bool = True

    def __post_init__(self) -> None:
        look = self.look
        if self.frames < 1 or self.seed < 0 or min(look.rows, look.columns) < 2 or min(look.axial_um, look.lateral_um) <= 0:
            size = f"{self.frames} frames of {look.rows} x {look.columns} at {look.axial_um} x {look.lateral_um} um, seed {self.seed}"
            raise UsageError(f"phantom of {size}: at least 1 frame of 2 x 2, spacings above 0 and a seed of at least 0 are needed")

    @property
    def spacing(self) -> Spacing:
        """The true distances in mm; a single B-scan has none between."""
        axial, lateral, between = self._spacing()
        return Spacing(axial, lateral, between if self.frames > 1 else None, "phantom")

    def _spacing(self) -> tuple[float, float, float]:
        lateral = self.look.lateral_um / 1000
        if self.field == "wide":
            lateral = max(lateral, _WIDE_MM / self.look.columns)
        return self.look.axial_um / 1000, lateral, self.look.span_mm / max(self.frames - 1, 1)

    def scan(self, name: str = "phantom") -> Scan:
        """The phantom as a Scan whose frames are made when asked for."""
        return Scan(
            name=name,
            frames=self.frames,
            rows=self.look.rows,
            columns=self.look.columns,
            decode=lambda index: self.bscan(index).image,
            spacing=self.spacing,
            laterality=self.eye,
            pattern="volume" if self.frames > 1 else "line",
            device=f"phantom, {self.look.device}",
            directions=("right", "down" if self.frames > 1 else None),
        )

    def bscan(self, index: int) -> Bscan:
        """B-scan `index`, the same whenever it is asked for.

        Raises `UsageError` if the phantom has no such B-scan.
        """
        if not 0 <= index < self.frames:
            raise UsageError(f"B-scan {index} asked for, but the phantom has B-scans 0..{self.frames - 1}")
        rng = _rng(self.seed, _FRAME, index)
        section = self._section(index, rng)
        rows = self.look.rows
        surfaces = np.clip(section.surfaces, 0, rows).astype(np.float32)
        labels = labels_from_surfaces(surfaces, rows)
        retina = (labels >= 1) & (labels <= len(RETINA))
        row = np.arange(rows)[:, None]
        for top, bottom in section.fluid:
            labels[retina & (row >= top) & (row < bottom)] = _FLUID
        tone = tissue(section, self.look, self.seed)
        seen = reach(tone, self.look)
        image = form_image(tone, self.look, self._spacing()[1] * 1000, rng)
        return Bscan(image, labels, surfaces, seen)

    def _section(self, index: int, rng: np.random.Generator) -> Section:
        """What B-scan `index` cuts, the eye's movement included."""
        eye = _eye(self.seed, self.fluid)
        axial, lateral, between = self._spacing()
        centre = {"macula": (0.0, 0.0), "disc": eye.disc[:2], "wide": (eye.disc[0] / 2, eye.disc[1] / 2)}[self.field]
        across = (np.arange(self.look.columns, dtype=np.float64) - (self.look.columns - 1) / 2) * lateral
        x = centre[0] + (across if self.eye == "R" else -across) + rng.normal(0, 0.008)
        y = centre[1] + ((self.frames - 1) / 2 - index) * between
        disc = _from_disc(eye, x, y)
        bruch = self._bruch(across, y - centre[1]) + 0.008 * field(eye.relief, x, y) + rng.normal(0, 0.012)
        surfaces = _stack(eye, _thickness(eye, x, y), bruch, disc) / axial
        slant = np.abs(np.gradient(surfaces[0]) * axial / lateral)
        glow = field(eye.gain, x, y)
        return Section(
            x=x,
            y=y,
            surfaces=surfaces,
            disc=disc,
            gain=1 + 0.05 * np.clip(glow, -2, 2) + 0.012 * rng.standard_normal(len(x)),
            vessel=_vessels(eye, x, y),
            reflex=0.25 + 0.5 * rise(field(eye.gain, x + 1, y)) * np.exp(-((slant / 0.06) ** 2)),
            hyaloid=surfaces[0] - (eye.hyaloid + 0.02 * glow) / axial if eye.hyaloid else None,
            fluid=tuple(_fluid(eye, surfaces, x, y, axial)),
        )

    def _bruch(self, across: Array, y: float) -> Array:
        """Depth of Bruch's membrane (W,) in mm below the top of the image: position, tilt, curvature."""
        pose = _rng(self.seed, _POSE)
        depth = self.look.rows * self.look.axial_um / 1000
        free = max(depth - 0.65, 0.1)  # what the retina and some choroid leave
        half = float(across[-1])
        bend = min(pose.choice([0.01, 0.03, 0.06]) * pose.uniform(-0.2, 1.0), 0.7 * free / half**2)
        tilt = float(np.clip(pose.normal(0, 0.03), -0.2 * free / half, 0.2 * free / half))
        place = min((0.55 if self.fluid else 0.45) + pose.uniform(0.15, 0.5) * free, 0.75 * depth)
        return np.asarray(place + bend * (half**2 / 2 - across**2 - y**2) / 2 + tilt * across)


def _fluid(eye: _Eye, surfaces: Array, x: Array, y: float, axial: float) -> Iterator[tuple[Array, Array]]:
    """Top and bottom (W,) in rows of every pocket that the row meets, kept within the retina."""
    ragged = 1 + 0.12 * np.clip(field(eye.fine[0], x, y), -2, 2)
    roof = surfaces[0] + 0.012 / axial
    for pocket in eye.pockets:
        half = pocket.half(x, y) / axial * (1.0 if pocket.layer == _OS else ragged)
        if not half.any():
            continue
        middle = (surfaces[pocket.layer] + surfaces[pocket.layer + 1]) / 2
        bottom = surfaces[pocket.layer + 1] if pocket.layer == _OS else middle + half
        yield np.maximum(bottom - 2 * half, roof), np.minimum(bottom, surfaces[11])


def random_phantom(seed: int) -> Phantom:
    """A phantom of one B-scan with everything drawn at random: for training on the geometry and contrast of any device."""
    rng = _rng(seed, _CHOICE)
    look = random_look(rng)
    fields: tuple[Field, ...] = ("macula", "macula", "macula", "disc", "wide")
    eye: Laterality = "R" if rng.random() < 0.5 else "L"
    return Phantom(look, 1, seed, eye, fields[rng.integers(len(fields))], bool(rng.random() < 0.4))
