"""Sound DICOM: pixels, spacing, eye, memory. pydicom's own decoder is the oracle for pixels."""

import itertools
import logging
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from octedge.readers import read
from octedge.readers._dicom_file import reading
from octedge.readers.dicom import OPT
from tests.readers.opt_files import CANARY, frames, groups, item, opt, pixels, save, write

IMPLICIT, EXPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 1, 1), (3, 5, 3)])
def test_pixels_are_those_pydicom_decodes_in_every_native_syntax(tmp_path: Path, syntax: str, dtype: type, shape: tuple) -> None:
    count, rows, columns = shape
    array = frames(count, rows, columns, np.iinfo(dtype).max + 1, dtype)
    stored = array.astype(array.dtype.newbyteorder(">")) if syntax == BIG else array
    path = write(tmp_path / "a.dcm", stored, syntax=syntax)
    expected = pydicom.dcmread(path).pixel_array.reshape(shape)
    assert np.array_equal(expected, array)
    assert np.array_equal(pixels(read(path)), array if dtype is np.uint8 else array >> 8)


@pytest.mark.parametrize("shape", [(3, 8, 6), (3, 5, 3), (4, 3, 1)])
def test_8_bit_pixels_in_big_endian_words_are_unswapped(tmp_path: Path, shape: tuple) -> None:
    array = frames(*shape)
    dataset = opt(array)
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = pydicom.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(BIG)
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, enforce_file_format=True)
    assert np.array_equal(pydicom.dcmread(tmp_path / "a.dcm").pixel_array, array)
    assert np.array_equal(pixels(read(tmp_path / "a.dcm")), array)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_more_than_8_bits_are_reduced_by_the_rule_and_said_so(tmp_path: Path, bits: int) -> None:
    array = frames(top=1 << bits, dtype=np.uint16)

    def change(dataset: pydicom.Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = bits, bits - 1

    scan = read(write(tmp_path / "a.dcm", array, change))
    assert np.array_equal(pixels(scan), array >> (bits - 8))
    assert scan.notes[0] == f"{bits} bit reduced to 8: value >> {bits - 8}"


def test_bits_beyond_the_stored_ones_are_cleared(tmp_path: Path) -> None:
    array = frames(top=1 << 9, dtype=np.uint16)

    def change(dataset: pydicom.Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11

    scan = read(write(tmp_path / "a.dcm", array | 0xA000, change))
    assert np.array_equal(pixels(scan), array >> 4)
    assert any("brightest value 511 of 4095" in note for note in scan.notes)


def test_a_scan_that_uses_little_of_its_range_is_flagged(tmp_path: Path) -> None:
    scan = read(write(tmp_path / "a.dcm", frames(top=1 << 10, dtype=np.uint16)))
    assert any("little of its range" in note for note in scan.notes)
    assert not read(write(tmp_path / "b.dcm", frames())).notes[:-1]


def test_the_facts_of_the_header_reach_the_scan(tmp_path: Path) -> None:
    scan = read(write(tmp_path / "a.dcm", frames()))
    assert (scan.name, scan.frames, scan.rows, scan.columns) == ("a", 3, 8, 6)
    assert (scan.device, scan.laterality, scan.pattern) == ("Maker Model 1", "R", "unknown")
    assert scan.source_ids == {
        "SOPClassUID": OPT, "SOPInstanceUID": "1.2.3.1", "SeriesInstanceUID": "1.2.3.2", "StudyInstanceUID": "1.2.3.3",
    }  # fmt: skip
    assert scan.notes == ("frame order as stored: no plane positions",)
    assert CANARY not in repr(scan) + repr(dict(scan.source_ids))


def test_the_scan_pattern_is_the_coded_one(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        code = item(CodeValue="128282", CodingSchemeDesignator="DCM", CodeMeaning="Radial")
        dataset.ScanPatternTypeCodeSequence = [code]

    assert read(write(tmp_path / "a.dcm", frames(), change)).pattern == "radial"


# Spacing


def measures(dataset: pydicom.Dataset) -> pydicom.Dataset:
    return dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


def test_shared_spacing_says_where_it_comes_from(tmp_path: Path) -> None:
    spacing = read(write(tmp_path / "a.dcm", frames())).spacing
    assert (spacing.axial, spacing.lateral, spacing.between) == (0.0039, 0.0116, 0.12)
    assert spacing.source == "DICOM shared PixelMeasures; between B-scans: DICOM SpacingBetweenSlices"


def test_slice_thickness_is_the_last_resort_for_the_distance(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        del measures(dataset).SpacingBetweenSlices
        measures(dataset).SliceThickness = "0.2"

    spacing = read(write(tmp_path / "a.dcm", frames(), change)).spacing
    assert spacing.between == 0.2
    assert spacing.source.endswith("DICOM SliceThickness")


def test_top_level_spacing_is_found(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence
        dataset.PixelSpacing = ["0.002", "0.006"]

    spacing = read(write(tmp_path / "a.dcm", frames(), change)).spacing
    assert (spacing.axial, spacing.lateral, spacing.between, spacing.source) == (0.002, 0.006, None, "DICOM top-level PixelSpacing")


@pytest.mark.parametrize(("second", "lateral"), [("0.0116", 0.0116), ("0.0118", None)])
def test_per_frame_spacing_counts_where_all_frames_agree(tmp_path: Path, second: str, lateral: float | None) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.PerFrameFunctionalGroupsSequence = [
            item(PixelMeasuresSequence=[item(PixelSpacing=["0.0039", value])]) for value in ("0.0116", second, "0.0116")
        ]

    scan = read(write(tmp_path / "a.dcm", frames(), change))
    assert (scan.spacing.axial, scan.spacing.lateral) == (0.0039, lateral)
    assert scan.spacing.source.startswith("DICOM per-frame PixelMeasures")
    assert any("differs between frames" in note for note in scan.notes) == (lateral is None)


@pytest.mark.parametrize(
    ("stated", "kept"),
    [
        (["0.3", "0.0116"], (None, 0.0116)),
        (["0.0039", "0.5"], (0.0039, None)),
        (["0.0039", "0"], (0.0039, None)),
        (["1", "1"], (None, None)),
    ],
)
def test_implausible_spacing_is_dropped_and_said(tmp_path: Path, stated: list, kept: tuple) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        measures(dataset).PixelSpacing = stated

    scan = read(write(tmp_path / "a.dcm", frames(), change))
    assert (scan.spacing.axial, scan.spacing.lateral) == kept
    assert sum("not used: outside" in note for note in scan.notes) == kept.count(None)


def test_spacing_nobody_states_is_unknown(tmp_path: Path) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        del dataset.SharedFunctionalGroupsSequence

    spacing = read(write(tmp_path / "a.dcm", frames(), change)).spacing
    assert (spacing.axial, spacing.lateral, spacing.between, spacing.source) == (None, None, None, "unknown")


# The eye


@pytest.mark.parametrize(("image", "frame", "series"), list(itertools.product(["", "R", "L", "B"], repeat=3)))
def test_the_eye_is_what_no_tag_contradicts(tmp_path: Path, image: str, frame: str, series: str) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.ImageLaterality, dataset.Laterality = image, series
        dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [item(FrameLaterality=frame)]

    scan = read(write(tmp_path / "a.dcm", frames(1), change))
    stated = {image, frame, series} - {""}
    sides = stated - {"B"}
    assert scan.laterality == (sides.pop() if len(sides) == 1 else None)
    assert any("laterality not used" in note for note in scan.notes) == (bool(stated) and scan.laterality is None)


# Other objects, and series


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.7.2", "1.2.3.4"])
def test_other_grey_images_of_modality_opt_are_read(tmp_path: Path, sop_class: str) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.SOPClassUID = sop_class

    assert read(write(tmp_path / "a.dcm", frames(), change)).frames == 3


def series(folder: Path, count: int = 4, **change: list) -> np.ndarray:
    """Single-frame files whose names fall as their frames rise; `change` gives each file its values."""
    array = frames(count)
    folder.mkdir(exist_ok=True)
    for index in range(count):
        dataset = opt(array[index : index + 1])
        del dataset.NumberOfFrames
        dataset.SOPInstanceUID = f"1.2.3.9.{index}"
        dataset.InstanceNumber = index + 1
        for keyword, values in change.items():
            setattr(dataset, keyword, values[index])
        save(folder / f"IM{count - index:03d}", dataset)
    return array


def test_a_series_is_one_scan_in_the_order_of_positions(tmp_path: Path) -> None:
    places = [[0, 0, z] for z in (0.3, 0.1, 0.2, 0.4)]
    array = series(tmp_path / "exam", ImagePositionPatient=places, ImageOrientationPatient=[[1, 0, 0, 0, 1, 0]] * 4)
    scan = read(tmp_path / "exam")
    assert np.array_equal(pixels(scan), array[[1, 2, 0, 3]])
    assert (scan.name, scan.notes[0]) == ("exam", "4 single-frame files ordered by plane position")
    assert scan.spacing.between == pytest.approx(0.1)
    assert scan.source_ids["SOPInstanceUID"] == "\\".join(f"1.2.3.9.{index}" for index in (1, 2, 0, 3))


def test_a_series_without_positions_is_ordered_by_its_numbers(tmp_path: Path) -> None:
    array = series(tmp_path / "exam", InstanceNumber=[3, 1, 2, 4])
    scan = read(tmp_path / "exam")
    assert np.array_equal(pixels(scan), array[[1, 2, 0, 3]])
    assert scan.notes[0] == "4 single-frame files ordered by InstanceNumber: no plane positions"


def test_a_gap_in_the_numbers_of_a_series_is_said(tmp_path: Path) -> None:
    series(tmp_path / "exam", InstanceNumber=[1, 2, 4, 5])
    assert any("some are missing" in note for note in read(tmp_path / "exam").notes)


def test_the_stack_number_counts_before_the_instance_number(tmp_path: Path) -> None:
    numbers = [[item(FrameContentSequence=[item(InStackPositionNumber=n)])] for n in (4, 3, 2, 1)]
    array = series(tmp_path / "exam", PerFrameFunctionalGroupsSequence=numbers)
    scan = read(tmp_path / "exam")
    assert np.array_equal(pixels(scan), array[::-1])
    assert "InStackPositionNumber" in scan.notes[0]


# Memory, threads and silence


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_volume_costs_a_few_frames_of_memory(tmp_path: Path, dtype: type) -> None:
    frame = np.zeros((1024, 512), dtype)
    path = write(tmp_path / "a.dcm", frames(1, top=256, dtype=dtype))  # loads whatever pydicom loads late
    read(path)
    dataset = opt(frame[None])
    dataset.NumberOfFrames = 128
    groups([(0, 0, 0.05 * index) for index in range(128)])(dataset)
    dataset.PixelData = b"\0\0"
    save(path, dataset)
    whole = 128 * frame.nbytes
    with path.open("r+b") as file:
        file.seek(-6, 2)
        file.write(whole.to_bytes(4, "little"))
        file.truncate(file.tell() + whole)
    tracemalloc.start()
    try:
        scan = read(path)
        assert sum(int(image.sum()) for image in scan) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert scan.frames == 128
    assert peak < 6 * frame.nbytes < whole / 20


def test_pydicom_stays_silent_and_its_settings_stay_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    before = list(warnings.filters)
    with caplog.at_level(logging.DEBUG), reading("a.dcm"):
        pydicom.misc.warn_and_log(f"Invalid value for VR DA: {CANARY}")  # as pydicom reports bad values
    assert not caplog.records
    assert list(warnings.filters) == before
    assert not logging.getLogger("pydicom").filters
