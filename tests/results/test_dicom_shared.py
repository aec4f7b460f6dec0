"""What every DICOM result shares: the source's patient and study as they are, UIDs that repeat, and nothing that leaks."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from octedge.anatomy import STRUCTURES
from octedge.errors import ScanError
from octedge.quality import FrameQuality
from octedge.readers import find
from octedge.results import _dicom
from octedge.results._dicom import Kind, Origin, derived_uid, inherit, label, origin, write
from octedge.scan import Scan, Spacing
from tests.readers import opt_files
from tests.results.dicom_sources import about, dated

KIND = Kind("test", "1.2.840.10008.5.1.4.1.1.66.7", "SEG", 1, "Test")
DEFLATED, IMPLICIT, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


def source_of(folder: Path, change: Callable[[Dataset], None] = dated, syntax: str = "1.2.840.10008.1.2.1") -> Origin:
    opt_files.write(folder / "scan.dcm", opt_files.frames(), change, syntax)
    made = find([folder / "scan.dcm"])[0]
    return origin(made.paths, made.read())


def result_of(source: Origin, kind: Kind = KIND) -> Dataset:
    """The base object, written and read again."""
    file = BytesIO()
    write(file, inherit(source, about(source), kind))
    file.seek(0)
    return pydicom.dcmread(file)


def stored(keyword: str, value: bytes, vr: str | None = None, terms: str = "") -> Callable[[Dataset], None]:
    """A change that puts these very bytes into the file, whatever the character set."""

    def change(dataset: Dataset) -> None:
        dated(dataset)
        if terms:
            dataset.SpecificCharacterSet = terms
        tag = Tag(keyword)
        dataset[tag] = RawDataElement(tag, vr or pydicom.datadict.dictionary_VR(tag), len(value), value, 0, False, True)
        dataset.set_original_encoding(False, True, pydicom.charset.convert_encodings(terms) if terms else "iso8859")

    return change


NAMES = [
    ("ISO_IR 100", "Müller^Jörg".encode("latin-1")),
    ("ISO_IR 192", "Müller^Jörg=王^小東".encode()),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
    ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    ("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\xeb\x70\xd3"),
    ("", b"Plain^Ascii"),
]


@pytest.mark.parametrize(("terms", "name"), NAMES, ids=[terms or "none" for terms, _ in NAMES])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT, BIG, DEFLATED])
def test_names_keep_their_bytes_and_their_character_set(tmp_path: Path, terms: str, name: bytes, syntax: str) -> None:
    """From whatever transfer syntax."""

    def change(dataset: Dataset) -> None:
        dated(dataset)
        if terms:
            dataset.SpecificCharacterSet = terms.split("\\")
        dataset.PatientName = pydicom.valuerep.PersonName(name, pydicom.charset.convert_encodings(terms.split("\\")))

    source = source_of(tmp_path, change, syntax)
    original = pydicom.dcmread(tmp_path / "scan.dcm")
    result = result_of(source)
    even = name + b" " * (len(name) % 2)
    assert result.get_item("PatientName").value == even
    assert result.get("SpecificCharacterSet") == original.get("SpecificCharacterSet")
    assert str(result.PatientName) == str(original.PatientName)
    assert inherit(source, about(source), KIND).PatientName == original.PatientName


def test_patient_and_study_are_those_of_the_source(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        dated(dataset)
        dataset.AccessionNumber, dataset.ReferringPhysicianName, dataset.StudyDescription = "A7", "Ref^Erring", "Both eyes"
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod, dataset.TimezoneOffsetFromUTC = "YES", "by hand", "+0100"
        dataset.PatientComments = "not for results"

    source = source_of(tmp_path, change)
    original, result = pydicom.dcmread(tmp_path / "scan.dcm"), result_of(source)
    for keyword in (*_dicom._TYPE_2, "StudyDescription", "StudyInstanceUID", "PatientIdentityRemoved", "TimezoneOffsetFromUTC"):
        assert result.get(keyword, "") == original.get(keyword, ""), keyword
    assert (result.ContentDate, result.ContentTime) == ("20200102", "101500.25")
    assert (result.FrameOfReferenceUID if source.frame_of_reference else None) is None  # no positions in this one
    assert result.ImageLaterality == "R"
    assert "PatientComments" not in result
    assert result.SeriesInstanceUID != original.SeriesInstanceUID


def test_the_equipment_is_octedge_and_the_device_contributed(tmp_path: Path) -> None:
    result = result_of(source_of(tmp_path))
    assert (result.Manufacturer, result.DeviceSerialNumber) == ("octedge", "certificate-7")
    assert {"model model-1", "engine ort-fp32", "certificate certificate-7"} <= set(result.SoftwareVersions)
    device = result.ContributingEquipmentSequence[0]
    assert (device.Manufacturer, device.ManufacturerModelName) == ("Maker", "Model 1")
    assert "research use only" in result.SeriesDescription
    assert result.ImageComments.startswith("Research use only. Not a medical device.")
    assert result.file_meta.ImplementationVersionName.startswith("OCTEDGE")
    assert result.file_meta.ImplementationClassUID.startswith("2.25.")
    assert result.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99OCTEDGE"


def test_when_not_to_trust_the_answer_stands_in_the_comments(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    said = about(source, quality=(FrameQuality(greys=0.001, missing=0.9),) * 3, factor=0.5, notes=("frame order as stored",))
    file = BytesIO()
    write(file, inherit(source, said, KIND))
    file.seek(0)
    comments = pydicom.dcmread(file).ImageComments.split("\r\n")
    assert said.flags
    assert {f"Flag {flag.name}: {flag.text}" for flag in said.flags} <= set(comments)
    assert {"Rows were scaled by 0.5 for the model.", "frame order as stored"} <= set(comments)


def test_what_the_source_lacks_is_empty(tmp_path: Path) -> None:
    def bare(dataset: Dataset) -> None:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "Manufacturer", "ManufacturerModelName", "ImageLaterality"):
            del dataset[keyword]

    source = source_of(tmp_path, bare)
    result = result_of(source)
    assert {result[keyword].value or "" for keyword in _dicom._TYPE_2} == {""}
    assert (result.ContentDate, result.ContentTime) == ("", "")
    assert "ImageLaterality" not in result
    assert result.ContributingEquipmentSequence[0].Manufacturer == "unknown"


BAD = {
    "a date that is none": (stored("PatientBirthDate", b"CANARY99"), "PatientBirthDate", ""),
    "binary in a number": (stored("PatientID", b"\x01\x02\x03CANARY "), "PatientID", ""),
    "an identity of another kind": (stored("PatientID", b"CANARY1\x00", "SH"), "PatientID", "CANARY1"),
    "a number where text belongs": (stored("PatientID", b"CA", "US"), "PatientID", ""),
    "a name without end": (stored("PatientName", b"CANARY" * 400), "PatientName", ""),
    "a sex that is none": (stored("PatientSex", b"canary"), "PatientSex", ""),
    "a long identity": (stored("PatientID", b"CANARY" * 20), "PatientID", "CANARY" * 20),
    "bytes of another character set": (stored("StudyDescription", b"CANARY\xfc ", terms="ISO_IR 192"), "StudyDescription", "CANARY\ufffd"),
    "a time that is none": (stored("StudyTime", b"CA:NA:RY"), "StudyTime", ""),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_values_neither_break_the_result_nor_leak(
    tmp_path: Path, bad: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    change, keyword, expected = BAD[bad]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        source = source_of(tmp_path, change)
        file = BytesIO()
        write(file, inherit(source, about(source), KIND))
    assert not heard
    assert "CANARY" not in caplog.text + "".join(capfd.readouterr())
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (pydicom.dcmread(file)[keyword].value or "") == expected


def test_text_in_an_unknown_character_set_is_kept_only_if_it_is_ascii(tmp_path: Path) -> None:
    def change(dataset: Dataset) -> None:
        stored("PatientName", b"M\xfcller ")(dataset)
        tag = Tag("SpecificCharacterSet")
        dataset[tag] = RawDataElement(tag, "CS", 10, b"ISO_IR 999", 0, False, True)

    result = result_of(source_of(tmp_path, change))
    assert "SpecificCharacterSet" not in result
    assert (str(result.PatientName), result.PatientID) == ("", "CANARY1")


def test_bytes_that_are_not_of_the_stated_character_set_are_kept(tmp_path: Path) -> None:
    """Whoever knows the patient by these bytes finds the result."""
    source = source_of(tmp_path, stored("PatientName", b"M\xfcller", terms="ISO_IR 192"))
    assert pydicom.dcmread(tmp_path / "scan.dcm").get_item("PatientName").value == b"M\xfcller"
    assert result_of(source).get_item("PatientName").value == b"M\xfcller"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_without_a_study_or_series_there_is_nothing_to_belong_to(tmp_path: Path, keyword: str) -> None:
    def change(dataset: Dataset) -> None:
        del dataset[keyword]

    with pytest.raises(ScanError, match=f"scan: {keyword} is missing or no UID"):
        source_of(tmp_path, change)


def test_a_scan_that_is_no_dicom_has_no_study() -> None:
    scan = Scan("scan", 1, 4, 4, lambda _: np.zeros((4, 4), np.uint8))
    with pytest.raises(ScanError, match="scan: the scan does not come from DICOM"):
        origin([], scan)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4), st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_uids_are_valid_and_as_different_as_what_they_are_made_of(one: list[str], other: list[str]) -> None:
    one, other = ([part.replace("\0", "") for part in parts] for parts in (one, other))
    assert derived_uid(*one).is_valid
    assert derived_uid(*one).startswith("2.25.")
    assert (derived_uid(*one) == derived_uid(*other)) == (one == other)


def test_another_answer_is_another_object_and_the_same_one_is_the_same(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    said = about(source)
    changed = [
        replace(said, model="other"), replace(said, engine="trt-fp16"), replace(said, factor=0.5), replace(said, failed={1: "why"}),
        replace(said, spacing=Spacing(0.004)),
    ]  # fmt: skip
    objects = [inherit(source, each, KIND) for each in (said, *changed)] + [inherit(source, said, replace(KIND, name="other"))]
    assert len({each.SOPInstanceUID for each in objects}) == len(objects)
    assert len({each.SeriesInstanceUID for each in objects}) == len(objects)
    assert inherit(source_of(tmp_path), said, KIND) == objects[0]


def test_legacy_codes_of_regions_are_those_of_snomed() -> None:
    public = {code.value: code.meaning for code in codes.cid4211.concepts.values()}
    for old, new in _dicom._SRT.items():
        assert mapping["SRT"][old] == new
    assert {value: public.get(value) for value in _dicom._REGIONS} == _dicom._REGIONS | {"67046006": None}  # the fovea is none of them


@pytest.mark.parametrize(
    ("value", "scheme", "region"), [("T-AA630", "SRT", "81016008"), ("67046006", "SCT", "67046006"), ("x", "99", "5665001")]
)
def test_the_region_is_that_of_the_source(tmp_path: Path, value: str, scheme: str, region: str) -> None:
    def change(dataset: Dataset) -> None:
        dated(dataset)
        dataset.AnatomicRegionSequence = [opt_files.item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="CANARY")]

    found = result_of(source_of(tmp_path, change)).AnatomicRegionSequence[0]
    assert (found.CodeValue, found.CodingSchemeDesignator) == (region, "SCT")
    assert found.CodeMeaning != "CANARY"


def test_an_object_that_is_no_image_has_no_attributes_of_one(tmp_path: Path) -> None:
    result = result_of(source_of(tmp_path), replace(KIND, image=False))
    assert not {"AnatomicRegionSequence", "ImageLaterality", "PatientOrientation", "ImageComments", "FrameOfReferenceUID"} & set(
        result.dir()
    )


@given(st.text(max_size=90))
def test_labels_are_values_that_any_character_set_takes(words: str) -> None:
    made = label(words)
    assert made.isascii()
    assert made.isprintable() or not made
    assert "\\" not in made
    assert len(made) <= 64


def test_every_public_code_of_a_structure_fits_where_codes_go() -> None:
    for each in STRUCTURES:
        assert each.code is None or (len(each.code[1]) <= 16 and len(each.code[2]) <= 64)
