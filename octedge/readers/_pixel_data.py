"""The pixels of a DICOM file by their place in it: one frame is read when it is asked for, and nothing else.

Compressed frames lie in fragments (PS3.5 section A.4). The fragments are walked once, when the file is opened: that finds what
is cut off, and serves as the table that a file may lack, or have wrong.
"""

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError
from octedge.readers._codecs import Codec, DamagedFrame, Layout

Piece = tuple[int, int]  # offset and length in the file, bytes

_ITEM, _DELIMITER = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_MOST = 1 << 20  # fragments; more are no scan, and would fill the memory


@dataclass(frozen=True, slots=True)
class Native:
    """Where F uncompressed grey frames of H x W lie; `raw(i)` reads one of them.

    A deflated file cannot be entered in the middle: its inflated pixels are `held` in memory.
    """

    path: Path
    layout: Layout
    words: str
    offset: int
    big_endian: bool = False
    byte_pairs: bool = False  # 8 bit in big endian words (OW): every two bytes are swapped
    held: bytes | None = field(default=None, repr=False)

    def raw(self, index: int) -> NDArray[np.unsignedinteger]:
        """Frame `index` as stored, uint8 or uint16 (H, W), bits beyond the stored ones cleared.

        Raises `ScanError` if the file no longer holds it.
        """
        layout = self.layout
        start, stop = index * layout.frame_bytes, (index + 1) * layout.frame_bytes
        if self.byte_pairs:
            first, last = start & ~1, (stop + 1) & ~1
            data = np.frombuffer(self._bytes(index, first, last), ">u2").astype("<u2").view(np.uint8)[start - first :][: stop - start]
        else:
            data = np.frombuffer(self._bytes(index, start, stop), np.uint8)
        if layout.bits_allocated == 8:
            return data.reshape(layout.rows, layout.columns)
        pixels = data.view(">u2" if self.big_endian else "<u2").reshape(layout.rows, layout.columns)
        return pixels.astype(np.uint16) & np.uint16((1 << layout.bits_stored) - 1)

    def _bytes(self, index: int, first: int, last: int) -> bytes:
        if self.held is not None:
            return self.held[first:last]
        return _read(self.path, index, ((self.offset + first, last - first),))


@dataclass(frozen=True, slots=True)
class Encapsulated:
    """Where F compressed grey frames lie, each in one or more pieces; `raw(i)` reads and decodes one of them."""

    path: Path
    layout: Layout
    codec: Codec
    pieces: tuple[tuple[Piece, ...], ...] = field(repr=False)

    @property
    def words(self) -> str:
        return self.codec.words

    def raw(self, index: int) -> NDArray[np.unsignedinteger]:
        """Frame `index`, uint8 or uint16 (H, W), bits beyond the stored ones cleared.

        Raises `ScanError` if this frame is damaged; the others are not affected.
        """
        try:
            return self.codec.pixels(_read(self.path, index, self.pieces[index]), self.layout)
        except DamagedFrame as damage:
            raise ScanError(f"{self.path.name}: frame {index} {damage}; the file is damaged, send it again") from None


Pixels = Native | Encapsulated


def _read(path: Path, index: int, pieces: tuple[Piece, ...]) -> bytes:
    found = []
    try:
        with path.open("rb") as file:
            for offset, length in pieces:
                file.seek(offset)
                found.append(file.read(length))
    except OSError as error:
        raise ScanError(f"{path.name}: frame {index} cannot be read ({error.strerror or type(error).__name__})") from None
    if any(len(data) != length for data, (_, length) in zip(found, pieces, strict=True)):
        raise ScanError(f"{path.name}: frame {index} is cut off; the file has become shorter since it was opened")
    return found[0] if len(found) == 1 else b"".join(found)


def encapsulated(path: Path, file: BinaryIO, layout: Layout, codec: Codec, extended: int | None) -> Encapsulated:
    """The compressed frames of a file that stands at the value of PixelData.

    `extended` is the number of entries of (7FE0,0001) ExtendedOffsetTable; such frames are one fragment each (PS3.3
    C.7.6.3.1.8), so its contents are not needed. Raises `ScanError` for a file that is cut off, holds another number of
    frames than it states, or does not tell which fragments are a frame.
    """
    name = path.name
    table_at, *fragments = _items(name, file)
    basic = _table(name, file, table_at)
    for what, entries in (("the basic offset table", len(basic) or None), ("(7FE0,0001) ExtendedOffsetTable", extended)):
        if entries is not None and entries != layout.frames:
            raise ScanError(f"{name}: {what} lists {entries} frames, (0028,0008) NumberOfFrames is {layout.frames}; the file is damaged")
    if len(fragments) < layout.frames:
        what = f"holds {len(fragments)} fragments, (0028,0008) NumberOfFrames is {layout.frames}"
        raise ScanError(f"{name}: (7FE0,0010) PixelData {what}; the file is damaged, send it again")
    begins = _begins(file, fragments, codec)
    if codec.starts and not any(begins):
        zeiss = "; Zeiss devices scramble their pixels like that" if codec.module == "openjpeg" else ""
        raise ScanError(f"{name}: no frame begins like {codec.words}{zeiss}; ask the device for an export that is not scrambled")
    first = list(range(layout.frames)) if len(fragments) == layout.frames else _firsts(name, layout.frames, fragments, begins, basic)
    stops = [*first[1:], len(fragments)]
    return Encapsulated(path, layout, codec, tuple(tuple(fragments[a:b]) for a, b in zip(first, stops, strict=True)))


def _firsts(name: str, frames: int, fragments: list[Piece], begins: list[bool], basic: tuple[int, ...]) -> list[int]:
    """The first fragment of each frame: where the table points, else where a frame begins; refused if the two contradict each other."""
    beginning = [number for number, begin in enumerate(begins) if begin]
    places = {offset - fragments[0][0]: number for number, (offset, _) in enumerate(fragments)}
    first = [places.get(offset, -1) for offset in basic] if basic else beginning
    if len(first) != frames or first[0] != 0 or any(np.diff(first) <= 0) or set(beginning) - set(first):
        found = f"{len(fragments)} fragments" + (f", {len(beginning)} of which begin a frame" if beginning else "")
        raise ScanError(
            f"{name}: (7FE0,0010) PixelData holds {found}; (0028,0008) NumberOfFrames is {frames},"
            " and which fragments make a frame is not told; the file is damaged"
        )
    return first


def _items(name: str, file: BinaryIO) -> list[Piece]:
    """The items of PixelData up to the end-of-sequence delimiter; the first holds the basic offset table."""
    position, size = file.tell(), file.seek(0, os.SEEK_END)
    items: list[Piece] = []
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            _cut(name, f"ends after {max(len(items) - 1, 0)} fragments, without the end-of-sequence delimiter (FFFE,E0DD)")
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == _DELIMITER and items:
            return items
        if (group, element) != _ITEM or len(items) > _MOST:
            raise ScanError(
                f"{name}: (7FE0,0010) PixelData is no chain of items (FFFE,E000) after {len(items)} of them; the file is damaged"
            )
        if position + 8 + length > size:
            _cut(name, f"ends within fragment {len(items)}, {size - position - 8} of {length} bytes are there")
        items.append((position + 8, length))
        position += 8 + length


def _cut(name: str, what: str) -> NoReturn:
    raise ScanError(f"{name}: (7FE0,0010) PixelData {what}; the file is truncated, send it again")


def _table(name: str, file: BinaryIO, piece: Piece) -> tuple[int, ...]:
    """The basic offset table: where each frame begins, counted from the first fragment's item (PS3.5 A.4); often empty."""
    offset, length = piece
    if length % 4:
        raise ScanError(f"{name}: the basic offset table of PixelData has {length} bytes, no multiple of 4; the file is damaged")
    file.seek(offset)
    return struct.unpack(f"<{length // 4}I", file.read(length))


def _begins(file: BinaryIO, fragments: list[Piece], codec: Codec) -> list[bool]:
    """Which fragments begin as a frame does."""
    if not codec.starts:
        return [False] * len(fragments)
    longest = max(map(len, codec.starts))
    begins = []
    for offset, length in fragments:
        file.seek(offset)
        begins.append(file.read(min(length, longest)).startswith(codec.starts))
    return begins
