"""The spool: what is acknowledged stays, in exactly one state."""

import os
import sqlite3
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.errors import OutputError, UsageError
from octedge.service.intake import settle
from octedge.service.spool import LATE, SAME_UID, Arrival, Spool


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool") as opened:
        yield opened


def put(spool, text="a scan", uid="1.2.3", **facts):
    with spool.temporary() as file:
        file.write(text.encode())
    path = Path(os.fspath(file.name))
    return spool.arrive(path, Arrival(content=settle(path), uid=uid, **facts))


def deliver(spool, job):
    spool.begin(job, "received")
    spool.empty_results(job)
    spool.written(job)
    spool.delivered(job)


def test_what_arrives_is_pending_and_survives_reopening(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        receipt = put(spool)
    with Spool(tmp_path / "spool") as spool:
        (job,) = spool.jobs()
        assert (job.id, job.state, job.step, job.objects, job.bytes) == (receipt.job, "pending", "received", 1, 6)
        assert [path.read_text("utf-8") for path in spool.paths(job.id)] == ["a scan"]


def test_file_and_folder_are_on_the_disk_before_success_is_told(spool, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace

    def synced(handle):
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def replaced(source, target):
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    spool._records._db.set_trace_callback(lambda statement: steps.append(statement) if statement == "COMMIT" else None)
    put(spool)
    assert steps == ["file", "rename", "folder", "COMMIT"]
    assert spool._records._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: every COMMIT reaches the disk


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX'")
def test_folders_are_0700_and_files_0600(spool):
    put(spool)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.folder.rglob("*")}
    folders = {"incoming", "objects", "results"}
    assert {modes[name] for name in folders} == {0o700}
    assert {mode for name, mode in modes.items() if name not in folders} == {0o600}, modes
    assert stat.S_IMODE(spool.folder.stat().st_mode) == 0o700


def test_the_same_object_again_is_acknowledged_and_makes_no_second_job(spool):
    first, again = put(spool), put(spool)
    assert (first.new, again.new, again.job) == (True, False, first.job)
    deliver(spool, first.job)
    assert put(spool).new is False
    assert len(spool.jobs()) == 1
    assert list(spool.incoming.iterdir()) == []


def test_the_same_uid_with_other_content_is_kept_in_quarantine_beside_the_first(spool):
    first, other = put(spool), put(spool, "another scan")
    assert (other.new, other.quarantined) == (True, True)
    assert [(job.state, job.reason) for job in spool.jobs()] == [("pending", ""), ("quarantined", SAME_UID)]
    assert spool.paths(other.job)[0].read_text("utf-8") == "another scan"
    assert spool.retry(other.job).state == "pending"
    assert spool.paths(first.job)[0].exists()


def test_an_object_that_could_not_be_used_does_not_hold_its_uid(spool):
    spool.quarantine(put(spool, "half a sc").job, "truncated")
    assert put(spool).quarantined is False


def test_frames_of_a_series_are_one_job_until_it_has_grown(spool):
    receipts = [put(spool, f"frame {n}", f"1.2.{n}", series="1.9") for n in range(3)]
    assert {receipt.job for receipt in receipts} == {receipts[0].job}
    assert all(receipt.growing for receipt in receipts)
    assert spool.pending("received") == []
    spool.grown(receipts[0].job)
    (job,) = spool.pending("received")
    assert job.objects == 3


def test_a_frame_before_work_began_joins_and_one_after_it_is_quarantined_with_those_that_follow(spool):
    job = put(spool, "frame 0", "1.2.0", series="1.9").job
    spool.grown(job)
    assert put(spool, "frame 1", "1.2.1", series="1.9").job == job
    assert [each.step for each in spool.jobs()] == ["growing"]
    spool.grown(job)
    spool.begin(job, "received")
    late, later = (put(spool, f"frame {n}", f"1.2.{n}", series="1.9") for n in (2, 3))
    assert (late.quarantined, later.job) == (True, late.job)
    assert [(each.objects, each.reason) for each in spool.jobs()] == [(2, ""), (2, LATE)]


def test_what_a_crash_left_is_swept_at_start(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        job = put(spool).job
        spool.temporary().close()
        (spool.objects / "0123.dcm").write_bytes(b"renamed, but the process died before COMMIT")
        (spool.empty_results(job) / "half.npz").write_bytes(b"half")
    with Spool(tmp_path / "spool") as spool:
        assert list(spool.incoming.iterdir()) == []
        assert list(spool.objects.iterdir()) == spool.paths(job)
        assert list(spool.results.iterdir()) == []


def test_results_that_are_written_are_not_swept(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        job = put(spool).job
        spool.begin(job, "received")
        (spool.empty_results(job) / "whole.npz").write_bytes(b"whole")
        spool.written(job)
        spool.quarantine(job, "nobody takes it")
    with Spool(tmp_path / "spool") as spool:
        assert (spool.results / job / "whole.npz").exists()
        assert spool.retry(job).step == "written"  # it is sent, not made anew


def test_what_is_delivered_leaves_no_file_behind(spool):
    job = put(spool).job
    deliver(spool, job)
    assert list(spool.objects.iterdir()) + list(spool.results.iterdir()) == []
    assert spool.counts() == {"pending": 0, "delivered": 1, "quarantined": 0}
    with pytest.raises(UsageError, match="delivered"):
        spool.retry(job)


def test_a_spool_has_one_owner_and_others_may_look(spool):
    put(spool)
    with pytest.raises(UsageError, match="another octedge works on this spool"):
        Spool(spool.folder)
    with Spool(spool.folder, own=False) as looking:
        assert len(looking.jobs()) == 1


def test_looking_makes_no_spool(tmp_path):
    with pytest.raises(UsageError, match="no spool is here"):
        Spool(tmp_path / "nothing", own=False)
    assert not (tmp_path / "nothing").exists()


def test_a_spool_of_another_version_is_refused_and_let_go(tmp_path):
    Spool(tmp_path).close()
    with sqlite3.connect(tmp_path / "spool.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for _ in range(2):  # a lock that was kept would give the second another reason
        with pytest.raises(UsageError, match="version 99, needed is 1"):
            Spool(tmp_path)


def test_a_full_disk_at_commit_receives_nothing_and_keeps_what_was_there(spool):
    kept = put(spool)
    (pages,) = spool._records._db.execute("PRAGMA page_count").fetchone()
    spool._records._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk full"
    refused = 0
    for number in range(60):
        try:
            put(spool, f"scan {number}", f"1.2.{number}")
        except OutputError:
            refused += 1
    with pytest.raises(OutputError, match="is the disk full"):
        put(spool, "one more", "1.3")
    assert refused
    assert len(list(spool.objects.iterdir())) == len(spool.jobs()) == 61 - refused
    assert spool.paths(kept.job)[0].exists()


def test_a_file_that_is_gone_is_taken_again_when_its_sender_repeats_it(spool):
    (path,) = spool.paths(put(spool).job)
    path.unlink()
    assert put(spool).new is False
    assert path.read_text("utf-8") == "a scan"


def test_a_damaged_database_is_told_and_nothing_is_received(tmp_path):
    Spool(tmp_path).close()
    (tmp_path / "spool.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match="damaged"):
        Spool(tmp_path)


def test_no_uid_and_no_name_is_in_the_records_or_the_listing(spool):
    uid, kin = "1.2.826.0.1.3680043.8.498.4711", "1.2.826.0.1.3680043.8.498.4712"
    put(spool, uid=uid, series=kin, stamp="Doe^Jane.dcm|1|2")
    put(spool, "other", uid=uid)
    spool._records._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    told = (spool.folder / "spool.db").read_bytes() + msgspec.json.encode(spool.jobs()) + repr(list(spool.folder.rglob("*"))).encode()
    for canary in (uid, kin, "Doe"):
        assert canary.encode() not in told


def test_the_same_uid_is_named_otherwise_in_another_spool(tmp_path):
    with Spool(tmp_path / "a") as one, Spool(tmp_path / "b") as other:
        assert one.hashed("1.2.3") == one.hashed("1.2.3") != other.hashed("1.2.3")


DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["put", "series", "grown", "begin", "written", "delivered", "quarantine", "retry", "reopen"]), st.integers(0, 3)
    )
)


@settings(max_examples=10, deadline=None)
@given(deeds=DEEDS)
def test_whatever_is_done_every_object_has_one_state_and_its_file_until_it_is_delivered(tmp_path_factory, deeds):
    spool = Spool(tmp_path_factory.mktemp("spool"))
    arrived = set()
    try:
        for deed, n in deeds:
            jobs = spool.jobs()
            job = jobs[n % len(jobs)] if jobs else None
            if deed in ("put", "series"):
                put(spool, f"{deed} {n}", f"1.2.{n}", series="1.9" if deed == "series" else "")
                arrived.add((deed, n))
            elif deed == "reopen":
                spool.close()
                spool = Spool(spool.folder)
            elif job is not None and deed == "begin":
                spool.begin(job.id, job.step)
            elif job is not None and deed == "retry":
                if job.state != "delivered":
                    spool.retry(job.id)
            elif job is not None and deed == "quarantine":
                spool.quarantine(job.id, "said so")
            elif job is not None and not (deed == "delivered" and job.step != "written"):
                getattr(spool, deed)(job.id)
        assert sum(spool.counts().values()) == len(arrived)
        for job in spool.jobs():
            assert all(path.exists() == (job.state != "delivered") for path in spool.paths(job.id))
            assert bool(job.reason) or job.state != "quarantined"
    finally:
        spool.close()
