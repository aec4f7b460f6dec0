"""Heidelberg raw exports (.vol, HSF-OCT-1xx), after the vendor's description of the "Special Function: Exporting Raw Data".

A file header of 2048 bytes, the fundus image, then for each B-scan a header (with the device's own lines) and float32
reflectivity. One B-scan is read at a time.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError
from octedge.readers._directions import Line, directions, word
from octedge.readers._spacing import plausible
from octedge.scan import Direction, Frame, Scan

LINES = ("ILM", "BM", "NFL")  # the first three of the vendor's segmentation vectors
PATTERNS = {1: "line", 2: "circle", 3: "volume", 4: "volume", 5: "radial"}
_FILE_HEADER = 2048
_MISSING = 1e30  # "invalid" is the largest float32, 3.4e38


@dataclass(frozen=True, slots=True)
class _Header:
    """What the file header says; lengths in mm, sizes in bytes."""

    columns: int
    frames: int
    rows: int
    lateral: float
    between: float
    axial: float
    fundus: int
    eye: bytes
    pattern: int
    frame_header: int
    version: str

    @property
    def frame_size(self) -> int:
        return self.frame_header + 4 * self.rows * self.columns

    def start(self, index: int) -> int:
        return _FILE_HEADER + self.fundus + index * self.frame_size


def read_vol(path: Path, name: str) -> Scan:
    """A Heidelberg raw export as a `Scan`; shown as the device shows it, by the fourth root of the reflectivity.

    uint8 = round(255 * clip(value, 0, 1) ** 0.25), 0 where the value is missing. Raises `ScanError`.
    """
    header = _header(path)

    def decode(index: int) -> Frame:
        data = _read_at(path, header.start(index) + header.frame_header, 4 * header.rows * header.columns)
        return display(np.frombuffer(data, "<f4").reshape(header.rows, header.columns))

    several = header.frames > 1 and header.between != 0
    scale, notes = plausible((header.axial, header.lateral, header.between if several else None), f"vendor header ({header.version})")
    if header.frames > 1 and not several:
        notes = (*notes, "the header states no distance between B-scans")
    return Scan(
        name, header.frames, header.rows, header.columns, decode, scale,
        {b"OD": "R", b"OS": "L"}.get(header.eye),  # type: ignore[arg-type]
        PATTERNS.get(header.pattern, "unknown"), f"Heidelberg Engineering ({header.version})",
        notes=("reflectivity shown by its fourth root", *notes),
        directions=_directions(path, header), coding="32 bit reflectivity",
    )  # fmt: skip


def display(reflectivity: NDArray[np.floating]) -> Frame:
    """Reflectivity (H, W) in 0..1 -> uint8 by the fourth root; missing (above 1e30 or not a number) is 0."""
    known = np.where(reflectivity < _MISSING, reflectivity, 0)  # NaN is not below either
    shown: Frame = np.rint(255 * np.sqrt(np.sqrt(np.clip(known, 0, 1)))).astype(np.uint8)
    return shown


def device_lines(path: Path) -> dict[str, NDArray[np.float32]]:
    """The device's own lines, each float32 (F, W) in rows, NaN where it drew none: ILM, BM, and NFL if there.

    Raises `ScanError`.
    """
    header = _header(path)
    lines = {key: np.full((header.frames, header.columns), np.nan, np.float32) for key in LINES}
    counts = []
    for index in range(header.frames):
        block = _read_at(path, header.start(index), header.frame_header)
        count, offset = struct.unpack_from("<ii", block, 48)
        count = min(count, len(LINES))
        counts.append(count)
        if count < 0 or offset < 56 or offset + 4 * count * header.columns > len(block):
            raise ScanError(f"{path.name}: the header of B-scan {index} places its lines outside itself; the file is damaged")
        values = np.frombuffer(block, "<f4", count * header.columns, offset).reshape(count, header.columns)
        for key, line in zip(LINES, values, strict=False):
            lines[key][index] = np.where(np.abs(line) < _MISSING, line, np.nan)
    return {key: lines[key] for key in LINES[: max(counts)]}


def _directions(path: Path, header: _Header) -> tuple[Direction | None, Direction | None]:
    """From where the B-scans lie on the fundus image, in mm from its upper left corner.

    A circle states its first point and its centre, not which way it turns; the device draws and plots circles of either eye
    in the order temporal, superior, nasal, inferior, so one that begins on the temporal side is taken for that.
    """
    first, last = (_line(path, header, index) for index in (0, header.frames - 1))
    pattern = PATTERNS.get(header.pattern)
    if pattern == "circle":
        temporal = {b"OD": "left", b"OS": "right"}.get(header.eye)
        start = word(first[0] - first[2], first[1] - first[3])
        return ("tsnit" if start is not None and start == temporal else None), None
    across, along = directions(first, last)
    return across, along if pattern == "volume" else None


def _line(path: Path, header: _Header, index: int) -> Line:
    block = _read_at(path, header.start(index), 48)
    left, top, right, bottom = struct.unpack_from("<4d", block, 16)
    return left, -top, right, -bottom


def _header(path: Path) -> _Header:
    block = _read_at(path, 0, _FILE_HEADER)
    version = block[:12].rstrip(b"\0")
    if not version.startswith(b"HSF-OCT-1"):
        raise ScanError(f"{path.name}: is no Heidelberg raw export, it does not start with HSF-OCT-1; export it as 'RAW data (.vol)'")
    columns, frames, rows, lateral, between, axial, fundus_columns, fundus_rows = struct.unpack_from("<3i3d2i", block, 12)
    pattern, frame_header = struct.unpack_from("<2i", block, 96)
    for what, value in (("SizeX", columns), ("NumBScans", frames), ("SizeZ", rows)):
        if not 0 < value < 65536:
            raise ScanError(f"{path.name}: {what} = {value} in the file header; needed is 1 to 65535; the file is damaged")
    if not (0 <= fundus_columns < 65536 and 0 <= fundus_rows < 65536 and 256 <= frame_header < 1 << 30):
        sizes = f"fundus image {fundus_columns} x {fundus_rows}, B-scan header {frame_header}"
        raise ScanError(f"{path.name}: the file header states impossible sizes ({sizes}); the file is damaged")
    header = _Header(
        columns, frames, rows, lateral, between, axial, fundus_columns * fundus_rows,
        block[84:88].split(b"\0")[0], pattern, frame_header, version.decode("ascii", "replace"),
    )  # fmt: skip
    size = os.stat(path).st_size
    if size < header.start(frames):
        needed = f"{frames} B-scans of {rows} x {columns} need {header.start(frames)}"
        raise ScanError(f"{path.name}: {size} bytes, {needed}; the file is truncated, copy it again")
    return header


def _read_at(path: Path, start: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError as error:
        raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from None
    if len(data) < size:
        raise ScanError(f"{path.name}: ends after {start + len(data)} bytes, {start + size} are needed; copy it again")
    return data
