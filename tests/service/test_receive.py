"""The receiver, against dcmtk."""

import errno
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from pydicom import dcmread

from octedge.errors import UsageError
from octedge.service.monitor import Monitor
from octedge.service.receive import Receiver
from octedge.service.series import Series
from octedge.service.settings import Receive, Tls
from octedge.service.spool import SAME_UID, Spool
from tests.service.parts import SEG, certificate_of, dcmtk, result, series, storescu, volume, wait_for

SETTINGS = Receive(port=0, free_mb=0)


@contextmanager
def receiving(folder, wanted=SETTINGS):
    with Spool(folder) as spool:
        receiver = Receiver(spool, Series(spool, 0), wanted, Monitor())
        receiver.start()
        try:
            yield receiver
        finally:
            receiver.stop()


@pytest.fixture
def receiver(tmp_path):
    with receiving(tmp_path / "spool") as one:
        yield one


def contents(receiver):
    """The bytes of the data sets that were kept: all but the file meta, which each writes its own way."""
    kept = [path for job in receiver.spool.jobs() for path in receiver.spool.paths(job.id)]
    return sorted(dcmread(path).PixelData for path in kept)


def test_an_echo_is_answered(receiver):
    assert subprocess.run([dcmtk("echoscu"), "-aec", "OCTEDGE", "127.0.0.1", str(receiver.port)], check=False).returncode == 0


def test_a_volume_arrives_whole_and_is_a_job_at_once(receiver, tmp_path):
    sent = volume(tmp_path / "a.dcm")
    assert "Success" in storescu(receiver.port, sent).stderr + storescu(receiver.port, sent).stdout
    (job,) = receiver.spool.jobs()
    assert (job.state, job.step, job.objects) == ("pending", "received", 1)
    assert contents(receiver) == [dcmread(sent).PixelData]
    assert list(receiver.spool.incoming.iterdir()) == []


def test_a_series_is_one_job_that_grows(receiver, tmp_path):
    assert storescu(receiver.port, *series(tmp_path / "series")).returncode == 0
    (job,) = receiver.spool.jobs()
    assert (job.step, job.objects) == ("growing", 3)
    assert wait_for(receiver.series.close) == [job.id]


def test_what_is_sent_again_is_acknowledged_and_changes_nothing(receiver, tmp_path):
    sent = volume(tmp_path / "a.dcm")
    for _ in range(3):
        assert storescu(receiver.port, sent).returncode == 0
    assert len(receiver.spool.jobs()) == 1


def test_the_same_uid_with_other_content_is_answered_with_success_and_quarantined(receiver, tmp_path):
    first = volume(tmp_path / "a.dcm")
    other = volume(tmp_path / "b.dcm", ImageComments="other")
    assert [storescu(receiver.port, file).returncode for file in (first, other)] == [0, 0]
    assert [(job.state, job.reason) for job in receiver.spool.jobs()] == [("pending", ""), ("quarantined", SAME_UID)]


def test_other_classes_are_refused_at_negotiation(receiver, tmp_path):
    answer = storescu(receiver.port, result(tmp_path / "seg.dcm", SEG))
    assert answer.returncode != 0
    assert (
        "No presentation context" in answer.stderr + answer.stdout or "No Acceptable Presentation Contexts" in answer.stderr + answer.stdout
    )
    assert receiver.spool.jobs() == []


def test_who_calls_another_title_is_rejected(receiver, tmp_path):
    answer = storescu(receiver.port, volume(tmp_path / "a.dcm"), called="SOMEBODY")
    assert "Called AE Title Not Recognized" in answer.stderr + answer.stdout


def test_only_those_allowed_may_send(tmp_path):
    sent = volume(tmp_path / "a.dcm")
    with receiving(tmp_path / "spool", msgspec.structs.replace(SETTINGS, allow=("DEVICE1",))) as receiver:
        answer = storescu(receiver.port, sent, options=["-aet", "STRANGER"])
        assert "Calling AE Title Not Recognized" in answer.stderr + answer.stdout
        assert storescu(receiver.port, sent, options=["-aet", "DEVICE1"]).returncode == 0


def test_below_the_watermark_nothing_is_written_and_the_answer_is_a700(tmp_path):
    with receiving(tmp_path / "spool", msgspec.structs.replace(SETTINGS, free_mb=10**9)) as receiver:
        receiver.spool.temporary = lambda: pytest.fail("written to a disk that is low")
        answer = storescu(receiver.port, volume(tmp_path / "a.dcm"))
        assert answer.returncode != 0
        assert "Refused: OutOfResources" in answer.stderr + answer.stdout
        assert receiver.spool.jobs() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_fills_up_in_the_middle_is_answered_with_a700(receiver, tmp_path):
    class Full:
        name = os.fspath(tmp_path / "spool" / "incoming" / "full.tmp")

        def __init__(self):
            Path(self.name).touch()
            self.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115

        def write(self, data):
            return self.file.write(data)

        def tell(self):
            return 0

        def close(self):
            self.file.close()

    receiver.spool.temporary, real = Full, receiver.spool.temporary
    sent = volume(tmp_path / "a.dcm")
    answer = storescu(receiver.port, sent)
    assert "Refused: OutOfResources" in answer.stderr + answer.stdout
    assert list(receiver.spool.incoming.iterdir()) == []
    receiver.spool.temporary = real
    assert storescu(receiver.port, sent).returncode == 0


def test_a_commit_that_fails_is_answered_with_a700(receiver, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("octedge.service.spool.sync_folder", full)
    answer = storescu(receiver.port, volume(tmp_path / "a.dcm"))
    assert "Refused: OutOfResources" in answer.stderr + answer.stdout
    assert receiver.spool.jobs() == []


def test_a_sender_that_dies_in_the_middle_leaves_nothing(receiver, tmp_path):
    sent = volume(tmp_path / "a.dcm", frames=12).read_bytes()
    assert len(sent) > 60_000
    with _cut_off_after(receiver.port, 50_000) as port:
        assert storescu(port, tmp_path / "a.dcm").returncode != 0
    wait_for(lambda: not list(receiver.spool.incoming.iterdir()))
    assert receiver.spool.jobs() == []
    assert storescu(receiver.port, tmp_path / "a.dcm").returncode == 0


def test_twelve_send_at_the_same_time(receiver, tmp_path):
    files = [volume(tmp_path / f"{seed}.dcm", seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda file: storescu(receiver.port, file), files))
    assert [answer.returncode for answer in answers] == [0] * 12
    assert contents(receiver) == sorted(dcmread(file).PixelData for file in files)


def test_a_damaged_file_is_a_job_whose_reason_the_reader_will_tell(receiver, tmp_path):
    sent = volume(tmp_path / "a.dcm", NumberOfFrames=7)
    assert storescu(receiver.port, sent).returncode == 0
    assert [job.step for job in receiver.spool.jobs()] == ["received"]


def test_with_tls_only_who_has_a_certificate_may_send(tmp_path):
    key, certificate = certificate_of(tmp_path)
    tls = Tls(certificate=str(certificate), key=str(key), ca=str(certificate))
    sent = volume(tmp_path / "a.dcm")
    with receiving(tmp_path / "spool", msgspec.structs.replace(SETTINGS, tls=tls)) as receiver:
        assert storescu(receiver.port, sent).returncode != 0
        assert storescu(receiver.port, sent, options=["+tla", "+cf", str(certificate)]).returncode != 0  # anonymous
        assert storescu(receiver.port, sent, options=["+tls", str(key), str(certificate), "+cf", str(certificate)]).returncode == 0
        assert len(receiver.spool.jobs()) == 1


def test_a_port_in_use_and_a_missing_certificate_are_told(receiver, tmp_path):
    wanted = [
        msgspec.structs.replace(SETTINGS, port=receiver.port),
        msgspec.structs.replace(SETTINGS, tls=Tls(certificate="no.pem", key="no.pem")),
    ]
    for one, words in zip(wanted, ["choose another host or port", "PEM files"], strict=True):
        with pytest.raises(UsageError, match=words):
            Receiver(receiver.spool, receiver.series, one, Monitor()).start()


@contextmanager
def _cut_off_after(port, count):
    """A port before another one, whose line breaks after so many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(2) as pool:

        def back(receiver, sender):
            while data := receiver.recv(65536):
                sender.sendall(data)

        def forward():
            sender, _ = server.accept()
            with sender, socket.create_connection(("127.0.0.1", port)) as receiver:
                pool.submit(back, receiver, sender)
                left = count
                while left > 0:
                    data = sender.recv(min(left, 65536))
                    receiver.sendall(data)
                    left -= len(data)
                for end in (sender, receiver):
                    end.shutdown(socket.SHUT_RDWR)

        pool.submit(forward)
        yield server.getsockname()[1]
