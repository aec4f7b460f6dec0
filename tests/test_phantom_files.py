"""Phantoms written to files: conformant, deterministic, and read back as they were made."""

import shutil
import subprocess
import sys
import tomllib
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pydicom
import pytest
from PIL import Image

from octedge import phantom_files
from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_codings import Coding, encoder
from octedge.phantom_devices import Profile
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


@pytest.mark.parametrize("profile", ["conformant", "optopol", "shuffled", "reversed", "line"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_dicom_file_conforms(tmp_path: Path, profile: Profile, bits: int) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", bits=bits, profile=profile)
    assert errors(tmp_path / "a.dcm") == []


@pytest.mark.parametrize("coding", get_args(Coding))
def test_the_dicom_file_conforms_in_every_coding(tmp_path: Path, coding: Coding) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", coding=coding)
    assert errors(tmp_path / "a.dcm") == []


def test_the_validator_sees_what_is_missing(tmp_path: Path) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile="cirrus")
    assert any("PlanePositionSequence" in line for line in errors(tmp_path / "a.dcm"))


def test_the_files_of_a_series_conform(tmp_path: Path) -> None:
    paths = write_series(PHANTOM, tmp_path / "series")
    assert [errors(path) for path in paths[:2]] == [[], []]


class Read(NamedTuple):
    """What the reader says of a profile; the spacing is the phantom's unless it is None."""

    order: str
    pattern: str = "volume"
    axial: bool = True
    between: bool = True
    moved: bool = False
    note: str = ""


STACK = "by InStackPositionNumber"
PROFILES: dict[Profile, Read] = {
    "conformant": Read("by plane position"),
    "shuffled": Read("by plane position", moved=True, note="frames put in the order of their plane positions"),
    "reversed": Read("by plane position", moved=True, note="frames put in the order of their plane positions"),
    "cirrus": Read("by location on the fundus image"),
    "heidelberg": Read("by plane position"),
    "optopol": Read("by plane position"),
    "towardpi": Read("as stored", "unknown", between=False, note="10 per-frame items for 5 frames"),
    "oct-converter": Read(STACK, "unknown", axial=False, between=False, note="axial spacing 0.3 mm"),
    "radial": Read(STACK, "radial", between=False, note="the planes are not parallel"),
    "circle": Read(STACK, "circle", between=False, note="no plane positions"),
    "line": Read("by plane position", "line"),
    "repeats": Read(STACK, "unknown", between=False, note="all plane positions are the same"),
}


@pytest.mark.parametrize("profile", get_args(Profile))
@pytest.mark.parametrize("bits", [8, 16])
def test_what_every_device_writes_is_read_for_what_it_is(tmp_path: Path, profile: Profile, bits: int) -> None:
    write_dicom(PHANTOM, tmp_path / "a b.dcm", bits=bits, profile=profile)
    scan, expected = read(tmp_path / "a b.dcm"), PROFILES[profile]
    assert np.array_equal(np.stack(list(scan)), IMAGES)
    assert (scan.order, scan.pattern, scan.laterality, scan.coding) == (expected.order, expected.pattern, "L", "uncompressed")
    assert (scan.spacing.axial, scan.spacing.lateral) == (
        (PHANTOM.spacing.axial, PHANTOM.spacing.lateral) if expected.axial else (None, None)
    )
    assert scan.spacing.between == (pytest.approx(PHANTOM.spacing.between) if expected.between else None)
    assert ("FrameNumbers" in scan.source_ids) == expected.moved
    assert any(expected.note in note for note in scan.notes) if expected.note else all("bit reduced" in note for note in scan.notes)


def test_an_eye_nobody_states_is_not_guessed(tmp_path: Path) -> None:
    """A series of both eyes, as some devices have it, with nothing that tells which eye an image is of."""
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile="cirrus")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    del dataset.ImageLaterality, dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality
    dataset.save_as(tmp_path / "a.dcm")
    scan = read(tmp_path / "a.dcm")
    assert scan.laterality is None
    assert "laterality not used: the file says B (both eyes)" in scan.notes


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (2, 0, 4, 1, 3)])
@pytest.mark.parametrize("profile", ["cirrus", "towardpi"])
def test_lines_on_the_fundus_image_restore_the_order(tmp_path: Path, order: tuple, profile: Profile) -> None:
    """Whether the lines run across the image or down, and whatever the numbers of the frames; the first stored tells no direction."""
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile=profile)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    groups = list(dataset.PerFrameFunctionalGroupsSequence)[:: 2 if profile == "towardpi" else 1]
    for group in groups:
        del group.FrameContentSequence[0].InStackPositionNumber
        group.pop("PlanePositionSequence", None)
    dataset.PerFrameFunctionalGroupsSequence = [groups[index] for index in order]
    dataset.PixelData = IMAGES[list(order)].tobytes() + b"\0" * (IMAGES.size % 2)
    dataset.save_as(tmp_path / "a.dcm")
    scan = read(tmp_path / "a.dcm")
    found = np.stack(list(scan))
    assert scan.order == "by location on the fundus image"
    assert np.array_equal(found, IMAGES) or np.array_equal(found, IMAGES[::-1])


def test_shuffled_frames_have_no_place_where_the_file_states_none(tmp_path: Path) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile="oct-converter")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.FrameContentSequence[0].InStackPositionNumber
    dataset.save_as(tmp_path / "a.dcm")
    scan = read(tmp_path / "a.dcm")
    assert scan.order == "as stored"
    assert "frame order as stored: no plane positions" in scan.notes


@pytest.mark.parametrize("coding", get_args(Coding))
def test_every_coding_is_read_back(tmp_path: Path, coding: Coding) -> None:
    write_dicom(PHANTOM, tmp_path / "a.dcm", profile="shuffled", coding=coding)
    found = np.stack(list(read(tmp_path / "a.dcm"))).astype(int)
    assert np.abs(found - IMAGES).max() <= (0 if encoder(coding, 8).lossy is None else 24)
    assert np.abs(found - IMAGES).mean() < 3


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
    header.BitsAllocated = 16
    plain = encoder("uncompressed", 16)
    phantom_files._write(header, tmp_path / "first", (np.zeros((256, 256), np.uint16) for _ in range(40)), plain)
    tracemalloc.start()
    try:
        phantom_files._write(header, tmp_path / "a", (np.zeros((256, 256), np.uint16) for _ in range(40)), plain)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size > 40 * 2 * 256 * 256
    assert peak < 6 * 2 * 256 * 256


@pytest.mark.parametrize("wrong", [{"coding": "magic"}, {"coding": "JPEG", "bits": 16}])
def test_a_coding_that_is_none_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError, match=r"the codings are uncompressed, RLE, JPEG, .*; JPEG has 8 bit"):
        write_dicom(PHANTOM, tmp_path / "a.dcm", **wrong)


@pytest.mark.parametrize("wrong", [{"bits": 12}, {"profile": "magic"}])
def test_what_cannot_be_written_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(UsageError, match="bits are 8 or 16, the profile one of conformant"):
        write_dicom(PHANTOM, tmp_path / "a.dcm", **wrong)
