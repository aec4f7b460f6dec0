"""Phantoms written to files: conformant, deterministic, and read back as they were made."""

import shutil
import subprocess
import sys
import tomllib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from octedge import phantom_files
from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom, write_images, write_series
from octedge.readers import read

LOOK = replace(LOOKS["spectralis"], rows=63, columns=65, axial_um=15.0, lateral_um=90.0)
PHANTOM = Phantom(LOOK, 5, 11, "L")
IMAGES = np.stack([PHANTOM.bscan(index).image for index in range(5)])

# The validator's rules on concatenations contradict the standard's and each other; no file passes without these three.
KNOWN = {"ConcatenationFrameOffsetNumber(0020,9228)", "InConcatenationNumber(0020,9162)", "InConcatenationTotalNumber(0020,9163)"}


def errors(path: Path) -> list[str]:
    """What dciodvfy finds, without the three known contradictions."""
    tool = shutil.which("dciodvfy") or shutil.which("dciodvfy", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("dciodvfy (package dicom3tools) is not installed")
    done = subprocess.run([tool, "-new", "-allpffgitems", str(path)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "OphthalmicTomographyImage" in lines
    return [line for line in lines if line.startswith("Error") and not any(known in line for known in KNOWN)]


@pytest.mark.parametrize("profile", ["conformant", "spacing per frame", "shuffled"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_dicom_file_conforms(tmp_path: Path, profile: phantom_files.Profile, bits: int) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", bits=bits, profile=profile)
    assert errors(tmp_path / "a.dcm") == []


def test_the_validator_sees_what_is_missing(tmp_path: Path) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile="no positions")
    assert any("PlanePositionSequence" in line for line in errors(tmp_path / "a.dcm"))


def test_the_files_of_a_series_conform(tmp_path: Path) -> None:
    paths = write_series(PHANTOM, tmp_path / "series")
    assert [errors(path) for path in paths[:2]] == [[], []]


@pytest.mark.parametrize("profile", ["conformant", "no positions", "spacing per frame", "shuffled"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_dicom_file_is_read_back(tmp_path: Path, profile: phantom_files.Profile, bits: int) -> None:
    write_dicom(PHANTOM, tmp_path / "a b.dcm", bits=bits, profile=profile)
    scan = read(tmp_path / "a b.dcm")
    assert np.array_equal(np.stack(list(scan)), IMAGES)
    assert (scan.spacing.axial, scan.spacing.lateral) == (PHANTOM.spacing.axial, PHANTOM.spacing.lateral)
    assert scan.spacing.between == pytest.approx(PHANTOM.spacing.between)
    assert scan.laterality == "L"
    assert ("FrameNumbers" in scan.source_ids) == (profile == "shuffled")
    assert any("frame order as stored" in note for note in scan.notes) == (profile == "no positions")


@pytest.mark.parametrize("bits", [8, 16])
def test_pydicom_decodes_the_same_pixels(tmp_path: Path, bits: int) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", bits=bits)
    array = pydicom.dcmread(tmp_path / "a.dcm").pixel_array
    assert np.array_equal(array, IMAGES if bits == 8 else IMAGES.astype(np.uint16) * 257)


def test_a_series_is_read_back_in_order(tmp_path: Path) -> None:
    paths = write_series(PHANTOM, tmp_path / "series", bits=16)
    scan = read(tmp_path / "series")
    assert sorted(paths) != paths  # the names tell no order
    assert np.array_equal(np.stack(list(scan)), IMAGES)
    assert scan.spacing.between == pytest.approx(PHANTOM.spacing.between)


def test_the_same_phantom_gives_the_same_bytes_and_another_one_other_uids(tmp_path: Path) -> None:
    for name, phantom in (("a", PHANTOM), ("b", PHANTOM), ("c", replace(PHANTOM, seed=12))):
        write_dicom(phantom, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first, other = pydicom.dcmread(tmp_path / "a"), pydicom.dcmread(tmp_path / "c")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value != other[keyword].value
    assert str(first.PatientName) == "Phantom^Octedge"


def test_pictures_and_masks_are_those_of_the_phantom(tmp_path: Path) -> None:
    paths = write_images(PHANTOM, tmp_path)
    assert len(paths) == 5
    for index, path in enumerate(paths):
        bscan = PHANTOM.bscan(index)
        assert np.array_equal(np.asarray(Image.open(path)), bscan.image)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / path.name)), bscan.labels)
    values = tomllib.loads((tmp_path / "labels.toml").read_text("utf-8"))["values"]
    assert [values[str(value)] for value in range(len(KEYS))] == list(KEYS)


def test_writing_holds_one_frame_in_memory(tmp_path: Path) -> None:
    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = phantom_files.OPT, "1.2.3"
    header.NumberOfFrames, header.Rows, header.Columns = 40, 256, 256
    phantom_files._write(header, tmp_path / "first", (np.zeros((256, 256), np.uint8) for _ in range(40)), 16)
    tracemalloc.start()
    try:
        phantom_files._write(header, tmp_path / "a", (np.zeros((256, 256), np.uint8) for _ in range(40)), 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 40 * 2 * 256 * 256
    assert peak < 6 * 2 * 256 * 256


@pytest.mark.parametrize("wrong", [{"bits": 12}, {"profile": "magic"}])
def test_what_cannot_be_written_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError, match="bits are 8 or 16, the profile one of conformant"):
        write_dicom(PHANTOM, tmp_path / "a.dcm", **wrong)
