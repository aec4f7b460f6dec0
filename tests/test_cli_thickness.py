"""Thickness from the command line: the table, the same as JSON, and the report; left out with the reason where there is no study."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pydicom
import pytest
from PIL import Image

from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom
from octedge.readers import read
from octedge.results.thickness import Thickness, thickness
from octedge.scan import Spacing
from octedge.segment import About
from tests.support import digests, octedge_


@pytest.fixture
def scans(tmp_path) -> Path:
    folder = tmp_path / "my scans"
    folder.mkdir()
    phantom = Phantom(replace(LOOKS["spectralis"], rows=96, columns=70, span_mm=0.5), 3, 1, "L")
    write_dicom(phantom, folder / "volume.dcm")
    Image.fromarray(phantom.bscan(0).image).save(folder / "picture.png")
    return folder


def test_table_record_and_report_say_the_same_as_the_surfaces(scans, bundle, tmp_path):
    out = tmp_path / "out"
    result = octedge_("segment", scans, "--out", out, "--model", bundle, "--format", "npz,thickness,sr", "--json")
    assert result.exit_code == 0, result.stderr
    told = {line["name"]: line for line in map(json.loads, result.stdout.splitlines())}
    names = "volume.npz", "volume.thickness.csv", "volume.thickness.json", "volume.sr.dcm"
    assert sorted(told["volume"]["outputs"]) == sorted(names)
    record = msgspec.json.decode((out / "volume.thickness.json").read_bytes(), type=Thickness)
    with np.load(out / "volume.npz") as npz:
        scan, surfaces = read(scans / "volume.dcm"), npz["surfaces"]
        model, lines = tuple(npz["structures"].tolist()), tuple(npz["surface_names"].tolist())
    meaning = About("volume", 3, model, lines, scan.spacing, "tiny", record.engine, notes=tuple(told["volume"]["notes"]))
    again = thickness(scan, meaning, surfaces)
    assert record == msgspec.structs.replace(again, notes=record.notes, flags=record.flags)
    assert list(record.flags) == [flag["text"] for flag in told["volume"]["flags"]] != []
    assert (record.laterality, record.unit, record.pattern) == ("L", "um", "volume")
    table = list(csv.DictReader((out / "volume.thickness.csv").read_text("utf-8").splitlines()))
    assert [(row["layer"], row["region"]) for row in table] == [(each.layer, each.region) for each in record.regions]
    report = pydicom.dcmread(out / "volume.sr.dcm")
    assert report.StudyInstanceUID == scan.source_ids["StudyInstanceUID"]


def test_a_picture_has_its_thickness_in_pixels_and_no_report(scans, bundle, tmp_path):
    out = tmp_path / "out"
    result = octedge_("segment", scans / "picture.png", "--out", out, "--model", bundle, "--format", "thickness,sr", "--json")
    told = json.loads(result.stdout)
    assert told["outputs"] == ["picture.thickness.csv", "picture.thickness.json"]
    assert [note for note in told["notes"] if note.startswith("no sr: ") and "DICOM" in note]
    record = msgspec.json.decode((out / "picture.thickness.json").read_bytes(), type=Thickness)
    assert (record.unit, record.axial_um, record.spacing_source) == ("px", None, Spacing().source)
    assert "the distance of rows is unknown: thickness is in pixels" in record.notes


def test_a_repeated_run_writes_the_same_files(scans, bundle, tmp_path):
    for folder in ("first", "second"):
        octedge_("segment", scans, "--out", tmp_path / folder, "--model", bundle, "--format", "thickness,sr")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
