"""The structured report. highdicom reads it, dciodvfy and dcmtk's dsrdump check it; its numbers are those of the thickness file."""

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes

from octedge.anatomy import KEYS, surface_names
from octedge.errors import ScanError
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom, write_series
from octedge.quality import FrameQuality
from octedge.readers import read
from octedge.results._dicom import Origin, origin
from octedge.results.sr import ReportWriter, layer_code, region_code, write_report
from octedge.results.thickness import Thickness, thickness
from octedge.scan import Scan, Spacing
from octedge.segment import About, Layers
from tests.readers.opt_files import CANARY, frames, write
from tests.results.thick_scans import a_scan, pitted, surfaces

hd = pytest.importorskip("highdicom")

LOOK = replace(LOOKS["spectralis"], rows=64, columns=61, axial_um=4.0, lateral_um=100.0, span_mm=6.0)
PHANTOM = Phantom(LOOK, 25, 3)
MODEL = ("vitreous", "nfl", "gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe", "choroid", "sclera")


@pytest.fixture(scope="module")
def volume(tmp_path_factory) -> tuple[Path, Scan]:
    path = tmp_path_factory.mktemp("sr") / "scan7.dcm"
    write_dicom(PHANTOM, path)
    return path, read(path)


def about(scan: Scan, **changes) -> About:
    meaning = About(
        scan.name, scan.frames, MODEL, surface_names(MODEL), scan.spacing, "tiny", "an engine", notes=scan.notes, certificate="c0ffee"
    )
    return replace(meaning, **changes)


def pit(scan: Scan) -> np.ndarray:
    """Surfaces that know nothing of the image: 400 rows, a pit in the middle."""
    return surfaces(scan, pitted(a_scan())[: scan.frames], MODEL)


def found(scan: Scan, meaning: About | None = None) -> Thickness:
    return thickness(replace(scan, rows=400), meaning or about(scan), pit(scan))


def written(source: Origin, meaning: About, result: Thickness) -> bytes:
    file = io.BytesIO()
    write_report(file, source, meaning, result)
    return file.getvalue()


@pytest.fixture(scope="module")
def report(volume) -> bytes:
    path, scan = volume
    return written(origin([path], scan), about(scan), found(scan))


def opened(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def texts(dataset: Dataset) -> str:
    """All text of the tree."""
    own = str(dataset.get("TextValue", ""))
    return own + "\n" + "".join(texts(child) for child in dataset.get("ContentSequence", ()))


def numbers(data: bytes) -> dict[tuple[str, str, str], tuple[float, str]]:
    """What highdicom finds: (layer code, region code, name of the number) -> value and unit."""
    result = {}
    for group in hd.sr.srread(io.BytesIO(data)).content.get_image_measurement_groups():
        site = group.finding_sites[0]
        place = site.topographical_modifier.value if site.topographical_modifier else "all"
        for number in group.get_measurements():
            result[group.finding_type.value, place, number.name.meaning] = (number.value, number.unit.value)
    return result


def groups(data: bytes) -> list[Dataset]:
    """The measurement groups as they stand in the file."""
    return next(item for item in opened(data).ContentSequence if name(item) == "Imaging Measurements").ContentSequence


def name(item: Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def parts(item: Dataset) -> dict[str, Dataset]:
    """What an item contains, by name."""
    return {name(child): child for child in item.get("ContentSequence", ())}


def coded(item: Dataset) -> str:
    code = item.ConceptCodeSequence[0]
    return code.get("CodeValue") or code.LongCodeValue


def place(group: Dataset) -> str:
    """The code of a group's region."""
    site = parts(parts(group)["Finding Site"])
    return coded(site["Topographical modifier"]) if "Topographical modifier" in site else "all"


def test_its_numbers_are_those_of_the_thickness_file(volume, report):
    _, scan = volume
    result, read_back = found(scan), numbers(report)
    assert result.grid == "etdrs"
    expected = {}
    for each in result.regions:
        layer = layer_code(each.layer)[0]
        where = "all" if each.region == "all" else region_code(each.region, "etdrs")[0]
        names = {"retina": "Total retinal thickness (ILM to BM)", "nfl": "Retinal nerve fiber layer thickness"}
        expected[layer, where, names.get(each.layer, "Absolute ophthalmic thickness")] = (each.mean, "um")
        expected[layer, where, "Share of the region with values"] = (each.coverage, "1")
        if each.volume_mm3 is not None:
            expected[layer, where, "Volume"] = (each.volume_mm3, "mm3")
    assert read_back == expected
    assert len(read_back) > 4 * 10 * 2


def test_every_group_says_retina_eye_and_sector(report):
    for group in groups(report):
        site = parts(group)["Finding Site"]
        assert coded(site) == codes.SCT.Retina.value
        assert coded(parts(site)["Laterality"]) == codes.SCT.Right.value
        assert coded(parts(group)["Finding category"]) == codes.SCT.AnatomicalStructure.value
    assert len({place(group) for group in groups(report)}) == 10
    assert len({parts(group)["Tracking Unique Identifier"].UID for group in groups(report)}) == len(groups(report)) == 40


@pytest.mark.parametrize(("grid", "regions"), [
    ("etdrs", ["centre", *(f"{ring} {side}" for ring in ("inner", "outer") for side in (
        "superior", "nasal", "inferior", "temporal", "left", "right", "first frames", "last frames", "first columns", "last columns"))]),
    ("circle", ["temporal", "temporal superior", "nasal superior", "nasal", "nasal inferior", "temporal inferior", "quadrant temporal",
                "quadrant superior", "quadrant nasal", "quadrant inferior"]),
])  # fmt: skip
def test_no_two_regions_share_a_code_and_none_is_too_long(grid, regions):
    codes = [region_code(region, grid) for region in regions]
    assert len({value for value, _, _ in codes}) == len(regions)
    assert all(len(value) <= 16 and len(meaning) <= 64 for value, _, meaning in codes)


def test_it_belongs_to_the_study_and_refers_to_the_images(volume, report):
    path, _ = volume
    source, dataset = pydicom.dcmread(path, stop_before_pixels=True), opened(report)
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
        "StudyID",
        "ContentDate",
    ):
        assert dataset[keyword].value == source[keyword].value
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    assert study.StudyInstanceUID == source.StudyInstanceUID
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert [file.ReferencedSOPInstanceUID for file in study.ReferencedSeriesSequence[0].ReferencedSOPSequence] == [source.SOPInstanceUID]
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    read_back = hd.sr.srread(io.BytesIO(report))
    images = hd.sr.utils.find_content_items(read_back.content[0], value_type=hd.sr.ValueTypeValues.IMAGE, recursive=True)
    assert [(image.referenced_sop_class_uid, image.referenced_sop_instance_uid) for image in images] == [
        (source.SOPClassUID, source.SOPInstanceUID)
    ]


def test_all_files_of_a_series_are_referred_to(tmp_path):
    paths = write_series(replace(PHANTOM, frames=3), tmp_path)
    scan = read(tmp_path)
    dataset = opened(written(origin(paths, scan), about(scan), found(scan)))
    files = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [file.ReferencedSOPInstanceUID for file in files] == scan.source_ids["SOPInstanceUID"].split("\\")


def test_use_model_engine_certificate_unit_and_fovea_are_told(report):
    dataset = opened(report)
    words = texts(dataset)
    told = "Research use only. Not a medical device.", "model tiny", "an engine", "c0ffee"
    for part in (*told, "Unit of thickness: um.", "Fovea at column 31.0, B-scan 13.0"):
        assert part in words, part
    assert "research use only" in dataset.SeriesDescription
    assert (dataset.VerificationFlag, dataset.CompletionFlag, dataset.PreliminaryFlag) == ("UNVERIFIED", "COMPLETE", "PRELIMINARY")


def test_the_same_answer_gives_the_same_bytes_whatever_the_clock(volume, report, monkeypatch):
    path, scan = volume
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert written(origin([path], scan), about(scan), found(scan)) == report


def test_another_model_and_a_fovea_given_by_hand_make_another_report(volume, report):
    path, scan = volume
    other = about(scan, model="other")
    result = thickness(replace(scan, rows=400), about(scan), pit(scan), fovea=(30.0, 12.0))
    uids = {opened(data).SOPInstanceUID for data in (
        report, written(origin([path], scan), other, found(scan, other)), written(origin([path], scan), about(scan), result)
    )}  # fmt: skip
    assert len(uids) == 3


def test_what_the_quality_measures_raise_is_told_with_the_numbers(volume):
    path, scan = volume
    meaning = about(scan, quality=(FrameQuality(signal=0.1), *[FrameQuality(signal=0.9)] * 24))
    result = found(scan, meaning)
    assert result.flags == tuple(flag.text for flag in meaning.flags) != ()
    assert texts(opened(written(origin([path], scan), meaning, result))).count(result.flags[0]) == 1


def test_thickness_in_pixels_is_reported_in_pixels(volume):
    path, scan = volume
    scan = replace(scan, spacing=Spacing(None, 0.1, 0.25, "a test"))
    data = written(origin([path], scan), about(scan), found(scan))
    units = {
        number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue
        for group in groups(data)
        for what, number in parts(group).items()
        if "thickness" in what
    }
    assert units == {"{pixels}"}
    assert "Unit of thickness: px." in texts(opened(data))
    assert "the distance of rows is unknown: thickness is in pixels" in texts(opened(data))


def test_an_unknown_eye_has_no_side(volume):
    path, scan = volume
    scan = replace(scan, laterality=None)
    made = groups(written(origin([path], scan), about(scan), found(scan)))
    assert not [group for group in made if "Laterality" in parts(parts(group)["Finding Site"])]
    assert {"etdrs-IL", "etdrs-OR"} < {place(group) for group in made}


def test_failed_bscans_make_it_partial_and_regions_without_values_have_only_their_coverage(volume):
    path, scan = volume
    meaning = about(scan, failed={index: "torn" for index in range(15, 25)})
    made = pit(scan)
    made[15:] = np.nan
    result = thickness(replace(scan, rows=400), meaning, made, fovea=(30.0, 12.0))
    data = written(origin([path], scan), meaning, result)
    assert opened(data).CompletionFlag == "PARTIAL"
    numbers = [[part for part in group.ContentSequence if part.ValueType == "NUM"] for group in groups(data) if place(group) == "etdrs-OI"]
    assert [[name(number) for number in each] for each in numbers] == [["Share of the region with values"]] * 4
    assert "B-scans 16, 17, 18, 19, 20, 21, 22, 23, 24, 25" in texts(opened(data))


def test_of_scans_without_a_grid_the_whole_is_reported_and_the_reason(volume):
    path, scan = volume
    scan = replace(scan, pattern="radial")
    data = written(origin([path], scan), about(scan), found(scan))
    assert {place(group) for group in groups(data)} == {"all"}
    assert "no ETDRS grid: the scan is no volume" in texts(opened(data))
    assert "The means of single B-scans are in the tables" in texts(opened(data))


def test_the_writer_measures_what_it_is_given_in_any_order(volume, report):
    path, scan = volume
    writer, file = ReportWriter(origin([path], scan), replace(scan, rows=400)), io.BytesIO()
    for index in reversed(range(25)):
        writer.add(index, Layers(np.zeros((400, 61), np.uint8), pit(scan)[index]))
    writer.finish(about(scan), file)
    assert file.getvalue() == report


def test_sources_with_hardly_an_attribute_are_enough_but_for_date_and_time(tmp_path):
    bare = write(tmp_path / "bare.dcm", frames(2))
    scan = read(bare)
    meaning = about(scan)
    result = thickness(replace(scan, rows=400), meaning, surfaces(scan, np.full((2, 6), 80.0), MODEL))
    with pytest.raises(ScanError, match="states no date and time"):
        written(origin([bare], scan), meaning, result)

    def dated(dataset):
        dataset.StudyDate, dataset.StudyTime = "20200102", "1315"
        del dataset.PatientBirthDate

    path = write(tmp_path / "dated.dcm", frames(2), dated)
    dataset = opened(written(origin([path], read(path)), meaning, result))
    assert (dataset.ContentDate, dataset.ContentTime, dataset.PatientBirthDate, dataset.AccessionNumber) == ("20200102", "1315", "", "")
    assert dataset.PatientName == CANARY
    assert CANARY not in texts(dataset)


def test_a_model_without_a_measurable_layer_is_told(volume):
    path, scan = volume
    model = ("vitreous", "nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe+choroid+sclera")
    meaning = about(scan, structures=model, surface_names=surface_names(model))
    with pytest.raises(ScanError, match="separates no layer"):
        written(origin([path], scan), meaning, thickness(replace(scan, rows=400), meaning, np.full((25, 1, 61), 100.0)))


def test_every_layer_has_a_code(volume):
    assert layer_code("nfl") == ("45950005", "SCT", "Retinal nerve fiber layer")
    assert layer_code("ez")[:2] == ("ez", "99OCTEDGE")
    assert layer_code("retina") == ("5665001", "SCT", "Retina")
    assert all(len(layer_code(key)[2]) <= 64 for key in KEYS)


def test_dciodvfy_has_nothing_to_say_but_that_the_scheme_is_private(report, tmp_path):
    """Of the standard's own checks for SR nothing is excepted."""
    tool = Path(sys.executable).parent / "dciodvfy"
    if not tool.exists():
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    (tmp_path / "a.dcm").write_bytes(report)
    done = subprocess.run([str(tool), "-new", str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "defined term = <99OCTEDGE>" not in line]
    assert lines == ["ComprehensiveSR"]
    broken = opened(report)
    del broken.ContentDate
    broken.save_as(tmp_path / "b.dcm")
    done = subprocess.run([str(tool), "-new", str(tmp_path / "b.dcm")], capture_output=True, text=True, check=False)
    assert "Error" in done.stdout + done.stderr  # it would have said so


def test_dcmtk_reads_the_tree(report, tmp_path):
    tool = shutil.which("dsrdump")
    if tool is None:
        pytest.skip("dsrdump (dcmtk) is not installed")
    (tmp_path / "a.dcm").write_bytes(report)
    done = subprocess.run([tool, str(tmp_path / "a.dcm")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Comprehensive SR Document")
    assert done.stdout.count("Measurement Group") == 40
