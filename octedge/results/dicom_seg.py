"""DICOM Segmentation of the labels: one label map per B-scan (LABELMAP), or one bit plane per class and B-scan (BINARY).

PS3.3 A.51, C.8.20.2. Segment n is class n - 1 of the model; every pixel is in exactly one, so there is no background.

Every frame names the frame of the source it was made of (Derivation Image), and frames stand in the source's own order; a B-scan that
could not be decoded has no frame. Positions, orientations and pixel sizes are the source's own, per frame where it states them per
frame; where it does not state all of them for every B-scan, there is no geometry but the number in the stack, which the standard
allows for frames with a source (PS3.3 A.51.5.1).

BINARY is for receivers that do not know LABELMAP. It is never compressed, and empty frames are kept: viewers that place frames by
counting them need them.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from octedge.anatomy import is_ordered, members, structure
from octedge.errors import ScanError
from octedge.results import _rle
from octedge.results._dicom import SCHEME, Kind, Origin, algorithm, code, inherit, item, label, references, write
from octedge.results._groups import set_frames
from octedge.segment import About, Layers

LABELMAP = Kind("seg", "1.2.840.10008.5.1.4.1.1.66.7", "SEG", 9001, "Retinal layers")
BINARY = Kind("seg-binary", "1.2.840.10008.5.1.4.1.1.66.4", "SEG", 9002, "Retinal layers, bit planes")

_STRUCTURE = ("91723000", "SCT", "Anatomical Structure")  # PS3.16 CID 7150
_ALTERED = ("49755003", "SCT", "Morphologically Altered Structure")
_MOST = 0xFFFFFFFE  # bytes in an element of stated length


class SegWriter:
    """Takes the answers to a scan's B-scans (H, W) as they come, and writes them as a DICOM Segmentation.

    Memory holds the runs of the label maps, about 1 % of their size. Frames may come in any order.
    """

    def __init__(self, source: Origin, kind: Kind = LABELMAP) -> None:
        self._source, self._kind = source, kind
        self._frames: dict[int, bytes] = {}
        self._size = (0, 0)

    def add(self, index: int, layers: Layers) -> None:
        """Take in the answer to B-scan `index` of the scan."""
        self._size = layers.labels.shape
        self._frames[index] = _rle.encode(layers.labels + np.uint8(1))

    def finish(self, about: About, file: BinaryIO) -> None:
        """Write the file; the same answers give the same bytes.

        Raises `ScanError` if no B-scan was segmented, or bit planes do not fit into one file.
        """
        source, (rows, columns) = self._source, self._size
        order = [index for index in _stored_order(source) if index in self._frames and index not in about.failed]
        if not order:
            raise ScanError(f"{about.name}: no B-scan was segmented, so there is nothing to write as DICOM Segmentation")
        dataset = inherit(source, about, self._kind)
        _describe(dataset, source, about, (rows, columns))
        if self._kind is BINARY:
            count = len(order) * len(about.structures)
            size = (count * rows * columns + 7) // 8
            if size > _MOST:
                raise ScanError(f"{about.name}: bit planes would take {size} bytes, a file holds {_MOST}; write format seg, which is small")
            set_frames(dataset, source, [(index, segment) for segment in range(1, len(about.structures) + 1) for index in order])
            write(file, dataset, ExplicitVRLittleEndian)
            _write_bits(file, size, self._planes(order, len(about.structures)))
        else:
            set_frames(dataset, source, [(index, None) for index in order])
            write(file, dataset, RLELossless)
            _write_fragments(file, [self._frames[index] for index in order])

    def _planes(self, order: Sequence[int], classes: int) -> Iterator[NDArray[np.bool_]]:
        for segment in range(1, classes + 1):
            for index in order:
                yield _rle.decode(self._frames[index], *self._size) == segment


def _stored_order(source: Origin) -> list[int]:
    """The B-scans in the order of the source's frames; those of a series of files as the scan has them."""
    if len(source.instances) > 1:
        return list(range(len(source.references)))
    return sorted(range(len(source.references)), key=lambda index: source.references[index].frame)


def _describe(dataset: Dataset, source: Origin, about: About, size: tuple[int, int]) -> None:
    """What holds for the whole image (PS3.3 C.7.6.3, C.8.20.2), without the frames."""
    binary = dataset.SOPClassUID == BINARY.sop_class
    bits = 1 if binary else 8
    values = {
        "ImageType": ["DERIVED", "PRIMARY"], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": size[0], "Columns": size[1], "BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0,
        "LossyImageCompression": "00", "BurnedInAnnotation": "NO", "SegmentationType": "BINARY" if binary else "LABELMAP",
        "SegmentsOverlap": "NO", "ContentLabel": "RETINAL_LAYERS", "ContentCreatorName": "",
        "ContentDescription": label(f"Retinal layers by octedge, model {about.model}; research use only"),
        "SegmentSequence": [segment_item(number, group, about) for number, group in enumerate(about.structures, start=1)],
        "ReferencedSeriesSequence": references(source),
    }  # fmt: skip
    for keyword, value in values.items():
        setattr(dataset, keyword, value)


def segment_item(number: int, group: str, about: About) -> Dataset:
    """A class as an item of the SegmentSequence; its label is the model's key, `"gcl+ipl"` where it merges."""
    keys = members(group)
    names = " + ".join(structure(key).name for key in keys)
    public = structure(keys[0]).code if len(keys) == 1 else None
    kind = code(public[1], public[0], public[2]) if public else code(group, SCHEME, names)
    return item(
        SegmentNumber=number, SegmentLabel=label(group), SegmentDescription=label(names, 1024), SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=label(f"octedge {about.model}"), SegmentationAlgorithmIdentificationSequence=[algorithm(about)],
        SegmentedPropertyCategoryCodeSequence=[code(*(_STRUCTURE if is_ordered(group) else _ALTERED))],
        SegmentedPropertyTypeCodeSequence=[kind], RecommendedDisplayCIELabValue=_cielab(structure(keys[0]).colour),
    )  # fmt: skip


def _cielab(colour: tuple[int, int, int]) -> list[int]:
    """An sRGB colour as DICOM's CIELab with white D50 (PS3.3 C.10.7.1.1): 16 bit, a and b from -128 to 127."""
    value = np.array(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    # sRGB to XYZ relative to its white, adapted to D50 (Bradford); rows add up to 1.
    xyz = np.array([[0.4522, 0.3994, 0.1484], [0.2225, 0.7169, 0.0606], [0.0169, 0.1177, 0.8654]]) @ linear
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = np.array([(116 * y - 16) / 100, (500 * (x - y) + 128) / 255, (200 * (y - z) + 128) / 255])
    return [int(each) for each in np.rint(np.clip(lab, 0, 1) * 65535)]


def _write_fragments(file: BinaryIO, fragments: Sequence[bytes]) -> None:
    """Pixel data, one fragment per frame behind a table of their offsets (PS3.5 annex A.4); a fragment's length is even."""
    offsets = np.cumsum([0, *(len(fragment) + 8 for fragment in fragments[:-1])], dtype=np.uint64)
    table = offsets.astype("<u4").tobytes() if offsets[-1] < _MOST else b""
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
    for fragment in (table, *fragments):
        file.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)))
        file.write(fragment)
    file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))


def _write_bits(file: BinaryIO, size: int, planes: Iterable[NDArray[np.bool_]]) -> None:
    """Pixel data, one bit per pixel, the lowest first, without gaps between frames (PS3.5 section 8.1.1, annex D)."""
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, size + size % 2))
    rest = np.empty(0, bool)
    for plane in planes:
        bits = np.concatenate([rest, plane.reshape(-1)]) if len(rest) else plane.reshape(-1)
        whole = len(bits) // 8 * 8
        file.write(np.packbits(bits[:whole], bitorder="little").data)
        rest = bits[whole:]
    file.write(np.packbits(rest, bitorder="little").tobytes() + b"\0" * (size % 2))
