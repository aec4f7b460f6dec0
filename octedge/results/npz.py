"""The result NPZ: every number of a segmentation in one file that numpy alone can read."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from octedge.errors import UsageError
from octedge.quality import MEASURES, measures
from octedge.segment import About, Layers, Segmentation

_IN_MEMORY = 1 << 22  # bytes of surfaces; more wait in a temporary file without a name, so that memory does not grow with the volume


def write_npz(file: BinaryIO, result: Segmentation) -> None:
    """Write labels uint8 (F, H, W), surfaces float32 (F, L, W) and what they mean; loads without pickle.

    `spacing_mm` float64 (3,) is axial, lateral, between, NaN where unknown; `failed_frames` int64 those that could not be decoded;
    `quality` float64 (F, Q) the measures called `quality_names` (Q,), F = 0 if none were taken, and `flags` the sentences they raise.
    The same result gives the same bytes.
    """
    with npz_by_frame(file, result.labels.shape, lambda: result) as add:
        for labels, surfaces in zip(result.labels, result.surfaces, strict=True):
            add(Layers(labels, surfaces))


@contextmanager
def npz_by_frame(file: BinaryIO, shape: tuple[int, ...], about: Callable[[], About]) -> Iterator[Callable[[Layers], None]]:
    """The same file, written while the answers to B-scans (F, H, W) come: add each; none is held. `about` is asked for at the end."""
    with zipfile.ZipFile(file, "w") as archive, SpooledTemporaryFile(_IN_MEMORY) as surfaces:
        sizes: list[tuple[int, ...]] = []
        # Labels shrink a hundredfold at the fastest level; the rest is small or does not shrink.
        with archive.open(_entry("labels", zipfile.ZIP_DEFLATED), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})

            def add(layers: Layers) -> None:
                member.write(np.ascontiguousarray(layers.labels).data)
                surfaces.write(np.ascontiguousarray(layers.surfaces).data)
                sizes.append(layers.surfaces.shape)

            yield add
        if len(sizes) != shape[0]:
            raise UsageError(f"{len(sizes)} answers came for {shape[0]} B-scans; needed is one for each")
        with archive.open(_entry("surfaces", zipfile.ZIP_STORED), "w", force_zip64=True) as member:
            kind = np.lib.format.dtype_to_descr(np.dtype(np.float32))
            np.lib.format.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": (shape[0], *sizes[0])})
            surfaces.seek(0)
            shutil.copyfileobj(surfaces, member)
        for name, array in _words(about()).items():
            with archive.open(_entry(name, zipfile.ZIP_STORED), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_deviations(file: BinaryIO, deviations: NDArray[np.float32], about: About) -> None:
    """Write standard deviations float32 (F, L, W) of the surfaces, in rows of the B-scan, NaN where a B-scan failed, and what they are of.

    The same values give the same bytes.
    """
    words = {"deviation": deviations, "surface_names": np.array(about.surface_names, dtype=np.str_), "model": np.array(about.model)}
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in words.items():
            with archive.open(_entry(name, zipfile.ZIP_STORED), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _words(about: About) -> dict[str, NDArray[Any]]:
    """All but the labels and the surfaces."""
    spacing = about.spacing
    return {
        "structures": np.array(about.structures, dtype=np.str_),
        "surface_names": np.array(about.surface_names, dtype=np.str_),
        "spacing_mm": np.array([np.nan if mm is None else mm for mm in (spacing.axial, spacing.lateral, spacing.between)]),
        "spacing_source": np.array(spacing.source),
        "model": np.array(about.model),
        "engine": np.array(about.engine),
        "certificate": np.array(about.certificate),
        "factor": np.array(about.factor),
        "notes": np.array(about.notes, dtype=np.str_),
        "quality": measures(about.quality),
        "quality_names": np.array(MEASURES, dtype=np.str_),
        "flags": np.array([flag.text for flag in about.flags], dtype=np.str_),
        "failed_frames": np.array(sorted(about.failed), np.int64),
    }


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"{name}.npy")  # with the format's earliest date: nothing in the file depends on the clock
    entry.compress_type = compression
    entry._compresslevel = 1  # type: ignore[attr-defined]
    return entry
