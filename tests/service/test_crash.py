"""Two hundred deaths, spread over every step that changes something."""

import json
import os
import subprocess
import sys
from pathlib import Path

STEPS = {  # what the steps of the spool look like from outside: a change of the disk each
    "open", "os.rename", "os.remove", "os.mkdir", "BEGIN IMMEDIATE", "COMMIT", "INSERT INTO jobs", "INSERT INTO objects",
    "UPDATE jobs SET", "INSERT OR REPLACE", "UPDATE sendings SET",
}  # fmt: skip


def test_whoever_kills_it_when_nothing_acknowledged_is_lost_and_nothing_delivered_under_two_uids():
    root = Path(__file__).parents[2]
    memory = {"TMPDIR": "/dev/shm"} if Path("/dev/shm").is_dir() else {}  # a process dies there as it does on a disk, but sooner
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crash", "--rounds", "200"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)} | memory, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["lost"], found["twice"]) == ([], [])
    assert found["killed"] > 150
    assert set(found["died"]) >= STEPS
