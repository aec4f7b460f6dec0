"""Phantoms as files: pictures with masks, multi-frame DICOM, and DICOM series, for demonstrations and tests.

The DICOM is Ophthalmic Tomography (PS3.3 A.52) with everything the standard asks for, or changed to what a device writes, in
any transfer syntax, deterministic: the same phantom gives the same bytes. Nobody is the patient, and the patient's name says so.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import format_number_as_ds

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.phantom import Phantom
from octedge.phantom_codings import UNCOMPRESSED, Coding, Encoder, encoder
from octedge.phantom_devices import Profile, change, code, item, stored

OPT = UID("1.2.840.10008.5.1.4.1.1.77.1.5.4")

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


def write_dicom(phantom: Phantom, path: Path, *, bits: int = 8, profile: Profile = "conformant", coding: Coding = "uncompressed") -> None:
    """Write the phantom as one multi-frame file, B-scan by B-scan; 16 bit holds each grey value times 257.

    Raises `UsageError` for other bits than 8 and 16, or an unknown profile or coding.
    """
    if bits not in (8, 16) or profile not in get_args(Profile):
        raise UsageError(f"bits {bits}, profile {profile!r}: bits are 8 or 16, the profile one of {', '.join(get_args(Profile))}")
    compression = encoder(coding, bits)
    uid = partial(_uid, repr(phantom), bits, profile, coding)
    order = stored(profile, phantom.frames)
    header = _header(phantom, uid, bits, len(order))
    header.SOPInstanceUID = uid("instance")
    header.InstanceNumber = 1
    header.SharedFunctionalGroupsSequence = [_shared(phantom)]
    header.PerFrameFunctionalGroupsSequence = [_per_frame(phantom, index) for index in order]
    if compression.lossy:
        header.LossyImageCompression = "01"
        header.LossyImageCompressionRatio, header.LossyImageCompressionMethod = compression.lossy
    change(profile, header, phantom)
    _write(header, path, (_grey(phantom.bscan(index).image, bits) for index in order), compression)


def write_series(phantom: Phantom, folder: Path, *, bits: int = 8) -> list[Path]:
    """Write the phantom as some devices do, one single-frame file for each B-scan, named in no useful order; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    uid = partial(_uid, repr(phantom), bits, "series")
    paths = []
    for index in range(phantom.frames):
        header = _header(phantom, uid, bits, 1)
        header.SOPInstanceUID = uid("instance", index)
        header.InstanceNumber = index + 1
        header.SharedFunctionalGroupsSequence = [_shared(phantom)]
        header.PerFrameFunctionalGroupsSequence = [_per_frame(phantom, index)]
        path = folder / f"{header.SOPInstanceUID[-12:]}.dcm"
        _write(header, path, iter([_grey(phantom.bscan(index).image, bits)]), encoder("uncompressed", bits))
        paths.append(path)
    return paths


def _uid(*entropy: object) -> UID:
    return generate_uid(entropy_srcs=["octedge phantom", *map(str, entropy)])


def _grey(frame: NDArray[np.uint8], bits: int) -> NDArray[np.unsignedinteger]:
    return frame if bits == 8 else frame.astype("<u2") * np.uint16(257)


def _write(header: Dataset, path: Path, frames: Iterator[NDArray[np.unsignedinteger]], compression: Encoder) -> None:
    """Header first, then PixelData (PS3.5 section 7.1.2) frame after frame: memory holds one of them."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(compression.syntax)
    header.file_meta = meta
    bits, count = header.BitsAllocated, header.NumberOfFrames
    size = count * header.Rows * header.Columns * bits // 8
    with path.open("wb") as file:
        dcmwrite(file, header, enforce_file_format=True)
        if compression.syntax != UNCOMPRESSED:
            file.write(_element(b"OB", 0xFFFFFFFF))
            _encapsulate(file, map(compression.encode, frames), count)
            return
        file.write(_element(b"OB" if bits == 8 else b"OW", size + size % 2))
        for frame in frames:
            file.write(frame.tobytes())
        file.write(b"\0" * (size % 2))


def _element(vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length)


def _encapsulate(file: BinaryIO, frames: Iterator[bytes], count: int) -> None:
    """A fragment for each frame behind the table that says where it begins (PS3.5 section A.4)."""
    table = file.tell() + 8
    file.write(struct.pack("<HHI", 0xFFFE, 0xE000, 4 * count) + b"\0" * 4 * count)
    offsets, start = [], file.tell()
    for data in frames:
        offsets.append(file.tell() - start)
        file.write(struct.pack("<HHI", 0xFFFE, 0xE000, len(data) + len(data) % 2) + data + b"\0" * (len(data) % 2))
    file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    file.seek(table)
    file.write(struct.pack(f"<{count}I", *offsets))


def _header(phantom: Phantom, uid: Callable[..., UID], bits: int, frames: int) -> Dataset:
    """Everything but the functional groups, the instance's own numbers and the pixels."""
    dimension = uid("dimensions")
    return item(
        **_patient_and_study(uid), **_equipment(phantom), **_image(phantom, bits, frames), **_acquisition(),
        FrameOfReferenceUID=uid("frame of reference"), PositionReferenceIndicator="",
        ImageLaterality=phantom.eye, AnatomicRegionSequence=[code("5665001", "SCT", "Retina")],
        DimensionOrganizationSequence=[item(DimensionOrganizationUID=dimension)],
        DimensionIndexSequence=[
            item(DimensionOrganizationUID=dimension, DimensionIndexPointer=pointer, FunctionalGroupPointer=0x00209111)
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
        "SoftwareVersions": "1", "AcquisitionDeviceTypeCodeSequence": [code("392012008", "SCT", "Optical Coherence Tomography Scanner")],
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


def _shared(phantom: Phantom) -> Dataset:
    anatomy = item(AnatomicRegionSequence=[code("5665001", "SCT", "Retina")], FrameLaterality=phantom.eye)
    orientation = item(ImageOrientationPatient=list(_NORMAL))
    return item(FrameAnatomySequence=[anatomy], PixelMeasuresSequence=[_measures(phantom)], PlaneOrientationSequence=[orientation])


def _measures(phantom: Phantom) -> Dataset:
    spacing = phantom.spacing
    between = format_number_as_ds(spacing.between or 0.01)
    pixel = [format_number_as_ds(spacing.axial or 0), format_number_as_ds(spacing.lateral or 0)]
    return item(PixelSpacing=pixel, SliceThickness=between, SpacingBetweenSlices=between)


def _per_frame(phantom: Phantom, index: int) -> Dataset:
    """The groups of B-scan `index`; positions are of the first pixel's centre, in mm, z towards the head."""
    content = item(
        FrameAcquisitionDateTime=_DATE + _TIME, FrameReferenceDateTime=_DATE + _TIME, FrameAcquisitionDuration=1.0,
        StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1],
    )  # fmt: skip
    left = -(phantom.look.columns - 1) / 2 * (phantom.spacing.lateral or 0)
    up = ((phantom.frames - 1) / 2 - index) * (phantom.spacing.between or 0)
    position = [format_number_as_ds(float(value)) for value in (left, 0.0, up)]
    return item(FrameContentSequence=[content], PlanePositionSequence=[item(ImagePositionPatient=position)])
