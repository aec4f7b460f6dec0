"""Training in processes of its own: killed and resumed, or two that share the work."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from octedge.train.fit import Course, Trial, fit
from tests.train.tiny import RECIPE, SPLIT, quiet

ROOT = Path(__file__).parents[2]
COURSE = Course(RECIPE, SPLIT, quiet)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(Trial("a", 1), COURSE, folder), folder


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("last", [31, 42])  # one step after a checkpoint; two after a validation
def test_a_killed_training_goes_on_to_the_very_same_weights(last, undisturbed, tmp_path):
    scores, whole = undisturbed
    checkpoint = {31: 30, 42: 40}[last]
    with start("tests.train.tiny", str(tmp_path), str(last)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if f"step {checkpoint}/" in line:
                process.kill()
                break
        else:
            pytest.fail(process.stderr.read())
    (tmp_path / ".octedge-0123.tmp").write_bytes(b"half a checkpoint")
    assert fit(Trial("a", 1), replace(COURSE, resume=True), tmp_path) == scores
    assert not list(tmp_path.glob("*.tmp"))
    for name in ("history.jsonl", "scores.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert [json.loads(line)["step"] for line in (tmp_path / "history.jsonl").read_text().splitlines()] == [20, 40, 60]
    before, after = (torch.load(folder / "weights.pt", weights_only=True) for folder in (whole, tmp_path))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.slow
def test_two_processes_train_as_one_does(undisturbed, tmp_path):
    scores, _ = undisturbed
    with start("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.train.tiny", str(tmp_path)) as process:
        said, complaints = process.communicate(timeout=500)
    assert process.returncode == 0, complaints
    first, second = (float((tmp_path / f"iou-{rank}").read_text(encoding="utf-8")) for rank in range(2))
    assert first == second == pytest.approx(scores.mean, abs=0.05)
    assert said.count("step 60/60") == 1  # one of them speaks
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 3
