"""The compressed transfer syntaxes of DICOM (PS3.5 section 8.2, annex A.4): for each its words, its header, its one decoder.

A frame's own header is compared with the file's before anything is decoded, so a damaged frame neither asks for memory nor
comes out in another size. No second decoder is tried where one fails: what refuses a damaged stream would only hand it to
what does not. For the same reason gdcm (which ends the process on damaged JPEG Lossless) and pylibjpeg-libjpeg (which makes
wrong pixels of truncated streams, and is under the GPL) are not among them.
"""

import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError


class Layout(NamedTuple):
    """F frames of H x W grey pixels, as the file's header states them."""

    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame that is stored as it is."""
        return self.rows * self.columns * (self.bits_allocated // 8)

    def __str__(self) -> str:
        return f"{self.frames} frames x {self.rows} rows x {self.columns} columns of {self.bits_allocated} bit"


class Header(NamedTuple):
    """What a compressed frame says of itself."""

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool = False


class DamagedFrame(ValueError):
    """A compressed frame cannot be decoded; the message says why."""


# What decoders raise on damaged data; each was met in tests that overwrite it.
_FAILURES = (
    RuntimeError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError, OSError, SyntaxError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Codec:
    """How the frames of one transfer syntax are told, checked and decoded."""

    words: str
    starts: tuple[bytes, ...]  # what a frame begins with; nothing where a frame has no such mark
    header: Callable[[bytes], Header] | None
    decode: Callable[[bytes, Layout], object]  # an array or a buffer of one frame's pixels
    module: str
    package: str  # what to install if the module is missing
    lossy: bool = False  # by its nature, whatever the file's header says

    def check_installed(self, name: str) -> None:
        """Raise `ScanError` naming the package if the decoder is not installed."""
        try:
            import_module(self.module)
        except ImportError:
            raise ScanError(f"{name}: compressed as {self.words}; its decoder is missing: pip install {self.package}") from None

    def pixels(self, data: bytes, layout: Layout) -> NDArray[np.unsignedinteger]:
        """One frame, uint8 or uint16 (H, W), bits beyond the stored ones cleared.

        Raises `DamagedFrame` if the frame is none, is cut off, contradicts the file's header or cannot be decoded.
        """
        if self.header is not None:
            if not data.startswith(self.starts):
                raise DamagedFrame(f"does not begin like {self.words}")
            _check(self.header(data), layout)
            if _END not in data[-10:]:  # a byte of padding is usual, some writers add more
                raise DamagedFrame("ends before its end marker FFD9")
        try:
            decoded = self.decode(data, layout)
        except DamagedFrame:
            raise
        except _FAILURES as error:
            raise DamagedFrame(f"its {self.words} data cannot be decoded ({type(error).__name__})") from None
        pixels: NDArray[np.unsignedinteger] = decoded if isinstance(decoded, np.ndarray) else _words(decoded, layout)
        if pixels.size != layout.rows * layout.columns or pixels.dtype not in (np.uint8, np.uint16):
            raise DamagedFrame(f"decodes to {pixels.size} pixels of {pixels.dtype}, needed are {layout.rows} x {layout.columns}")
        if pixels.dtype == np.uint16 and layout.bits_stored < 16:
            pixels = np.bitwise_and(pixels, np.uint16((1 << layout.bits_stored) - 1))
        frame: NDArray[np.unsignedinteger] = pixels.reshape(layout.rows, layout.columns)
        return frame


def _words(buffer: object, layout: Layout) -> NDArray[np.unsignedinteger]:
    """The pixels in a decoder's bytes: little endian, 16 bit where it says so by their number."""
    data: NDArray[np.uint8] = np.frombuffer(buffer, np.uint8)  # type: ignore[call-overload]
    return data.view(np.dtype(np.uint16).newbyteorder("<")) if data.size == 2 * layout.rows * layout.columns else data


def _check(found: Header, layout: Layout) -> None:
    if (found.rows, found.columns) != (layout.rows, layout.columns):
        needed = f"{layout.rows} x {layout.columns}"
        raise DamagedFrame(f"is {found.rows} x {found.columns} by its own header, {needed} by (0028,0010) Rows and (0028,0011) Columns")
    if found.samples != 1 or found.signed:
        kind = "signed" if found.signed else f"of {found.samples} samples"
        raise DamagedFrame(f"is {kind} by its own header; needed is unsigned grey")
    if found.bits not in (layout.bits_stored, layout.bits_allocated):
        raise DamagedFrame(f"has {found.bits} bit by its own header, {layout.bits_stored} by (0028,0101) BitsStored")


# Headers

_SOI, _END = b"\xff\xd8\xff", b"\xff\xd9"  # JPEG and JPEG 2000 end with the same marker
_J2K, _JP2 = b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
_SIZ = struct.Struct(">HH8I H3B")  # ISO/IEC 15444-1 A.5.1, behind the marker, for one component
_SOF = struct.Struct(">HBHHB")  # ISO/IEC 10918-1 B.2.2, behind the marker


def _j2k(data: bytes) -> Header:
    """SIZ of a codestream, or of the one in a JP2 file: some devices wrap it, against PS3.5 A.4.4."""
    start = data.find(b"jp2c" + _J2K) + 4 if data.startswith(_JP2) else 0
    if not data.startswith(_J2K, start) or len(data) < start + 4 + _SIZ.size:
        raise DamagedFrame("holds no JPEG 2000 codestream")
    _, _, x1, y1, x0, y0, *_, samples, depth, dx, dy = _SIZ.unpack_from(data, start + 4)
    if dx < 1 or dy < 1:
        raise DamagedFrame("has a damaged JPEG 2000 header")
    rows, columns = -(-y1 // dy) - -(-y0 // dy), -(-x1 // dx) - -(-x0 // dx)
    return Header(rows, columns, samples, (depth & 0x7F) + 1, bool(depth & 0x80))


def _frame_header(*kinds: int) -> Callable[[bytes], Header]:
    """A function that finds the frame header of a JPEG stream, if it is one of these kinds (the second byte of its marker)."""

    def find(data: bytes) -> Header:
        position = 2
        while position + 2 + _SOF.size <= len(data) and data[position] == 0xFF:
            kind = data[position + 1]
            if kind == 0xFF:  # a fill byte
                position += 1
            elif kind in kinds:
                _, bits, rows, columns, samples = _SOF.unpack_from(data, position + 2)
                return Header(rows, columns, samples, bits)
            else:
                position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        raise DamagedFrame("holds no frame header of its kind")

    return find


# Decoders


def _openjpeg(data: bytes, layout: Layout) -> object:
    from openjpeg.utils import decode_pixel_data

    return decode_pixel_data(data, version=2)


def _charls(data: bytes, layout: Layout) -> object:
    from jpeg_ls import decode_pixel_data

    return decode_pixel_data(data)[0]


def _rle(data: bytes, layout: Layout) -> object:
    """PackBits, a segment for each byte of a pixel, the highest first (PS3.5 annex G).

    Segment by segment, with lengths checked here: the decoder of whole frames ends in a panic of its own language (no
    Exception) where a segment is longer than it should be.
    """
    from rle.rle import decode_segment

    size, count = layout.rows * layout.columns, layout.bits_allocated // 8
    if len(data) < 64 or struct.unpack_from("<I", data)[0] != count:
        raise DamagedFrame(f"has no RLE header of {count} segments")
    edges = (*struct.unpack_from(f"<{count}I", data, 4), len(data))
    if edges[0] != 64 or not all(first < second for first, second in itertools.pairwise(edges)):
        raise DamagedFrame("has RLE segments that lie outside of it")
    pixels = np.empty((size, count), np.uint8)
    for place, (first, last) in enumerate(itertools.pairwise(edges)):
        segment = np.frombuffer(decode_segment(data[first:last]), np.uint8)
        if segment.size not in (size, size + 1):  # its padding may read as one more
            raise DamagedFrame(f"has an RLE segment of {segment.size} pixels, needed are {size}")
        pixels[:, count - 1 - place] = segment[:size]
    return pixels.tobytes()


def _pillow(data: bytes, layout: Layout) -> object:
    from PIL.JpegImagePlugin import JpegImageFile  # not Image.open: its limit of pixels is for sizes that nobody has checked

    with JpegImageFile(BytesIO(data)) as image:
        return np.asarray(image)


def _turbo(data: bytes, layout: Layout) -> object:
    """The library that Pillow decodes JPEG with, which Pillow has for 8 bit only."""
    from imagecodecs import jpeg8_decode

    return jpeg8_decode(data)


def _jpeg2000(words: str) -> Codec:
    return Codec(words, (_J2K, _JP2), _j2k, _openjpeg, "openjpeg", "pylibjpeg-openjpeg")


def _jpegls(words: str) -> Codec:
    return Codec(words, (_SOI,), _frame_header(0xF7), _charls, "jpeg_ls", "pyjpegls")


_JPEG = Codec("JPEG baseline (lossy)", (_SOI,), _frame_header(0xC0, 0xC1), _pillow, "PIL", "pillow", lossy=True)
_LOSSLESS = Codec("JPEG lossless", (_SOI,), _frame_header(0xC3), _pillow, "PIL", "pillow")
_DEEP = Codec("JPEG lossless of more than 8 bit", (_SOI,), _frame_header(0xC3), _turbo, "imagecodecs", "octedge[dicom]")

CODECS = {
    "1.2.840.10008.1.2.5": Codec("RLE lossless", (), None, _rle, "rle", "pylibjpeg-rle"),
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": Codec("JPEG extended (lossy)", (_SOI,), _JPEG.header, _pillow, "PIL", "pillow", lossy=True),
    "1.2.840.10008.1.2.4.57": _LOSSLESS,
    "1.2.840.10008.1.2.4.70": _LOSSLESS,
    "1.2.840.10008.1.2.4.80": _jpegls("JPEG-LS lossless"),
    "1.2.840.10008.1.2.4.81": _jpegls("JPEG-LS (near-lossless allowed)"),
    "1.2.840.10008.1.2.4.90": _jpeg2000("JPEG 2000 lossless"),
    "1.2.840.10008.1.2.4.91": _jpeg2000("JPEG 2000 (lossy allowed)"),
    "1.2.840.10008.1.2.4.201": _jpeg2000("HTJ2K lossless"),
    "1.2.840.10008.1.2.4.202": _jpeg2000("HTJ2K lossless, RPCL"),
    "1.2.840.10008.1.2.4.203": _jpeg2000("HTJ2K (lossy allowed)"),
}


def codec(name: str, syntax: str, layout: Layout) -> Codec:
    """The codec of a compressed transfer syntax.

    Raises `ScanError` if there is none for so many bits, or its decoder is not installed.
    """
    found = CODECS[syntax]
    if found.lossy and layout.bits_stored > 8:
        raise ScanError(
            f"{name}: compressed as {found.words} of {layout.bits_stored} bit; JPEG is read up to 8 bit, lossless JPEG up to 16;"
            " export it uncompressed or as JPEG 2000"
        )
    if found is _LOSSLESS and layout.bits_stored > 8:
        found = _DEEP
    found.check_installed(name)
    return found
