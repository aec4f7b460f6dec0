"""The result NPZ: every number of a segmentation in one file that numpy alone can read."""

import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from octedge.segment import Segmentation


def write_npz(file: BinaryIO, result: Segmentation) -> None:
    """Write labels uint8 (F, H, W), surfaces float32 (F, L, W) and what they mean; loads without pickle.

    `spacing_mm` float64 (3,) is axial, lateral, between, NaN where unknown. The same result gives the same bytes.
    """
    spacing = result.spacing
    arrays: dict[str, Any] = {
        "labels": result.labels,
        "surfaces": result.surfaces,
        "structures": np.array(result.structures, dtype=np.str_),
        "surface_names": np.array(result.surface_names, dtype=np.str_),
        "spacing_mm": np.array([np.nan if mm is None else mm for mm in (spacing.axial, spacing.lateral, spacing.between)]),
        "spacing_source": np.array(spacing.source),
        "model": np.array(result.model),
        "engine": np.array(result.engine),
        "factor": np.array(result.factor),
        "notes": np.array(result.notes, dtype=np.str_),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Labels shrink a hundredfold at the fastest level; the rest is small or does not shrink.
            _write(archive, name, np.asarray(array), zipfile.ZIP_DEFLATED if name == "labels" else zipfile.ZIP_STORED)


def _write(archive: zipfile.ZipFile, name: str, array: NDArray[Any], compression: int) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy")  # with the format's earliest date: nothing in the file depends on the clock
    entry.compress_type = compression
    entry._compresslevel = 1  # type: ignore[attr-defined]
    with archive.open(entry, "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
