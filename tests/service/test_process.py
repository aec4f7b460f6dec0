"""`octedge serve` and `octedge watch` as processes: from sender to result, ended by signals, and silent about patients."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from octedge.cli import main
from octedge.service.spool import Spool
from tests.service.parts import free_port, instance, listens, storescu, volume, wait_for
from tests.service.test_worker import put
from tests.support import tiny_bundle

ROOT = Path(__file__).parents[2]
CANARY = {
    "PatientName": "Kanarie^Vogel", "PatientID": "CANARY4711", "PatientBirthDate": "19331122", "AccessionNumber": "ACCCANARY",
    "InstitutionName": "Volierenhaus", "OperatorsName": "Sittich^Olga", "StudyDescription": "Gefieder",
}  # fmt: skip
BAD = {"PatientBirthDate": "NOTADATE", "AccessionNumber": "X" * 40}  # pydicom warns of such values, with the values
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}

posix = pytest.mark.skipif(os.name != "posix", reason="ends processes with POSIX' signals")


def octedge(*words):
    return [sys.executable, "-m", "octedge", *map(str, words)]


def called(*words):
    return subprocess.run(octedge(*words), capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@contextmanager
def started(log, *words):
    """A process whose stderr and stdout are in the file `log`."""
    with log.open("a") as told, subprocess.Popen(octedge(*words), stdout=told, stderr=told, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def asked(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def listed(spool, *words):
    return [json.loads(line) for line in called("spool", "list", "--spool", spool, "--json", *words).stdout.splitlines()]


@posix
def test_serve_from_sender_to_result_without_a_word_about_the_patient(tmp_path, bundle):
    spool, out, log, port, health = tmp_path / "spool", tmp_path / "out", tmp_path / "log", free_port(), free_port()
    good = volume(tmp_path / "a.dcm", **CANARY)
    bad = volume(tmp_path / "b.dcm", seed=5, **CANARY | BAD, NumberOfFrames=7)
    words = ("serve", "--spool", spool, "--out", out, "--model", bundle, "--engine", "ort", "--port", port, "--health-port", health)
    with started(log, *words) as process:
        wait_for(lambda: listens(port), 60)
        assert asked(health, "/healthz")[0] == 200
        answers = [storescu(port, file, options=["-aet", "CANARYAET"]) for file in (good, bad)]
        assert [answer.returncode for answer in answers] == [0, 0]
        wait_for(lambda: asked(health, "/readyz")[0] == 200, 60)
        states = 'octedge_objects{state="delivered"} 1.0', 'octedge_objects{state="quarantined"} 1.0'
        wait_for(lambda: all(state in asked(health, "/metrics")[1] for state in states), 60)
        metrics = asked(health, "/metrics")[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert asked(health, "/readyz")[0] == 0
    for line in ('octedge_events_total{event="received"} 2.0', 'octedge_events_total{event="quarantined"} 1.0'):
        assert line in metrics
    (kept,) = re.findall(r"^octedge_received_bytes_total (\S+)", metrics, re.MULTILINE)
    assert float(kept) == pytest.approx(sum(path.stat().st_size for path in (good, bad)), rel=0.01)  # but for the file meta
    jobs = listed(spool)
    assert sorted(job["state"] for job in jobs) == ["delivered", "quarantined"]
    assert "NumberOfFrames" in next(job["reason"] for job in jobs if job["state"] == "quarantined")
    done = next(job["id"] for job in jobs if job["state"] == "delivered")
    assert (out / f"{done}.npz").exists()
    shown = called("spool", "show", "--spool", spool, jobs[0]["id"]).stdout
    files = "\n".join(map(str, [*spool.rglob("*"), *out.rglob("*")]))
    told = "\n".join([log.read_text("utf-8"), metrics, json.dumps(jobs), shown, files])
    assert "event=received" in told
    canaries = [word for value in (CANARY | BAD).values() for word in re.split(r"\^", value)] + [instance(good), instance(bad), "CANARYAET"]
    assert [canary for canary in canaries if canary in told] == []


@posix
def test_serve_killed_and_started_again_goes_on_where_it_was(tmp_path, bundle):
    spool, out, port = tmp_path / "spool", tmp_path / "out", free_port()
    words = ("serve", "--spool", spool, "--out", out, "--model", bundle, "--engine", "ort", "--port", port)
    with started(tmp_path / "log", *words) as process:
        wait_for(lambda: listens(port), 60)
        assert storescu(port, volume(tmp_path / "a.dcm")).returncode == 0
        process.kill()  # most likely before its model is ready
    with started(tmp_path / "log", *words):
        wait_for(lambda: list(out.glob("*.npz")), 60)
        assert storescu(port, tmp_path / "a.dcm").returncode == 0
    assert len(listed(spool)) == 1


@posix
def test_watch_does_each_scan_once_and_ends_on_ctrl_c(tmp_path, bundle):
    export, out = tmp_path / "export", tmp_path / "out"
    export.mkdir()
    volume(export / "scan7.dcm")
    for _ in range(2):
        with started(tmp_path / "log", "watch", export, "--out", out, "--model", bundle, "--engine", "ort") as process:
            wait_for(lambda: "event=ready" in (tmp_path / "log").read_text("utf-8") and list(out.glob("*.npz")), 60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        (tmp_path / "log").rename(tmp_path / "log.1")
    assert (out / "scan7.npz").exists()
    assert [job["state"] for job in listed(out / ".octedge-spool")] == ["delivered"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "results go nowhere"),
        (("--peer", "PACS"), "TITLE@HOST:PORT"),
        (("--peer", "PACS@127.0.0.1:104", "--format", "npz"), "no format is"),
        (("--out", "out", "--format", "xyz"), "'xyz' is none"),
        (("--out", "out", "--host", "0.0.0.0"), "receive.allow"),
        (("--out", "out", "--config", "missing.toml"), "missing.toml: cannot be read"),
    ],
)
def test_what_serve_cannot_do_is_said_in_one_line_before_anything_is_made(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["serve", "--spool", "spool", *words])
    assert done.exit_code == 2
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_used_ends_the_service_with_3_and_keeps_the_spool(tmp_path):
    done = called("serve", "--spool", tmp_path / "spool", "--out", tmp_path / "out", "--port", 0, "--model", tmp_path / "none")
    assert done.returncode == 3
    assert "error: " in done.stderr
    assert called("spool", "list", "--spool", tmp_path / "spool").returncode == 0


def test_a_missing_extra_says_what_to_install(tmp_path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['pynetdicom', 'prometheus_client'])); from octedge.cli import main; main()"
    command = [sys.executable, "-c", blocked, "serve", "--spool", str(tmp_path / "spool"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert done.returncode == 2
    assert "pip install octedge[serve]" in done.stderr


def test_the_unit_is_printed_and_nothing_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["serve", "--spool", "spool", "--out", "out", "--print-systemd"])
    assert done.exit_code == 0
    assert f"ReadWritePaths={tmp_path / 'spool'} {tmp_path / 'out'}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_retried_by_its_id_and_one_that_is_not_there_is_named(tmp_path):
    with Spool(tmp_path) as spool:
        job = put(spool)
        spool.quarantine(job, "nobody takes it")
        done = CliRunner().invoke(main, ["spool", "list", "--spool", str(tmp_path), "--state", "quarantined"])  # while it is owned
        assert job in done.stdout
        assert "nobody takes it" in done.stdout
        assert CliRunner().invoke(main, ["spool", "retry", "--spool", str(tmp_path), job]).exit_code == 0
        assert spool.job(job).state == "pending"
    done = CliRunner().invoke(main, ["spool", "show", "--spool", str(tmp_path), "cafe"])
    assert done.exit_code == 2
    assert "no job 'cafe'" in done.stderr
