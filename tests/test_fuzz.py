"""A small run of `benchmarks.fuzz`, and that it finds what it looks for."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz
from benchmarks.fuzz import Worker, outcome, run
from benchmarks.mutations import Seed, mutated, seeds, walk
from octedge.errors import ScanError
from octedge.readers import read
from octedge.scan import Scan

if sys.platform == "win32":
    pytest.skip("workers whose memory is limited need POSIX", allow_module_level=True)


@pytest.fixture(scope="module")
def sources() -> list[Seed]:
    return seeds()


def test_damaged_files_are_refused_or_read_as_they_are() -> None:
    found = list(run(150, seed=3))
    assert sorted(each.number for each in found) == list(range(1, 151))
    assert [each for each in found if each.fault] == []
    assert {each.result for each in found} == {"refused", "in part", "read"}


def test_a_file_number_is_always_the_same_file_and_is_damaged(sources: list[Seed]) -> None:
    for number in range(1, 60):
        source, mutation, content, intact = mutated(number, 3, sources)
        again = mutated(number, 3, sources)
        assert again[1:] == (mutation, content, intact)
        assert again[0] is source
    assert sum(mutated(number, 3, sources)[2] != mutated(number, 3, sources)[0].content for number in range(1, 60)) > 50


def test_the_walk_finds_what_stands_in_sequences_and_in_pixel_data(sources: list[Seed]) -> None:
    tags = {seed.name: [spot.tag for spot in walk(seed.content)] for seed in sources}
    assert (0x0020, 0x9057) in tags["conformant"]  # InStackPositionNumber, two sequences down
    assert tags["JPEG 2000 8"].count((0xFFFE, 0xE000)) == tags["conformant"].count((0xFFFE, 0xE000)) + 4  # the table and three frames
    assert tags["JPEG 2000 8"][-1] == (0xFFFE, 0xE0DD)


def reading(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Let `change` stand between what is read and what is compared."""
    monkeypatch.setattr(fuzz, "read", lambda path: change(read(path)))


def outcomes(sources: list[Seed], folder: Path) -> list[str]:
    return [outcome(number, 3, sources, folder).result for number in range(1, 40)]


def test_a_wrong_count_wrong_pixels_and_other_exceptions_are_faults(
    monkeypatch: pytest.MonkeyPatch, sources: list[Seed], tmp_path: Path
) -> None:
    def fails(scan: Scan) -> Scan:
        raise KeyError("a mistake")

    def shorter(scan: Scan) -> Scan:
        return Scan(scan.name, scan.frames + 1, scan.rows, scan.columns, scan.decode)

    def darker(scan: Scan) -> Scan:
        return Scan(scan.name, scan.frames, scan.rows, scan.columns, lambda index: np.zeros_like(scan.decode(index)))

    assert not any("wrong" in result or "Error" in result for result in outcomes(sources, tmp_path))
    for change, words in ((fails, "KeyError: 'a mistake'"), (shorter, "wrong shape"), (darker, "wrong pixels in frame 0")):
        with monkeypatch.context() as patch:
            reading(patch, change)
            assert any(result.startswith(words) for result in outcomes(sources, tmp_path))


def test_a_worker_that_ends_or_does_not_answer_is_a_fault_and_another_takes_its_place() -> None:
    worker = Worker(3, limit=60)
    try:
        first = worker.start()
        assert not worker.ask(1).fault
        first.kill()
        first.join()
        assert worker.ask(1).result == "the process ended with -9"
        worker.limit = 0
        assert worker.ask(1).result == "no answer in 0 s"
        assert worker.process is None
    finally:
        worker.close()


def test_refusals_are_no_faults(monkeypatch: pytest.MonkeyPatch, sources: list[Seed], tmp_path: Path) -> None:
    def refuse(scan: Scan) -> Scan:
        raise ScanError("no")

    reading(monkeypatch, refuse)
    assert set(outcomes(sources, tmp_path)) == {"refused"}
