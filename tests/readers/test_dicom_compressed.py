"""Compressed DICOM: every coding, and every way frames are cut into fragments. The oracle is what was written."""

import itertools
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_buffer
from PIL import Image
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from octedge.errors import ScanError
from octedge.phantom_codings import Coding
from octedge.readers import read
from octedge.readers._codecs import CODECS
from tests.readers.coded import CODINGS, LOSSLESS, decoded, frames, smooth
from tests.readers.opt_files import compressed, encoded


@pytest.mark.parametrize("coding", LOSSLESS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(3, 40, 36), (1, 33, 65)])
def test_lossless_codings_give_back_every_pixel(tmp_path: Path, coding: Coding, bits: int, shape: tuple[int, int, int]) -> None:
    array = frames(*shape, bits=bits)
    path = compressed(tmp_path / "a.dcm", array, coding)
    assert np.array_equal(decoded(path), array >> (bits - 8))


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"]
)
def test_the_sisters_of_a_syntax_are_read_by_its_decoder(tmp_path: Path, syntax: str) -> None:
    sisters = {"57": "JPEG lossless", "81": "JPEG-LS", "202": "HTJ2K", "203": "HTJ2K"}
    path = compressed(tmp_path / "a.dcm", frames(), sisters[syntax.rpartition(".")[2]])
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(path)
    scan = read(path)
    assert np.array_equal(np.stack(list(scan)), frames())
    assert scan.coding == CODECS[syntax].words


@pytest.mark.parametrize("bits", [10, 12])
def test_less_than_16_bits_are_reduced_by_the_rule(tmp_path: Path, bits: int) -> None:
    array = frames(bits=bits)
    streams = [encode_buffer(frame.tobytes(), 36, 40, 1, bits, False) for frame in array]
    path = compressed(tmp_path / "a.dcm", array, "JPEG 2000", encapsulate(streams), BitsStored=bits, HighBit=bits - 1)
    assert np.array_equal(decoded(path), array >> (bits - 8))


def test_bits_beyond_the_stored_ones_are_cleared(tmp_path: Path) -> None:
    array = frames(bits=9)
    path = compressed(tmp_path / "a.dcm", array, "JPEG 2000", encapsulate(encoded(array | 0xA000, "JPEG 2000")), BitsStored=12, HighBit=11)
    scan = read(path)
    assert np.array_equal(np.stack(list(scan)), array >> 4)
    assert any("brightest value 511 of 4095" in note for note in scan.notes)


@pytest.mark.parametrize("coding", ["JPEG", "JPEG 2000 lossy"])
def test_lossy_codings_are_decoded_as_pillow_does_and_said_to_be_lossy(tmp_path: Path, coding: Coding) -> None:
    path = compressed(tmp_path / "a.dcm", smooth(), coding, LossyImageCompression="01", LossyImageCompressionRatio=["2", "7.5"])
    streams = generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=3)
    expected = np.stack([np.asarray(Image.open(BytesIO(stream))) for stream in streams])
    scan = read(path)
    assert np.abs(np.stack(list(scan)).astype(int) - expected).max() <= 1
    assert np.abs(expected.astype(int) - smooth()).max() < 12
    assert "lossy compression, ratio 7.5: stated in the header" in scan.notes


def test_jpeg_is_lossy_even_if_the_header_says_nothing(tmp_path: Path) -> None:
    scan = read(compressed(tmp_path / "a.dcm", smooth(), "JPEG"))
    assert any(note.startswith("lossy compression: ") for note in scan.notes)
    assert not any("lossy" in note for note in read(compressed(tmp_path / "b.dcm", smooth(), "JPEG lossless")).notes)


def test_extended_jpeg_of_8_bit_is_read_and_of_12_bit_refused(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", smooth(), "JPEG")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.51")
    dataset.PixelData = dataset.PixelData.replace(b"\xff\xc0\x00\x0b", b"\xff\xc1\x00\x0b")  # the frame header of extended JPEG
    dataset.save_as(path)
    assert np.abs(decoded(path).astype(int) - smooth()).max() < 12
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.save_as(path)
    with pytest.raises(ScanError, match=r"a\.dcm: compressed as JPEG extended \(lossy\) of 12 bit; JPEG is read up to 8 bit"):
        read(path)


def test_a_jp2_file_around_a_frame_is_looked_through(tmp_path: Path) -> None:
    array = frames()
    streams = [encode_buffer(frame.tobytes(), 36, 40, 1, 8, False, codec_format=1) for frame in array]
    assert streams[0].startswith(b"\0\0\0\x0cjP")
    assert np.array_equal(decoded(compressed(tmp_path / "a.dcm", array, "JPEG 2000", encapsulate(streams))), array)


# Fragments and tables


@given(
    coding=st.sampled_from([coding for coding in LOSSLESS if coding != "RLE"]), count=st.integers(1, 5), table=st.booleans(),
    parts=st.lists(st.integers(1, 4), min_size=5, max_size=5),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_frames_are_found_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, coding: Coding, count: int, table: bool, parts: list
) -> None:
    array = frames(count)
    items, offsets = b"", []
    for stream, pieces in zip(encoded(array, coding), parts, strict=False):
        offsets.append(len(items))
        edges = [len(stream) * part // pieces & ~1 for part in range(pieces)] + [len(stream)]
        for first, last in itertools.pairwise(edges):
            piece = stream[first:last] + b"\0" * ((last - first) % 2)
            items += struct.pack("<HHI", 0xFFFE, 0xE000, len(piece)) + piece
    head = struct.pack(f"<HHI{count}I", 0xFFFE, 0xE000, 4 * count, *offsets) if table else struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    path = tmp_path_factory.getbasetemp() / "cut.dcm"
    assert np.array_equal(decoded(compressed(path, array, coding, head + items)), array)


@pytest.mark.parametrize("coding", ["RLE", "JPEG-LS"])
def test_the_extended_offset_table_is_understood(tmp_path: Path, coding: Coding) -> None:
    data, offsets, lengths = encapsulate_extended(encoded(frames(), coding))
    path = compressed(tmp_path / "a.dcm", frames(), coding, data, ExtendedOffsetTable=offsets, ExtendedOffsetTableLengths=lengths)
    assert np.array_equal(decoded(path), frames())
    path = compressed(tmp_path / "a.dcm", frames(), coding, data, ExtendedOffsetTable=offsets[:16], ExtendedOffsetTableLengths=lengths[:16])
    with pytest.raises(ScanError, match=r"ExtendedOffsetTable lists 2 frames, .* NumberOfFrames is 3"):
        read(path)


def test_a_wrong_table_does_no_harm_where_every_frame_is_one_fragment(tmp_path: Path) -> None:
    data = bytearray(encapsulate(encoded(frames(), "JPEG-LS")))
    data[8:20] = struct.pack("<3I", 0, 77, 11)
    assert np.array_equal(decoded(compressed(tmp_path / "a.dcm", frames(), "JPEG-LS", bytes(data))), frames())


REFUSED = {
    "a table of other frames": (lambda data: encapsulate(data[:2]), "basic offset table lists 2 frames, .* is 3"),
    "too few fragments": (lambda data: encapsulate(data[:2], has_bot=False), "holds 2 fragments, .*NumberOfFrames is 3"),
    "too many frames": (lambda data: encapsulate([*data, data[0]], has_bot=False), "4 of which begin a frame"),
    "a table that points nowhere": (
        lambda data: _retabled(encapsulate(data, 2), (0, 30, 60)), "which fragments make a frame is not told"
    ),
    "a table that points into frames": (
        lambda data: _retabled(encapsulate(data, 2), _starts(encapsulate(data, 2))[:3]), "which fragments make a frame is not told"
    ),
    "a table that runs back": (lambda data: _retabled(encapsulate(data, 2), (0, 0, 0)), "which fragments make a frame is not told"),
    "a table of three bytes": (lambda data: struct.pack("<HHI", 0xFFFE, 0xE000, 3) + b"abc", "3 bytes, no multiple of 4"),
    "no items": (lambda data: b"".join(data), "is no chain of items"),
    "a broken chain": (lambda data: encapsulate(data).replace(b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe1"), "is no chain of items"),
    "no frame at all": (lambda data: struct.pack("<HHI", 0xFFFE, 0xE000, 0), "holds 0 fragments"),
}  # fmt: skip


def _starts(data: bytes) -> tuple[int, ...]:
    """Where fragments begin, counted from the first."""
    return tuple(place - 20 for place in range(20, len(data), 2) if data.startswith(b"\xfe\xff\x00\xe0", place))


def _retabled(data: bytes, offsets: tuple[int, ...]) -> bytes:
    return data[:8] + struct.pack("<3I", *offsets) + data[20:]


@pytest.mark.parametrize(("made", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_contradicts_itself_is_refused_by_name(tmp_path: Path, made, reason: str) -> None:
    path = compressed(tmp_path / "a.dcm", frames(), "JPEG-LS", made(encoded(frames(), "JPEG-LS")))
    with pytest.raises(ScanError, match=rf"^a\.dcm: .*{reason}"):
        read(path)


def test_rle_frames_of_several_fragments_need_a_table(tmp_path: Path) -> None:
    data = encoded(frames(), "RLE")
    assert np.array_equal(decoded(compressed(tmp_path / "a.dcm", frames(), "RLE", encapsulate(data, 2))), frames())
    backwards = _retabled(encapsulate(data, 2), tuple(_starts(encapsulate(data, 2))[place] for place in (0, 4, 2)))
    with pytest.raises(ScanError, match="which fragments make a frame is not told"):
        read(compressed(tmp_path / "a.dcm", frames(), "RLE", backwards))
    with pytest.raises(ScanError, match=r"6 fragments; .* which fragments make a frame is not told"):
        read(compressed(tmp_path / "a.dcm", frames(), "RLE", encapsulate(data, 2, has_bot=False)))


def test_compressed_pixels_of_a_stated_length_are_refused(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", frames(), "RLE")
    content = path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OB\0\0")
    path.write_bytes(content[: place + 8] + struct.pack("<I", 100) + content[place + 12 :])
    with pytest.raises(ScanError, match="PixelData states 100 bytes; compressed frames have no stated length"):
        read(path)


# Threads and memory


@pytest.mark.parametrize("coding", CODINGS)
def test_threads_decode_what_one_does(tmp_path: Path, coding: Coding) -> None:
    path = compressed(tmp_path / "a.dcm", smooth(8, 64, 48), coding)
    expected = decoded(path)
    scan = read(path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scan.frame, [index % 8 for index in range(32)]))
    assert all(np.array_equal(frame, expected[index % 8]) for index, frame in enumerate(found))


@pytest.mark.parametrize("coding", ["RLE", "JPEG-LS"])
def test_a_volume_costs_a_few_frames_of_memory(tmp_path: Path, coding: Coding) -> None:
    frame = np.zeros((1, 512, 512), np.uint8)
    decoded(compressed(tmp_path / "b.dcm", frame, coding))  # loads what is loaded late
    stream = encoded(frame, coding)
    path = compressed(tmp_path / "a.dcm", frame, coding, encapsulate(stream * 96), NumberOfFrames=96)
    tracemalloc.start()
    try:
        scan = read(path)
        assert sum(int(image.sum()) for image in scan) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert scan.frames == 96
    assert peak < 6 * frame.nbytes
