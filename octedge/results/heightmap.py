"""DICOM Height Map Segmentation of the surfaces: one float image per surface, a row for each B-scan, a column for each A-scan.

PS3.3 A.91, C.8.20.5 (Supplement 240). A value is a depth in rows of the B-scan, from 0 to its number of rows H, as octedge has it: the
centre of the first row lies at 0. -1 is padding: no answer. The image lies in the plane through the first row of all B-scans, so the
B-scans must be a regular stack, parallel, evenly spaced and square to their distances, in a frame of reference. Where the source does
not state that, there is no height map; nothing is made up.
"""

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from octedge.errors import ScanError
from octedge.results._dicom import Kind, Origin, algorithm, code, inherit, item, label, references, surface_code, write
from octedge.results._groups import derivation, element, macro, sequence, set_dimensions, set_sequence
from octedge.segment import About, Layers

HEIGHTMAP = Kind("heightmap", "1.2.840.10008.5.1.4.1.1.66.8", "SEG", 9003, "Retinal surfaces")
PADDING = -1.0

_EVEN = 0.01  # greatest difference between distances, as a share of them
_SQUARE = 1e-3  # greatest cosine between directions that should be square to each other


class HeightMapWriter:
    """Takes the answers to a scan's B-scans as they come, and writes their surfaces as a Height Map Segmentation.

    Raises `ScanError` with the reason where the source's geometry cannot carry one.
    """

    def __init__(self, source: Origin) -> None:
        self._source = source
        self._plane = _plane(source)
        self._surfaces: dict[int, NDArray[np.float32]] = {}
        self._rows = 0

    def add(self, index: int, layers: Layers) -> None:
        """Take in the answer to B-scan `index` of the scan."""
        self._rows = len(layers.labels)
        self._surfaces[index] = layers.surfaces.copy()

    def finish(self, about: About, file: BinaryIO) -> None:
        """Write the file; the same answers give the same bytes.

        Raises `ScanError` if no B-scan was segmented.
        """
        done = [index for index in sorted(self._surfaces) if index not in about.failed]
        if not done:
            raise ScanError(f"{about.name}: no B-scan was segmented, so there is nothing to write as height map")
        count, columns = self._surfaces[done[0]].shape
        heights = np.full((count, len(self._source.references), columns), np.nan, np.float32)
        for index in done:
            heights[:, index] = self._surfaces[index]
        heights[~np.isfinite(heights)] = PADDING
        dataset = inherit(self._source, about, HEIGHTMAP)
        self._describe(dataset, about, heights.shape)
        dataset.FloatPixelPaddingValue = PADDING
        dataset.FloatPixelData = heights.astype("<f4").tobytes()
        write(file, dataset)

    def _describe(self, dataset: Dataset, about: About, shape: tuple[int, ...]) -> None:
        """What holds for the whole image, and the functional groups of its frames."""
        source = self._source
        values = {
            "ImageType": ["DERIVED", "PRIMARY"], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": shape[1],
            "Columns": shape[2], "BitsAllocated": 32, "SegmentationType": "HEIGHTMAP", "ContentLabel": "RETINAL_SURFACES",
            "ContentCreatorName": "", "ContentDescription": label(f"Retinal surfaces by octedge, model {about.model}; research use only"),
            "SegmentSequence": [_segment(number, name, about) for number, name in enumerate(about.surface_names, start=1)],
            "ReferencedSeriesSequence": references(source), "NumberOfFrames": shape[0],
        }  # fmt: skip
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        set_dimensions(dataset, stacked=False)
        axial = about.spacing.axial or (source.places[0].pixel or (0.0,))[0]  # the user may know better than the source
        shared = derivation(*source.references, same_pixels=False) + self._plane + _real_world(axial, self._rows)
        own = [
            sequence("FrameContentSequence", element("DimensionIndexValues", [number]))
            + sequence("SegmentIdentificationSequence", element("ReferencedSegmentNumber", [number]))
            for number in range(1, shape[0] + 1)
        ]
        set_sequence(dataset, "SharedFunctionalGroupsSequence", [shared])
        set_sequence(dataset, "PerFrameFunctionalGroupsSequence", own)


def _segment(number: int, name: str, about: About) -> Dataset:
    kind = surface_code(name)
    return item(
        SegmentNumber=number, SegmentLabel=label(name), SegmentDescription=kind.CodeMeaning, SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=label(f"octedge {about.model}"), SegmentationAlgorithmIdentificationSequence=[algorithm(about)],
        SegmentedPropertyCategoryCodeSequence=[code("91723000", "SCT", "Anatomical Structure")],
        SegmentedPropertyTypeCodeSequence=[kind],
    )  # fmt: skip


def _plane(source: Origin) -> bytes:
    """The macros of the plane through the first row of all B-scans: its columns are A-scans, its rows B-scans.

    Raises `ScanError` with the reason if there is no such plane.
    """
    places = source.places
    if source.frame_of_reference is None:
        raise _refusal(source, "the source does not state frame of reference, position, orientation and pixel size of every B-scan")
    if len(places) < 2:
        raise _refusal(source, "one B-scan is no area")
    points = np.array([place.position for place in places])
    directions = np.array([place.orientation for place in places])
    pixels = np.array([place.pixel for place in places])
    if np.abs(directions - directions[0]).max() > _SQUARE or np.abs(pixels - pixels[0]).max() > 1e-6 * pixels.max():
        raise _refusal(source, "the B-scans are not parallel, or not of one pixel size")
    step = (points[-1] - points[0]) / (len(points) - 1)
    between = float(np.sqrt((step**2).sum()))
    if between <= 0 or np.abs(np.diff(points, axis=0) - step).max() > _EVEN * between:
        raise _refusal(source, "the B-scans are not evenly spaced")
    if np.abs(directions[0].reshape(2, 3) @ (step / between)).max() > _SQUARE:
        raise _refusal(source, "the B-scans are shifted against each other")
    lateral = directions[0, :3]
    return (
        macro("PlanePositionSequence", ImagePositionPatient=tuple(points[0]))
        + macro("PlaneOrientationSequence", ImageOrientationPatient=(*lateral, *(step / between)))
        + macro("PixelMeasuresSequence", PixelSpacing=(between, float(pixels[0, 1])))
    )


def _refusal(source: Origin, reason: str) -> ScanError:
    return ScanError(f"{source.name}: {reason}; a height map needs a regular stack of B-scans")


def _real_world(axial: float, rows: int) -> bytes:
    """Rows to mm (PS3.3 C.7.6.16.2.11)."""
    unit = element("CodeValue", "mm") + element("CodingSchemeDesignator", "UCUM") + element("CodeMeaning", "millimeter")
    return sequence(
        "RealWorldValueMappingSequence",
        element("LUTExplanation", "Depth below the centre of the first row")
        + sequence("MeasurementUnitsCodeSequence", unit)
        + element("LUTLabel", "DEPTH")
        + element("DoubleFloatRealWorldValueLastValueMapped", [float(rows)])
        + element("DoubleFloatRealWorldValueFirstValueMapped", [0.0])
        + element("RealWorldValueIntercept", [0.0])
        + element("RealWorldValueSlope", [axial]),
    )
