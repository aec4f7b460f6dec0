"""DICOM that must be refused: each by its name, as `ScanError`, with no value of the patient in the message."""

import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from octedge.errors import ScanError
from octedge.readers import Source, find, read
from octedge.readers.dicom import read_dicom
from tests.readers.opt_files import CANARY, frames, item, opt, save, write

SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")


def setting(**values: object) -> Callable[[pydicom.Dataset], None]:
    def change(dataset: pydicom.Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return change


def region(code: str) -> Callable[[pydicom.Dataset], None]:
    return setting(AnatomicRegionSequence=[item(CodeValue=code, CodingSchemeDesignator="SCT", CodeMeaning=CANARY)])


IRIS = item(CodeValue="41296002")
REFUSALS = [
    (setting(Rows=0), "(0028,0010) Rows = 0; a B-scan needs at least 1 row"),
    (setting(Columns=0), "(0028,0011) Columns = 0"),
    (setting(Rows=None), "(0028,0010) Rows is missing"),
    (setting(BitsAllocated=None), "(0028,0100) BitsAllocated is missing"),
    (setting(NumberOfFrames=0), "(0028,0008) NumberOfFrames = 0"),
    (setting(NumberOfFrames=4), "states 144 bytes, 4 frames x 8 rows x 6 columns of 8 bit need 192"),
    (setting(NumberOfFrames=2), "states 144 bytes, 2 frames x 8 rows x 6 columns of 8 bit need 96"),
    (setting(NumberOfFrames="1\\2"), "(0028,0008) NumberOfFrames is not one whole number"),
    (setting(Rows=9), "need 162; NumberOfFrames, Rows or Columns is wrong"),
    (setting(SamplesPerPixel=3), "(0028,0002) SamplesPerPixel = 3; a B-scan is grey"),
    (setting(PhotometricInterpretation="RGB"), "PhotometricInterpretation is RGB"),
    (setting(PhotometricInterpretation="MONOCHROME1"), "PhotometricInterpretation is MONOCHROME1"),
    (setting(PhotometricInterpretation=CANARY), "PhotometricInterpretation is missing or unknown"),
    (setting(PixelRepresentation=1), "(0028,0103) PixelRepresentation = 1; needed is 0, unsigned"),
    (setting(BitsAllocated=32), "(0028,0100) BitsAllocated = 32"),
    (setting(BitsStored=12), "(0028,0101) BitsStored = 12; needed is 8 to 8"),
    (setting(HighBit=6), "(0028,0102) HighBit = 6; needed is 7"),
    (setting(Modality="OP", SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.1"), "only OCT B-scans are read"),
    (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.7"), "an en-face image"),
    (region("31636006"), "says anterior chamber"),
    (region("T-AA200"), "says cornea"),
    (setting(SharedFunctionalGroupsSequence=[item(FrameAnatomySequence=[item(AnatomicRegionSequence=[IRIS])])]), "says iris"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_what_cannot_be_a_b_scan_is_refused_by_name(tmp_path: Path, change: Callable, reason: str) -> None:
    path = write(tmp_path / "scan7.dcm", frames(), change)
    with pytest.raises(ScanError) as caught:
        read(path)
    assert str(caught.value).startswith("scan7.dcm: ")
    assert reason in str(caught.value)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_the_retina_is_not_refused(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.dcm", frames(), region("5665001"))).frames == 3


@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        ("1.2.840.10008.1.2.4.94", "JPIP"), ("1.2.840.10008.1.2.4.100", "MPEG2"), ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2"),
        ("1.2.840.10008.1.2.4.55", "JPEG Full Progression"), ("1.2.276.99.1", "an unknown or private transfer syntax"),
    ],
)  # fmt: skip
def test_transfer_syntaxes_that_are_not_read_are_refused_by_name_with_advice(tmp_path: Path, syntax: str, name: str) -> None:
    dataset = opt(frames())
    dataset.PixelData = encapsulate([b"\xff\x4f"] * 3)
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = pydicom.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, implicit_vr=False, little_endian=True, enforce_file_format=True)
    with pytest.raises(ScanError, match=rf"^a\.dcm: stored as .*{name}.*gdcmconv"):
        read(tmp_path / "a.dcm")


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    dataset = opt(frames())
    del dataset.PixelData
    dataset.FloatPixelData = b"\0" * 4
    dataset.file_meta = pydicom.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(SYNTAXES[1])
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    with pytest.raises(ScanError, match="PixelData is missing"):
        read(tmp_path / "a.dcm")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 200])
def test_what_is_no_dicom_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(ScanError, match=r"^a\.dcm: "):
        read(tmp_path / "a.dcm")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, np.ndarray]]:
    """One small file in each native syntax: its bytes and its pixels."""
    folder = tmp_path_factory.mktemp("small")
    array = frames(3, 3, 5)
    return {syntax: (write(folder / "a.dcm", array, syntax=syntax).read_bytes(), array) for syntax in SYNTAXES}


def outcome(path: Path) -> np.ndarray | None:
    """The pixels, or None if the scan is refused; every other exception is an error."""
    try:
        return np.stack(list(read_dicom([path], "a")))
    except ScanError as caught:
        error = caught
    assert "CANARY" not in "".join(traceback.format_exception(error))
    return None


@given(data=st.data(), syntax=st.sampled_from(SYNTAXES))
@settings(max_examples=100, deadline=None)
def test_a_truncated_file_is_refused_or_right(
    tmp_path_factory: pytest.TempPathFactory, small: dict, data: st.DataObject, syntax: str
) -> None:
    content, array = small[syntax]
    cut = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.getbasetemp() / "cut.dcm"
    path.write_bytes(content[:cut])
    got = outcome(path)
    assert got is None or np.array_equal(got, array)
    if cut < len(content) - 1:  # the very last byte is padding
        assert got is None


@given(data=st.data(), syntax=st.sampled_from(SYNTAXES), value=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_wrong_byte_never_raises_anything_but_scan_error(
    tmp_path_factory: pytest.TempPathFactory, small: dict, data: st.DataObject, syntax: str, value: int
) -> None:
    content = bytearray(small[syntax][0])
    content[data.draw(st.integers(0, len(content) - 1))] = value
    path = tmp_path_factory.getbasetemp() / "wrong.dcm"
    path.write_bytes(content)
    outcome(path)
    find([path])


@given(content=st.binary(max_size=300))
@example(content=b"")
@settings(max_examples=40, deadline=None)
def test_rubbish_after_the_mark_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "rubbish.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + content)
    assert outcome(path) is None


def test_a_file_that_ends_too_early_is_refused_with_the_byte_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", frames())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScanError, match="PixelData ends after 124 bytes, 3 frames x 8 rows x 6 columns of 8 bit need 144"):
        read(path)


def test_a_file_that_shrinks_after_opening_is_refused_by_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", frames())
    scan = read(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert scan.frame(0).shape == (8, 6)
    with pytest.raises(ScanError, match="frame 2 is cut off"):
        scan.frame(2)


def several(folder: Path, *arrays: np.ndarray, **change: list) -> Source:
    paths = []
    for index, array in enumerate(arrays):
        dataset = opt(array)
        dataset.InstanceNumber = index + 1
        for keyword, values in change.items():
            setattr(dataset, keyword, values[index])
        paths.append(save(folder / f"{index}.dcm", dataset))
    return Source(tuple(paths), "exam")


def test_frames_of_mixed_size_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"mixed size .*1\.dcm has 8 x 7 of 8 bit"):
        several(tmp_path, frames(1), frames(1, 8, 7)).read()


def test_files_of_several_series_are_no_scan(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="several series"):
        several(tmp_path, frames(1), frames(1), SeriesInstanceUID=["1.2", "1.3"]).read()


def test_multi_frame_files_are_no_series(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="has 2 frames"):
        several(tmp_path, frames(2), frames(2)).read()


def test_a_series_whose_order_nothing_tells_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="the order of 2 single-frame files is unknown"):
        several(tmp_path, frames(1), frames(1), InstanceNumber=[1, 1]).read()


def test_a_part_of_a_concatenation_says_so(tmp_path: Path) -> None:
    scan = read(write(tmp_path / "a.dcm", frames(), setting(InConcatenationTotalNumber=3)))
    assert any("one of 3 files of a concatenation" in note for note in scan.notes)
