"""DICOM scans of all kinds for the tests of what is written for them, and answers to them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from pydicom import Dataset

from octedge.anatomy import KEYS, surface_names
from octedge.geometry import labels_from_surfaces
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_devices import Profile
from octedge.phantom_files import write_dicom, write_series
from octedge.readers import Source, find
from octedge.results._dicom import Origin, origin
from octedge.scan import Spacing
from octedge.segment import About, Layers
from tests.readers import opt_files

LOOK = replace(LOOKS["spectralis"], rows=23, columns=21, axial_um=15.0, lateral_um=90.0)
PHANTOM = Phantom(LOOK, 4, 11, "L")
ROWS, COLUMNS, FRAMES = 23, 21, 4


def dated(dataset: Dataset) -> None:
    """What a device states of the study and the place."""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200102", "101112", "7"
    dataset.AcquisitionDateTime = "20200102101500.25"
    dataset.FrameOfReferenceUID = "1.2.3.4"


def turned(dataset: Dataset) -> None:
    """B-scans through one point, each in a direction of its own."""
    dated(dataset)
    dataset.SharedFunctionalGroupsSequence[0].pop("PlaneOrientationSequence", None)
    dataset.PerFrameFunctionalGroupsSequence = []
    for angle in np.pi * np.arange(FRAMES) / FRAMES:
        along = [round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6), 0]
        dataset.PerFrameFunctionalGroupsSequence.append(
            opt_files.item(
                PlanePositionSequence=[opt_files.item(ImagePositionPatient=[-along[0], -along[1], 0])],
                PlaneOrientationSequence=[opt_files.item(ImageOrientationPatient=[*along, 0, 0, 1])],
            )
        )


def at(positions: list[tuple[float, float, float]], dataset: Dataset) -> None:
    """B-scans at these positions, parallel."""
    dated(dataset)
    opt_files.groups(positions)(dataset)


def unplaced(dataset: Dataset) -> None:
    """A circle: no position or orientation says where it lies."""
    dated(dataset)
    dataset.ScanPatternTypeCodeSequence = [opt_files.item(CodeValue="128284", CodingSchemeDesignator="DCM", CodeMeaning="Circle")]


def sized(dataset: Dataset) -> None:
    """Pixel sizes with every frame."""
    at([(0, 0, 0.12 * index) for index in range(FRAMES)], dataset)
    measures = dataset.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence")
    for group in dataset.PerFrameFunctionalGroupsSequence:
        group.PixelMeasuresSequence = measures.value


def thin(dataset: Dataset) -> None:
    """No thickness, and no place."""
    dated(dataset)
    del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness


def nowhere(dataset: Dataset) -> None:
    """Positions, but not of which space."""
    at([(0, 0, index) for index in range(FRAMES)], dataset)
    del dataset.FrameOfReferenceUID


def single(dataset: Dataset) -> None:
    at([(0, 0, 0)], dataset)


CHANGES: dict[str, Callable[[Dataset], None]] = {
    "turned": turned,
    "unplaced": unplaced,
    "sized per frame": sized,
    "thin": thin,
    "in one place": partial(at, [(0, 0, 0)] * FRAMES),
    "uneven": partial(at, [(0, 0, 0), (0, 0, 1), (0, 0, 3), (0, 0, 4)]),
    "sheared": partial(at, [(0.1 * index, 0, index) for index in range(FRAMES)]),
    "nowhere": nowhere,
    "single": single,
}
PROFILES: tuple[str, ...] = get_args(Profile)
SOURCES = (*PROFILES, "series", *CHANGES)


def make(kind: str, folder: Path) -> Source:
    """A scan of this kind, written into the folder."""
    if kind == "series":
        write_series(PHANTOM, folder / "series")
        return find([folder / "series"])[0]
    path = folder / "scan.dcm"
    if kind in CHANGES:
        count = 1 if kind == "single" else FRAMES
        opt_files.write(path, opt_files.frames(count, ROWS, COLUMNS), CHANGES[kind])
    else:
        write_dicom(PHANTOM, path, profile=kind)
    return find([path])[0]


def answers(count: int, classes: tuple[str, ...] = KEYS, seed: int = 3) -> list[Layers]:
    """Answers to `count` B-scans: surfaces in order, labels that agree with them, some fluid."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        surfaces = np.sort(rng.uniform(0, ROWS, (len(surface_names(classes)), COLUMNS)).astype(np.float32), axis=0)
        labels = labels_from_surfaces(surfaces, ROWS)
        if "fluid" in classes:
            labels[rng.random(labels.shape) < 0.1] = classes.index("fluid")
        found.append(Layers(labels, surfaces))
    return found


def origin_of(source: Source) -> Origin:
    return origin(source.paths, source.read())


def about(source: Origin, classes: tuple[str, ...] = KEYS, **changes: object) -> About:
    count = len(source.references)
    said = About(source.name, count, classes, surface_names(classes), Spacing(), "model-1", "ort-fp32", certificate="certificate-7")
    return replace(said, **changes)
