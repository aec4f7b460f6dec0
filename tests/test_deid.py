"""Copies for training: nothing of the patient is left, everything that a scan needs is."""

import io
import sys
import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import Dataset, dcmread, dcmwrite
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless

import octedge
from octedge.cli import main
from octedge.deid import _EMPTIED, _KEPT, KEPT, PROFILE, Pseudonyms, copy
from octedge.errors import ScanError, UsageError
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom, write_series
from octedge.phantom_look import LOOKS
from tests.readers.opt_files import item, opt, save
from tests.test_phantom_files import errors

LOOK = replace(LOOKS["spectralis"], rows=64, columns=48, span_mm=0.5)
SECRET = b"0123456789abcdef"
DAY, NUMBER = "19331224", "77123"
CANARIES = {
    **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "UR", "CS", "AE"), "CANARY"),
    "DA": DAY, "DT": f"{DAY}112233.444+0930", "TM": "112233.4", "AS": "077Y", "UI": "1.2.826.0.1.3680043.77123.9",
    "IS": NUMBER, "DS": NUMBER,
}  # fmt: skip
# Of what stays as it is, the words; there is nothing to see in them but what the maker of the device and the standard wrote.
WORDS = {
    "SpecificCharacterSet", "Modality", "Laterality", "ImageLaterality", "FrameLaterality", "SynchronizationTrigger",
    "AcquisitionTimeSynchronized", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ImageType", "BurnedInAnnotation",
    "RecognizableVisualFeatures", "LossyImageCompression", "LossyImageCompressionMethod", "PresentationLUTShape",
    "PhotometricInterpretation", "DimensionOrganizationType", "DetectorType", "OphthalmicImageOrientation", "CodeValue",
    "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning",
}  # fmt: skip


@pytest.fixture
def pseudonyms():
    return Pseudonyms(SECRET)


@pytest.fixture
def scan(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "DOE_CANARY.dcm"
    write_dicom(Phantom(LOOK, 3, 1, "L"), path)
    return path


def poisoned(dataset: Dataset, depth: int = 0) -> Dataset:
    """The data set with a canary in every element of words, dates or identifiers: those that are there, at every depth, and at the
    top and in one item further down those that the standard knows.
    """
    for element in list(dataset):
        if element.VR == "SQ":
            for each in element.value:
                poisoned(each, depth + 1)
    everywhere = depth == 0 or ("StackID" in dataset and dataset.InStackPositionNumber == 1)
    for tag in DicomDictionary if everywhere else list(dataset.keys()):
        keyword, vr = keyword_for_tag(tag), dictionary_VR(tag)
        stays = keyword in WORDS or keyword.endswith("ClassUID") or (vr in ("IS", "DS") and keyword in _KEPT)
        if vr in CANARIES and tag >> 16 > 2 and not stays:
            dataset.add_new(tag, vr, CANARIES[vr])
    block = dataset.private_block(0x0029, "CANARY", create=True)
    block.add_new(1, "LO", "CANARY")
    block.add_new(2, "OB", b"CANARY")
    if depth < 3:
        block.add_new(3, "SQ", [item(PatientName="CANARY")])
        dataset.OriginalAttributesSequence = [item(PatientName="CANARY", PatientID="CANARY")]
        dataset.EncryptedAttributesSequence = [item(EncryptedContent=b"CANARY")]
    return dataset


def read_quietly(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(path)


def poison(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = poisoned(dcmread(path))
        dataset.add_new(0x60003000, "OW", b"CANARY")
        dataset.add_new(0x60000022, "LO", "CANARY")
        dataset.add_new(0xFFFCFFFC, "OB", b"CANARY")
        dataset.preamble = b"CANARY".ljust(128, b"!")
        dataset.file_meta.SourceApplicationEntityTitle = "CANARY"
        dataset.file_meta.PrivateInformationCreatorUID = UID("1.2.826.0.1.3680043.77123.9")
        dataset.file_meta.PrivateInformation = b"CANARY"
        dcmwrite(path, dataset)


def everything(dataset: Dataset):
    for element in dataset:
        yield element
        if element.VR == "SQ":
            for each in element.value:
                yield from everything(each)


def test_no_canary_sings_in_the_copys_bytes_or_name(scan, tmp_path, pseudonyms):
    poison(scan)
    before = scan.read_bytes()
    assert before.count(b"CANARY") > 1000
    assert before.count(DAY.encode()) > 100
    copied = copy(scan, tmp_path / "out", pseudonyms)
    after = copied.path.read_bytes()
    for canary in (b"CANARY", b"DOE", DAY.encode(), NUMBER.encode(), b"112233", b"077Y", b"+0930"):
        assert canary in before or canary == b"DOE"
        assert canary not in after
        assert canary.decode() not in str(copied.path.relative_to(tmp_path / "out"))
    assert scan.read_bytes() == before
    left = {element.keyword for element in everything(read_quietly(copied.path))}
    declared = {
        "PatientIdentityRemoved",
        "LongitudinalTemporalInformationModified",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
    }
    assert left <= _KEPT | _EMPTIED | declared
    assert declared <= left


def test_the_words_that_stay_are_these(pseudonyms):
    text = {"LO", "SH", "ST", "LT", "UT", "UC", "UR", "CS", "AE", "AS", "UN"}
    stay = {keyword for keyword in _KEPT if dictionary_VR(keyword) in text}
    assert stay == WORDS | {"PatientID", "DeviceSerialNumber", "StackID"}  # which are replaced
    assert sum(len(words.split()) for words in KEPT.values()) == len(_KEPT)
    assert not _KEPT & _EMPTIED


@pytest.mark.parametrize("bits", [8, 16])
def test_the_copy_is_the_same_scan(scan, tmp_path, pseudonyms, bits):
    write_dicom(Phantom(LOOK, 3, 1, "L"), scan, bits=bits)
    poison(scan)
    before, after = read_quietly(scan), read_quietly(copy(scan, tmp_path / "out", pseudonyms).path)
    assert after.PixelData == before.PixelData
    assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID
    one, two = octedge.read(scan), octedge.read(next((tmp_path / "out").rglob("*.dcm")))
    assert (two.frames, two.spacing, two.laterality, two.pattern, two.device) == (3, one.spacing, "L", one.pattern, one.device)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_compressed_frames_stay_as_they_are(scan, tmp_path, pseudonyms):
    dataset = dcmread(scan)
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51frame " + bytes([index]) for index in range(3)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(scan)
    after = dcmread(copy(scan, tmp_path / "out", pseudonyms).path)
    assert after.PixelData == dataset.PixelData
    assert after["PixelData"].is_undefined_length
    assert after.file_meta.TransferSyntaxUID == JPEG2000Lossless


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_every_encoding_is_kept(tmp_path, pseudonyms, syntax):
    array = np.random.default_rng(3).integers(0, 4096, (2, 8, 6)).astype(">u2" if syntax.endswith("1.2.2") else "<u2")
    dataset = opt(array)
    dataset.SmallestImagePixelValue = 3  # of a kind that depends on another element
    save(tmp_path / "in.dcm", dataset, syntax)
    after = dcmread(copy(tmp_path / "in.dcm", tmp_path / "out", pseudonyms).path)
    assert after.file_meta.TransferSyntaxUID == syntax
    assert after.PixelData == dataset.PixelData
    assert after.SmallestImagePixelValue == 3


def test_uids_differ_from_the_originals_and_fit_each_other(tmp_path, pseudonyms):
    paths = write_series(Phantom(LOOK, 3, 5), tmp_path / "in")
    first = dcmread(paths[0])
    reference = item(ReferencedSOPClassUID=first.SOPClassUID, ReferencedSOPInstanceUID=first.SOPInstanceUID)
    for path in paths:
        dataset = dcmread(path)
        dataset.ReferencedImageSequence = [reference]
        dataset.SynchronizationFrameOfReferenceUID = dataset.FrameOfReferenceUID
        dataset.PatientID = f"PHANTOM{paths.index(path) // 2}"  # a slip of the pen: one series, two patients
        dataset.save_as(path)
    originals = [dcmread(path) for path in paths]
    copies = [dcmread(copy(path, tmp_path / "out", pseudonyms).path) for path in paths]
    for before, after in zip(originals, copies, strict=True):
        uids = [(a, b) for a, b in zip(*map(uids_of, (before, after)), strict=True)]
        assert len(uids) >= 8
        assert all(a != b and UID(b).is_valid for a, b in uids)
        assert all(b.startswith("2.25.") and int(b[5:]) < 1 << 128 for _, b in uids)  # PS3.5 B.2
        assert after.SOPClassUID == before.SOPClassUID
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID == copies[0].SOPInstanceUID
        assert (
            after.DimensionIndexSequence[0].DimensionOrganizationUID == copies[0].DimensionOrganizationSequence[0].DimensionOrganizationUID
        )
        assert after.SynchronizationFrameOfReferenceUID == after.FrameOfReferenceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({each[keyword].value for each in copies}) == 1
    assert len({each.SOPInstanceUID for each in copies}) == 3


def uids_of(dataset):
    return [element.value for element in everything(dataset) if element.VR == "UI" and not element.keyword.endswith("ClassUID")]


def test_dates_move_by_one_distance_within_frames_too(scan, tmp_path, pseudonyms):
    before, after = dcmread(scan), dcmread(copy(scan, tmp_path / "out", pseudonyms).path)

    def moments(dataset):
        frames = [frame.FrameContentSequence[0] for frame in dataset.PerFrameFunctionalGroupsSequence]
        texts = [dataset.StudyDate + dataset.StudyTime, dataset.ContentDate + dataset.ContentTime, dataset.AcquisitionDateTime]
        texts += [each[keyword].value for each in frames for keyword in ("FrameAcquisitionDateTime", "FrameReferenceDateTime")]
        return [datetime.strptime(text, "%Y%m%d%H%M%S") for text in texts]

    moved = {a - b for a, b in zip(moments(before), moments(after), strict=True)}
    assert len(moved) == 1
    assert moved.pop().days >= 61


DAMAGED = ["20200230", "2020", "19", "x", "00010101", "2020-01-01"]


@pytest.mark.parametrize("date", DAMAGED)
def test_a_date_that_is_none_is_emptied(scan, tmp_path, pseudonyms, date):
    dataset = dcmread(scan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.StudyDate, dataset.ContentDate = date, ""
        dataset.save_as(scan)
    after = dcmread(copy(scan, tmp_path / "out", pseudonyms).path)
    assert not after.StudyDate
    assert not after.StudyTime
    assert not after.ContentTime  # which would stay where it is without a date


def test_an_element_of_another_kind_than_its_tag_says_goes(scan, tmp_path, pseudonyms):
    dataset = dcmread(scan)
    uid = str(dataset.FrameOfReferenceUID)
    dataset.add_new("FrameOfReferenceUID", "LO", uid)
    dataset.add_new("Rows", "LO", "CANARY")
    dataset.add_new("StackID", "SQ", [item(Manufacturer="x")])
    dataset.save_as(scan)
    assert uid.encode() not in copy(scan, tmp_path / "out", pseudonyms).path.read_bytes()
    assert {"FrameOfReferenceUID", "Rows", "StackID"}.isdisjoint(dcmread(next((tmp_path / "out").rglob("*.dcm"))).dir())


def test_a_patient_is_one_person_with_one_secret_and_another_with_another(scan, tmp_path):
    names = {}
    for name, secret in (("one", SECRET), ("again", SECRET), ("other", SECRET[::-1])):
        names[name] = copy(scan, tmp_path / name, Pseudonyms(secret)).path
    one, again, other = (path.relative_to(path.parents[1]) for path in names.values())
    assert one == again
    assert names["one"].read_bytes() == names["again"].read_bytes()
    assert one.parent != other.parent
    assert one.name != other.name
    assert dcmread(names["one"]).AcquisitionDateTime != dcmread(names["other"]).AcquisitionDateTime


def test_patients_of_one_number_from_two_issuers_are_two_and_without_one_a_study_is_one(scan, tmp_path, pseudonyms):
    found = {}
    for name, number, issuer in (("plain", "7", ""), ("a", "7", "A"), ("b", "7", "B"), ("none", "", ""), ("none too", "", "")):
        dataset = dcmread(scan)
        dataset.PatientID, dataset.IssuerOfPatientID, dataset.SOPInstanceUID = number, issuer, f"1.2.{len(found)}"
        dataset.save_as(scan)
        copied = dcmread(copy(scan, tmp_path / "out", pseudonyms).path)
        found[name] = str(copied.PatientID)
        assert copied.PatientName == copied.PatientID
        assert len(copied.PatientID) == 12
    assert len(set(found.values())) == 4
    assert found["none"] == found["none too"]


def test_the_copy_conforms_as_well_as_its_scan(scan, tmp_path, pseudonyms):
    path = copy(scan, tmp_path / "out", pseudonyms).path
    assert errors(path) == []


def test_the_copy_says_what_was_done(scan, tmp_path, pseudonyms):
    after = dcmread(copy(scan, tmp_path / "out", pseudonyms).path)
    assert after.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in after.DeidentificationMethodCodeSequence] == list(PROFILE) == ["113100", "113107"]
    assert after.DeidentificationMethod[0] == f"octedge {octedge.__version__}"
    assert after.DeviceSerialNumber == "0"
    assert after.PatientBirthDate == ""


@pytest.mark.parametrize(("burned", "words"), [("YES", "says that text"), (None, "does not say")])
def test_burned_in_text_is_warned_about(scan, tmp_path, burned, words):
    dataset = dcmread(scan)
    dataset.BurnedInAnnotation = burned
    dataset.save_as(scan)
    result = deid(scan.parent, tmp_path / "out")
    assert result.exit_code == 0
    assert f"warning: {scan.name}: (0028,0301) BurnedInAnnotation {words}" in result.stderr
    assert dcmread(next((tmp_path / "out").rglob("*.dcm"))).PatientIdentityRemoved == "NO"


def deid(*arguments: object):
    result = CliRunner().invoke(main, ["deid", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_a_tree_is_copied_and_what_is_no_oct_is_left_alone(scan, tmp_path):
    deeper = scan.parent / "Doe, Canary" / "1933"
    deeper.mkdir(parents=True)
    write_dicom(Phantom(LOOK, 2, 9), deeper / "b")
    (deeper / "letter.pdf").write_bytes(b"CANARY")
    fundus = dcmread(scan)
    fundus.Modality, fundus.SOPClassUID = "OP", "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    fundus.save_as(deeper / "fundus.dcm")
    (deeper / "cut.dcm").write_bytes(scan.read_bytes()[:900])
    (deeper / "twice.dcm").write_bytes(scan.read_bytes())
    before = {path: path.read_bytes() for path in scan.parent.rglob("*") if path.is_file()}
    result = deid(scan.parent, tmp_path / "out", "--secret", tmp_path / "secret")
    assert result.exit_code == 1
    assert result.stdout == ""
    told = result.stderr.splitlines()
    assert told[-1] == "scan files: 2 copied, 3 refused, 1 other files left alone; pictures of a retina are biometric"
    assert sorted(line.split(": ")[1] for line in told[:-1]) == ["cut.dcm", "fundus.dcm", "twice.dcm"]
    assert {path: path.read_bytes() for path in scan.parent.rglob("*") if path.is_file()} == before
    made = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(made) == 2
    assert not [path for path in made if "anary" in str(path).lower() or "doe" in str(path).lower()]
    again = deid(scan, tmp_path / "again", "--secret", tmp_path / "secret")
    assert again.exit_code == 0
    assert next((tmp_path / "again").rglob("*.dcm")).relative_to(tmp_path / "again") in made
    assert deid(scan, tmp_path / "forgotten").exit_code == 0
    assert next((tmp_path / "forgotten").rglob("*.dcm")).relative_to(tmp_path / "forgotten") not in made


def test_what_would_mix_copies_and_scans_or_give_the_secret_away_is_refused(scan, tmp_path):
    before = scan.read_bytes()
    for arguments, words in (
        ((scan.parent, scan.parent), "copies would be copied again"),
        ((scan.parent, scan.parent / "out"), "copies would be copied again"),
        ((tmp_path / "nowhere", tmp_path / "out"), "does not exist"),
        ((scan, tmp_path / "out", "--secret", tmp_path / "out" / "secret"), "keep the secret elsewhere"),
        ((scan, tmp_path / "out", "--secret", tmp_path), "cannot be read"),
        ((scan, tmp_path / "out", "--secret", scan.parent / "short"), "can be guessed"),
    ):
        (scan.parent / "short").write_text("short\n")
        result = deid(*arguments)
        assert result.exit_code == 2, result.stderr
        assert words in result.stderr
    assert scan.read_bytes() == before
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_no_value_of_a_damaged_file_is_told(scan, tmp_path):
    data = scan.read_bytes()
    place = data.index(b"20200101120000")
    scan.write_bytes(data[:place] + b"CANARY^SECRET!" + data[place + 14 :])
    result = deid(scan, tmp_path / "out")
    assert "CANARY" not in result.output.replace(scan.name, "")
    assert result.exit_code == 0
    assert not dcmread(next((tmp_path / "out").rglob("*.dcm"))).AcquisitionDateTime


def test_a_copy_never_replaces_its_scan(scan, tmp_path, pseudonyms):
    target = copy(scan, tmp_path / "out", pseudonyms).path
    scan.unlink()
    scan.hardlink_to(target)
    target.unlink()
    write_dicom(Phantom(LOOK, 3, 1, "L"), scan)
    target.hardlink_to(scan)
    with pytest.raises(UsageError, match="would replace it"):
        copy(scan, tmp_path / "out", pseudonyms)


def test_without_pixels_there_is_no_copy(scan, tmp_path, pseudonyms):
    dataset = dcmread(scan)
    del dataset.PixelData
    file = io.BytesIO()
    dcmwrite(file, dataset)
    scan.write_bytes(file.getvalue())
    with pytest.raises(ScanError, match="probably truncated"):
        copy(scan, tmp_path / "out", pseudonyms)


def test_without_dicognito_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dicognito.anonymizer", None)
    with pytest.raises(UsageError, match=r"pip install octedge\[deid\]"):
        Pseudonyms(SECRET)
