"""Phantoms as files: pictures with masks, multi-frame DICOM, and DICOM series, for demonstrations and tests.

The DICOM is Ophthalmic Tomography (PS3.3 A.52) with everything the standard asks for, uncompressed, deterministic:
the same phantom gives the same bytes. Nobody is the patient, and the patient's name says so.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.phantom import Phantom

OPT = UID("1.2.840.10008.5.1.4.1.1.77.1.5.4")

# What devices leave out or put elsewhere. "shuffled": the frames are stored in another order than they lie.
Profile = Literal["conformant", "no positions", "spacing per frame", "shuffled"]

_DATE, _TIME = "20200101", "120000"
_NORMAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # columns run to the patient's left, rows into the eye


def write_images(phantom: Phantom, folder: Path) -> list[Path]:
    """Write images/NAME.png and masks/NAME.png for each B-scan, and labels.toml, which names the mask's values; the images' paths."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    values = "".join(f'{value} = "{key}"\n' for value, key in enumerate(KEYS))
    (folder / "labels.toml").write_text(f"# What the values of the pictures in masks mean.\n[values]\n{values}", "utf-8", newline="\n")
    paths = []
    for index in range(phantom.frames):
        bscan = phantom.bscan(index)
        name = f"phantom{phantom.seed}_{index:03d}.png"
        Image.fromarray(bscan.image).save(folder / "images" / name)
        Image.fromarray(bscan.labels).save(folder / "masks" / name)
        paths.append(folder / "images" / name)
    return paths


def write_dicom(phantom: Phantom, path: Path, *, bits: int = 8, profile: Profile = "conformant") -> None:
    """Write the phantom as one multi-frame file, B-scan by B-scan; 16 bit holds each grey value times 257.

    Raises `UsageError` for other bits than 8 and 16 or an unknown profile.
    """
    if bits not in (8, 16) or profile not in get_args(Profile):
        raise UsageError(f"bits {bits}, profile {profile!r}: bits are 8 or 16, the profile one of {', '.join(get_args(Profile))}")
    uid = partial(_uid, repr(phantom), bits, profile)
    stored = list(range(phantom.frames))
    if profile == "shuffled":
        stored = stored[1::2] + stored[0::2]
    header = _header(phantom, uid, bits, len(stored))
    header.SOPInstanceUID = uid("instance")
    header.InstanceNumber = 1
    header.SharedFunctionalGroupsSequence = [_shared(phantom, profile)]
    header.PerFrameFunctionalGroupsSequence = [_per_frame(phantom, index, profile) for index in stored]
    _write(header, path, (phantom.bscan(index).image for index in stored), bits)


def write_series(phantom: Phantom, folder: Path, *, bits: int = 8) -> list[Path]:
    """Write the phantom as some devices do, one single-frame file for each B-scan, named in no useful order; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = partial(_uid, repr(phantom), bits, "series")
    paths = []
    for index in range(phantom.frames):
        header = _header(phantom, uid, bits, 1)
        header.SOPInstanceUID = uid("instance", index)
        header.InstanceNumber = index + 1
        header.SharedFunctionalGroupsSequence = [_shared(phantom, "conformant")]
        header.PerFrameFunctionalGroupsSequence = [_per_frame(phantom, index, "conformant")]
        path = folder / f"{header.SOPInstanceUID[-12:]}.dcm"
        _write(header, path, iter([phantom.bscan(index).image]), bits)
        paths.append(path)
    return paths


def _uid(*entropy: object) -> UID:
    return generate_uid(entropy_srcs=["octedge phantom", *map(str, entropy)])


def _write(header: Dataset, path: Path, frames: Iterator[np.ndarray], bits: int) -> None:
    """Header first, then PixelData (PS3.5 section 7.1.2) frame after frame: memory holds one of them."""
    size = header.NumberOfFrames * header.Rows * header.Columns * bits // 8
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta = meta
    with path.open("wb") as file:
        dcmwrite(file, header, enforce_file_format=True)
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB" if bits == 8 else b"OW", 0, size + size % 2))
        for frame in frames:
            _append(file, frame, bits)
        file.write(b"\0" * (size % 2))


def _append(file: BinaryIO, frame: np.ndarray, bits: int) -> None:
    file.write((frame if bits == 8 else frame.astype("<u2") * np.uint16(257)).tobytes())


def _header(phantom: Phantom, uid: Callable[..., UID], bits: int, frames: int) -> Dataset:
    """Everything but the functional groups, the instance's own numbers and the pixels."""
    dimension = uid("dimensions")
    return _item(
        **_patient_and_study(uid), **_equipment(phantom), **_image(phantom, bits, frames), **_acquisition(),
        FrameOfReferenceUID=uid("frame of reference"), PositionReferenceIndicator="",
        ImageLaterality=phantom.eye, AnatomicRegionSequence=[_code("5665001", "SCT", "Retina")],
        DimensionOrganizationSequence=[_item(DimensionOrganizationUID=dimension)],
        DimensionIndexSequence=[
            _item(DimensionOrganizationUID=dimension, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
            for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber in FrameContent
        ],
    )  # fmt: skip


def _patient_and_study(uid: Callable[..., UID]) -> dict[str, object]:
    return {
        "SOPClassUID": OPT, "PatientName": "Phantom^Octedge", "PatientID": "PHANTOM", "PatientBirthDate": "", "PatientSex": "",
        "StudyInstanceUID": uid("study"), "StudyDate": _DATE, "StudyTime": _TIME, "StudyID": "1", "AccessionNumber": "",
        "ReferringPhysicianName": "", "Modality": "OPT", "SeriesInstanceUID": uid("series"), "SeriesNumber": 1,
    }  # fmt: skip


def _equipment(phantom: Phantom) -> dict[str, object]:
    return {
        "Manufacturer": "octedge", "ManufacturerModelName": f"phantom, {phantom.look.device}", "DeviceSerialNumber": "0",
        "SoftwareVersions": "1", "AcquisitionDeviceTypeCodeSequence": [_code("392012008", "SCT", "Optical Coherence Tomography Scanner")],
        "LightPathFilterTypeStackCodeSequence": [], "DetectorType": "CCD", "IlluminationWaveLength": 870.0, "IlluminationPower": 700.0,
        "IlluminationBandwidth": 50.0, "DepthSpatialResolution": 7.0, "MaximumDepthDistortion": 0.1,
        "AlongScanSpatialResolution": 14.0, "MaximumAlongScanDistortion": 0.1, "AcrossScanSpatialResolution": 14.0,
        "MaximumAcrossScanDistortion": 0.1,
    }  # fmt: skip


def _image(phantom: Phantom, bits: int, frames: int) -> dict[str, object]:
    return {
        "ImageType": ["ORIGINAL", "PRIMARY"], "ContentDate": _DATE, "ContentTime": _TIME, "AcquisitionDateTime": _DATE + _TIME,
        "AcquisitionNumber": 1, "AcquisitionDuration": 1000.0, "InConcatenationNumber": 1, "InConcatenationTotalNumber": 1,
        "ConcatenationFrameOffsetNumber": 0, "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "Rows": phantom.look.rows, "Columns": phantom.look.columns, "NumberOfFrames": frames, "BitsAllocated": bits,
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": 0, "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00", "PresentationLUTShape": "IDENTITY",
    }  # fmt: skip


def _acquisition() -> dict[str, object]:
    empty = ("AxialLengthOfTheEye", "HorizontalFieldOfView", "EmmetropicMagnification", "IntraOcularPressure", "PupilDilated")
    points = ("OphthalmicAnatomicReferencePointXCoordinate", "OphthalmicAnatomicReferencePointYCoordinate")
    return dict.fromkeys((*empty, *points), None) | {"RefractiveStateSequence": [], "AcquisitionContextSequence": []}


def _shared(phantom: Phantom, profile: Profile) -> Dataset:
    anatomy = _item(AnatomicRegionSequence=[_code("5665001", "SCT", "Retina")], FrameLaterality=phantom.eye)
    groups = _item(FrameAnatomySequence=[anatomy])
    if profile != "spacing per frame":
        groups.PixelMeasuresSequence = [_measures(phantom)]
    if profile != "no positions":
        groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(_NORMAL))]
    return groups


def _measures(phantom: Phantom) -> Dataset:
    spacing = phantom.spacing
    between = format_number_as_ds(spacing.between or 0.01)
    pixel = [format_number_as_ds(spacing.axial or 0), format_number_as_ds(spacing.lateral or 0)]
    return _item(PixelSpacing=pixel, SliceThickness=between, SpacingBetweenSlices=between)


def _per_frame(phantom: Phantom, index: int, profile: Profile) -> Dataset:
    """The groups of B-scan `index`; positions are of the first pixel's centre, in mm, z towards the head."""
    content = _item(
        FrameAcquisitionDateTime=_DATE + _TIME, FrameReferenceDateTime=_DATE + _TIME, FrameAcquisitionDuration=1.0,
        StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1],
    )  # fmt: skip
    groups = _item(FrameContentSequence=[content])
    if profile == "spacing per frame":
        groups.PixelMeasuresSequence = [_measures(phantom)]
    if profile != "no positions":
        left = -(phantom.look.columns - 1) / 2 * (phantom.spacing.lateral or 0)
        up = ((phantom.frames - 1) / 2 - index) * (phantom.spacing.between or 0)
        position = [format_number_as_ds(float(value)) for value in (left, 0.0, up)]
        groups.PlanePositionSequence = [_item(ImagePositionPatient=position)]
    return groups


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
