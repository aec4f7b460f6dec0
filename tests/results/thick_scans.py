"""Scans with retinas of known thickness, as the tests of thickness and fovea measure them."""

from dataclasses import replace

import numpy as np

from octedge.anatomy import surface_names
from octedge.results.thickness import Thickness, thickness
from octedge.scan import Scan, Spacing
from octedge.segment import About

MODEL = ("vitreous", "nfl", "gcl+ipl", "inl+opl+onl+elm+mz+ez+os", "rpe", "choroid", "sclera")
ROWS = 400


def a_scan(frames=25, columns=61, lateral=0.1, between=0.25, **changes) -> Scan:
    """A volume of a right eye, columns to the right, B-scans downwards; there are no pixels."""
    spacing = Spacing(0.004, lateral, between, "a test")
    scan = Scan("scan7", frames, ROWS, columns, lambda _: np.zeros((ROWS, columns), np.uint8), spacing, "R", "volume")
    return replace(scan, **{"directions": ("right", "down"), **changes})


def about(scan: Scan, model=MODEL) -> About:
    return About(scan.name, scan.frames, model, surface_names(model), scan.spacing, "tiny", "an engine", notes=scan.notes)


def surfaces(scan: Scan, retina, model=MODEL) -> np.ndarray:
    """Surfaces (F, L, W): the retina is `retina` (F, W) rows thick in equal layers, choroid 50 rows, on a membrane at row 300."""
    count = len(surface_names(model))
    parts = np.linspace(1, 0, count - 1)[None, :, None] * np.asarray(retina)[:, None]
    return np.concatenate([300 - parts, np.full((scan.frames, 1, scan.columns), 350)], axis=1).astype(np.float32)


def pitted(scan: Scan, column=30.0, frame=12.0, depth=30.0) -> np.ndarray:
    """Total retinal thickness (F, W) in rows with a foveal pit there."""
    y, x = np.indices((scan.frames, scan.columns))
    r2 = ((x - column) * scan.spacing.lateral) ** 2 + ((y - frame) * scan.spacing.between) ** 2
    return 75 + 12 * r2 * np.exp(-r2) - depth * np.exp(-r2 / 0.2)


def measured(scan: Scan, retina, **options) -> Thickness:
    return thickness(scan, about(scan), surfaces(scan, retina), **options)
