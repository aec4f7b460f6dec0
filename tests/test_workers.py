"""`segment` on a real Ray cluster of two workers, one of which is killed: no scan lost, none done twice, the same results."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from octedge.batch import Options, run_one
from octedge.cli import main
from octedge.cluster import Pool, cluster
from octedge.errors import UsageError, WorkerLost
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import Source, find
from octedge.workers import Batch, _asked, _warm, finished, segment_on, work
from tests.support import digests, tiny_bundle

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
]
LOOK = replace(LOOKS["spectralis"], rows=96, columns=140, span_mm=0.5)
OCTEDGE = [sys.executable, "-c", "from octedge.cli import main; main(prog_name='octedge')"]


@dataclass(frozen=True, slots=True)
class Deadly(Source):
    """A scan whose third B-scan kills the process that decodes it, without a word."""

    def read(self):
        scan = Source.read(self)

        def decode(index):
            if index == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return scan.decode(index)

        return replace(scan, decode=decode)


def watched_work(source, batch):
    """`work`, with a line for every beginning: the process, and whether there was a result; "once" kills once, "ever" each time."""
    begun = batch.out.parent / "begun" / source.name
    begun.parent.mkdir(parents=True, exist_ok=True)
    with begun.open("a") as file:
        file.write(f"{os.getpid()} {(batch.out / source.name).with_suffix('.npz').exists()}\n")
    first = len(begun.read_text().splitlines()) == 1
    if source.name == "ever" or (source.name == "once" and first):
        source = Deadly(source.paths, source.name)
    answered = work(source, batch)
    return msgspec.structs.replace(answered.outcome, notes=(str(_warm.cache_info().misses), *answered.told))


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster, what it is given to do, and what its workers answered."""

    pool: Pool
    batch: Batch
    answers: dict

    @property
    def address(self):
        return self.pool.ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    if sys.platform == "win32":
        pytest.skip("SIGKILL is POSIX")
    root = tmp_path_factory.mktemp("cluster")
    scans, out = root / "my scans", root / "out"
    out.mkdir()
    scans.mkdir()
    for seed, name in enumerate(("a", "b", "ever", "once", "z")):
        write_dicom(Phantom(LOOK, 4, seed), scans / f"{name}.dcm")
    (scans / "broken.dcm").write_bytes(b"")
    batch = Batch(tiny_bundle(root / "tiny"), "auto", False, out, Options(("npz", "overlay")), sources=tuple(find([scans])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("octedge.cluster.RETRIES", 1)
        patch.setenv("OCTEDGE_CACHE", str(root / "cache"))
        with cluster("local", watched_work, batch, cpus=2) as pool:
            names = [source.name for source in batch.sources]
            yield Started(pool, batch, dict(zip(names, pool.start(batch.sources), strict=True)))


@pytest.mark.slow
def test_a_killed_worker_costs_no_scan_and_none_is_done_twice(started, tmp_path):
    outcomes = {name: answer() for name, answer in started.answers.items() if name != "ever"}
    with pytest.raises(WorkerLost, match="a worker died 2 times"):
        started.answers["ever"]()
    begun = {file.name: file.read_text().splitlines() for file in (started.batch.out.parent / "begun").iterdir()}
    assert {name: len(lines) for name, lines in begun.items()} == {"a": 1, "b": 1, "broken": 1, "once": 2, "ever": 2, "z": 1}
    assert all(line.endswith("False") for lines in begun.values() for line in lines)  # the killed one had left no result
    assert len({line.split()[0] for line in begun["once"]}) == 2
    assert all(outcome.notes[0] == "1" for outcome in outcomes.values())  # every process opened its engine once
    job = replace(started.batch.job(print), out=tmp_path)
    here = {source.name: run_one(source, job) for source in started.batch.sources if source.name != "ever"}
    timeless = {"seconds": {}, "ms_per_bscan": None, "notes": ()}
    assert {name: msgspec.structs.replace(each, **timeless) for name, each in outcomes.items()} == {
        name: msgspec.structs.replace(each, **timeless) for name, each in here.items()
    }
    results = {
        name: digest for name, digest in digests(started.batch.out).items() if name.endswith((".npz", ".png")) and "ever" not in name
    }
    assert results == digests(tmp_path)


def octedge(started, *options):
    call = [*OCTEDGE, "segment", *options, "--out", started.batch.out, "--model", started.batch.bundle, "--cluster", started.address]
    environment = os.environ | {"OCTEDGE_CACHE": str(started.batch.out.parent / "cache")}
    return subprocess.Popen(call, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_second_run_joins_the_cluster_does_what_is_missing_and_says_the_same(started):
    outcomes = {name: answer() for name, answer in started.answers.items() if name != "ever"}
    stamps = {name: (started.batch.out / f"{name}.npz").stat().st_mtime_ns for name in ("a", "b", "once", "z")}
    (started.batch.out / "b.npz").unlink()
    (started.batch.out / "z" / "overlay_001.png").write_bytes(b"cut")
    process = octedge(started, started.batch.sources[0].paths[0].parent, "--json")
    said, told = process.communicate(timeout=120)
    assert process.returncode == 1, told  # the broken one
    found = {line["name"]: line for line in map(json.loads, said.splitlines())}
    assert list(found) == [source.name for source in started.batch.sources]
    assert {name: line["status"] for name, line in found.items()} == {
        "a": "done", "b": "done", "broken": "refused", "ever": "done", "once": "done", "z": "done",
    }  # fmt: skip
    again = {name for name, stamp in stamps.items() if (started.batch.out / f"{name}.npz").stat().st_mtime_ns != stamp}
    assert again == {"b", "z"}
    assert found["a"]["seconds"] == outcomes["a"].seconds  # as it was told the first time
    assert told.splitlines()[-1] == "scans: 5 done, 1 refused; research use only"


@pytest.mark.slow
def test_ctrl_c_leaves_whole_results_and_no_records_of_others(started, tmp_path):
    frame = Phantom(LOOK, 1, 1).bscan(0).image
    np.savez(tmp_path / "first.npz", image=frame)
    for name in ("second", "third"):
        np.savez(tmp_path / f"{name}.npz", images=np.stack([np.tile(frame, (4, 4))] * 400))
    out = started.batch.out
    process = octedge(started, tmp_path)
    while not (out / "first.done.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "stopped: results written so far are whole, the others are not there"
    assert (out / "first.npz").exists()
    time.sleep(0.5)
    assert not [name for name in ("second", "third") if (out / f"{name}.npz").exists() or (out / f"{name}.done.json").exists()]


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A scan that is done, in this process: its source and its batch."""
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    write_dicom(Phantom(LOOK, 2, 1), tmp_path / "scan7.dcm")
    (tmp_path / "out").mkdir()
    (source,) = find([tmp_path / "scan7.dcm"])
    batch = Batch(tiny_bundle(tmp_path / "tiny"), "auto", False, tmp_path / "out", Options(("npz",)), sources=(source,))
    work(source, batch)
    return source, batch


def is_done(source, batch):
    return finished(source.name, batch.out, _asked(source, batch, _warm(batch)[0])) is not None


def test_what_was_changed_is_done_again(done):
    source, batch = done
    assert is_done(source, batch)
    assert is_done(source, replace(batch, sources=()))  # other scans beside it
    assert not is_done(source, replace(batch, options=replace(batch.options, axial_um=3.5)))
    assert not is_done(source, replace(batch, options=Options(("npz", "overlay"))))
    os.utime(source.paths[0], ns=(1, 1))
    assert not is_done(source, batch)
    assert work(source, batch).outcome.status == "done"
    assert is_done(source, batch)
    (batch.out / "scan7.npz").write_bytes(b"")
    assert not is_done(source, batch)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"asked": 1}'])
def test_a_damaged_record_is_none(done, damage):
    source, batch = done
    (batch.out / "scan7.done.json").write_bytes(damage)
    assert not is_done(source, batch)


def test_folders_that_a_worker_does_not_see_are_named_as_the_reason(done, tmp_path):
    source, batch = done
    with pytest.raises(UsageError, match="file system that all of them share"):
        work(source, replace(batch, out=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="file system that all of them share"):
        work(replace(source, paths=(tmp_path / "nowhere" / "scan7.dcm",)), batch)


@pytest.mark.parametrize(("address", "ray", "words"), [("local", None, "pip install octedge[cluster]"), ("", 0, "--cluster is empty")])
def test_without_ray_or_an_address_it_says_what_to_do(done, tmp_path, monkeypatch, address, ray, words):
    if ray is None:
        monkeypatch.setitem(sys.modules, "ray", None)
    call = ["segment", str(tmp_path / "scan7.dcm"), "--out", str(tmp_path / "new"), "--model", str(done[1].bundle), "--cluster", address]
    result = CliRunner().invoke(main, call)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_scan_that_every_worker_dies_of_is_refused_and_the_others_go_on(done, monkeypatch):
    source, batch = done
    other = replace(source, name="deadly")

    def start(sources):
        def answer(one):
            if one.name == "deadly":
                raise WorkerLost("a worker died 4 times")
            return work(one, batch)

        return [partial(answer, one) for one in sources]

    @contextmanager
    def alone(*_):
        yield SimpleNamespace(start=start)

    monkeypatch.setattr("octedge.workers.cluster", alone)
    answers = list(segment_on("local", replace(batch, sources=(other, source))))
    assert [(each.outcome.name, each.outcome.status) for each in answers] == [("deadly", "refused"), ("scan7", "done")]
    assert answers[0].outcome.error == "deadly: a worker died 4 times"
