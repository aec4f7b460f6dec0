"""Mask files: pictures, NPY and NPZ, one B-scan or many, always one whole number per pixel."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from octedge.errors import ScanError

Mask = NDArray[np.integer]
ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".npy", ".npz")


def read_mask(path: Path) -> Mask:
    """The mask of one B-scan: (H, W).

    Raises `ScanError` for colour, NaN, fractional values or several B-scans.
    """
    masks = read_masks(path)
    if len(masks) != 1:
        raise ScanError(f"{path.name}: {len(masks)} masks, needed is one; give a volume's mask the volume's name")
    first: Mask = masks[0]
    return first


def read_masks(path: Path, array: str = "labels") -> Mask:
    """The masks of F B-scans: (F, H, W); of an NPZ the array called `array`, or the only one.

    Raises `ScanError` for colour, NaN or fractional values.
    """
    found = _from_numpy(path, array) if path.suffix.lower() in {".npy", ".npz"} else _from_picture(path)
    if np.issubdtype(found.dtype, np.floating):
        if not np.isfinite(found).all() or (found != np.rint(found)).any():
            raise ScanError(f"{path.name}: mask holds NaN or fractions, needed is one whole number per pixel")
        found = found.astype(np.int64)
    if found.dtype == np.bool_:
        found = found.astype(np.uint8)
    if not np.issubdtype(found.dtype, np.integer):
        raise ScanError(f"{path.name}: mask of type {found.dtype}, needed is one whole number per pixel")
    if found.ndim not in {2, 3} or not found.size:
        raise ScanError(f"{path.name}: mask of shape {found.shape}, needed is (rows, columns) or (B-scans, rows, columns)")
    return found if found.ndim == 3 else found[None]


def stated_classes(path: Path) -> tuple[str, ...] | None:
    """The classes that a result of octedge names itself, by value; None for any other file."""
    if path.suffix.lower() != ".npz":
        return None
    with _archive(path) as archive:
        return tuple(str(each) for each in archive["structures"]) if "structures" in archive.files else None


def beside(folder: Path, name: str) -> list[Path]:
    """The mask files of the scan `name` (its path without ending) in `folder`: NAME.*, else NAME_NUMBER.*, by number."""
    place = folder / name
    here = sorted(place.parent.glob("*")) if place.parent.is_dir() else []
    known = [path for path in here if path.suffix.lower() in ENDINGS]
    whole = [path for path in known if path.stem == place.name]
    numbered = [path for path in known if re.fullmatch(re.escape(place.name) + r"_\d+", path.stem)]
    return whole[:1] or sorted(numbered, key=number)


def number(path: Path) -> int:
    """The number at the end of a mask's name."""
    return int(path.stem.rpartition("_")[2])


def _archive(path: Path) -> Any:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ScanError(f"{path.name}: no readable NumPy file ({type(error).__name__}); it is empty, damaged or holds objects") from error
    return found


def _from_numpy(path: Path, array: str) -> NDArray[Any]:
    found = _archive(path)
    if isinstance(found, np.ndarray):
        return found
    with found as archive:
        name = array if array in archive.files else archive.files[0] if len(archive.files) == 1 else None
        if name is None:
            raise ScanError(f"{path.name}: has no array {array!r}, its arrays are {', '.join(archive.files)}; call the masks {array!r}")
        try:
            chosen: NDArray[Any] = archive[name]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ScanError(f"{path.name}: array {name!r} cannot be read ({type(error).__name__}); the file is damaged") from error
    return chosen


def _from_picture(path: Path) -> NDArray[Any]:
    pages = []
    try:
        with Image.open(path) as image:
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                if image.mode not in {"L", "P", "I;16", "I", "F", "1"}:
                    raise ScanError(f"{path.name}: mask mode {image.mode}, needed is one whole number per pixel")
                pages.append(np.asarray(image))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ScanError(f"{path.name}: not a readable image ({type(error).__name__}); it is empty, damaged or of another kind") from error
    if len({page.shape for page in pages}) > 1:
        raise ScanError(f"{path.name}: pages of mixed size; the masks of a volume have one size, split the file")
    return np.stack(pages)
