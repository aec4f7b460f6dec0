"""The work between: tries, waits, quarantine, and when a series is complete."""

import os
from pathlib import Path

import pytest

from octedge.errors import ModelError, OutOfMemory, OutputError, ScanError
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.service.intake import settle
from octedge.service.monitor import Monitor
from octedge.service.send import Archive as DicomArchive
from octedge.service.send import Folder, Refused, Unreachable
from octedge.service.series import Series
from octedge.service.service import segmenter
from octedge.service.settings import Peer, Settings
from octedge.service.spool import Arrival, Receipt, Spool
from octedge.service.worker import WORK_TRIES, Retry, Stopped, Worker
from tests.service.parts import LOOK
from tests.support import tiny_bundle


class Clock:
    """A monotonic clock that a test turns."""

    now = 100.0

    def __call__(self):
        return self.now


class Archive(Folder):
    """A destination that does what it is told."""

    def __init__(self, name="PACS", error=None):
        super().__init__(Path())
        self.name, self.error, self.asked = name, error, 0

    def deliver(self, parcel):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as opened:
        yield opened


def put(spool, number=0):
    with spool.temporary() as file:
        file.write(f"scan {number}".encode())
    path = Path(os.fspath(file.name))
    return spool.arrive(path, Arrival(content=settle(path), uid=f"1.2.{number}")).job


def worker_of(spool, *archives, wait_s=0.001, tries=3):
    wanted = Settings(spool="", wait_s=wait_s, longest_wait_s=max(wait_s, 0.002), tries=tries)
    return Worker(spool, Series(spool, 0), archives, Monitor(), wanted)


def fine(paths, job, folder):
    (folder / f"{job}.npz").write_bytes(b"result")
    return ""


def failing(error):
    def segment(paths, job, folder):
        raise error

    return segment


def until_idle(work, times=40):
    """Repeat what waits a millisecond or two between tries."""
    import time

    for _ in range(times):
        work()
        time.sleep(0.004)


def test_a_scan_is_segmented_once_and_delivered(spool):
    job, archive = put(spool), Archive()
    worker = worker_of(spool, archive)
    worker.segment_due(fine)
    worker.send_due()
    assert (spool.job(job).state, archive.asked) == ("delivered", 1)
    assert worker.segment_due(fine) + worker.send_due() == 0


def test_a_stop_finishes_the_bscan_at_hand_and_leaves_the_scan_pending(spool, tmp_path):
    job = put(spool)
    paths = spool.paths(job)
    write_dicom(Phantom(LOOK, 4, 1), paths[0])
    worker = worker_of(spool)
    segment = segmenter(Settings(spool="", out="x", model=str(tiny_bundle(tmp_path / "tiny")), engine="ort"), worker.stop, lambda _: None)
    worker.stop.set()
    with pytest.raises(Stopped):
        segment(paths, job, spool.empty_results(job))
    worker.stop.clear()
    assert "B-scans" not in segment(paths, job, spool.empty_results(job))
    assert (spool.results / job / f"{job}.npz").exists()


def test_a_refused_scan_is_quarantined_at_once_with_its_reason(spool):
    job = put(spool)
    worker_of(spool).segment_due(failing(ScanError("truncated, send it again")))
    assert (spool.job(job).state, spool.job(job).reason, spool.job(job).tries) == ("quarantined", "truncated, send it again", 1)


@pytest.mark.parametrize("error", [OutOfMemory("too large"), ValueError("JANE DOE")], ids=["expected", "unexpected"])
def test_what_fails_again_and_again_is_quarantined_and_the_scans_behind_it_are_not(spool, error):
    bad, good = put(spool, 0), put(spool, 1)
    worker = worker_of(spool, Archive())
    until_idle(
        lambda: worker.segment_due(
            lambda paths, job, folder: failing(error)(paths, job, folder) if job == bad else fine(paths, job, folder)
        )
    )
    reason = spool.job(bad).reason
    assert spool.job(bad).state == "quarantined"
    assert reason.endswith(f"(tried {WORK_TRIES} times)")
    assert "JANE" not in reason
    assert spool.job(good).step == "written"


def test_an_engine_that_fails_ends_the_work_and_the_scan_waits_for_a_better_one(spool):
    job = put(spool)
    with pytest.raises(ModelError, match="fell over"):
        worker_of(spool).segment_due(failing(ModelError("the engine fell over")))
    assert (spool.job(job).state, spool.job(job).tries) == ("pending", 1)


def test_results_without_a_dicom_file_are_not_delivered_to_archives_in_silence(spool):
    job = put(spool)
    worker = worker_of(spool)
    worker.destinations = [DicomArchive(Peer(ae_title="PACS", host="127.0.0.1", port=1))]
    worker.segment_due(lambda *words: fine(*words) or "no seg: no study to belong to")
    worker.send_due()
    assert spool.job(job).reason == "no DICOM result that could be sent: no seg: no study to belong to"


def test_what_is_to_be_known_of_results_stays_in_the_listing(spool):
    job = put(spool)
    worker = worker_of(spool, Archive())
    worker.segment_due(lambda *words: fine(*words) or "scale unknown")
    worker.send_due()
    assert (spool.job(job).state, spool.job(job).note) == ("delivered", "scale unknown")


def test_a_scan_that_kills_the_process_is_tried_a_few_times_only(tmp_path):
    for _ in range(WORK_TRIES):
        with Spool(tmp_path) as spool:
            job = put(spool)
            spool.begin(job, "received")  # and then the process dies
    with Spool(tmp_path) as spool:
        worker = worker_of(spool)
        until_idle(lambda: worker.segment_due(fine), 3)
        assert spool.job(job).state == "quarantined"
        assert f"ended {WORK_TRIES} times" in spool.job(job).reason


@pytest.mark.parametrize("error", [Stopped(), OutputError("disk full")], ids=["stopped", "disk full"])
def test_what_is_not_the_scans_fault_is_no_try(spool, error):
    job = put(spool)
    worker = worker_of(spool)
    for _ in range(WORK_TRIES + 2):
        worker.segment_due(failing(error))
    assert (spool.job(job).state, spool.job(job).tries) == ("pending", 0)


def test_a_peer_that_does_not_answer_is_asked_once_per_round_for_all_jobs(spool):
    for number in range(5):
        put(spool, number)
    silent, other = Archive("silent", Unreachable("silent: nobody answers")), Archive("other")
    worker = worker_of(spool, silent, other)
    worker.segment_due(fine)
    worker.send_due()
    assert (silent.asked, other.asked) == (1, 5)
    assert {job.reason for job in spool.jobs()} == {"silent: nobody answers"}


def test_when_tries_are_used_up_results_wait_in_quarantine_and_a_retry_only_sends_them(spool):
    job, archive = put(spool), Archive(error=Unreachable("PACS: nobody answers"))
    worker = worker_of(spool, archive, tries=3)
    worker.segment_due(fine)
    until_idle(worker.send_due)
    assert (spool.job(job).state, archive.asked) == ("quarantined", 3)
    archive.error = None
    spool.retry(job)
    worker.segment_due(failing(AssertionError("made anew")))
    worker.send_due()
    assert spool.job(job).state == "delivered"


def test_what_a_peer_refuses_is_quarantined_without_waiting(spool):
    job, archive = put(spool), Archive(error=Refused("PACS takes no seg"))
    worker = worker_of(spool, archive)
    worker.segment_due(fine)
    worker.send_due()
    assert (spool.job(job).state, spool.job(job).reason, archive.asked) == ("quarantined", "PACS takes no seg", 1)


def test_waits_double_up_to_the_longest():
    clock = Clock()
    retry = Retry(first=5, longest=30, clock=clock)
    waits = []
    for tries in range(1, 6):
        begun = clock.now
        while not retry.ready("job", tries):
            clock.now += 1
        waits.append(clock.now - begun)
    assert waits == [5, 10, 20, 30, 30]
    assert retry.ready("job", 0)


def test_a_clock_that_is_set_neither_stalls_nor_floods(monkeypatch):
    clock = Clock()
    retry = Retry(first=5, longest=30, clock=clock)
    assert not retry.ready("job", 1)
    for jump in (-1e9, 1e9):
        monkeypatch.setattr("time.time", lambda jump=jump: jump)
        assert not retry.ready("job", 1)
    clock.now += 5
    assert retry.ready("job", 1)


def test_after_a_restart_the_wait_begins_anew():
    clock = Clock()
    first = Retry(5, 30, clock)
    first.ready("job", 2)
    clock.now = 0.0  # a monotonic clock may begin anywhere
    again = Retry(5, 30, clock)
    assert not again.ready("job", 2)
    clock.now = 10.0
    assert again.ready("job", 2)


def test_a_series_is_complete_when_its_sender_has_left_and_the_quiet_time_is_over(spool):
    clock = Clock()
    series = Series(spool, 15, clock)
    job = _frame(spool, 0)
    series.came(Receipt(job, True, growing=True), "sender")
    clock.now += 1000
    assert series.close() == []  # it is still connected
    series.left("sender")
    clock.now += 14
    assert series.close() == []
    clock.now += 1
    assert series.close() == [job]
    assert spool.job(job).step == "received"


def test_a_frame_in_the_quiet_time_prolongs_it(spool):
    clock = Clock()
    series = Series(spool, 15, clock)
    job = _frame(spool, 0)
    for number in (1, 2, 3):
        series.came(Receipt(_frame(spool, number), True, growing=True), "sender")
        series.left("sender")
        clock.now += 14
        assert series.close() == []
    clock.now += 1
    assert series.close() == [job]


def test_a_series_that_grew_before_a_restart_completes_after_it(tmp_path):
    clock = Clock()
    with Spool(tmp_path) as spool:
        job = _frame(spool, 0)
    with Spool(tmp_path) as spool:
        series = Series(spool, 15, clock)
        assert series.close() == []
        clock.now += 15
        assert series.close() == [job]


def _frame(spool, number):
    with spool.temporary() as file:
        file.write(f"frame {number}".encode())
    path = Path(os.fspath(file.name))
    return spool.arrive(path, Arrival(content=settle(path), uid=f"1.2.{number}", series="1.9")).job
