"""What all DICOM results share: where they come from, what they inherit, their UIDs, codes, and how they are written.

A result belongs to the study of its source. Nothing in it depends on a clock or on chance: the same answer gives the same bytes.
Values of the source's patient and study are carried over byte for byte, with their character set; they are never decoded.
"""

import re
import uuid
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import STR_VR

from octedge import __version__
from octedge.errors import ScanError
from octedge.readers._dicom_file import reading
from octedge.readers._dicom_order import Place
from octedge.readers._spacing import plausible
from octedge.readers.dicom import headers
from octedge.scan import Laterality, Scan
from octedge.segment import About

USE = "Research use only"
SCHEME = "99OCTEDGE"  # codes where no public scheme has one: the keys of `octedge.anatomy`

_NAMESPACE = uuid.UUID("7f6d1c52-3b0e-5a4e-9c1d-6f63746564ab")
IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")

# PS3.3 C.7.1.1, C.7.2.1, C.12.1.1: what is carried over. Type 2 attributes are there even if empty.
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_TYPE_3 = ("IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod", "TimezoneOffsetFromUTC")
_FORMAL = {
    "DA": r"\d{8}", "TM": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", "CS": r"[A-Z0-9_ ]{1,16}", "UI": r"[0-9.]{1,64}",
    "DT": r"\d{8}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?([+-]\d{4})?", "IS": r"[+-]?\d{1,11}",
}  # fmt: skip
_LONGEST = 1024  # bytes; no text of a patient or a study is longer

# PS3.16 CID 4211, what lies at the back of the eye; SRT are the codes of before 2018.
_REGIONS = {
    "5665001": "Retina", "81016008": "Optic nerve head", "67046006": "Fovea centralis", "68703001": "Choroid of eye",
}  # fmt: skip
_SRT = {"T-AA610": "5665001", "T-AA630": "81016008", "T-AA621": "67046006", "T-AA310": "68703001"}

# PS3.16 CID 4273. Surfaces are named by what they separate; a surface has a code only between these very neighbours.
# Those of ez|os, os|rpe and rpe|choroid are octedge's reading of the terms.
_SURFACES = {
    "vitreous|nfl": ("280677004", "SCT", "ILM - Internal limiting membrane"),
    "nfl|gcl": ("128289", "DCM", "Outer surface of RNFL"),
    "gcl|ipl": ("128290", "DCM", "Outer surface of GCL"),
    "ipl|inl": ("128291", "DCM", "Outer surface of IPL"),
    "inl|opl": ("128292", "DCM", "Outer surface of INL"),
    "opl|onl": ("128293", "DCM", "Outer surface of OPL"),
    "onl|elm": ("76710003", "SCT", "ELM - External limiting membrane"),
    "ez|os": ("128295", "DCM", "Surface between Inner and Outer Segments of the photoreceptors"),
    "os|rpe": ("128297", "DCM", "Anterior surface of the RPE"),
    "rpe|choroid": ("128300", "DCM", "Outer surface of the BM"),
    "choroid|sclera": ("128301", "DCM", "Surface of the choroid-sclera interface"),
}


def item(**values: object) -> Dataset:
    """A data set, or an item of a sequence, from keywords and values."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded entry (PS3.3 section 8.8); a value of more than 16 characters goes where there is room for it."""
    keyword = "CodeValue" if len(value) <= 16 else "LongCodeValue"
    return item(**{keyword: value, "CodingSchemeDesignator": scheme, "CodeMeaning": label(meaning)})


def surface_code(name: str) -> Dataset:
    """The code of a surface `"nfl|gcl"`: CID 4273 where it has one, else octedge's own."""
    upper, _, lower = name.partition("|")
    return code(*_SURFACES.get(name, (name, SCHEME, f"Surface between {upper} and {lower}")))


def label(words: str, longest: int = 64) -> str:
    """Words as any character set and a value of LO take them: ASCII, no backslash, not too long."""
    return re.sub(r"[^\x20-\x5b\x5d-\x7e]", "_", words)[:longest].strip()


def derived_uid(*parts: str) -> UID:
    """The UID made of `parts`, always the same: 2.25 and a name-based UUID (PS3.5 annex B.2, RFC 9562 version 5)."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(parts)).int}")


@dataclass(frozen=True, slots=True)
class Reference:
    """One B-scan as a result refers to it; frames count from 1."""

    sop_class: str
    instance: str
    frame: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The DICOM images a scan was read from, as far as its results need them; nothing of them is decoded later.

    `inherited` holds patient and study as stored. For each of the F B-scans, in the scan's order: its `references` and its
    `places`. `frame_of_reference` is None unless every B-scan states a position, an orientation and a pixel size in it.
    `content` is the date and the time of the acquisition, "" where unknown.
    """

    name: str  # of the scan
    inherited: Dataset
    study: str
    series: str
    references: tuple[Reference, ...]
    places: tuple[Place, ...]
    frame_of_reference: str | None
    laterality: Laterality | None
    region: str  # SCT
    device: tuple[str, str]  # manufacturer, model
    content: tuple[str, str]

    @property
    def instances(self) -> tuple[Reference, ...]:
        """The files referred to, each once: its first B-scan's reference."""
        return tuple({each.instance: each for each in reversed(self.references)}.values())[::-1]


def origin(paths: Sequence[Path], scan: Scan) -> Origin:
    """Where results of `scan`, read from `paths`, come from.

    Raises `ScanError` if there is no study to belong to: the files are no DICOM, or lack UIDs.
    """
    if not scan.source_ids.get("SOPInstanceUID"):
        raise ScanError(f"{scan.name}: the scan does not come from DICOM, so a DICOM result has no study to belong to")
    found = headers(paths)
    with reading(scan.name):
        first = found[0].dataset
        uids = {keyword: _uid(first, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID")}
        files = {_uid(header.dataset, "SOPInstanceUID"): header for header in found}
    missing = [keyword for keyword, uid in (*uids.items(), *(("SOPInstanceUID", uid) for uid in files)) if not uid]
    if missing or len(files) != len(found):
        what = f"{missing[0]} is missing or no UID" if missing else "files share a SOPInstanceUID"
        raise ScanError(f"{scan.name}: {what}: a DICOM result cannot refer to the scan")
    order = _frames(scan)
    with reading(scan.name):
        references = tuple(Reference(_uid(files[uid].dataset, "SOPClassUID") or "", uid, number) for uid, number in order)
        spots = tuple(files[uid].places[number - 1] for uid, number in order)
        reference = _uid(first, "FrameOfReferenceUID")
        same = len({_uid(header.dataset, "FrameOfReferenceUID") for header in found}) == 1
        return Origin(
            scan.name, _inherited(first), uids["StudyInstanceUID"], uids["SeriesInstanceUID"], references, spots,
            reference if reference and same and all(map(_placed, spots)) else None, scan.laterality, _region(first),
            (_words(first, "Manufacturer"), _words(first, "ManufacturerModelName")), _content(first),
        )  # fmt: skip


def _frames(scan: Scan) -> list[tuple[str, int]]:
    """(SOPInstanceUID, frame number from 1) of each B-scan."""
    uids = scan.source_ids.get("SOPInstanceUID", "").split("\\")
    if len(uids) > 1:
        return [(uid, 1) for uid in uids]
    numbers = scan.source_ids.get("FrameNumbers")
    order = map(int, numbers.split("\\")) if numbers else range(1, scan.frames + 1)
    return [(uids[0], number) for number in order]


def _placed(place: Place) -> bool:
    """Whether a B-scan says where it lies: position, perpendicular unit directions, pixel size."""
    if place.position is None or place.orientation is None or place.pixel is None or plausible((*place.pixel, None), "")[1]:
        return False
    directions = np.array(place.orientation).reshape(2, 3)
    return bool(np.abs(directions @ directions.T - np.eye(2)).max() < 1e-3)


def _stored(dataset: Dataset, keyword: str) -> bytes:
    """The value as it stands in the file, without its padding; empty if it is no text, or not in the form the attribute has."""
    tag, vr = Tag(keyword), dictionary_VR(keyword)
    element: Any = dataset.get_item(tag) if tag in dataset else None
    if not isinstance(element, RawDataElement) or element.VR not in (None, "UN", *STR_VR) or not isinstance(element.value, bytes):
        return b""
    value = element.value.rstrip(b"\0 ").lstrip(b" ")
    if vr in _FORMAL:
        return value if re.fullmatch(_FORMAL[vr].encode(), value) else b""
    return value if len(value) <= _LONGEST and not re.search(rb"[\x00-\x1a\x1c-\x1f\x7f]", value) else b""


def _uid(dataset: Dataset, keyword: str) -> str:
    return _stored(dataset, keyword).decode("ascii")


def _words(dataset: Dataset, keyword: str) -> str:
    return label(_stored(dataset, keyword).decode("ascii", "replace"))


def _character_set(dataset: Dataset) -> list[str] | None:
    """The terms of (0008,0005), none if it is not there; None if one of them is unknown (PS3.3 C.12.1.1.2)."""
    value: Any = dataset.get("SpecificCharacterSet") or ""  # pydicom has looked at it already, to know the others
    stated = [value] if isinstance(value, str) else [str(each) for each in value]
    terms = [re.sub(r"^ISO[ _-]IR[ _-]?", "ISO_IR ", term.strip("\0 ")) for term in stated]
    return None if not set(terms) <= python_encoding.keys() else (terms if any(terms) else [])


def _inherited(source: Dataset) -> Dataset:
    """Patient and study, byte for byte. Text that is not ASCII is left out if nobody knows in which characters it is."""
    dataset, terms = Dataset(), _character_set(source)
    if terms:
        dataset.SpecificCharacterSet = terms
    for keyword in (*_TYPE_2, *_TYPE_3):
        value = _stored(source, keyword)
        if terms is None and not value.isascii():
            value = b""
        value += b" " * (len(value) % 2)
        if value or keyword in _TYPE_2:
            tag = Tag(keyword)
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(value), value, 0, False, True)
    return dataset


def _region(dataset: Dataset) -> str:
    """What the source says it shows, as SCT; octedge segments the retina, so that is what is meant where it says nothing."""
    groups = [dataset, *(dataset.get("SharedFunctionalGroupsSequence") or ()), *(dataset.get("PerFrameFunctionalGroupsSequence") or ())[:1]]
    for holder in [part for group in groups for part in (group, *(group.get("FrameAnatomySequence") or ()))]:
        for entry in holder.get("AnatomicRegionSequence") or ():
            value = str(entry.get("CodeValue", ""))
            if _SRT.get(value, value) in _REGIONS:
                return _SRT.get(value, value)
    return "5665001"


def _content(dataset: Dataset) -> tuple[str, str]:
    """Date and time of acquisition, else of the content, the series, the study."""
    stamp = re.fullmatch(r"(\d{8})(\d{2,6}(?:\.\d+)?)?(?:[+-]\d{4})?", _stored(dataset, "AcquisitionDateTime").decode("ascii"))
    pairs = [(stamp[1], stamp[2] or "")] if stamp else []
    pairs += [(_uid(dataset, f"{what}Date"), _uid(dataset, f"{what}Time")) for what in ("Content", "Acquisition", "Series", "Study")]
    return next((pair for pair in pairs if all(pair)), next((pair for pair in pairs if pair[0]), ("", "")))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of derived object; each has a series of its own. `image` objects also say which eye and where it lies."""

    name: str  # "seg"; part of its UIDs
    sop_class: str
    modality: str
    series_number: int
    description: str  # of the series, "Retinal layers"
    image: bool = True


def inherit(source: Origin, about: About, kind: Kind) -> Dataset:
    """The base of a derived object: patient, study, series, equipment, and what it is (PS3.3 C.7.1 to C.7.5, C.12.1).

    Its UIDs are made of the source's instances, the kind, and all that an answer depends on: a repeated run gives the same object,
    another model, engine or scale another one.
    """
    what = [
        about.model,
        about.engine,
        about.certificate,
        __version__,
        f"{about.factor:.9g}",
        repr(about.spacing),
        str(sorted(about.failed)),
    ]
    run = [kind.name, *(each.instance for each in source.instances), *what]
    dataset = deepcopy(source.inherited)
    versions = [f"octedge {__version__}", f"model {about.model}", f"engine {about.engine}"]
    values: dict[str, object] = {
        "SOPClassUID": kind.sop_class, "SOPInstanceUID": derived_uid("instance", *run), "StudyInstanceUID": source.study,
        "Modality": kind.modality, "SeriesInstanceUID": derived_uid("series", *run), "SeriesNumber": kind.series_number,
        "SeriesDescription": label(f"{kind.description}, octedge, {USE.lower()}"), "InstanceNumber": 1,
        "ContentDate": source.content[0], "ContentTime": source.content[1],
        "Manufacturer": "octedge", "ManufacturerModelName": "octedge", "DeviceSerialNumber": label(about.certificate) or "none",
        "SoftwareVersions": [label(each) for each in (*versions, *([f"certificate {about.certificate}"] if about.certificate else []))],
        "CodingSchemeIdentificationSequence": [_scheme()],
        "ContributingEquipmentSequence": [_device(source)],
    }  # fmt: skip
    if kind.image:
        values |= {"AnatomicRegionSequence": [region_code(source)], "PatientOrientation": "", "ImageComments": comments(source, about)}
        if source.laterality:
            values |= {"ImageLaterality": source.laterality}
        if source.frame_of_reference:
            values |= {"FrameOfReferenceUID": source.frame_of_reference, "PositionReferenceIndicator": ""}
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    # As stored values are written as they are if the data set is one that could have been read in this way.
    terms = dataset.get("SpecificCharacterSet")
    dataset.set_original_encoding(False, True, convert_encodings(terms) if terms else default_encoding)
    return dataset


def region_code(source: Origin) -> Dataset:
    """What the source shows, from CID 4211."""
    return code(source.region, "SCT", _REGIONS[source.region])


def comments(source: Origin, about: About) -> str:
    """What a reader must know, as text: use, model, scale, B-scans without an answer, flags, notes. Holds no name of a file."""
    lines = [f"{USE}. Not a medical device.", f"octedge {__version__}, model {about.model}, engine {about.engine}."]
    if about.factor != 1:
        lines.append(f"Rows were scaled by {about.factor:.4g} for the model.")
    if about.failed:
        numbers = ", ".join(
            str(source.references[index].frame if len(source.instances) == 1 else index + 1) for index in sorted(about.failed)
        )
        lines.append(f"Not segmented, for they could not be decoded: B-scans {numbers} (counted from 1).")
    lines += [f"Flag {flag.name}: {flag.text}" for flag in about.flags]
    lines += [note for note in about.notes if not any(why in note for why in about.failed.values())]
    return "\r\n".join(label(line, 1000) for line in lines)[:10000]


def algorithm(about: About) -> Dataset:
    """What made the answer (PS3.3 10.16)."""
    scale = "" if about.factor == 1 else f"; rows scaled by {about.factor:.4g}"
    return item(
        AlgorithmFamilyCodeSequence=[code("123110", "DCM", "Artificial Intelligence")], AlgorithmName="octedge",
        AlgorithmVersion=label(f"{__version__}, model {about.model}"), AlgorithmSource="octedge",
        AlgorithmParameters=label(f"model {about.model}; engine {about.engine}{scale}", 1024),
    )  # fmt: skip


def references(source: Origin) -> list[Dataset]:
    """The ReferencedSeriesSequence of the Common Instance Reference module (PS3.3 C.12.2)."""
    instances = [item(ReferencedSOPClassUID=each.sop_class, ReferencedSOPInstanceUID=each.instance) for each in source.instances]
    return [item(SeriesInstanceUID=source.series, ReferencedInstanceSequence=instances)]


def _scheme() -> Dataset:
    return item(
        CodingSchemeDesignator=SCHEME, CodingSchemeName="Structures and surfaces of octedge.anatomy",
        CodingSchemeResponsibleOrganization="octedge",
    )  # fmt: skip


def _device(source: Origin) -> Dataset:
    """The device that made the scan (PS3.3 C.12.1.1.5)."""
    manufacturer, model = source.device
    return item(
        PurposeOfReferenceCodeSequence=[code("109101", "DCM", "Acquisition Equipment")], Manufacturer=manufacturer or "unknown",
        ManufacturerModelName=model,
    )  # fmt: skip


def file_meta(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> FileMetaDataset:
    """The file's own header (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION, label(f"OCTEDGE_{__version__}", 16)
    return meta


def write(file: BinaryIO, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> None:
    """Write the object as a DICOM file, in little endian with explicit VR; pixels may follow (tag 7FE0,0010 is the last)."""
    dataset.file_meta = file_meta(dataset, syntax)
    dcmwrite(file, dataset, enforce_file_format=True)
