"""Tuning: the grid and the front by themselves, then a whole small run, killed and resumed."""

from dataclasses import replace
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.cli import main
from octedge.errors import UsageError
from octedge.train import fit as loop
from octedge.train.fit import Trial
from octedge.train.grid import grid, target_of, varied
from octedge.train.networks import UNet
from octedge.train.networks.family import Common
from octedge.train.pareto import front, picture
from octedge.train.recipe import Tune, read_recipe, write_recipe
from octedge.train.select import choose, read_selection
from octedge.train.selection import Estimate
from octedge.train.tune import Budget, Study, tune
from octedge.train.tuning import Tuning
from octedge.train.validate import Counts, Scores, SetScores
from tests.train.tiny import RECIPE, SPLIT, quiet

CANDIDATES = {"a": UNet(convs=1, kernels=2, downs=2)}
TUNE = Tune(kernels=(2, 3, 8), windows=(32, 64), rungs=(0.5,))
SMALL = msgspec.structs.replace(RECIPE, candidates=CANDIDATES, tune=TUNE, steps=4, validate_every=2)


def cost(shapes):
    """A made-up engine: a millisecond per kernel."""
    return [float(shape.kernels) for shape in shapes]


def study(run, **changes):
    return replace(Study(SMALL, "a", SPLIT, Budget(5, cost, "a made-up engine"), run), **changes)


def test_the_grid_is_every_combination_and_keeps_what_is_not_varied():
    recipe = msgspec.structs.replace(SMALL, tune=Tune(convs=(1, 2), downs=(2, 3), windows=(32, 64)))
    points = grid(recipe, "a")
    found = {(each.shape.convs, each.shape.downs, each.window) for each in points}
    assert found == {(1, 2, 32), (1, 2, 64), (1, 3, 32), (1, 3, 64), (2, 2, 32), (2, 2, 64), (2, 3, 32), (2, 3, 64)}
    assert {each.shape.kernels for each in points} == {2}
    assert len({each.name for each in points}) == 8


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Tune(), "varies nothing"),
        (Tune(windows=(36,), downs=(3,)), "multiples of 2\\^downs = 8; got 36"),
        (Tune(kernels=(0,)), "below 1"),
    ],
)
def test_a_bad_grid_is_refused(wanted, message):
    with pytest.raises(UsageError, match=message):
        grid(msgspec.structs.replace(SMALL, tune=wanted), "a")


def test_a_target_without_the_fields_that_are_varied_is_refused():
    class Plain(Common, frozen=True, kw_only=True, tag="plain"):
        """A family that knows down-samplings alone."""

    recipe = msgspec.structs.replace(SMALL, candidates={"a": Plain(downs=2)})
    with pytest.raises(UsageError, match="family Plain, which has no kernels to tune; vary downs or windows"):
        grid(recipe, "a")


def test_the_target_is_named_or_selected_or_the_only_one():
    two = msgspec.structs.replace(SMALL, candidates={"a": UNet(downs=2), "b": UNet(downs=2)})
    assert target_of(SMALL) == "a"
    assert target_of(two, "b") == "b"
    assert target_of(msgspec.structs.replace(two, tune=Tune(target="b")), "a") == "b"
    with pytest.raises(UsageError, match="several candidates"):
        target_of(two)
    with pytest.raises(UsageError, match="no candidate 'c'"):
        target_of(two, "c")


def test_the_grid_becomes_the_candidates_of_a_recipe_each_with_its_windows():
    recipe = varied(SMALL, grid(SMALL, "a"))
    name = "c1-k3-d2-x96-w64"
    assert len(recipe.candidates) == 6
    assert (recipe.rungs, recipe.noise, recipe.tune.target) == ((2,), TUNE.noise, "")
    own = recipe.of(name)
    assert own.candidates == {name: UNet(convs=1, kernels=3, downs=2)}
    assert (own.sampling.window, own.sampling.stride, own.sampling.heights) == (64, 32, SMALL.sampling.heights)
    assert recipe.of("c1-k3-d2-x96-w32").sampling == SMALL.sampling
    assert own.of(name) == own
    few = varied(msgspec.structs.replace(SMALL, tune=Tune(kernels=(2,), rungs=(0.1, 0.2, 0.95))), grid(SMALL, "a"))
    assert few.rungs == (1,)


def test_windows_of_a_candidate_that_is_not_there_are_refused():
    with pytest.raises(UsageError, match="windows are given for b; the candidates are a"):
        msgspec.structs.replace(SMALL, windows={"b": 64})


@cache
def candidate():
    scores = Scores({"x": SetScores("maker", ("nfl",), (), {"someone": Counts((7,), (9,), (9,), (), (), ())})})
    return choose(SMALL, 4, {Trial("a", 1): scores}).target


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
@settings(deadline=None)
def test_the_front_holds_whoever_is_beaten_by_none(pairs):
    trials = [msgspec.structs.replace(candidate(), cost=float(ms), mean=Estimate(float(iou))) for ms, iou in pairs]
    found = front(trials)
    assert [each.cost for each in found] == sorted({each.cost for each in found})
    for each in trials:
        beaten = any(other.iou >= each.iou and other.cost <= each.cost for other in found if other != each)
        assert beaten or each in found


def test_a_budget_that_nothing_meets_names_what_shapes_cost_and_trains_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"budget of 1 ms \(here\): c1-k2-d2-x96 2\.0 ms, "):
        tune(study(tmp_path / "run", budget=Budget(1, cost, "here")), quiet)
    assert not (tmp_path / "run").exists()


def test_nothing_to_compare_by_is_said_before_anything_is_measured(tmp_path):
    with pytest.raises(UsageError, match="hold some back"):
        tune(study(tmp_path / "run", split=replace(SPLIT, validation=()), budget=Budget(5, None, "here")), quiet)


def test_a_killed_tuning_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    steps = []
    train_step = loop.train_step

    class Killed(Exception):
        pass

    def counted(training, batch):
        if len(steps) == 11:
            steps.append("killed")
            raise Killed
        steps.append(training.recipe.steps)
        return train_step(training, batch)

    tuning, whole = tune(study(tmp_path / "whole"), quiet)
    monkeypatch.setattr(loop, "train_step", counted)
    assert tuning.over == {"c1-k8-d2-x96": 8.0}
    assert sorted((each.name, each.steps) for each in whole.candidates if each.verdict != "stopped") == sorted(
        (each, 4) for each in whole.rounds[0].stayed
    )
    assert [each.steps for each in whole.candidates] == [4, 4, 2, 2]
    assert all(each.cost == cost([UNet(kernels=int(each.name[4]))])[0] for each in whole.candidates)
    assert read_selection(tmp_path / "whole") == whole
    assert not (tmp_path / "whole" / "c1-k8-d2-x96-w32").exists()
    run = study(tmp_path / "run")
    with pytest.raises(Killed):
        tune(run, quiet)
    with pytest.raises(UsageError, match="--resume"):
        tune(run, quiet)
    again = replace(run, resume=True)
    assert tune(replace(again, budget=Budget(5, None, "a made-up engine")), quiet) == (tuning, whole)  # measured once
    assert len(steps) == 1 + 4 * 2 + 2 * 2 + 1  # one step was killed, one lost with it
    assert msgspec.json.decode((tmp_path / "run" / "tune.json").read_bytes(), type=Tuning) == tuning
    assert read_recipe(tmp_path / "run" / "recipe.json").of(whole.target.name).sampling.window == int(whole.target.name[-2:])
    picture(tuning, whole, tmp_path / "tune.png")
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="measured on a made-up engine, now it is another"):
        tune(replace(again, budget=Budget(5, cost, "another")), quiet)
    with pytest.raises(UsageError, match="begun with another recipe: rate"):
        tune(replace(again, recipe=msgspec.structs.replace(SMALL, rate=1.0)), quiet)
    with pytest.raises(UsageError, match="another grid"):
        tune(replace(again, recipe=msgspec.structs.replace(SMALL, tune=Tune(kernels=(2,)))), quiet)


def test_minutes_bound_every_trial_at_its_own_pace(tmp_path):
    recipe = msgspec.structs.replace(SMALL, minutes_per_trial=1e-9, tune=Tune(kernels=(2,), windows=(32,)))
    _, selection = tune(study(tmp_path / "run", recipe=recipe), quiet)
    assert [each.steps for each in selection.candidates] == [1]


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    write_recipe(SMALL, recipe)
    for more, message in ((["--engine", "abacus"], "no engine is called 'abacus'"), (["--size", "496"], "rows x columns")):
        with pytest.raises(SystemExit) as stop:
            main(["tune", str(recipe), "--out", str(tmp_path / "run"), "--budget-ms", "5", *more])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
