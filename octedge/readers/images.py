"""Pictures of B-scans: PNG, JPEG, BMP and TIFF; a TIFF of several pages is a volume. Their pixel size is unknown."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from octedge.errors import ScanError
from octedge.scan import Frame, Scan, range_note, to_uint8

Grey = NDArray[np.unsignedinteger]
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0 tags
_EXTENTS = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles

_DAMAGE = (EOFError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, SyntaxError, MemoryError, struct.error)

_REFUSED = {
    "1": "1 bit per pixel: a mask, not a B-scan",
    "F": "floating point; save it as 8 or 16 bit grey",
    "I": "signed or 32 bit whole numbers; save it as 8 or 16 bit grey",
    "CMYK": "in colour (CMYK); a B-scan is grey",
    "LAB": "in colour (Lab); a B-scan is grey",
    "HSV": "in colour (HSV); a B-scan is grey",
}


def read_image(path: Path, name: str) -> Scan:
    """One image file as a `Scan`; its pages are decoded when asked for.

    16 bit grey is reduced by the rule of `scan.to_uint8`; colour whose channels are equal is grey. Raises `ScanError`.
    """
    with _opened(path) as image:
        pages = _page_count(path, image)
        sizes = {_size(path, image, page) for page in range(pages)}
        if len(sizes) > 1:
            raise ScanError(f"{path.name}: pages of mixed size {sorted(sizes)} (columns, rows); a volume has one size, split the file")
    looked_at, (grey, bits, notes) = _sample(path, pages)

    def decode(index: int) -> Frame:
        with _opened(path) as image:
            image.seek(index)
            page, own_bits, _ = _grey(path.name, image)
        if own_bits != bits:
            raise ScanError(f"{path.name}: page {index} has {own_bits} bit, page {looked_at} has {bits}; save all pages alike")
        return to_uint8(page, bits)

    if bits > 8:
        notes = (*notes, f"{bits} bit reduced to 8: value >> {bits - 8}")
    little = range_note(grey, bits)
    rows, columns = grey.shape
    notes = (*notes, little) if little else notes
    return Scan(name, pages, rows, columns, decode, notes=notes, coding=path.suffix[1:].upper())


def _sample(path: Path, pages: int) -> tuple[int, tuple[Grey, int, tuple[str, ...]]]:
    """The number and the content of the page that tells what the pages are: the middle one, or, if it is damaged, the first or last."""
    faults = []
    for page in dict.fromkeys((pages // 2, 0, pages - 1)):
        try:
            with _opened(path) as image:
                image.seek(page)
                return page, _grey(path.name, image)
        except ScanError as error:
            faults.append(error)
    raise faults[0]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, opened; whatever a damaged file makes pillow raise becomes a `ScanError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                if image.width * image.height > 1 << 26:
                    raise ScanError(f"{path.name}: {image.width} x {image.height} pixels; no B-scan is that large")
                yield image
        except UnidentifiedImageError:
            raise ScanError(f"{path.name}: is no readable image; the file is damaged or has the wrong ending") from None
        except Image.DecompressionBombError:
            raise ScanError(f"{path.name}: claims more pixels than any B-scan has; the file is damaged") from None
        except OSError as error:
            raise ScanError(f"{path.name}: cannot be decoded ({error.strerror or error}); copy or export it again") from None
        except _DAMAGE as error:
            raise ScanError(f"{path.name}: cannot be decoded ({type(error).__name__}); the file is probably damaged") from None


def _page_count(path: Path, image: Image.Image) -> int:
    """The pages of a TIFF by its chain of directories (TIFF 6.0 section 2), 1 for anything else.

    pillow counts the pages it can reach: of a truncated volume the rest would be missing without a word.
    """
    pages = getattr(image, "n_frames", 1)
    if image.format != "TIFF":
        if pages != 1:
            raise ScanError(f"{path.name}: {pages} pictures in one {image.format}; only TIFF holds volumes")
        return 1
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        count_size, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        (offset,) = struct.unpack_from(order + link, head, 8 if big else 4)
        for found in range(pages + 1):
            if offset == 0:
                return found
            file.seek(offset)
            (entries,) = struct.unpack(order + count_size, file.read(struct.calcsize(order + count_size)))
            file.seek(entries * entry, 1)
            (offset,) = struct.unpack(order + link, file.read(struct.calcsize(order + link)))
    raise ScanError(f"{path.name}: more pages are announced than the {pages} that can be read; the file is damaged")


def _size(path: Path, image: Image.Image, page: int) -> tuple[int, int]:
    """Columns and rows of a page; of a TIFF only if the file holds all its strips or tiles, which pillow does not ensure."""
    image.seek(page)
    if image.format != "TIFF":
        return image.size
    tags = image.tag_v2  # type: ignore[attr-defined]
    offsets, counts = next(((tags[first], tags[second]) for first, second in _EXTENTS if first in tags and second in tags), ((), ()))
    size, end = path.stat().st_size, max(map(sum, zip(offsets, counts, strict=True)), default=0)
    if not 0 < end <= size:
        where = f"ends at byte {end}" if end else "has no place"
        raise ScanError(f"{path.name}: page {page} {where}, the file has {size} bytes; it is truncated, copy it again")
    return image.size


def _grey(name: str, image: Image.Image) -> tuple[Grey, int, tuple[str, ...]]:
    """The current page as whole grey numbers (H, W), the bits they use, and notes."""
    mode = image.mode
    if mode == "I" and image.format == "PNG":  # how pillow before 11 opens 16 bit PNG
        return np.asarray(image).astype(np.uint16), 16, ()
    if mode in _REFUSED:
        raise ScanError(f"{name}: {_REFUSED[mode]}")
    if mode.startswith("I;16"):
        return _sixteen(name, image)
    if mode == "L":
        return np.asarray(image), 8, ()
    colours = np.asarray(image.convert("RGBA"))
    if (colours[..., 3] != 255).any():
        raise ScanError(f"{name}: has transparent pixels; save the B-scan as plain grey")
    if (colours[..., :1] != colours[..., 1:3]).any():
        raise ScanError(f"{name}: is in colour; a B-scan is grey. Export the raw B-scan, without overlay or colour map")
    return np.ascontiguousarray(colours[..., 0]), 8, (f"stored as {mode}, all pixels grey: read as grey",)


def _sixteen(name: str, image: Image.Image) -> tuple[Grey, int, tuple[str, ...]]:
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise ScanError(f"{name}: 16 bit with white as zero; save it with black as zero")
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    return np.asarray(image).astype(np.uint16), bits, ()
