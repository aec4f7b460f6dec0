"""Thickness of layers: over the ETDRS grid, around the optic disc, or B-scan by B-scan, whatever the scan allows.

In micrometres where the distance of rows is known, else in pixels. What a scan does not say is not guessed: without the eye there is
no nasal and no temporal side, without the B-scans' directions no superior one, without distances no grid; the notes say so.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import is_ordered, members
from octedge.errors import UsageError
from octedge.results.fovea import find_fovea
from octedge.results.sectors import circle, etdrs, sides
from octedge.scan import Scan, Spacing
from octedge.segment import About

SCHEMA = 1
USE = "Research use only. Not a medical device."

# Sums of layers, where a model separates more than they ask for: the first and the last structure of each.
SUMS = {"retina": ("nfl", "rpe"), "gcl+ipl": ("gcl", "ipl")}
_CIRCLE = (
    "sectors around the disc as Spectralis divides circles, in degrees from the temporal side over the superior one: temporal 315-45, "
    "temporal superior 45-90, nasal superior 90-135, nasal 135-225, nasal inferior 225-270, temporal inferior 270-315"
)
_ENDLESS = {"vitreous", "sclera", "disc"}  # end beyond the image
_SURE = 0.6  # confidence from which on the fovea is used without a warning; healthy eyes have 0.67 and more
_WHOLE = 0.999  # coverage from which on a sector counts as covered


class Fovea(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the fovea lies: column and frame from 0, between samples too; confidence 0..1, none if given by the user."""

    column: float
    frame: float
    confidence: float | None
    source: str


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mean thickness of one layer in one region, None if nothing is known there; `coverage` is the share of it that has values.

    `area_mm2` of the region and `volume_mm3` of the layer in it are stated for ETDRS sectors, the volume if all is covered.
    """

    layer: str
    region: str
    mean: float | None
    coverage: float
    area_mm2: float | None = None
    volume_mm3: float | None = None


class Thickness(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a scan: `unit` of the means is um or px, `grid` is "etdrs", "circle" or "b-scans"; distances in um, None where unknown.

    `flags` say when not to trust the surfaces, and so the numbers (see `octedge.quality`).
    """

    schema: int = SCHEMA
    name: str
    model: str
    engine: str
    unit: str
    laterality: str | None
    pattern: str
    axial_um: float | None
    lateral_um: float | None
    between_um: float | None
    spacing_source: str
    grid: str
    fovea: Fovea | None = None
    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    use: str = USE


def thickness(scan: Scan, about: About, surfaces: NDArray[np.floating], fovea: tuple[float, float] | None = None) -> Thickness:
    """Measure surfaces (F, L, W) in rows of `scan`; `fovea` is its column and frame where the user knows them better.

    Raises `UsageError` if the surfaces or the fovea do not belong to the scan.
    """
    if surfaces.shape != (scan.frames, len(about.surface_names), scan.columns):
        needed = (scan.frames, len(about.surface_names), scan.columns)
        raise UsageError(f"{about.name}: surfaces of shape {surfaces.shape} came; needed is {needed}: frames, surfaces, columns")
    maps = thickness_maps(surfaces, about, scan.rows)
    spacing = about.spacing
    unit = "px"
    if spacing.axial is not None:
        unit, maps = "um", {layer: values * (spacing.axial * 1000) for layer, values in maps.items()}
    how = _how(scan, spacing, maps, fovea)
    axial, lateral, between = (None if mm is None else round(mm * 1000, 6) for mm in (spacing.axial, spacing.lateral, spacing.between))
    scale_note = () if unit == "um" else ("the distance of rows is unknown: thickness is in pixels",)
    return Thickness(
        name=about.name, model=about.model, engine=about.engine, unit=unit, laterality=scan.laterality, pattern=scan.pattern,
        axial_um=axial, lateral_um=lateral, between_um=between, spacing_source=spacing.source,
        grid=how.grid, fovea=how.fovea, regions=tuple(_regions(maps, how, unit)), notes=(*scale_note, *how.notes, *about.notes),
        flags=tuple(flag.text for flag in about.flags),
    )  # fmt: skip


def layers(structures: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The layers with a thickness that a model separates, and the sums over them: the indices of the surfaces above and below.

    >>> layers(("vitreous", "nfl", "gcl+ipl", "inl", "choroid", "sclera", "fluid"))
    {'nfl': (0, 1), 'gcl+ipl': (1, 2), 'inl': (2, 3), 'choroid': (3, 4)}
    """
    chain = [members(group) for group in structures if is_ordered(group)]
    first, last = {group[0]: index - 1 for index, group in enumerate(chain)}, {group[-1]: index for index, group in enumerate(chain)}
    found = {"+".join(group): (index - 1, index) for index, group in enumerate(chain) if _ENDLESS.isdisjoint(group)}
    for name, (top, bottom) in SUMS.items():
        if top in first and bottom in last and name not in found:
            found[name] = first[top], last[bottom]
    return {name: (upper, lower) for name, (upper, lower) in found.items() if upper >= 0 and lower < len(chain) - 1}


def thickness_maps(surfaces: NDArray[np.floating], about: About, rows: int) -> dict[str, NDArray[np.float32]]:
    """Thickness (F, W) in rows of each layer from surfaces (F, L, W).

    NaN where a B-scan failed, where the image cuts the layer off at its top or bottom, and in the optic disc, where no layer ends
    as elsewhere.
    """
    disc = _disc(surfaces, about, rows)
    found = {}
    for layer, (above, below) in layers(about.structures).items():
        upper, lower = surfaces[:, above], surfaces[:, below]
        known = (upper > 0) & (lower < rows) & ~disc
        found[layer] = np.where(known, lower - upper, np.nan).astype(np.float32)
    return found


def _disc(surfaces: NDArray[np.floating], about: About, rows: int) -> NDArray[np.bool_]:
    """Columns (F, W) through the nerve head: the disc is there, and neither choroid nor sclera above it."""
    chain = [members(group) for group in about.structures if is_ordered(group)]
    above = [index - 1 for index, group in enumerate(chain) if index and "choroid" in group]
    if chain[-1] != ("disc",) or not above:
        return np.zeros((len(surfaces), surfaces.shape[2]), np.bool_)
    top = surfaces[:, -1]
    return np.asarray((top < rows) & (surfaces[:, above[0]] >= top))


@dataclass(frozen=True, slots=True)
class _How:
    """What regions the scan allows: for "etdrs" the fovea, the spacing (lateral, between) and the names of the sides."""

    grid: str
    notes: tuple[str, ...] = ()
    fovea: Fovea | None = None
    spacing: tuple[float, float] = (1.0, 1.0)
    towards: tuple[str, str, str, str] = ("", "", "", "")


def _how(scan: Scan, spacing: Spacing, maps: dict[str, NDArray[np.float32]], given: tuple[float, float] | None) -> _How:
    if scan.pattern == "circle":
        if scan.directions[0] == "tsnit":
            return _How("circle", (_CIRCLE,))
        return _How("b-scans", ("no sectors around the disc: where the circle begins and which way it turns is not known",))
    if scan.pattern != "volume" or scan.frames < 2:
        return _no_grid(f"the scan is no volume of parallel B-scans (pattern: {scan.pattern}, B-scans: {scan.frames})")
    if spacing.lateral is None or spacing.between is None:
        return _no_grid("the distances of columns and of B-scans are not both known")
    if given is None and "retina" not in maps:
        return _no_grid("the model does not separate the whole retina, so the fovea cannot be found; give its column and frame")
    fovea = _fovea(scan, (spacing.lateral, spacing.between), maps, given)
    if fovea is None:
        return _no_grid("no fovea was found; give its column and frame")
    towards = sides(scan.directions, scan.laterality)
    return _How("etdrs", tuple(_grid_notes(scan, fovea, towards)), fovea, (spacing.lateral, spacing.between), towards)


def _no_grid(why: str) -> _How:
    return _How("b-scans", (f"no ETDRS grid: {why}",))


def _fovea(
    scan: Scan, spacing: tuple[float, float], maps: dict[str, NDArray[np.float32]], given: tuple[float, float] | None
) -> Fovea | None:
    if given is not None:
        column, frame = given
        if not (0 <= column <= scan.columns - 1 and 0 <= frame <= scan.frames - 1):
            limits = f"columns 0..{scan.columns - 1} and frames 0..{scan.frames - 1}"
            raise UsageError(f"{scan.name}: the fovea is said to lie at column {column:g}, frame {frame:g}; the scan has {limits}")
        return Fovea(column=column, frame=frame, confidence=None, source="given by the user")
    found = find_fovea(maps["retina"], *spacing)
    if found is None:
        return None
    column, frame, confidence = (round(value, 3) for value in found)
    return Fovea(column=column, frame=frame, confidence=confidence, source="found from the surfaces")


def _grid_notes(scan: Scan, fovea: Fovea, towards: tuple[str, str, str, str]) -> Iterator[str]:
    if fovea.confidence is not None and fovea.confidence < _SURE:
        yield f"the fovea is uncertain (confidence {fovea.confidence:.2f}): look whether it lies there, or give its column and frame"
    yield "thickness between B-scans is interpolated linearly; B-scans are taken to be evenly spaced"
    if scan.laterality is None:
        yield "the eye is not known: sectors are left and right, not nasal and temporal"
    if "first columns" in towards:
        yield "where the columns run on the fundus is not known: sectors are named by first and last columns"
    if "first frames" in towards:
        yield "where the B-scans run on the fundus is not known: sectors are named by first and last frames"


def _regions(maps: dict[str, NDArray[np.float32]], how: _How, unit: str) -> Iterator[Region]:
    """Layer by layer: the whole scan, then its parts."""
    sectors: list[tuple[str, float, NDArray[np.floating]]] = []
    if how.grid == "etdrs" and how.fovea is not None and maps:
        frames, columns = next(iter(maps.values())).shape
        sectors += etdrs((frames, columns), (how.fovea.column, how.fovea.frame), how.spacing, how.towards)
    for layer, values in maps.items():
        yield _plain(layer, "all", values)
        known = (~np.isnan(values)).astype(np.float64)
        filled = np.nan_to_num(values).astype(np.float64)
        for name, area, weights in sectors:
            yield _sector(layer, name, (area, float(np.vdot(known, weights)), float(np.vdot(filled, weights))), unit)
        if how.grid == "circle":
            for name, inside in circle(values.shape[1]):
                yield _plain(layer, name, values[:, inside])
        elif how.grid == "b-scans" and len(values) > 1:
            for index, line in enumerate(values):
                yield _plain(layer, f"B-scan {index + 1}", line)


def _plain(layer: str, region: str, values: NDArray[np.float32]) -> Region:
    """Over A-scans that all count the same."""
    known = values[~np.isnan(values)]
    mean = round(float(known.mean(dtype=np.float64)), 3) if known.size else None
    return Region(layer=layer, region=region, mean=mean, coverage=_share(known.size, values.size))


def _sector(layer: str, region: str, sums: tuple[float, float, float], unit: str) -> Region:
    """From mm2 of the sector, mm2 of it with values, and the integral of the thickness over these."""
    area, covered, integral = sums
    coverage, area_mm2 = _share(covered, area), round(area, 4)
    if covered <= 0:
        return Region(layer=layer, region=region, mean=None, coverage=coverage, area_mm2=area_mm2)
    mean = integral / covered
    volume = round(mean / 1000 * area, 5) if unit == "um" and covered / area >= _WHOLE else None
    return Region(layer=layer, region=region, mean=round(mean, 3), coverage=coverage, area_mm2=area_mm2, volume_mm3=volume)


def _share(part: float, whole: float) -> float:
    return min(round(part / whole, 4), 1.0) if whole else 0.0


def thickness_csv(found: Thickness) -> bytes:
    """The regions as a table, UTF-8: a line for each layer and region; what is unknown is empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("scan", "eye", "model", "layer", "region", "unit", "mean", "coverage", "area_mm2", "volume_mm3", "use"))
    for each in found.regions:
        place = (found.name, found.laterality, found.model, each.layer, each.region, found.unit)
        table.writerow((*place, each.mean, each.coverage, each.area_mm2, each.volume_mm3, found.use))
    return text.getvalue().encode("utf-8")
