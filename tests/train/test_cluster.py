"""The same trials on a real Ray cluster of two workers: same scores, nothing done twice, a killed worker's job tried again."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from octedge.cluster import cluster
from octedge.errors import UsageError
from octedge.train.fit import Course, Trial, fit
from octedge.train.networks import UNet, build, parameters
from octedge.train.recipe import Tune
from octedge.train.select import Job, work
from octedge.train.tune import Budget, Study, tune
from tests.train.tiny import RECIPE, SPLIT, quiet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
]
SMALL = msgspec.structs.replace(RECIPE, candidates={"a": UNet(convs=1, kernels=2, downs=2)}, steps=6, validate_every=2)
TUNED = msgspec.structs.replace(SMALL, tune=Tune(kernels=(2, 3), rungs=(0.5,)))
BUDGET = Budget(1e9, lambda shapes: [float(parameters(build(shape, 3))) for shape in shapes], "a made-up engine")
STUDY = Study(TUNED, "a", SPLIT, BUDGET, Path("run"))


def job(run, until=4):
    run.mkdir(parents=True, exist_ok=True)
    return Job(Trial("a", 1), SMALL, run, until)


def work_that_is_killed_once(job, split):
    """A trial whose worker gets SIGKILL after its first two steps, the first time; counts how often each trial is begun."""
    with (job.run / "begun").open("a") as file:
        file.write("x")
    if job.run.name == "killed" and (job.run / "begun").stat().st_size == 1:
        fit(job.trial, Course(job.recipe, split, quiet), job.trial.folder(job.run), 2)
        os.kill(os.getpid(), signal.SIGKILL)
    if job.run.name == "wrong":
        raise UsageError("this trial is wrong")
    return work(job, split)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_worker_loses_nothing_and_a_cluster_scores_as_one_process_does(tmp_path):
    with cluster("local", work_that_is_killed_once, SPLIT, cpus=2) as pool:
        first = pool([job(tmp_path / "fine"), job(tmp_path / "killed")])
        with pytest.raises(UsageError, match="this trial is wrong"):
            pool([job(tmp_path / "wrong"), job(tmp_path / "beside")])
        second = pool([job(tmp_path / "killed", 6)])
        tuned = tune(replace(STUDY, run=tmp_path / "tuned"), quiet, pool)
        addresses = listening()
    assert first == [work(job(tmp_path / "home"), SPLIT)] * 2  # the same recipe in all folders, killed or not
    assert second == [work(job(tmp_path / "home", 6), SPLIT)]
    assert tuned == tune(replace(STUDY, run=tmp_path / "tuned at home"), quiet)
    assert (tmp_path / "fine" / "begun").read_text() == "x"
    assert (tmp_path / "killed" / "begun").read_text() == "xxx"  # begun, tried again, gone on with
    assert (tmp_path / "beside" / "a" / "seed1" / "scores.json").exists()
    assert all(address.startswith(("127.", "[::ffff:127.", "[::1]")) for address in addresses), addresses
    stamp = (tmp_path / "killed" / "a" / "seed1" / "state.pt").stat().st_mtime_ns
    assert [work(job(tmp_path / "killed", 6), SPLIT)] == second
    assert (tmp_path / "killed" / "a" / "seed1" / "state.pt").stat().st_mtime_ns == stamp  # nothing was left to train


def listening() -> list[str]:
    """Addresses on which processes below this one listen, where `ss` can tell."""
    try:
        lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.split()[3] for line in lines if '"ray' in line or '"gcs_server' in line]


def test_a_run_that_a_worker_cannot_see_is_refused(tmp_path):
    with pytest.raises(UsageError, match="file system that all of them share"):
        work(replace(job(tmp_path / "there"), run=Path(tmp_path / "nowhere")), SPLIT)
