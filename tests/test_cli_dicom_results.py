"""DICOM results from the command line: written where the source allows, left out with the reason elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom, write_series
from tests.support import digests, octedge_

LOOK = replace(LOOKS["spectralis"], rows=96, columns=70, span_mm=0.5)
FORMATS = "npz,seg,seg-binary,heightmap"


@pytest.fixture
def scans(tmp_path) -> Path:
    """Whole geometry, none, a series of files, and a picture."""
    folder = tmp_path / "my scans"
    folder.mkdir()
    phantom = Phantom(LOOK, 3, 1, "R")
    write_dicom(phantom, folder / "placed.dcm", profile="shuffled")
    write_dicom(phantom, folder / "unplaced.dcm")
    dataset = pydicom.dcmread(folder / "unplaced.dcm")
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    dataset.save_as(folder / "unplaced.dcm")
    write_series(phantom, folder / "series")
    Image.fromarray(phantom.bscan(0).image).save(folder / "picture.png")
    return folder


def test_each_scan_gets_what_its_source_allows_and_the_rest_is_explained(scans, bundle, tmp_path):
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", bundle, "--format", FORMATS, "--json")
    assert result.exit_code == 0, result.stderr
    told = {line["name"]: line for line in map(json.loads, result.stdout.splitlines())}
    dicom = [".seg.dcm", ".seg-binary.dcm", ".heightmap.dcm"]
    endings = {"placed": dicom, "series": dicom, "unplaced": dicom[:2], "picture": []}
    for name, expected in endings.items():
        assert sorted(told[name]["outputs"]) == sorted(f"{name}{ending}" for ending in [".npz", *expected])
        left = [note for note in told[name]["notes"] if note.startswith("no ")]
        assert len(left) == 3 - len(expected)
    assert "no heightmap: the source does not state frame of reference" in told["unplaced"]["notes"][-1]
    assert told["picture"]["notes"][-3:] == [
        f"no {name}: the scan does not come from DICOM, so a DICOM result has no study to belong to"
        for name in ("seg", "seg-binary", "heightmap")
    ]


def test_all_formats_of_a_scan_say_the_same(scans, bundle, tmp_path):
    out = tmp_path / "out"
    octedge_("segment", scans / "placed.dcm", "--out", out, "--model", bundle, "--format", FORMATS)
    original, seg = pydicom.dcmread(scans / "placed.dcm"), pydicom.dcmread(out / "placed.seg.dcm")
    with np.load(out / "placed.npz", allow_pickle=False) as file:
        labels, surfaces = file["labels"], file["surfaces"]
    stored = [groups.FrameContentSequence[0].InStackPositionNumber - 1 for groups in original.PerFrameFunctionalGroupsSequence]
    assert stored != sorted(stored)
    assert np.array_equal(seg.pixel_array, labels[stored] + 1)  # frame for frame as the source has them
    binary = pydicom.dcmread(out / "placed.seg-binary.dcm")
    planes = binary.pixel_array.reshape(-1, *labels.shape)
    assert np.array_equal(np.argmax(planes, axis=0), labels[stored])
    assert (planes.sum(axis=0) == 1).all()
    assert np.array_equal(pydicom.dcmread(out / "placed.heightmap.dcm").pixel_array, surfaces.swapaxes(0, 1))
    for result in (seg, binary):
        assert (result.StudyInstanceUID, result.PatientID) == (original.StudyInstanceUID, original.PatientID)


def test_a_repeated_run_gives_the_same_bytes_and_reads_no_result_as_a_scan(scans, bundle):
    first = octedge_("segment", scans, "--out", scans / "out", "--model", bundle, "--format", FORMATS)
    before = digests(scans)
    second = octedge_("segment", scans, "--out", scans / "out", "--model", bundle, "--format", FORMATS)
    assert first.exit_code == second.exit_code == 0
    assert digests(scans) == before


def test_patient_data_is_in_dicom_results_alone(scans, bundle, tmp_path):
    dataset = pydicom.dcmread(scans / "placed.dcm")
    dataset.PatientName, dataset.PatientID = "CANARY^SECRET", "CANARY7"
    dataset.save_as(scans / "placed.dcm")
    result = octedge_("segment", scans / "placed.dcm", "--out", tmp_path / "out", "--model", bundle, "--format", FORMATS, "--json")
    assert "CANARY" not in result.output
    assert {path.suffix for path in (tmp_path / "out").iterdir() if b"CANARY" in path.read_bytes()} == {".dcm"}
    assert not [path for path in (tmp_path / "out").iterdir() if "CANARY" in path.name]


def test_bit_planes_too_large_for_a_file_are_left_out_and_the_rest_is_written(scans, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("octedge.results.dicom_seg._MOST", 30_000)
    result = octedge_("segment", scans / "placed.dcm", "--out", tmp_path / "out", "--model", bundle, "--format", "seg,seg-binary")
    assert result.exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["placed.seg.dcm"]
    assert "no seg-binary: bit planes would take" in result.stderr
