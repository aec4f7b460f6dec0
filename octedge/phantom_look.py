"""How a phantom B-scan is drawn: reflectivity of the layers, then what a device makes of it.

Reflectivity is kept as *tone*: the fourth root of linear intensity, 1 = full scale, which is close to how the eye
sees an OCT. Surfaces are drawn with their exact sub-pixel coverage of each row. Speckle and the detector's noise are
one gamma field, since signal and noise add as fields (Goodman, Speckle Phenomena in Optics, ch. 3): intensity =
(tone^4 + noise) * gamma(looks).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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
        "spectralis": Look("looks like Spectralis", 496, 768, 3.87, 11.6, looks=7, noise=0.19, subtract=0.9, penetration_um=260),
        "cirrus": Look(
            "looks like Cirrus", 1024, 512, 1.95, 11.7, looks=1.6, noise=0.17, compress=0.10, black=0.42, psf_um=(5, 20), penetration_um=170, rolloff=0.12
        ),
        "maestro": Look(
            "looks like Maestro", 885, 1024, 2.6, 6.0, looks=2.0, noise=0.19, compress=0.09, black=0.40, gain=0.9, psf_um=(6, 18), penetration_um=180
        ),
        "triton": Look(
            "looks like Triton", 992, 512, 2.6, 13.7, looks=1.8, noise=0.17, compress=0.09, black=0.45, gain=0.9, psf_um=(8, 20), penetration_um=480, rolloff=0.03
        ),
        "plex": Look(
            "looks like Plex Elite", 1536, 1536, 1.95, 7.8, span_mm=9.0, looks=5, noise=0.14, compress=0.15, black=0.22, psf_um=(6.5, 18), penetration_um=520, rolloff=0.03
        ),
    }
)

# Tones of the places of the chain, vitreous .. disc, measured on Spectralis scans of healthy eyes.
TONES: Mapping[str, float] = MappingProxyType(
    {
        "nfl": 0.68, "gcl": 0.435, "ipl": 0.50, "inl": 0.325, "opl": 0.455, "onl": 0.25, "elm": 0.40, "mz": 0.27,
        "ez": 0.87, "os": 0.64, "rpe": 0.91, "choroid": 0.46, "sclera": 0.50, "disc": 0.62, "fluid": 0.10,
    }
)  # fmt: skip


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


def cover(tone: Floats, top: NDArray[np.floating], bottom: NDArray[np.floating], value: float) -> None:
    """Paint `value` between `top` and `bottom` (W, in rows) over tone (H, W), with exact coverage, in place."""
    if not len(top) or not (bottom > top).any():
        return
    first = max(0, int(np.floor(top.min())))
    last = min(tone.shape[0], int(np.ceil(bottom.max())) + 1)
    if first >= last:
        return
    rows = np.arange(first, last)[:, None]
    share = np.clip(np.minimum(rows + 0.5, bottom) - np.maximum(rows - 0.5, top), 0, 1)
    tone[first:last] += (share * (value - tone[first:last])).astype(np.float32)


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


def form_image(tone: Floats, look: Look, lateral_um: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the device shows of tone (H, W): point spread, roll-off, speckle, noise, compression -> uint8 (H, W)."""
    axial, lateral = look.psf_um[0] / 2.355 / look.axial_um, look.psf_um[1] / 2.355 / lateral_um
    tone = blur(tone, axial, lateral)
    tone *= np.exp(-look.rolloff * np.arange(tone.shape[0], dtype=np.float32)[:, None] * (look.axial_um / 1000))
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
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
