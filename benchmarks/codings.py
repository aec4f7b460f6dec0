"""Seconds to read a compressed volume, frame by frame, in one thread: by coding and depth.

    python -m benchmarks.codings
    python -m benchmarks.codings --frames 16

A phantom of 1024 x 512 pixels a B-scan (the look of a Cirrus; 16 bit is each value times 257), written by `write_dicom` and
read by `octedge.read`. The volume is `--frames` B-scans; seconds are scaled to 128.
"""

import tempfile
import time
from pathlib import Path
from typing import get_args

import click
import numpy as np

from benchmarks.facts import facts, head, row
from octedge.phantom import LOOKS, Phantom
from octedge.phantom_codings import Coding, encoder
from octedge.phantom_files import write_dicom
from octedge.readers import read

WHOLE = 128


@click.command()
@click.option("--frames", default=WHOLE, show_default=True)
def main(frames: int) -> None:
    """Print the table."""
    phantom = Phantom(LOOKS["cirrus"], frames, 1)
    known = np.stack([phantom.bscan(index).image for index in range(frames)])
    print(facts("pydicom", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "pillow", "imagecodecs"))
    print(f"{frames} B-scans of {phantom.look.rows} x {phantom.look.columns}, scaled to {WHOLE}\n")
    print(head("coding", "8 bit: MB", "s", "ms a B-scan", "16 bit: MB", "s", "ms a B-scan"))
    with tempfile.TemporaryDirectory() as folder:
        for coding in get_args(Coding):
            cells: list[str] = []
            for bits in (8,) if coding == "JPEG" else (8, 16):
                path = Path(folder) / "volume.dcm"
                write_dicom(phantom, path, bits=bits, coding=coding)
                scan = read(path)
                began = time.perf_counter()
                found = list(scan)
                seconds = time.perf_counter() - began
                if encoder(coding, bits).lossy is None and not np.array_equal(found, known):
                    raise SystemExit(f"{coding}, {bits} bit: the pixels are not those written")
                megabytes = path.stat().st_size * WHOLE / frames / 1e6
                cells += [f"{megabytes:.0f}", f"{seconds * WHOLE / frames:.2f}", f"{seconds / frames * 1000:.1f}"]
            print(row(coding, *cells, *["-"] * (6 - len(cells))))


if __name__ == "__main__":
    main()
