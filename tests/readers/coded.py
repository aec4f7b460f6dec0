"""Frames that every coding takes, and the codings there are."""

from pathlib import Path
from typing import get_args

import numpy as np

from octedge.phantom_codings import Coding, encoder
from octedge.readers import read

CODINGS = [coding for coding in get_args(Coding) if coding != "uncompressed"]
LOSSLESS = [coding for coding in CODINGS if encoder(coding, 8).lossy is None]


def smooth(count: int = 3, rows: int = 40, columns: int = 36, dtype: type = np.uint8) -> np.ndarray:
    """Frames (F, H, W) as lossy codings like them, no two alike."""
    y, x = np.mgrid[:rows, :columns]
    waves = [np.sin(y / 5 + index) + np.cos(x / (4 + index)) for index in range(count)]
    return (np.stack(waves) * 0.24 * np.iinfo(dtype).max + np.iinfo(dtype).max // 2).astype(dtype)


def frames(count: int = 3, rows: int = 40, columns: int = 36, bits: int = 8) -> np.ndarray:
    """Frames (F, H, W) of waves and noise, no two alike, in as many bits; encoders do not take less, nor noise alone."""
    dtype = np.uint8 if bits == 8 else np.uint16
    waves = smooth(count, rows, columns, np.uint16).astype(int) >> (16 - bits)
    noise = np.random.default_rng(7).integers(0, 1 << (bits // 2), waves.shape)
    array = (waves & ~((1 << (bits // 2)) - 1)) + noise
    array[:, 0, 0] = (1 << bits) - 1
    return array.astype(dtype)


def decoded(path: Path) -> np.ndarray:
    return np.stack(list(read(path)))
