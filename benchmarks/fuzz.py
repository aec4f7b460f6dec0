"""Damaged DICOM by the thousand: each file must be refused, or read with the right count, shape and pixels.

    python -m benchmarks.fuzz --files 10000
    python -m benchmarks.fuzz --only 1234            # one of them again, in this process
    python -m benchmarks.fuzz --files 10000 --keep bad

Phantoms in every coding and of every kind of device are changed: lengths, VRs, tags, items, counts, offset tables, fragments;
bytes, cuts and splices of two files. Worker processes with 1 GB of address space each read them; a worker that ends or does not
answer in time is a fault, and so is every exception but ScanError. File number N of a seed is always the same file.
"""

import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import numpy as np
import pydicom

from benchmarks.facts import facts, head, row
from benchmarks.mutations import Seed, mutated, seeds
from octedge.errors import ScanError
from octedge.readers import read
from octedge.readers._dicom_file import reading

MEMORY = 1 << 30  # bytes of address space of a worker


class Outcome(NamedTuple):
    """What became of file `number`: "refused", "read", "in part" (some B-scans refused), or a fault in words."""

    number: int
    source: str
    mutation: str
    result: str

    @property
    def fault(self) -> bool:
        return self.result not in ("refused", "read", "in part")


def outcome(number: int, seed: int, sources: list[Seed], folder: Path) -> Outcome:
    """Make file `number`, read it whole, and compare: the frames' count and shape are the header's, as pydicom reads it without octedge.

    Pixels of lossless codings are compared where the mutation leaves the frames' own bytes alone: then a frame is one of those written.
    """
    source, mutation, content, intact = mutated(number, seed, sources)
    path = folder / "fuzz.dcm"
    path.write_bytes(content)
    try:
        result = _read(path, source, intact)
    except Exception as error:  # noqa: BLE001  # what is looked for
        result = f"{type(error).__name__}: {error}"
    return Outcome(number, source.name, mutation, result)


def _read(path: Path, source: Seed, intact: bool) -> str:
    try:
        scan = read(path)
    except ScanError:
        return "refused"
    with reading(path.name):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        stated = header.get("NumberOfFrames", 1), header.get("Rows"), header.get("Columns")
        same_pixels = intact and source.exact and header.get("BitsStored") == source.bits
    if (scan.frames, scan.rows, scan.columns) != stated:
        return f"wrong shape: {(scan.frames, scan.rows, scan.columns)} of {stated}"
    refused = 0
    for index in range(scan.frames):
        try:
            frame = scan.frame(index)
        except ScanError:
            refused += 1
            continue
        if same_pixels and not any(np.array_equal(frame, known) for known in source.frames):
            return f"wrong pixels in frame {index}"
    return "refused" if refused == scan.frames else "in part" if refused else "read"


def _work(pipe: Connection, seed: int) -> None:
    """A worker: file numbers in, outcomes out."""
    import resource  # POSIX alone has it

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sources = seeds()
    with tempfile.TemporaryDirectory() as folder:
        pipe.send_bytes(b"ready")
        while number := int(pipe.recv_bytes() or b"0"):
            pipe.send_bytes(msgspec.json.encode(outcome(number, seed, sources, Path(folder))))


class Worker:
    """A process that reads files; after one that ended it, or that it does not answer, the next file gets a new one."""

    def __init__(self, seed: int, limit: float) -> None:
        self.seed, self.limit = seed, limit
        self.process: BaseProcess | None = None

    def start(self) -> BaseProcess:
        """The process, started and ready to read."""
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, self.seed), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv_bytes()
        return self.process

    def ask(self, number: int) -> Outcome:
        """The outcome of file `number`, a crash and a hang among them."""
        process = self.process or self.start()
        try:
            self.pipe.send_bytes(str(number).encode())
            if self.pipe.poll(self.limit):
                return msgspec.json.decode(self.pipe.recv_bytes(), type=Outcome)
            result = f"no answer in {self.limit:g} s"
        except (EOFError, OSError):
            process.join()
            result = f"the process ended with {process.exitcode}"
        self.close()
        return Outcome(number, "", "", result)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def run(files: int, seed: int = 1, workers: int = 1, limit: float = 30) -> Iterator[Outcome]:
    """The outcomes of files 1 to `files`, in no order."""
    numbers = iter(range(1, files + 1))
    done: list[Outcome] = []
    lock = threading.Lock()

    def work() -> None:
        worker = Worker(seed, limit)
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                done.append(worker.ask(number))
        finally:
            worker.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or done:
        while done:
            yield done.pop()
        time.sleep(0.05)


@click.command()
@click.option("--files", default=10000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--limit", default=30.0, show_default=True, help="Seconds a file may take.")
@click.option("--only", type=int, help="Make and read this one file alone.")
@click.option("--keep", type=click.Path(path_type=Path), help="Folder for the files that found a fault.")
def main(files: int, seed: int, workers: int, limit: float, only: int | None, keep: Path | None) -> None:  # noqa: PLR0913
    """Read damaged files; ends with 1 if one of them was a fault."""
    sources = seeds()
    if only is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(*outcome(only, seed, sources, Path(keep or folder)), sep="\n")
        return
    began, counts, faults = time.perf_counter(), Counter[tuple[str, str]](), []
    for each in run(files, seed, workers, limit):
        source, mutation, content, _ = mutated(each.number, seed, sources)
        counts[mutation, "fault" if each.fault else each.result] += 1
        if each.fault:
            faults.append(each)
            print(f"file {each.number}, {source.name}, {mutation}: {each.result}", file=sys.stderr)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{each.number}.dcm").write_bytes(content)
    print(f"{facts('pydicom', 'pylibjpeg-openjpeg', 'pylibjpeg-rle', 'pyjpegls', 'pillow', 'imagecodecs')}; seed {seed}")
    print(f"{files} files, {len(faults)} faults, {time.perf_counter() - began:.0f} s\n")
    results = ("refused", "in part", "read", "fault")
    print(head("mutation", *results))
    for mutation in sorted({mutation for mutation, _ in counts}):
        print(row(mutation, *(counts[mutation, result] for result in results)))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
