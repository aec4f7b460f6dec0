"""One DICOM file: the header as pydicom reads it, and where its pixels lie.

pydicom neither raises on a truncated file nor keeps values out of its warnings. So everything it does runs inside
`reading`, and lengths are checked here before a pixel is believed.
"""

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from octedge.errors import ScanError
from octedge.readers._codecs import CODECS, Layout, codec
from octedge.readers._pixel_data import Encapsulated, Native, Pixels, encapsulated

# PS3.5 annex A: the transfer syntaxes whose pixels are stored as they are.
IMPLICIT, EXPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
NATIVE = (IMPLICIT, EXPLICIT, BIG, DEFLATED)
UNDEFINED = 0xFFFFFFFF  # the stated length of what ends with a delimiter

PHOTOMETRIC = ("MONOCHROME1", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")

# What pydicom lets through when a file is damaged; each was met in tests that cut and overwrite files.
_DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError,
    ArithmeticError, RecursionError, MemoryError, AssertionError, struct.error, zlib.error,
)  # fmt: skip

_LOCK = threading.RLock()  # warning filters belong to the process
_LOGGER = logging.getLogger("pydicom")


def _nothing(record: logging.LogRecord) -> bool:
    return False


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Keep pydicom silent, and turn what it raises on a damaged file into a `ScanError` that holds no value of the file."""
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _LOGGER.addFilter(_nothing)
        try:
            yield
        except OSError as error:
            raise ScanError(f"{name}: cannot be read ({error.strerror or type(error).__name__})") from None
        except InvalidDicomError:
            raise ScanError(f"{name}: is no DICOM file (the mark DICM at byte 128 is missing); export it again from the device") from None
        except _DAMAGE as error:
            raise ScanError(f"{name}: the DICOM header cannot be read ({type(error).__name__}); the file is probably damaged") from None
        finally:
            _LOGGER.removeFilter(_nothing)


def open_dicom(path: Path) -> tuple[Dataset, Pixels]:
    """The header and the pixels of a grey DICOM image (PS3.3 C.7.6.3, PS3.5 section 8).

    Raises `ScanError` naming the first tag that is missing, damaged or of a kind that is not read. Use the data set
    inside `reading` only: pydicom converts values when they are looked at.
    """
    with reading(path.name), path.open("rb") as file:
        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
        check_syntax(path.name, syntax)
        layout = _layout(path.name, dataset)
        if syntax == DEFLATED:
            return dataset, _deflated(path, layout)
        implicit, little = dataset.original_encoding
        vr, declared = _element(file, bool(implicit), "<" if little else ">")
        if syntax in CODECS:
            return dataset, _compressed(path, file, dataset, layout, declared)
        offset = file.tell()
        _check_length(path.name, declared, path.stat().st_size - offset, layout)
        return dataset, Native(path, layout, "uncompressed", offset, not little, not little and vr == b"OW" and layout.bits_allocated == 8)


def check_syntax(name: str, syntax: str) -> None:
    """Raise `ScanError` unless pixels of this transfer syntax are read."""
    if not syntax:
        raise ScanError(f"{name}: (0002,0010) TransferSyntaxUID is missing; the file is probably truncated")
    if syntax not in NATIVE and syntax not in CODECS:
        known = pydicom.uid.UID(syntax).name
        kind = known if known != syntax else "an unknown or private transfer syntax"
        raise ScanError(f"{name}: stored as {kind}, which is not read; convert it with 'gdcmconv --raw IN OUT'")


def number(name: str, dataset: Dataset, keyword: str, allowed: range, meaning: str) -> int:
    """The whole number under `keyword`.

    Raises `ScanError` with tag, value and `meaning` if it is missing or outside `allowed`.
    """
    tag = pydicom.tag.Tag(keyword)
    label = f"{name}: ({tag.group:04X},{tag.element:04X}) {keyword}"
    value = dataset.get(keyword)
    if value is None or value == "":
        raise ScanError(f"{label} is missing; {meaning}; the file is probably truncated")
    if not isinstance(value, int):
        raise ScanError(f"{label} is not one whole number; {meaning}; the file is probably damaged")
    whole = int(value)  # pydicom's own integers make `in range` search one by one
    if whole not in allowed:
        raise ScanError(f"{label} = {whole}; {meaning}; the file is damaged or not a B-scan")
    return whole


def _layout(name: str, dataset: Dataset) -> Layout:
    """What the header says of the frames, if they are unsigned and grey."""
    rows = number(name, dataset, "Rows", range(1, 65536), "a B-scan needs at least 1 row")
    columns = number(name, dataset, "Columns", range(1, 65536), "a B-scan needs at least 1 column")
    frames = 1
    if "NumberOfFrames" in dataset:
        frames = number(name, dataset, "NumberOfFrames", range(1, 1 << 31), "a scan needs at least 1 frame")
    number(name, dataset, "SamplesPerPixel", range(1, 2), "a B-scan is grey: 1 sample; colour pictures are not B-scans")
    photometric = dataset.get("PhotometricInterpretation")
    if photometric != "MONOCHROME2":
        got = photometric if photometric in PHOTOMETRIC else "missing or unknown"
        raise ScanError(f"{name}: (0028,0004) PhotometricInterpretation is {got}; a B-scan is MONOCHROME2 (PS3.3 C.8.17.7), bright is high")
    number(name, dataset, "PixelRepresentation", range(1), "needed is 0, unsigned pixels")
    allocated = number(name, dataset, "BitsAllocated", range(8, 17, 8), "needed is 8 or 16")
    stored = number(name, dataset, "BitsStored", range(8, allocated + 1), f"needed is 8 to {allocated}")
    number(name, dataset, "HighBit", range(stored - 1, stored), f"needed is {stored - 1}, one less than BitsStored")
    return Layout(frames, rows, columns, allocated, stored)


def _element(file: BinaryIO, implicit: bool, order: str) -> tuple[bytes, int]:
    """Read the head of the element at hand (PS3.5 section 7.1): VR and declared length, 0 if it is not pixel data."""
    tag = file.read(4)
    vr = b"OW" if implicit else file.read(4)[:2]
    length = file.read(4)
    if len(length) < 4 or struct.unpack(order + "HH", tag) != (0x7FE0, 0x0010):
        return vr, 0
    return vr, struct.unpack(order + "I", length)[0]


def _deflated(path: Path, layout: Layout) -> Native:
    held = pydicom.dcmread(path).get("PixelData") or b""
    _check_length(path.name, len(held), len(held), layout)
    return Native(path, layout, "deflated", 0, held=held)


def _compressed(path: Path, file: BinaryIO, dataset: Dataset, layout: Layout, declared: int) -> Encapsulated:
    """The frames of a file in a compressed syntax that stands at the value of PixelData."""
    found = codec(path.name, str(dataset.file_meta.TransferSyntaxUID), layout)
    if declared == 0:
        raise ScanError(f"{path.name}: (7FE0,0010) PixelData is missing or empty, {layout} are needed; the file is probably truncated")
    if declared != UNDEFINED:
        raise ScanError(f"{path.name}: (7FE0,0010) PixelData states {declared} bytes; compressed frames have no stated length; damaged")
    table = dataset.get("ExtendedOffsetTable")
    return encapsulated(path, file, layout, found, None if table is None else len(table) // 8)


def _check_length(name: str, declared: int, available: int, layout: Layout) -> None:
    expected = layout.frames * layout.frame_bytes
    needed = f"{layout} need {expected}"
    if declared == 0:
        raise ScanError(f"{name}: (7FE0,0010) PixelData is missing or empty, {needed} bytes; the file is probably truncated")
    if declared not in (expected, expected + expected % 2):
        raise ScanError(f"{name}: (7FE0,0010) PixelData states {declared} bytes, {needed}; NumberOfFrames, Rows or Columns is wrong")
    if available < expected:
        got = max(available, 0)
        raise ScanError(f"{name}: (7FE0,0010) PixelData ends after {got} bytes, {needed}; the file is truncated, send it again")
