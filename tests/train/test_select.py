"""The rule on made-up scores, and runs that stop the worse candidates, are killed and go on."""

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from octedge.cli.workstation import select as command
from octedge.errors import UsageError
from octedge.train import select as module
from octedge.train.fit import Course, Trial
from octedge.train.manifest import Phantoms
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, Sampling
from octedge.train.select import choose, read_selection, train_all
from octedge.train.validate import Counts, Scores, SetScores
from tests.train.tiny import SPLIT, quiet

SMALL = {"convs": 1, "kernels": 2, "downs": 1}
RECIPE = Recipe(
    name="tiny",
    source=(Phantoms(),),
    candidates={name: UNet(**SMALL | {"kernels": kernels}) for name, kernels in (("a", 4), ("b", 2), ("c", 3), ("d", 2))},
    sampling=Sampling(window=16, stride=8, heights=(64,), pixels=64 * 16, augment=False),
    steps=12, validate_every=100, precision="fp32", seeds=(1, 2),
)  # fmt: skip
COURSE = Course(RECIPE, SPLIT, quiet)
GROUPS = ("vitreous", "nfl", "rpe", "fluid")


def made(level, patients=8, vendors=("one", "two"), seed=0):
    """Scores of a trial: IoU of both layers about `level`, the second vendor's 0.1 lower."""
    rng = np.random.default_rng(seed)
    sets = {}
    for index, vendor in enumerate(vendors):
        people = {}
        for person in range(patients):
            shared = np.rint(1000 * (level - 0.1 * index + rng.normal(0, 0.01, 2))).astype(int).tolist()
            people[f"p{person}"] = Counts((1, *shared, 0), (1, 1000, 1000, 0), (1, *shared, 0), (), (), ())
        sets[f"set {vendor}"] = SetScores(vendor, GROUPS, (), people)
    return Scores(sets)


def trials(levels, **more):
    return {Trial(name, seed): made(level, seed=seed, **more) for name, level in levels.items() for seed in (1, 2, 3)}


def verdicts(selection):
    return {each.name: each.verdict for each in selection.candidates}


def test_a_copy_is_no_different_and_the_cheaper_one_is_chosen():
    selection = choose(RECIPE, 5, trials({"a": 0.8, "b": 0.8}))
    assert verdicts(selection) == {"b": "target", "a": "no difference"}
    dear = choose(RECIPE, 5, trials({"a": 0.8, "b": 0.8}), cost=lambda shape: 100 / msgspec.structs.asdict(shape)["kernels"])
    assert verdicts(dear) == {"a": "target", "b": "no difference"}
    assert (dear.cost_unit, dear.target.cost, selection.cost_unit) == ("ms", 25, "GMAC")
    assert "ms" in dear.table()
    assert dear.candidates[1].to_target == msgspec.structs.replace(dear.target.to_leader, value=0, low=0, high=0)


def test_a_clearly_better_one_is_chosen_however_dear():
    rows = {Trial(name, seed): made(level, seed=more + seed) for name, level, more in (("b", 0.75, 0), ("a", 0.8, 9)) for seed in (1, 2, 3)}
    selection = choose(RECIPE, 5, rows)
    assert verdicts(selection) == {"a": "target", "b": "worse"}
    worse = selection.candidates[1].to_leader
    assert worse.low < worse.value < worse.high < 0
    assert worse.value == pytest.approx(-0.05, abs=0.005)


def test_a_cheaper_one_within_the_noise_takes_the_leaders_place():
    rows = {Trial("a", seed): made(0.8, seed=seed) for seed in (1, 2, 3)}
    rows |= {Trial("b", seed): made(0.799, seed=9 + seed) for seed in (1, 2, 3)}
    selection = choose(RECIPE, 5, rows)
    assert verdicts(selection) == {"b": "target", "a": "no difference"}
    assert selection.target.reason == "no difference to a, cheaper"
    assert selection.target.score.value < selection.candidates[1].score.value


def test_the_score_weighs_the_worst_vendor_and_the_mean_over_the_sources():
    each = choose(RECIPE, 5, trials({"a": 0.8})).target
    assert each.mean.value == pytest.approx(np.mean([scores.mean for scores in each.seeds.values()]))
    assert each.vendors["two"].mean == pytest.approx(each.worst.value)
    assert each.worst_vendor == "two"
    assert each.score.value == pytest.approx((each.mean.value + each.worst.value) / 2)
    assert each.worst.low < each.worst.value < each.worst.high
    assert set(each.sources["set one"].structures) == {"vitreous", "nfl", "rpe"}
    assert set(each.sources["set one"].structures["nfl"].seeds) == {1, 2, 3}
    assert each.sources["set one"].iou.mean == pytest.approx(each.vendors["one"].mean)


def test_two_patients_give_no_interval_and_no_verdict():
    selection = choose(RECIPE, 5, trials({"a": 0.8, "b": 0.7, "c": 0.8}, patients=2))
    assert verdicts(selection) == {"c": "target", "a": "no difference", "b": "undecided"}
    assert all(each.mean.low is None for each in selection.candidates)
    assert "set one: 2 patients" in selection.notes[0]
    assert "[" not in selection.table().splitlines()[1]


def test_without_an_interval_a_difference_within_the_recipes_noise_is_none():
    rows = trials({"a": 0.8, "b": 0.799}, patients=2)
    assert verdicts(choose(RECIPE, 5, rows)) == {"a": "target", "b": "undecided"}
    assert verdicts(choose(msgspec.structs.replace(RECIPE, noise=0.002), 5, rows)) == {"b": "target", "a": "no difference"}
    with pytest.raises(UsageError, match=r"noise 1 given"):
        msgspec.structs.replace(RECIPE, noise=1)


def test_the_best_seed_is_the_one_with_the_highest_score():
    rows = {Trial("a", 1): made(0.7), Trial("a", 5): made(0.8), Trial("a", 9): made(0.75)}
    assert choose(RECIPE, 5, rows).target.best == 5


def test_other_patients_or_seeds_and_no_layers_are_refused():
    with pytest.raises(UsageError, match="different patients"):
        choose(RECIPE, 5, {Trial("a", 1): made(0.7), Trial("b", 1): made(0.7, patients=3)})
    with pytest.raises(UsageError, match="different patients or seeds"):
        choose(RECIPE, 5, {Trial("a", 1): made(0.7), Trial("b", 2): made(0.7)})
    fluid = Scores({"x": SetScores("maker", ("fluid",), (), {"p": Counts((1,), (2,), (2,), (), (), ())})})
    with pytest.raises(UsageError, match="no layer"):
        choose(RECIPE, 5, {Trial("a", 1): fluid})


class Fits:
    """Stands in for training: candidates score by their names, more with every step; hears who is trained, may be killed."""

    def __init__(self, killed_at=None):
        self.calls, self.killed_at = [], killed_at

    def __call__(self, trial, course, folder, until=None):
        if len(self.calls) == self.killed_at:
            raise KeyboardInterrupt
        self.calls.append((str(trial), until, course.recipe.steps, course.resume))
        return made(0.9 - 0.1 * "abcd".index(trial.name) + until / 1000, seed=trial.seed)


def train(tmp_path, monkeypatch, fits, resume=False, **fields):
    monkeypatch.setattr(module, "fit", fits)
    return train_all(replace(COURSE, recipe=msgspec.structs.replace(RECIPE, **fields), resume=resume), tmp_path)


def test_the_worse_half_stops_with_all_its_seeds(tmp_path, monkeypatch):
    fits = Fits()
    selection = train(tmp_path, monkeypatch, fits, rungs=(3, 6))
    assert [(name, until) for name, until, _, _ in fits.calls] == [
        *((f"{name} seed {seed}", 3) for name in "abcd" for seed in (1, 2)),
        *((f"{name} seed {seed}", 6) for name in "ab" for seed in (1, 2)),
        *((f"a seed {seed}", 12) for seed in (1, 2)),
    ]
    assert [resume for *_, resume in fits.calls] == [False] * 8 + [True] * 6
    assert [(each.name, each.steps, each.verdict) for each in selection.candidates] == [
        ("a", 12, "target"), ("b", 6, "stopped"), ("c", 3, "stopped"), ("d", 3, "stopped"),
    ]  # fmt: skip
    assert selection.candidates[2].reason == "after 3 steps, number 3 of 4, 2 went on"
    assert [each.stayed for each in selection.rounds] == [("a", "b"), ("a",), ()]
    assert read_selection(tmp_path) == selection


def test_a_killed_run_goes_on_where_it_was_and_decides_the_same(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", monkeypatch, Fits(), rungs=(3, 6))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", monkeypatch, Fits(killed_at=10), rungs=(3, 6))
    with pytest.raises(UsageError, match="--resume"):
        read_selection(tmp_path / "killed")
    later = Fits()
    assert train(tmp_path / "killed", monkeypatch, later, resume=True, rungs=(3, 6)) == whole
    assert later.calls[0] == ("a seed 1", 6, 12, True)
    with pytest.raises(UsageError, match="begun with"):
        train(tmp_path / "killed", monkeypatch, later, resume=True, rungs=(4,))


def test_minutes_give_every_candidate_its_own_steps_and_a_resumed_run_keeps_them(tmp_path, monkeypatch):
    ticks = iter([0, 40, 100, 110])  # 2 and 0.5 seconds a step
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    fits = Fits()
    pair = {name: RECIPE.candidates[name] for name in "ab"}

    def either(trial, course, folder, until=None):
        return fits(trial, course, folder, until or course.recipe.steps)

    selection = train(tmp_path / "run", monkeypatch, either, candidates=pair, minutes_per_trial=2, rungs=(6,), keep=0.9)
    assert {each.name: each.steps for each in selection.candidates} == {"a": 60, "b": 240}
    assert ("a seed 1", 30, 60, False) in fits.calls
    assert ("b seed 2", 120, 240, False) in fits.calls
    again = train(tmp_path / "run", monkeypatch, either, resume=True, candidates=pair, minutes_per_trial=2, rungs=(6,), keep=0.9)
    assert again == selection


def test_a_real_run_stops_a_candidate_and_the_command_shows_it(tmp_path):
    recipe = msgspec.structs.replace(RECIPE, candidates={name: RECIPE.candidates[name] for name in "ab"}, rungs=(4,), steps=6)
    selection = train_all(replace(COURSE, recipe=recipe), tmp_path)
    assert [each.steps for each in selection.candidates] == [6, 4]
    shown = CliRunner().invoke(command, [str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "stopped: after 4 steps, number 2 of 2, 1 went on" in shown.output
    assert "note: no intervals, for bands: 2 patients" in shown.output
    assert "rule: score = " in shown.output
    as_json = CliRunner().invoke(command, [str(tmp_path), "--json"]).stdout
    assert msgspec.json.decode(as_json, type=type(selection)) == selection


def test_a_split_without_layers_to_validate_on_is_refused_before_training(tmp_path):
    with pytest.raises(UsageError, match="hold some back"):
        train_all(replace(COURSE, split=replace(SPLIT, validation=())), tmp_path)


def test_rungs_that_do_not_rise_below_the_steps_are_refused():
    for rungs in ((6, 3), (3, 3), (0,), (12,)):
        with pytest.raises(UsageError, match="rungs"):
            msgspec.structs.replace(RECIPE, rungs=rungs)
    with pytest.raises(UsageError, match="keep"):
        msgspec.structs.replace(RECIPE, keep=1.0)
