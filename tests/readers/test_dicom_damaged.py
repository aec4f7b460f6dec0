"""What damage to a compressed DICOM costs: the file, a frame, never another frame. The oracle is what was written."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_buffer
from pydicom.encaps import encapsulate

from octedge.errors import ScanError
from octedge.phantom_codings import Coding
from octedge.readers import read
from tests.readers.coded import CODINGS, decoded, frames, smooth
from tests.readers.opt_files import compressed, encoded


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, np.ndarray]]:
    """A small file in each coding: its bytes and its pixels."""
    folder = tmp_path_factory.mktemp("small")
    made = {}
    for coding in CODINGS:
        path = compressed(folder / "a.dcm", smooth(), coding)
        made[coding] = path.read_bytes(), decoded(path)
    return made


@given(data=st.data(), coding=st.sampled_from(CODINGS))
@settings(max_examples=100, deadline=None)
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, small: dict, data: st.DataObject, coding: Coding) -> None:
    content, _ = small[coding]
    path = tmp_path_factory.getbasetemp() / "short.dcm"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(ScanError, match=r"^short\.dcm: "):
        read(path)


@given(data=st.data(), coding=st.sampled_from(CODINGS), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_wrong_byte_costs_the_file_or_one_frame(
    tmp_path_factory: pytest.TempPathFactory, small: dict, data: st.DataObject, coding: Coding, value: int
) -> None:
    content, array = bytearray(small[coding][0]), small[coding][1]
    begin = content.rindex(b"\xe0\x7f\x10\x00OB")
    content[data.draw(st.integers(begin, len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "wrong.dcm"
    path.write_bytes(content)
    try:
        scan = read(path)
    except ScanError:
        return
    wrong = 0
    for index in range(3):
        try:
            frame = scan.frame(index)
        except ScanError:
            wrong += 1
        else:
            wrong += not np.array_equal(frame, array[index])
    assert (scan.frames, scan.rows, scan.columns) == (3, 40, 36)
    assert wrong <= 1


@pytest.mark.parametrize("coding", [coding for coding in CODINGS if coding != "RLE"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_damaged_frame_costs_itself_alone(tmp_path: Path, coding: Coding, index: int) -> None:
    good = encoded(smooth(), coding)
    sound = decoded(compressed(tmp_path / "a.dcm", smooth(), coding))
    streams = [stream[: len(stream) // 2] if place == index else stream for place, stream in enumerate(good)]
    scan = read(compressed(tmp_path / "a.dcm", smooth(), coding, encapsulate(streams)))
    with pytest.raises(ScanError, match=rf"^a\.dcm: frame {index} ends before its end marker FFD9; the file is damaged"):
        scan.frame(index)
    for other in {0, 1, 2} - {index}:
        assert np.array_equal(scan.frame(other), sound[other])


def test_a_damaged_rle_frame_costs_itself_alone(tmp_path: Path) -> None:
    for damage, reason in (
        (lambda data: data[:60], "has no RLE header of 1 segments"),
        (lambda data: b"\x02" + data[1:], "has no RLE header of 1 segments"),
        (lambda data: data[:4] + b"\xff" + data[5:], "has RLE segments that lie outside of it"),
        (lambda data: data + bytes([129] * 6), r"has an RLE segment of \d+ pixels, needed are 1440"),
        (lambda data: data[:80], r"its RLE lossless data cannot be decoded \(ValueError\)"),
    ):
        good = encoded(frames(), "RLE")
        scan = read(compressed(tmp_path / "a.dcm", frames(), "RLE", encapsulate([good[0], damage(good[1]), good[2]])))
        with pytest.raises(ScanError, match=f"frame 1 {reason}"):
            scan.frame(1)
        assert np.array_equal(scan.frame(2), frames()[2])


def _other(frame: np.ndarray, kind: str) -> bytes:
    """A sound frame of another kind than the file's header states."""
    rows, columns = frame.shape
    if kind == "signed":
        return bytes(encode_buffer(frame.tobytes(), columns, rows, 1, 8, True))
    if kind == "colour":
        return bytes(encode_buffer(frame.repeat(3).tobytes(), columns, rows, 3, 8, False))
    if kind == "deep":
        return bytes(encode_buffer(frame.astype("<u2").tobytes(), columns, rows, 1, 12, False))
    return encoded(frame[None, 2:], "JPEG 2000")[0]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("signed", "is signed by its own header"), ("colour", "is of 3 samples by its own header"),
        ("deep", "has 12 bit by its own header, 8 by"), ("small", "is 38 x 36 by its own header, 40 x 36 by"),
    ],
)  # fmt: skip
def test_a_frame_of_another_kind_than_stated_is_refused(tmp_path: Path, kind: str, reason: str) -> None:
    streams = encoded(frames(), "JPEG 2000")
    streams[1] = _other(frames()[1], kind)
    scan = read(compressed(tmp_path / "a.dcm", frames(), "JPEG 2000", encapsulate(streams)))
    with pytest.raises(ScanError, match=rf"^a\.dcm: frame 1 {reason}"):
        scan.frame(1)
    assert np.array_equal(scan.frame(2), frames()[2])


def _jp2_without_pixels(stream: bytes) -> bytes:
    return b"\0\0\0\x0cjP  " + stream[2:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda stream: b"\0\0" + stream[2:], "does not begin like JPEG 2000 lossless"),
        (_jp2_without_pixels, "holds no JPEG 2000 codestream"),
        (lambda stream: stream[:43] + b"\0" + stream[44:], "has a damaged JPEG 2000 header"),
        (lambda stream: stream[:60] + b"\xff\xd9", "its JPEG 2000 lossless data cannot be decoded"),
    ],
)  # fmt: skip
def test_a_damaged_head_costs_its_frame(tmp_path: Path, damage, reason: str) -> None:
    streams = encoded(frames(), "JPEG 2000")
    scan = read(compressed(tmp_path / "a.dcm", frames(), "JPEG 2000", encapsulate([damage(streams[0]), *streams[1:]])))
    with pytest.raises(ScanError, match=rf"^a\.dcm: frame 0 {reason}"):
        scan.frame(0)
    assert np.array_equal(scan.frame(1), frames()[1])


def test_fill_bytes_before_a_marker_are_passed_over(tmp_path: Path) -> None:
    streams = [stream.replace(b"\xff\xf7", b"\xff\xff\xff\xf7", 1) for stream in encoded(frames(), "JPEG-LS")]
    assert np.array_equal(decoded(compressed(tmp_path / "a.dcm", frames(), "JPEG-LS", encapsulate(streams))), frames())


def test_pixels_of_another_number_than_asked_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openjpeg.utils.decode_pixel_data", lambda data, version: bytes(17))
    scan = read(compressed(tmp_path / "a.dcm", frames(), "JPEG 2000"))
    with pytest.raises(ScanError, match="frame 2 decodes to 17 pixels of uint8, needed are 40 x 36"):
        scan.frame(2)


def test_a_file_that_vanishes_after_opening_is_refused_by_frame(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", frames(), "JPEG-LS")
    scan = read(path)
    path.unlink()
    with pytest.raises(ScanError, match=r"^a\.dcm: frame 1 cannot be read \(No such file"):
        scan.frame(1)


def test_scrambled_pixels_are_refused_by_name(tmp_path: Path) -> None:
    scrambled = [bytes(255 - value for value in stream) for stream in encoded(frames(), "JPEG 2000")]
    for data in (encapsulate(scrambled), encapsulate(scrambled, has_bot=False)):
        with pytest.raises(ScanError, match=r"^a\.dcm: no frame begins like JPEG 2000 lossless; Zeiss devices scramble"):
            read(compressed(tmp_path / "a.dcm", frames(), "JPEG 2000", data))


@pytest.mark.parametrize(
    ("coding", "bits", "module", "package"),
    [
        ("JPEG 2000", 8, "openjpeg", "pylibjpeg-openjpeg"), ("HTJ2K", 8, "openjpeg", "pylibjpeg-openjpeg"),
        ("RLE", 8, "rle", "pylibjpeg-rle"), ("JPEG-LS", 8, "jpeg_ls", "pyjpegls"),
        ("JPEG lossless", 16, "imagecodecs", r"octedge\[dicom\]"),
    ],
)  # fmt: skip
def test_a_missing_decoder_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coding: Coding, bits: int, module: str, package: str
) -> None:
    path = compressed(tmp_path / "a.dcm", frames(bits=bits), coding)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ScanError, match=rf"^a\.dcm: compressed as .*; its decoder is missing: pip install {package}$"):
        read(path)
