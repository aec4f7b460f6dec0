"""The transfer syntaxes that phantom files come in: one encoder for each, for demonstrations and tests."""

from collections.abc import Callable
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from octedge.errors import UsageError

Coding = Literal[
    "uncompressed", "RLE", "JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000", "JPEG 2000 lossy", "HTJ2K",
]  # fmt: skip


UNCOMPRESSED = "1.2.840.10008.1.2.1"


class Encoder(NamedTuple):
    """How frames are compressed; `lossy` is what the header must say then (PS3.3 C.7.6.1.1.5): ratio and method."""

    syntax: str
    encode: Callable[[NDArray[np.unsignedinteger]], bytes]  # uint8 or uint16 (H, W)
    lossy: tuple[float, str] | None = None


def encoder(coding: Coding, bits: int) -> Encoder:
    """The encoder of that name. Raises `UsageError` for a name there is none for, or 16 bit where it has 8 only."""
    if coding not in _ENCODERS or (coding == "JPEG" and bits != 8):
        raise UsageError(f"coding {coding!r} of {bits} bit: the codings are {', '.join(_ENCODERS)}; JPEG has 8 bit")
    return _ENCODERS[coding]


def _as_it_is(frame: NDArray[np.unsignedinteger]) -> bytes:
    return frame.tobytes()


def _rle(frame: NDArray[np.unsignedinteger]) -> bytes:
    from rle.utils import encode_pixel_data

    rows, columns = frame.shape
    size = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 8 * frame.itemsize}
    return bytes(encode_pixel_data(frame.tobytes(), byteorder="<", **size))


def _jpeg(frame: NDArray[np.unsignedinteger]) -> bytes:
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(frame).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _lossless_jpeg(frame: NDArray[np.unsignedinteger]) -> bytes:
    from imagecodecs import jpeg8_encode

    return bytes(jpeg8_encode(frame, lossless=True, predictor=1, bitspersample=8 * frame.itemsize))


def _jpeg_ls(frame: NDArray[np.unsignedinteger]) -> bytes:
    from jpeg_ls import encode_buffer

    rows, columns = frame.shape
    return bytes(encode_buffer(frame.tobytes(), rows, columns, 1, 8 * frame.itemsize))


def _jpeg2000(frame: NDArray[np.unsignedinteger], ratios: list[float] | None = None) -> bytes:
    from openjpeg.utils import encode_buffer

    rows, columns = frame.shape
    return bytes(encode_buffer(frame.tobytes(), columns, rows, 1, 8 * frame.itemsize, False, compression_ratios=ratios))


def _lossy_jpeg2000(frame: NDArray[np.unsignedinteger]) -> bytes:
    return _jpeg2000(frame, [2.0])


def _htj2k(frame: NDArray[np.unsignedinteger]) -> bytes:
    from imagecodecs import htj2k_encode

    return bytes(htj2k_encode(frame, reversible=True))


_ENCODERS: dict[str, Encoder] = {
    "uncompressed": Encoder(UNCOMPRESSED, _as_it_is),
    "RLE": Encoder("1.2.840.10008.1.2.5", _rle),
    "JPEG": Encoder("1.2.840.10008.1.2.4.50", _jpeg, (3.5, "ISO_10918_1")),  # about, at quality 90
    "JPEG lossless": Encoder("1.2.840.10008.1.2.4.70", _lossless_jpeg),
    "JPEG-LS": Encoder("1.2.840.10008.1.2.4.80", _jpeg_ls),
    "JPEG 2000": Encoder("1.2.840.10008.1.2.4.90", _jpeg2000),
    "JPEG 2000 lossy": Encoder("1.2.840.10008.1.2.4.91", _lossy_jpeg2000, (2.0, "ISO_15444_1")),
    "HTJ2K": Encoder("1.2.840.10008.1.2.4.201", _htj2k),
}
