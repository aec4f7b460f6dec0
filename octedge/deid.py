"""Copies of DICOM OCT scans for training, by the Basic Application Confidentiality Profile (PS3.15 annex E).

The profile lists what has to go (table E.1-1). Here what may stay is listed, and everything else goes, at every depth: private
elements, descriptions, comments, names, curves, overlays, icons, signatures, and whatever nobody has thought of. What stays of
identifiers and dates is replaced, by dicognito: UIDs, the patient's number, and dates, which move by one distance per patient
(Retain Longitudinal Temporal Information with Modified Dates, PS3.15 E.3.6). Pixels and their transfer syntax are not touched.
"""

import hmac
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import DataElement, Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.multival import MultiValue

import octedge
from octedge.errors import ScanError, UsageError
from octedge.readers._dicom_file import reading
from octedge.readers.dicom import summary
from octedge.results.files import atomic, make_folder

if TYPE_CHECKING:
    from dicognito.anonymizer import Anonymizer
    from dicognito.element_anonymizer import ElementAnonymizer

# What may stay, by the part of PS3.3 that asks for it. UIDs, dates, the patient's number and the device's are replaced, sequences
# looked into. Of what is kept as it is, table E.1-1 lists nothing (checked with its editions 2023, 2024b and 2026c).
KEPT: dict[str, str] = {
    "C.12.1 SOP common": "SpecificCharacterSet SOPClassUID SOPInstanceUID",
    "C.7.1.1 patient": "PatientName PatientID",
    "C.7.2.1 study": "StudyInstanceUID StudyDate StudyTime",
    "C.7.3.1 series": "SeriesInstanceUID SeriesNumber Modality Laterality",
    "C.7.4 frame of reference": "FrameOfReferenceUID SynchronizationFrameOfReferenceUID SynchronizationTrigger AcquisitionTimeSynchronized",
    "C.7.5 equipment": "Manufacturer ManufacturerModelName SoftwareVersions DeviceSerialNumber",
    "C.7.6.1 image": "ImageType InstanceNumber ContentDate ContentTime AcquisitionDateTime AcquisitionNumber AcquisitionDuration"
    " BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod"
    " PresentationLUTShape",
    "C.7.6.3 pixels": "SamplesPerPixel PhotometricInterpretation Rows Columns NumberOfFrames BitsAllocated BitsStored HighBit"
    " PixelRepresentation PixelSpacing PixelAspectRatio SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelData"
    " ExtendedOffsetTable ExtendedOffsetTableLengths",
    "C.7.6.16 functional groups": "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ConcatenationUID"
    " InConcatenationNumber InConcatenationTotalNumber ConcatenationFrameOffsetNumber SOPInstanceUIDOfConcatenationSource"
    " PixelMeasuresSequence SliceThickness SpacingBetweenSlices PlanePositionSequence ImagePositionPatient PlaneOrientationSequence"
    " ImageOrientationPatient FrameAnatomySequence FrameLaterality FrameContentSequence FrameAcquisitionNumber"
    " FrameReferenceDateTime FrameAcquisitionDateTime FrameAcquisitionDuration StackID InStackPositionNumber TemporalPositionIndex"
    " DimensionIndexValues",
    "C.7.6.17 dimensions": "DimensionOrganizationType DimensionOrganizationSequence DimensionOrganizationUID DimensionIndexSequence"
    " DimensionIndexPointer FunctionalGroupPointer",
    "C.8.17 ophthalmic tomography": "ImageLaterality AnatomicRegionSequence AcquisitionDeviceTypeCodeSequence"
    " ScanPatternTypeCodeSequence LightPathFilterTypeStackCodeSequence DetectorType IlluminationWaveLength IlluminationPower"
    " IlluminationBandwidth DepthSpatialResolution MaximumDepthDistortion AlongScanSpatialResolution MaximumAlongScanDistortion"
    " AcrossScanSpatialResolution MaximumAcrossScanDistortion OphthalmicFrameLocationSequence ReferenceCoordinates"
    " OphthalmicImageOrientation DepthOfTransverseImage HorizontalFieldOfView",
    "8.8 codes": "CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning",
    "10.3 references": "ReferencedImageSequence ReferencedSeriesSequence ReferencedInstanceSequence ReferencedSOPClassUID"
    " ReferencedSOPInstanceUID ReferencedFrameNumber PurposeOfReferenceCodeSequence",
}
# What PS3.3 wants to be there, empty if need be (type 2): action Z of table E.1-1, or measures of the patient that training does not need.
EMPTIED = (
    "PatientBirthDate PatientSex AccessionNumber ReferringPhysicianName StudyID PositionReferenceIndicator AcquisitionContextSequence"
    " AxialLengthOfTheEye RefractiveStateSequence EmmetropicMagnification IntraOcularPressure PupilDilated"
    " OphthalmicAnatomicReferencePointXCoordinate OphthalmicAnatomicReferencePointYCoordinate"
)
# PS3.16 CID 7050, with the meanings it gives.
PROFILE = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
}
LEAST_SECRET = 16  # bytes

_KEPT = frozenset(" ".join(KEPT.values()).split())
_EMPTIED = frozenset(EMPTIED.split())
_META = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
# PS3.5 section 6.2, without the distance from UTC, which tells where a scan was made.
_DT = re.compile(r"((?:19|20)\d{6}(?:([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?)([+-]\d{4})?")
_TM = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy that was made, and what its maker must be told."""

    path: Path
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Who is called what: the same for the same secret (16 bytes or more), which must be kept from those who get the copies.

    Raises `UsageError` for a shorter secret, or without dicognito.
    """

    secret: bytes = field(repr=False)
    _patients: dict[str, "Anonymizer"] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < LEAST_SECRET:
            raise UsageError(f"a secret of {len(self.secret)} bytes can be guessed; needed are {LEAST_SECRET} or more, by chance")
        try:
            import dicognito.anonymizer  # noqa: F401
        except ImportError as error:
            raise UsageError(f"deid needs dicognito, which cannot be imported ({error}); pip install octedge[deid]") from error

    def of(self, patient: str) -> "Anonymizer":
        """What replaces a patient's identifiers and dates; UIDs become the same whatever patient a file names."""
        if patient not in self._patients:
            from dicognito.anonymizer import Anonymizer
            from dicognito.fixedvalueanonymizer import FixedValueAnonymizer
            from dicognito.idanonymizer import IDAnonymizer
            from dicognito.randomizer import Randomizer

            seed = hmac.digest(self.secret, f"patient {patient}".encode(), "sha256").hex()
            found = Anonymizer(seed=seed)
            found.add_element_handler(_uids(self.secret))
            found.add_element_handler(IDAnonymizer(Randomizer(seed), "", "", "StackID"))
            found.add_element_handler(FixedValueAnonymizer("DeviceSerialNumber", "0"))  # must not be empty (PS3.3 C.7.5.2)
            self._patients[patient] = found
        return self._patients[patient]


def _uids(secret: bytes) -> "ElementAnonymizer":
    """What replaces UIDs but those of classes by UUID-derived ones (PS3.5 B.2); dicognito's own have a root that does not exist."""
    from dicognito.element_anonymizer import ElementAnonymizer

    def new(uid: str) -> str:
        return f"2.25.{int.from_bytes(hmac.digest(secret, f'uid {uid}'.encode(), 'sha256')[:16])}"

    class Uids(ElementAnonymizer):
        def __call__(self, dataset: Dataset, data_element: DataElement) -> bool:
            if data_element.VR != "UI":
                return False
            if data_element.value and not data_element.keyword.endswith(("ClassUID", "TransferSyntaxUID")):
                several = isinstance(data_element.value, MultiValue)
                data_element.value = [new(uid) for uid in data_element.value] if several else new(data_element.value)
            return True

        def describe_actions(self) -> Iterator[str]:
            yield "Replace UIDs but those of classes and transfer syntaxes by UUID-derived ones"

    return Uids()


def copy(path: Path, out: Path, pseudonyms: Pseudonyms, made: Container[Path] = ()) -> Copied:
    """Write the copy of a scan's file as OUT/PATIENT/INSTANCE.dcm, both names pseudonyms.

    Raises `ScanError` if it is no OCT or its copy is among those `made` already, `UsageError` if the copy would replace the file
    itself, `OutputError` if it cannot be written.
    """
    if not summary(path).tomography:
        raise ScanError(f"{path.name}: no OCT scan; only OCT scans are copied (PS3.3 A.52)")
    encoded = BytesIO()
    with reading(path.name):
        dataset = dcmread(path)
        if not (dataset.get("PixelData") and dataset.get("SOPInstanceUID")):
            raise ScanError(f"{path.name}: PixelData or SOPInstanceUID is missing; the file is probably truncated")
        deidentify(dataset, pseudonyms)
        dcmwrite(encoded, dataset, enforce_file_format=True)
    target = out / str(dataset.PatientID) / f"{dataset.SOPInstanceUID}.dcm"
    if target in made:
        raise ScanError(f"{path.name}: has the SOPInstanceUID of a file that was copied already; remove one of the two")
    if target.exists() and target.samefile(path):
        raise UsageError(f"{path}: the copy would replace it; choose another folder")
    make_folder(target.parent)
    with atomic(target) as file:
        file.write(encoded.getbuffer())
    return Copied(target, _warnings(dataset))


def _warnings(dataset: Dataset) -> tuple[str, ...]:
    burned = dataset.get("BurnedInAnnotation")
    if burned == "NO":
        return ()
    says = "says that text is burned into the picture" if burned == "YES" else "does not say whether text is burned into the picture"
    return (f"(0028,0301) BurnedInAnnotation {says}; look at it; the copy does not claim that identity is removed",)


def deidentify(dataset: Dataset, pseudonyms: Pseudonyms) -> None:
    """Leave of a file's data set what may stay, and replace identifiers and dates; use it inside `reading`."""
    anonymizer = pseudonyms.of(_patient(dataset))
    dataset.PatientID = str(dataset.get("PatientID") or "")
    meta = FileMetaDataset()
    for keyword in _META:
        if keyword in dataset.file_meta:
            setattr(meta, keyword, dataset.file_meta[keyword].value)
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    emptied = [keyword for keyword in _EMPTIED if keyword in dataset]
    _prune(dataset)
    _date(dataset)
    anonymizer.anonymize(dataset)
    for keyword in emptied:
        setattr(dataset, keyword, [] if dictionary_VR(keyword) == "SQ" else None)
    dataset.PatientName = dataset.PatientID
    _declare(dataset)


def _patient(dataset: Dataset) -> str:
    """Who the patient is: number and who gave it; without a number, the study is all there is to go by."""
    number, issuer = (str(dataset.get(keyword) or "").strip() for keyword in ("PatientID", "IssuerOfPatientID"))
    return f"{issuer}\\{number}" if number else f"\\\\{dataset.get('StudyInstanceUID') or dataset.SOPInstanceUID}"


def _prune(dataset: Dataset) -> None:
    """Remove what may not stay; an element of another kind than the standard gives it is not what its tag says."""
    for tag in list(dataset.keys()):
        keyword = keyword_for_tag(tag)
        if keyword not in _KEPT or not set(dataset[tag].VR.split(" or ")) <= set(dictionary_VR(tag).split(" or ")):
            del dataset[tag]
        elif dataset[tag].VR == "SQ":
            for item in dataset[tag].value:
                _prune(item)


def _date(dataset: Dataset) -> None:
    """Empty dates and times that cannot be moved: damaged ones, and times without a date."""
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _date(item)
        elif element.VR in ("DA", "DT"):
            found = _DT.fullmatch(str(element.value or "").strip())
            element.value = found[1] if found and _is_day(found[1][:8]) and (element.VR == "DT" or len(found[1]) == 8) else None
    for element in dataset:
        if element.VR == "TM":
            dated = dataset.get(element.keyword.replace("Time", "Date"))
            element.value = str(element.value) if dated and _TM.fullmatch(str(element.value or "")) else None


def _is_day(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def _declare(dataset: Dataset) -> None:
    """Say what was done (PS3.15 E.1.1, PS3.3 C.12.1.1.7 and C.7.1.1)."""
    dataset.PatientIdentityRemoved = "YES" if dataset.get("BurnedInAnnotation") == "NO" else "NO"
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"
    dataset.DeidentificationMethod = [f"octedge {octedge.__version__}", f"dicognito {version('dicognito')}"]
    dataset.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in PROFILE.items()]


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark (PS3.10 section 7.1); a file that cannot be looked into may."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True
