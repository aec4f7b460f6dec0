"""What DICOM results cost: seconds, megabytes and peak memory for a volume, beside highdicom on the same labels.

    python -m benchmarks.results
    python -m benchmarks.results --frames 32 --rounds 3

B-scans come one by one, as from the model; the file is brought to the disk. Contenders run in turns; a first turn warms up. Memory is
what Python and numpy allocate on top of the labels themselves, traced in a turn of its own.
"""

import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import click
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from benchmarks.facts import facts, head, row
from octedge.anatomy import KEYS, surface_names
from octedge.geometry import labels_from_surfaces
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom
from octedge.readers import find
from octedge.results._dicom import Origin, origin
from octedge.results.dicom_seg import BINARY, LABELMAP, SegWriter
from octedge.results.files import atomic
from octedge.results.heightmap import HeightMapWriter
from octedge.scan import Spacing
from octedge.segment import About, Layers

Writer = Callable[[Path], None]


def volume(frames: int, rows: int, columns: int) -> list[Layers]:
    """Answers to B-scans (H, W): a fovea's layers, at other depths in every B-scan."""
    bscan = Phantom(replace(LOOKS["spectralis"], rows=rows, columns=columns), 1, 11, "R").bscan(0)
    found = []
    for index in range(frames):
        surfaces = np.clip(bscan.surfaces + 40 * np.sin(index / 9), 0, rows).astype(np.float32)
        found.append(Layers(labels_from_surfaces(surfaces, rows), surfaces))
    return found


def source_of(folder: Path, frames: int) -> tuple[Origin, Dataset]:
    """A small source and its header, said to be of `frames` B-scans."""
    look = replace(LOOKS["spectralis"], rows=16, columns=16)
    write_dicom(Phantom(look, frames, 11, "R"), folder / "source.dcm")
    made = find([folder / "source.dcm"])[0]
    return origin(made.paths, made.read()), dcmread(folder / "source.dcm", stop_before_pixels=True)


def octedge_writer(make: Callable[[], SegWriter | HeightMapWriter], layers: list[Layers]) -> Writer:
    """Answers one by one into a file."""
    about = About("volume", len(layers), KEYS, surface_names(KEYS), Spacing(), "model", "engine")

    def write(path: Path) -> None:
        writer = make()
        for index, each in enumerate(layers):
            writer.add(index, each)
        with atomic(path) as file:
            writer.finish(about, file)

    return write


def highdicom_writer(header: Dataset, labels: NDArray[np.uint8], kind: str) -> Writer:
    """The same labels by highdicom, from a label map (F, H, W) in memory."""
    import highdicom
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    header.Rows, header.Columns = labels.shape[1:]
    family = codes.DCM.ArtificialIntelligence
    algorithm = highdicom.AlgorithmIdentificationSequence("octedge", family, "1")
    structure = codes.SCT.AnatomicalStructure
    described = [
        SegmentDescription(number, key, structure, structure, highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm)
        for number, key in enumerate(KEYS, start=1)
    ]

    def write(path: Path) -> None:
        made = Segmentation(
            [header], labels + np.uint8(1), kind, described, highdicom.UID(), 1, highdicom.UID(), 1, "octedge", "octedge", "1", "0",
            transfer_syntax_uid=RLELossless if kind == "LABELMAP" else ExplicitVRLittleEndian, omit_empty_frames=False,
        )  # fmt: skip
        with atomic(path) as file:
            made.save_as(file)

    return write


def seconds(writers: dict[str, Writer], folder: Path, rounds: int) -> dict[str, list[float]]:
    """The times of every writer in turn."""
    found: dict[str, list[float]] = {name: [] for name in writers}
    for turn in range(rounds + 1):
        for name, write in writers.items():
            began = time.perf_counter()
            write(folder / "result.dcm")
            if turn:
                found[name].append(time.perf_counter() - began)
    return found


def size_and_peak(write: Writer, folder: Path) -> tuple[float, float]:
    """MB of the file, and MB of memory at most."""
    tracemalloc.start()
    try:
        write(folder / "result.dcm")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return (folder / "result.dcm").stat().st_size / 1e6, peak / 1e6


@click.command()
@click.option("--frames", default=128, show_default=True, type=click.IntRange(2))
@click.option("--rows", default=1024, show_default=True, type=click.IntRange(32))
@click.option("--columns", default=512, show_default=True, type=click.IntRange(32))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
def main(frames: int, rows: int, columns: int, rounds: int) -> None:
    """Print a table as Markdown: least and median seconds, MB, peak MB."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, layers = Path(name), volume(frames, rows, columns)
        source, header = source_of(folder, frames)
        labels = np.stack([each.labels for each in layers])
        writers = {
            "seg: LABELMAP, RLE": octedge_writer(lambda: SegWriter(source, LABELMAP), layers),
            "highdicom: LABELMAP, RLE": highdicom_writer(header, labels, "LABELMAP"),
            "seg-binary: BINARY": octedge_writer(lambda: SegWriter(source, BINARY), layers),
            "highdicom: BINARY": highdicom_writer(header, labels, "BINARY"),
            "heightmap": octedge_writer(lambda: HeightMapWriter(source), layers),
        }
        times = seconds(writers, folder, rounds)
        print(f"{facts('pydicom', 'highdicom')}; {frames} x {rows} x {columns}, {len(KEYS)} classes, {rounds} rounds\n")
        print(head("result", "s, least / median", "MB", "peak MB"))
        for what, write in writers.items():
            size, peak = size_and_peak(write, folder)
            print(row(what, f"{min(times[what]):.2f} / {median(times[what]):.2f}", f"{size:.2f}", f"{peak:.1f}"))


if __name__ == "__main__":
    main()
