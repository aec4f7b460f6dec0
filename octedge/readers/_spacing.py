"""Spacing is believed only if an eye can have it: distances in mm outside plausible limits are dropped, with a note."""

import math
from collections.abc import Sequence

from octedge.scan import Spacing

# um. Axial: the finest commercial devices sample below 2, the coarsest (long-range) near 10. Lateral: 1 mm over
# 1024 A-scans to a 24 mm sweep over 128. Files exist that state metres for an eye, or a placeholder.
LIMITS = {"axial": (0.5, 20.0), "lateral": (1.0, 200.0), "between": (1.0, 5000.0)}


def plausible(values: Sequence[float | None], source: str) -> tuple[Spacing, tuple[str, ...]]:
    """The `Spacing` made of what is plausible of (axial, lateral, between) in mm, and a note for each value that was dropped."""
    notes = []
    kept: dict[str, float | None] = {}
    for (what, (low, high)), value in zip(LIMITS.items(), values, strict=True):
        good = value is not None and math.isfinite(value) and low <= value * 1000 <= high
        kept[what] = value if good else None
        if value is not None and not good:
            notes.append(f"{what} spacing {value:.6g} mm ({source}) not used: outside {low:g}..{high:g} um, no eye is scanned like that")
    known = any(value is not None for value in kept.values())
    return Spacing(kept["axial"], kept["lateral"], kept["between"], source if known else "unknown"), tuple(notes)
