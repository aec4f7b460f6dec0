"""A scan: F B-scans of one size, decoded one by one, with its spacing and where that came from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from octedge.errors import ScanError

Frame = NDArray[np.uint8]
Laterality = Literal["R", "L"]
Direction = Literal["left", "right", "up", "down", "tsnit"]


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distances in mm between rows (axial), columns (lateral) and B-scans (between), with their provenance.

    `source` says where the numbers came from ("DICOM shared PixelMeasures", "vendor header", "given by the user");
    None with source "unknown" means that nobody said, and that results stay in pixels.
    """

    axial: float | None = None
    lateral: float | None = None
    between: float | None = None
    source: str = "unknown"


@dataclass(frozen=True, slots=True)
class Scan:
    """F B-scans of H rows x W columns; `scan.frame(i)` decodes one as uint8 (H, W), row 0 nearest the vitreous.

    `name` is the result's file stem and holds no patient data. `notes` are facts a user must know (bit depth rule,
    unknown frame order, little of the range used). `source_ids` are what results must refer to (SOP instance UIDs).
    `directions` say where columns and B-scans run on the fundus as an examiner sees it, head up, the patient's right on the
    left; "tsnit": a circle from the temporal side over the superior one. None where the source does not say.
    """

    name: str
    frames: int
    rows: int
    columns: int
    decode: Callable[[int], Frame] = field(repr=False)
    spacing: Spacing = Spacing()
    laterality: Laterality | None = None
    pattern: str = "unknown"  # "volume", "line", "circle", "radial", ... as the source states it
    device: str = "unknown"  # manufacturer and model as the source states them
    source_ids: Mapping[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    directions: tuple[Direction | None, Direction | None] = (None, None)
    order: str = "as stored"  # how the order of the B-scans is known: "by plane position", ...
    coding: str = "unknown"  # how the pixels are stored: "uncompressed", "JPEG 2000 lossless", ...

    def frame(self, index: int) -> Frame:
        """B-scan `index`, uint8 (H, W).

        Raises `ScanError` if it cannot be decoded or has another size than the scan.
        """
        if not 0 <= index < self.frames:
            raise ScanError(f"{self.name}: frame {index} asked for, but the scan has frames 0..{self.frames - 1}")
        image = self.decode(index)
        if image.shape != (self.rows, self.columns) or image.dtype != np.uint8:
            raise ScanError(
                f"{self.name}: frame {index} decodes to {image.dtype} {image.shape}, needed is uint8 {(self.rows, self.columns)};"
                " the file is probably damaged"
            )
        return image

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[Frame]:
        return (self.frame(index) for index in range(self.frames))


def to_uint8(image: NDArray[np.unsignedinteger], bits_stored: int) -> Frame:
    """The documented rule from more than 8 bits to 8: keep the 8 highest of the stored bits (value >> (bits - 8)).

    The same value gives the same grey in every frame and every scan of a device; nothing depends on the content.

    >>> to_uint8(np.array([[0, 4095]], np.uint16), 12)
    array([[  0, 255]], dtype=uint8)
    """
    if bits_stored <= 8:
        return image.astype(np.uint8, copy=False)
    return (image >> (bits_stored - 8)).astype(np.uint8)


def range_note(image: NDArray[np.unsignedinteger], bits_stored: int) -> str | None:
    """A note when the brightest value of a B-scan lies below a quarter of the stored range, else None."""
    top = int(image.max(initial=0))
    if top >= (1 << bits_stored) // 4:
        return None
    return f"uses little of its range: brightest value {top} of {(1 << bits_stored) - 1} in the B-scan looked at; expect a weak result"
