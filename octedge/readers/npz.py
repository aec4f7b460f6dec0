"""NumPy archives: one array of B-scans, (H, W) or (F, H, W), uint8 or uint16, with an optional `spacing_mm`."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from octedge.errors import ScanError
from octedge.readers._spacing import plausible
from octedge.scan import Frame, Scan, Spacing, range_note, to_uint8

NAMES = ("image", "images", "frames", "volume")
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, LookupError, NotImplementedError, SyntaxError, RuntimeError,
    struct.error, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Member:
    """One array of the archive: its zip entry, element type, shape, and the bytes before its data."""

    entry: zipfile.ZipInfo
    dtype: np.dtype[np.unsignedinteger]
    shape: tuple[int, int, int]
    header: int


def holds_scan(path: Path) -> bool:
    """Whether a folder listing takes the file: a damaged one is taken, so that reading it tells; a result is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _chosen(archive) is not None
    except (OSError, *_DAMAGE):
        return True


def read_npz(path: Path, name: str) -> Scan:
    """The B-scans of a NumPy archive as a `Scan`: frame by frame if stored plainly; a compressed array is inflated whole, once.

    The array is called image, images, frames or volume, or is the only one. `spacing_mm` holds axial, lateral and
    perhaps between, NaN where unknown. Nothing is unpickled. Raises `ScanError`.
    """
    with _damage(path.name), zipfile.ZipFile(path) as archive:
        member = _member(path.name, archive)
        scale, notes = _spacing(archive)
        plain = member.entry.compress_type == zipfile.ZIP_STORED
        raw = _stored(path, member) if plain else _inflated(path, member)
    bits = 8 * member.dtype.itemsize
    frames, rows, columns = member.shape
    if not plain:
        notes = (*notes, "compressed archive: all frames are held in memory")
    if bits > 8:
        notes = (*notes, f"{bits} bit reduced to 8: value >> {bits - 8}")
    little = range_note(raw(frames // 2), bits)

    def decode(index: int) -> Frame:
        return to_uint8(raw(index), bits)

    notes = (*notes, little) if little else notes
    return Scan(name, frames, rows, columns, decode, scale, notes=notes, coding="NumPy array")


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScanError(f"{name}: cannot be read ({error.strerror or type(error).__name__})") from None
    except _DAMAGE as error:
        raise ScanError(f"{name}: is no readable NumPy archive ({type(error).__name__}); write it with numpy.savez") from None


def _chosen(archive: zipfile.ZipFile) -> str | None:
    arrays = [entry.removesuffix(".npy") for entry in archive.namelist() if entry.endswith(".npy") and entry != "spacing_mm.npy"]
    named = [key for key in NAMES if key in arrays]
    if len(named) == 1:
        return named[0]
    return arrays[0] if len(arrays) == 1 else None


def _member(name: str, archive: zipfile.ZipFile) -> _Member:
    key = _chosen(archive)
    if key is None:
        raise ScanError(f"{name}: {len(archive.namelist())} arrays, not exactly one of them called {', '.join(NAMES)}; call it 'images'")
    entry = archive.getinfo(f"{key}.npy")
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        shape, fortran, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
        header = file.tell()
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise ScanError(f"{name}: array {key!r} is {dtype}, needed is uint8 or uint16; scale all scans of a device alike and save it so")
    if len(shape) not in (2, 3) or min(shape) < 1 or max(shape) >= 65536:
        raise ScanError(f"{name}: array {key!r} has shape {shape}; needed is (rows, columns) or (frames, rows, columns)")
    if fortran:
        raise ScanError(f"{name}: array {key!r} is in Fortran order; save numpy.ascontiguousarray of it")
    full = (shape[0] if len(shape) == 3 else 1, shape[-2], shape[-1])
    if header + full[0] * full[1] * full[2] * dtype.itemsize != entry.file_size:
        raise ScanError(f"{name}: array {key!r} of shape {shape} does not fit its {entry.file_size} bytes; the file is damaged")
    return _Member(entry, dtype, full, header)


def _spacing(archive: zipfile.ZipFile) -> tuple[Spacing, tuple[str, ...]]:
    if "spacing_mm.npy" not in archive.namelist():
        return Spacing(), ()
    with archive.open("spacing_mm.npy") as file:
        stated = npy.read_array(file, allow_pickle=False).astype(float).ravel()
    values = [None if np.isnan(value) else float(value) for value in stated[:3]]
    return plausible((*values, *[None] * (3 - len(values))), "NPZ spacing_mm")


def _inflated(path: Path, member: _Member) -> Callable[[int], NDArray[np.unsignedinteger]]:
    @cache
    def whole() -> NDArray[np.unsignedinteger]:
        with _damage(path.name), zipfile.ZipFile(path) as archive:
            data = archive.read(member.entry)[member.header :]
            return np.frombuffer(data, member.dtype).reshape(member.shape).astype(member.dtype.newbyteorder("="), copy=False)

    return lambda index: whole()[index]


def _stored(path: Path, member: _Member) -> Callable[[int], NDArray[np.unsignedinteger]]:
    """Frames read at their place in the file: zip's local header is 30 bytes, then the name, then the extra field."""
    with path.open("rb") as file:
        file.seek(member.entry.header_offset)
        local = file.read(30)
    start = member.entry.header_offset + 30 + sum(struct.unpack("<HH", local[26:30])) + member.header
    _, rows, columns = member.shape
    size = rows * columns * member.dtype.itemsize

    def raw(index: int) -> NDArray[np.unsignedinteger]:
        with _damage(path.name), path.open("rb") as file:
            file.seek(start + index * size)
            data = file.read(size)
            return np.frombuffer(data, member.dtype).reshape(rows, columns).astype(member.dtype.newbyteorder("="), copy=False)

    return raw
