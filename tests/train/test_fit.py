"""Training, small: it learns, stops and goes on, keeps its best weights, and fails with its checkpoint in place."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from octedge.anatomy import KEYS
from octedge.cli import main
from octedge.errors import OutputError, UsageError
from octedge.train import fit as loop
from octedge.train.checkpoint import Validation, best, difference, exhausted
from octedge.train.cohort import Split
from octedge.train.fit import Course, Trial, fit, learning_rate, load_weights
from octedge.train.machine import arithmetic, native_bf16
from octedge.train.recipe import Finish, Recipe, Sampling, write_recipe
from octedge.train.validate import Counts, Scores, SetScores
from tests.train.tiny import RECIPE, SHORT, SPLIT, quiet

COURSE = Course(RECIPE, SPLIT, quiet)
QUICK = Course(SHORT, SPLIT, quiet)
TRIAL = Trial("b", 1)


def scored(iou):
    """Scores whose mean IoU is that many percent."""
    counts = Counts((iou,), (100,), (iou,), (), (), ())
    return Scores({"x": SetScores("maker", ("nfl",), (), {"someone": counts})})


def scripted(monkeypatch, *ious):
    """Validations that end as given; returns the weights that each has seen."""
    seen, left = [], iter(ious)

    def validate(graph, *_):
        seen.append({name: value.clone() for name, value in graph.state_dict().items()})
        return scored(next(left))

    monkeypatch.setattr(loop, "validate", validate)
    return seen


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_network_learns_bands_it_has_not_seen(tmp_path):
    scores = fit(Trial("a", 1), COURSE, tmp_path)
    assert scores.sets["bands"].iou > 0.9
    assert scores.sets["bands"].boundary < 1


def test_a_training_stops_early_and_goes_on_along_the_same_schedule(tmp_path):
    whole = fit(TRIAL, QUICK, tmp_path / "whole")
    half = fit(TRIAL, QUICK, tmp_path / "halves", until=8)
    assert steps_of(tmp_path / "halves") == [4, 8]
    resumed = replace(QUICK, resume=True, workers=0)
    assert fit(TRIAL, resumed, tmp_path / "halves") == whole
    first, second = (load_weights(tmp_path / name, SHORT.candidates["b"], len(KEYS)).state_dict() for name in ("whole", "halves"))
    assert same(first, second)
    assert fit(TRIAL, resumed, tmp_path / "halves", until=8) == half  # asked again, the answer is the same


def test_the_best_weights_are_kept_and_a_training_without_gain_ends(tmp_path, monkeypatch):
    seen = scripted(monkeypatch, 50, 70, 60, 70, 99)
    patient = replace(QUICK, recipe=msgspec.structs.replace(SHORT, validate_every=2, patience=2))
    assert fit(TRIAL, patient, tmp_path) == scored(70)
    assert steps_of(tmp_path) == [2, 4, 6, 8]
    assert same(torch.load(tmp_path / "weights.pt", weights_only=True), seen[1])
    assert fit(TRIAL, replace(patient, resume=True), tmp_path) == scored(70)  # and is over when asked to go on


def test_the_best_validation_is_the_first_of_equal_ones_and_the_last_where_nothing_was_scored():
    unknown = Scores({})
    assert best([Validation(step, 1.0, scored(iou)) for step, iou in enumerate((3, 7, 7, 5))]).step == 1
    assert best([Validation(step, 1.0, unknown) for step in range(3)]).step == 2
    assert not exhausted([Validation(step, 1.0, unknown) for step in range(9)], patience=1)
    assert not exhausted([], patience=1)


def test_without_validation_scans_the_last_weights_are_kept(tmp_path):
    fit(TRIAL, replace(QUICK, split=Split(SPLIT.train, ())), tmp_path)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert same(torch.load(tmp_path / "weights.pt", weights_only=True), state["average"])


def test_a_training_that_runs_away_stops_and_its_checkpoint_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "learning_rate", lambda step, *_: 1e30 if step > 3 else 1e-3)
    with pytest.raises(UsageError, match=r"(the loss is|weights are) .* at step [567]; .*lower rate.*the checkpoint of step 4 stays"):
        fit(TRIAL, replace(QUICK, recipe=msgspec.structs.replace(SHORT, save_every=7)), tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 4


def test_out_of_memory_says_what_to_lower(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "marginal", lambda *_: torch.empty(1 << 50, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"out of memory: b seed 1, batches of 8192 pixels \(4 windows of 64 x 32\); lower"):
        fit(TRIAL, QUICK, tmp_path)


def test_another_error_of_torch_is_not_called_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "marginal", lambda *_: torch.ones(2) + torch.ones(3))
    with pytest.raises(RuntimeError, match="must match the size"):
        fit(TRIAL, QUICK, tmp_path)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line):
        if "step 4/" in line:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    try:
        with pytest.raises(OutputError, match=r"state.pt: cannot be written .*the checkpoint of step 4 stays"):
            fit(TRIAL, replace(QUICK, say=fill), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {"state.pt", "history.jsonl"}
    assert steps_of(tmp_path) == [4]
    fit(TRIAL, replace(QUICK, resume=True), tmp_path)
    assert steps_of(tmp_path) == [4, 8, 12]


def test_a_checkpoint_of_another_recipe_or_none_at_all_is_refused(tmp_path):
    fit(TRIAL, QUICK, tmp_path, until=1)
    other = replace(QUICK, resume=True, recipe=msgspec.structs.replace(SHORT, rate=0.5))
    with pytest.raises(UsageError, match=r"state.pt: another recipe made it: rate was 0.01, is 0.5"):
        fit(TRIAL, other, tmp_path)
    whole = (tmp_path / "state.pt").read_bytes()
    for damaged in (whole[:1000], b"", whole[:-200] + bytes(200)):
        (tmp_path / "state.pt").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"state.pt: not a checkpoint"):
            fit(TRIAL, replace(QUICK, resume=True), tmp_path)


def test_the_first_field_in_which_recipes_differ_is_named():
    assert difference(RECIPE, RECIPE) == ""
    change = msgspec.structs.replace
    assert difference(RECIPE, change(RECIPE, sampling=Sampling(window=64, stride=32))).startswith("sampling.window was 32, is 64")
    assert difference(RECIPE, change(RECIPE, candidates={"a": RECIPE.candidates["a"]})).startswith("candidates.b was {")
    assert difference(RECIPE, change(RECIPE, finish=Finish(shares={"x": 1.0}))) == "finish.shares.x was None, is 1.0"
    assert difference(RECIPE, change(RECIPE, seeds=(1, 2))) == "seeds was [1], is [1, 2]"
    assert difference(RECIPE, change(RECIPE, seeds=(3,))) == "seeds[0] was 1, is 3"


def test_a_run_is_not_gone_on_with_by_another_recipe(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_recipe(RECIPE, run / "recipe.json")
    write_recipe(msgspec.structs.replace(RECIPE, steps=80), tmp_path / "other.json")
    done = CliRunner().invoke(main, ["train", str(tmp_path / "other.json"), "--out", str(run), "--resume"])
    assert done.exit_code == 2
    assert "steps was 60, is 80" in done.stderr
    assert json.loads((run / "recipe.json").read_bytes())["steps"] == 60


def test_progress_says_step_loss_iou_pace_and_time_left(tmp_path):
    lines = []
    fit(TRIAL, replace(QUICK, say=lines.append), tmp_path)
    assert [line.split()[4] for line in lines] == ["3/12", "4/12", "6/12", "8/12", "9/12", "12/12"]
    assert all(part in lines[1] for part in ("b seed 1", "loss ", "s/step", "min left", "IoU 0.", "bands vitreous 0."))
    assert "IoU" not in lines[0]
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_curves_are_drawn_where_they_are_asked_for(tmp_path):
    fit(TRIAL, replace(QUICK, tensorboard=True), tmp_path, until=4)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert all(name in events.read_bytes() for name in (b"loss", b"rate", b"iou/bands/vitreous"))


def test_curves_without_tensorboard_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="needs the package tensorboard"):
        fit(TRIAL, replace(QUICK, tensorboard=True), tmp_path)


def test_a_batch_is_not_divided_among_more_processes_than_it_has_windows():
    with pytest.raises(UsageError, match="as few as 4 windows for 5 processes"):
        loop.draw_from(SPLIT.train, RECIPE, 1, 5)
    with pytest.raises(UsageError, match="no source has B-scans left"):
        loop.draw_from((), RECIPE, 1, 1)


def test_mixed_precision_is_what_the_device_has():
    assert arithmetic("fp32", "cuda", bf16=True) == "32-true"
    assert arithmetic("bf16", "cuda", bf16=True) == arithmetic("bf16", "cpu", bf16=True) == "bf16-mixed"
    assert arithmetic("bf16", "cuda", bf16=False) == "16-mixed"
    assert arithmetic("bf16", "cpu", bf16=False) == "32-true"


@pytest.mark.parametrize(("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_convolutions_are_done_in_the_precision_asked_for(precision, expected):
    if precision == "bf16" and not native_bf16("cpu"):
        pytest.skip("this processor has no bf16")
    recipe = msgspec.structs.replace(RECIPE, precision=precision)
    training = loop.start(recipe, TRIAL)
    seen = []
    for layer in training.graph.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, given, answer: seen.append(answer.dtype))
    loop.train_step(training, loop.draw_from(SPLIT.train, recipe, 1, 1).batch(0))
    assert set(seen) == {expected}


def test_mixed_precision_learns_too(tmp_path):
    mixed = msgspec.structs.replace(RECIPE, precision="bf16", steps=40)
    assert fit(TRIAL, replace(COURSE, recipe=mixed), tmp_path).mean > 0.7


def test_a_schedule_without_steps_is_refused():
    for name in ("steps", "validate_every", "save_every"):
        with pytest.raises(UsageError, match="needed are steps, validate_every and save_every of 1 or more"):
            msgspec.structs.replace(RECIPE, **{name: 0})
    assert isinstance(RECIPE, Recipe)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate(step, 200, 1.0) for step in range(200)]
    assert np.argmax(rates) == 9
    assert rates[0] < 0.2
    assert rates[-1] < 1e-3
    assert (np.diff(rates[9:]) <= 0).all()


def test_an_unfinished_candidate_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not finished"):
        load_weights(tmp_path, RECIPE.candidates["a"], 3)
