"""A watched folder: every whole scan once."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from octedge.errors import UsageError
from octedge.service.monitor import Monitor
from octedge.service.series import Series
from octedge.service.spool import Spool
from octedge.service.watching import Watcher
from tests.service.parts import SEG, result, series, volume
from tests.service.test_worker import Clock


class Watched:
    """A folder, its spool and a clock that a test turns; `settle` looks twice, so that what does not change is taken."""

    def __init__(self, home):
        self.folder, self.out, self.spool, self.clock = home / "export", home / "export" / "results", Spool(home / "spool"), Clock()
        self.out.mkdir(parents=True, exist_ok=True)
        self.watcher = Watcher(self.folder, self.spool, Series(self.spool, 0, self.clock), Monitor(), self.out)
        self.watcher.clock = self.clock

    def settle(self, seconds=4.0):
        before = self.watcher.look()
        self.clock.now += seconds
        return before + self.watcher.look()

    def names(self):
        return sorted(self.spool.name(job.id) for job in self.spool.jobs())


@pytest.fixture
def watched(tmp_path):
    one = Watched(tmp_path)
    yield one
    one.spool.close()


def test_a_scan_is_taken_once_it_no_longer_changes(watched):
    whole = volume(watched.folder.parent / "whole.dcm").read_bytes()
    path = watched.folder / "scan7.dcm"
    path.write_bytes(whole[:5000])
    assert watched.watcher.look() == 0
    watched.clock.now += 3
    path.write_bytes(whole)
    assert watched.watcher.look() == 0
    watched.clock.now += 3
    assert watched.watcher.look() == 0
    watched.clock.now += 1
    assert watched.watcher.look() == 1
    assert watched.settle() == 0
    assert watched.names() == ["scan7"]


def test_a_file_that_stops_growing_before_its_end_is_waited_for_and_then_taken_so_that_its_end_is_told(watched):
    whole = volume(watched.folder.parent / "whole.dcm").read_bytes()
    (watched.folder / "scan7.dcm").write_bytes(whole[:5000])
    assert watched.settle(59) == 0
    watched.clock.now += 1
    assert watched.watcher.look() == 1


def test_a_file_completed_after_it_was_given_up_is_a_scan_all_the_same(watched):
    whole = volume(watched.folder.parent / "whole.dcm").read_bytes()
    (watched.folder / "scan7.dcm").write_bytes(whole[:5000])
    watched.settle(60)
    (job,) = watched.spool.jobs()
    watched.spool.quarantine(job.id, "truncated")
    (watched.folder / "scan7.dcm").write_bytes(whole)
    assert watched.settle() == 1
    assert [job.state for job in watched.spool.jobs()] == ["quarantined", "pending"]


def test_nothing_is_done_twice_after_a_restart_nor_when_a_file_is_copied_or_touched(tmp_path):
    first = Watched(tmp_path)
    volume(first.folder / "scan7.dcm")
    assert first.settle() == 1
    first.spool.close()
    again = Watched(tmp_path)
    assert again.settle() == 0
    shutil.copy(again.folder / "scan7.dcm", again.folder / "copy.dcm")
    os.utime(again.folder / "scan7.dcm", ns=(1, 1))
    again.settle()
    assert len(again.spool.jobs()) == 1
    again.spool.close()


def test_the_folder_may_be_tidied_as_soon_as_a_scan_is_taken(watched):
    path = volume(watched.folder / "scan7.dcm")
    whole = path.read_bytes()
    watched.settle()
    path.unlink()
    (job,) = watched.spool.jobs()
    assert watched.spool.paths(job.id)[0].read_bytes() == whole


def test_a_series_in_a_folder_is_one_job_named_after_it(watched):
    series(watched.folder / "exam" / "left")
    series(watched.folder / "exam" / "right", seed=3)
    assert watched.settle() == 6
    assert watched.names() == ["exam/left", "exam/right"]


def test_two_series_in_one_folder_have_names_of_their_own(watched):
    for seed in (2, 3):
        series(watched.folder / "exam", seed=seed)
    watched.settle()
    first, second = watched.names()
    assert first == "exam"
    assert second.startswith("exam-")


def test_pictures_are_scans_and_what_differs_only_in_its_ending_keeps_it(watched):
    for grey, name in enumerate(("a.png", "b.png", "b.tif")):
        Image.fromarray(np.full((40, 50), grey, np.uint8)).save(watched.folder / name)
    assert watched.settle() == 3
    assert watched.names() == ["a", "b.png", "b.tif"]
    assert {path.suffix for job in watched.spool.jobs() for path in watched.spool.paths(job.id)} == {".png", ".tif"}


def test_results_hidden_files_and_what_is_no_scan_are_passed_over(watched):
    result(watched.folder / "seg.dcm", SEG)
    (watched.folder / "notes.txt").write_text("no scan", "utf-8")
    volume(watched.folder / ".part.dcm")
    volume(watched.out / "scan.dcm")
    assert watched.settle(100) == 0
    assert watched.spool.jobs() == []


def test_a_file_that_changes_while_it_is_copied_is_left_for_the_next_look(watched, monkeypatch):
    path = volume(watched.folder / "scan7.dcm")
    copy = shutil.copyfileobj

    def slowly(source, target, length):
        copy(source, target, length)
        with path.open("ab") as file:
            file.write(b"\0\0")

    monkeypatch.setattr(shutil, "copyfileobj", slowly)
    assert watched.settle() == 0
    assert list(watched.spool.incoming.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(watched, tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        Watcher(tmp_path / "missing", watched.spool, Series(watched.spool, 0), Monitor()).start()
