"""OPT files for the tests, written by pydicom from a few lines; every test changes what it is about."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

from octedge.phantom_codings import Coding, encoder
from octedge.scan import Scan

OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
CANARY = "DOE^CANARY"


def frames(count: int = 3, rows: int = 8, columns: int = 6, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Frames (F, H, W) of noise, no two alike; the greatest value is there."""
    array = np.random.default_rng(7).integers(0, top, (count, rows, columns)).astype(dtype)
    array[:, 0, 0] = top - 1
    return array


def pixels(scan: Scan) -> np.ndarray:
    """All frames (F, H, W) of a scan."""
    return np.stack(list(scan))


def item(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def groups(positions: Sequence[Sequence[float]], orientation: Sequence[float] = (1, 0, 0, 0, 1, 0)) -> Callable[[Dataset], None]:
    """A change that gives every frame its position, and all of them the orientation."""

    def change(dataset: Dataset) -> None:
        dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [item(ImageOrientationPatient=list(orientation))]
        dataset.PerFrameFunctionalGroupsSequence = [
            item(PlanePositionSequence=[item(ImagePositionPatient=list(position))]) for position in positions
        ]

    return change


def opt(array: np.ndarray) -> Dataset:
    """The data set of an OPT of (F, H, W), little endian, with shared spacing and a patient whose name must not leak."""
    count, rows, columns = array.shape
    bits = 8 * array.dtype.itemsize
    measures = item(PixelSpacing=["0.0039", "0.0116"], SliceThickness="0.12", SpacingBetweenSlices="0.12")
    return item(
        SOPClassUID=OPT, SOPInstanceUID="1.2.3.1", SeriesInstanceUID="1.2.3.2", StudyInstanceUID="1.2.3.3", Modality="OPT",
        PatientName=CANARY, PatientID="CANARY1", PatientBirthDate="19990101", Manufacturer="Maker", ManufacturerModelName="Model 1",
        InstanceNumber=1, ImageLaterality="R", SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", Rows=rows, Columns=columns,
        NumberOfFrames=count, BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=0,
        SharedFunctionalGroupsSequence=[item(PixelMeasuresSequence=[measures])], PixelData=_padded(array.tobytes()),
    )  # fmt: skip


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def save(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set; pixels are taken as they are, in the byte order of the syntax."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    if pydicom.uid.UID(syntax).is_encapsulated:
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    else:
        dataset["PixelData"].VR = "OW" if dataset.get("BitsAllocated", 8) == 16 or syntax == "1.2.840.10008.1.2" else "OB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def write(path: Path, array: np.ndarray, change: Callable[[Dataset], None] | None = None, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write an OPT of (F, H, W), changed by `change`."""
    dataset = opt(array)
    if change is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bad values on purpose
            change(dataset)
    return save(path, dataset, syntax)


def encoded(array: np.ndarray, coding: Coding) -> list[bytes]:
    """The frames (F, H, W), compressed."""
    return [encoder(coding, 8 * array.itemsize).encode(frame) for frame in array]


def compressed(path: Path, array: np.ndarray, coding: Coding, items: bytes | None = None, **tags: Any) -> Path:
    """Write an OPT of (F, H, W) in another transfer syntax, a fragment for each frame, or with these bytes in place of the items."""
    dataset = opt(array)
    dataset.PixelData = encapsulate(encoded(array, coding) if items is None else [b"replaced"])
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    save(path, dataset, encoder(coding, 8 * array.itemsize).syntax)
    if items is not None:
        head, mark, _ = path.read_bytes().rpartition(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
        path.write_bytes(head + mark + items + b"\xfe\xff\xdd\xe0\0\0\0\0")
    return path
