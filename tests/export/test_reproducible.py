"""An export depends on the network alone: the same bytes from any folder, user and process, and none of these inside."""

import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from octedge.train.cohort import Split
from octedge.train.fit import Course
from octedge.train.manifest import Phantoms
from octedge.train.select import train_all
from tests.support import digests
from tests.train.tiny import SHORT, SPLIT, quiet

ROOT = Path(__file__).parents[2]
RECIPE = msgspec.structs.replace(SHORT, source=(Phantoms(name="bands"),))
PEOPLE = ("canary-anna", "canary-bert")

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """One run, exported by two people: each in a process, a folder and a home of its own."""
    folder = tmp_path_factory.mktemp("canary-lab")
    train_all(Course(RECIPE, Split(SPLIT.train, SPLIT.validation), quiet), folder / "run")
    made = []
    for seed, name in enumerate(PEOPLE):
        home = folder / name
        shutil.copytree(folder / "run", home / "run")
        who = {key: name for key in ("USER", "LOGNAME", "USERNAME", "HOSTNAME", "COMPUTERNAME")}
        homes = {key: str(home) for key in ("HOME", "USERPROFILE", "PWD")}
        environment = {**os.environ, **who, **homes, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "octedge", "export", "run", "--candidate", "a", "--out", "bundle"]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made.append(home / "bundle")
    return made


def test_every_file_has_the_same_bytes(bundles):
    first, second = map(digests, bundles)
    assert {"model.onnx", "card.json", "golden.npz", "MODEL_CARD.md", "SHA256SUMS"} <= set(first)
    assert first == second


def test_no_folder_user_or_host_is_inside(bundles):
    here = [str(ROOT), sys.prefix, str(Path.home()), socket.gethostname()]
    traces = ["canary", "site-packages", "stack_trace", *(each for each in here if len(each) > 5)]  # shorter ones are in any file by chance
    for file in bundles[0].rglob("*"):
        content = [file.read_bytes()]
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                content += [archive.read(name) for name in archive.namelist()]
        for trace in traces:
            assert not [part for part in content if trace.encode() in part], f"{file.name} holds {trace!r}"
