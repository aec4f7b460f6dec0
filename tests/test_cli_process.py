"""The command line as a process of its own: signals, pipes, narrow consoles, and what it must not need."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from tests.support import LOOK

OCTEDGE = [sys.executable, "-c", "from octedge.cli import main; main(prog_name='octedge')"]


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return os.environ | {"OCTEDGE_CACHE": str(tmp_path / "cache")}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_ctrl_c_leaves_whole_results_and_nothing_else(bundle, environment, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    frame = Phantom(LOOK, 1, 1).bscan(0).image
    np.savez(scans / "a.npz", image=frame)
    np.savez(scans / "b.npz", images=np.stack([np.tile(frame, (4, 4))] * 200))
    call = [*OCTEDGE, "segment", scans, "--out", out, "--model", bundle]
    process = subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "a.npz").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "stopped: results written so far are whole, the others are not there"
    with np.load(out / "a.npz", allow_pickle=False) as file:
        assert file["labels"].shape == (1, 96, 140)
    assert not (out / "b.npz").exists()
    for path in out.rglob("*"):
        assert path.suffix in (".npz", ".png", ""), path
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(environment, tmp_path):
    for index in range(40):
        Image.fromarray(Phantom(LOOK, 1, 1).bscan(0).image).save(tmp_path / f"{index}.png")
    process = subprocess.Popen([*OCTEDGE, "check", tmp_path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=60)


def test_a_narrow_console_shows_any_name(bundle, environment, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(Phantom(LOOK, 1, 1).bscan(0).image).save(scans / "\u7de9 \u00e9\u03bc.png")
    (scans / "\u20ac.png").write_bytes(b"")
    narrow = environment | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    call = [*OCTEDGE, "segment", scans, "--out", tmp_path / "out", "--model", bundle]
    done = subprocess.run(call, env=narrow, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.isascii()
    assert rb"\u7de9 \xe9\u03bc: 1 B-scan" in done.stderr
    assert rb"refused: \u20ac: " in done.stderr
    assert (tmp_path / "out" / "\u7de9 \u00e9\u03bc.npz").is_file()


def test_it_needs_neither_torch_nor_a_network(bundle, environment, tmp_path):
    write_dicom(Phantom(LOOK, 2, 1), tmp_path / "scan7.dcm")
    blocked = """
import socket, sys
def refuse(*_, **__): raise AssertionError("a network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
sys.modules["torch"] = None
from octedge.cli import main
main(prog_name="octedge")
"""
    call = [sys.executable, "-c", blocked, "segment", tmp_path / "scan7.dcm", "--out", tmp_path / "out", "--model", bundle, "--json"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "done"


def test_a_command_of_the_workstation_says_what_it_lacks_on_a_device(environment, tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    code = "import sys; sys.modules['torch'] = None; from octedge.cli import main; main(prog_name='octedge')"
    call = [sys.executable, "-c", code, "train", tmp_path / "recipe.toml", "--out", tmp_path / "run"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: this command needs torch, which is not installed; pip install octedge[train,export]")


def test_the_demo_runs_the_whole_way_with_any_bundle(bundle, environment, tmp_path):
    done = subprocess.run(
        [*OCTEDGE, "demo", "--out", tmp_path / "demo", "--model", bundle], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[0] == "phantoms, not patients; research use only"
    assert sum("against the truth: mean Dice" in line for line in told) == 4
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert {scan["name"]: scan["status"] for scan in summary["scans"]} == dict.fromkeys(("macula", "wide", "deep", "picture"), "done")
    for scan in summary["scans"]:
        assert all((tmp_path / "demo" / "results" / name).is_file() for name in scan["outputs"])
    assert set(summary["comparisons"]) == {"macula", "wide", "deep", "picture"}
