"""Damaged DICOM, led by what it reaches: `benchmarks.fuzz` guided by coverage, where atheris (PyPI, Linux) is installed.

    python -m benchmarks.fuzz_atheris -max_total_time=120

The options are libFuzzer's. It begins with the seeds of `benchmarks.fuzz` and ends at the first fault, whose file it keeps.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from benchmarks.mutations import seeds

with atheris.instrument_imports(include=["octedge", "pydicom"]):
    from octedge.errors import ScanError
    from octedge.readers.dicom import read_dicom

FOLDER = Path(tempfile.mkdtemp())


def one(content: bytes) -> None:
    """Read a file whole; every exception but ScanError is a fault, and so is a frame of another shape than the scan's."""
    path = FOLDER / "fuzz.dcm"
    path.write_bytes(content)
    try:
        scan = read_dicom([path], "fuzz")
    except ScanError:
        return
    if scan.frames * scan.rows * scan.columns > 1 << 24:
        return  # sizes are for `benchmarks.fuzz`, which limits the memory
    for index in range(scan.frames):
        try:
            assert scan.frame(index).shape == (scan.rows, scan.columns)
        except ScanError:
            continue


def main() -> None:
    """Write the seeds to a corpus and fuzz."""
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / str(number)).write_bytes(seed.content)
    atheris.Setup([*sys.argv, "-max_len=20000", "-timeout=30", "-rss_limit_mb=3000", str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
