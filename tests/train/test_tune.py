"""Tuning: the grid, halving and choice by themselves, then a whole small run, killed and resumed."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.cli import main
from octedge.errors import UsageError
from octedge.train.fit import fit
from octedge.train.grid import grid, target_of
from octedge.train.networks import Family, UNet
from octedge.train.pareto import front, picture
from octedge.train.recipe import Tune, read_recipe, write_recipe
from octedge.train.select import read_selection
from octedge.train.tune import Budget, Study, at_home, choose, halve, rungs_of, tune
from octedge.train.tuning import Tried, Tuning
from tests.train.tiny import RECIPE, SPLIT, quiet

CANDIDATES = {"a": UNet(convs=1, kernels=2, downs=2)}
TUNE = Tune(kernels=(2, 3, 8), windows=(32, 64), rungs=(0.5,))
SMALL = msgspec.structs.replace(RECIPE, candidates=CANDIDATES, tune=TUNE, steps=4, validate_every=2)


def cost(shapes):
    """A made-up engine: a millisecond per kernel."""
    return [float(shape.kernels) for shape in shapes]


def study(run, **changes):
    return replace(Study(SMALL, "a", SPLIT, Budget(5, cost, "a made-up engine"), run), **changes)


def tried(name, ms, iou=None, stopped=""):
    return Tried(name=name, shape=UNet(), window=32, parameters=1, ms=ms, iou={} if iou is None else {4: iou}, stopped=stopped)


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
    class Plain(Family, frozen=True, kw_only=True, tag="plain"):
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_halving_stops_the_worse_half_and_never_the_best(values):
    iou = {f"t{index}": value for index, value in enumerate(values)}
    asked = []

    def train(names, rung):
        asked.append((rung, len(names)))
        return [iou[name] for name in names]

    found = halve([tried(name, 1.0) for name in iou], (1, 2, 4), train)
    sizes = [len(values), (len(values) + 1) // 2, ((len(values) + 1) // 2 + 1) // 2]
    assert asked == list(zip((1, 2, 4), sizes, strict=True))
    assert sorted(each.name for each in found) == sorted(iou)
    ended = [each for each in found if not each.stopped]
    assert len(ended) == sizes[-1]
    assert min(each.last for each in ended) >= max([each.last for each in found if each.stopped], default=0)


def test_rungs_are_shares_of_the_steps_and_end_with_all_of_them():
    assert rungs_of((0.25, 0.5), 100) == (25, 50, 100)
    assert rungs_of((0.1, 0.2), 2) == (1, 2)


def test_the_choice_is_the_highest_or_the_fastest_within_noise_of_it():
    slow, near, far = tried("slow", 9, 0.9), tried("near", 5, 0.8985), tried("far", 1, 0.89)
    assert choose([slow, near, far], 0.002)[0] == near
    chosen, reason = choose([slow, near, far], 0.001)
    assert chosen == slow
    assert "highest" in reason


def test_the_front_leaves_out_who_is_slower_and_not_better():
    fast, slow, lost = tried("fast", 1, 0.5), tried("slow", 3, 0.7), tried("lost", 2, 0.5)
    assert front([slow, lost, fast]) == [fast, slow]


def test_a_budget_that_nothing_meets_names_the_fastest_shape_and_trains_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"budget of 1 ms: the fastest is c1-k2-d2-x96 with 2\.0 ms"):
        tune(study(tmp_path / "run", budget=Budget(1, cost, "here")), at_home(SPLIT, quiet), quiet)
    assert not (tmp_path / "run").exists()


def test_a_killed_tuning_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    whole = tune(study(tmp_path / "whole"), at_home(SPLIT, quiet), quiet)
    assert {each.name for each in whole.trials if each.stopped == "over 5 ms"} == {"c1-k8-d2-x96-w32", "c1-k8-d2-x96-w64"}
    assert sorted(len(each.iou) for each in whole.trials) == [0, 0, 1, 1, 2, 2]
    assert not (tmp_path / "whole" / "c1-k8-d2-x96-w32").exists()
    assert read_selection(tmp_path / "whole" / whole.chosen).target.name == "a"
    assert read_recipe(tmp_path / "whole" / whole.chosen / "recipe.json").steps == 4
    fitted = []

    class Killed(Exception):
        pass

    def killed_at_the_sixth(trial, course, folder, until):
        fitted.append(until)
        if len(fitted) == 6:
            raise Killed
        return fit(trial, course, folder, until)

    monkeypatch.setattr("octedge.train.tune.fit", killed_at_the_sixth)
    run = study(tmp_path / "run")
    with pytest.raises(Killed):
        tune(run, at_home(SPLIT, quiet), quiet)
    with pytest.raises(UsageError, match="--resume"):
        tune(run, at_home(SPLIT, quiet), quiet)
    assert tune(replace(run, resume=True), at_home(SPLIT, quiet), quiet) == whole
    assert fitted == [2, 2, 2, 2, 4, 4, 4]
    assert msgspec.json.decode((tmp_path / "run" / "tune.json").read_bytes(), type=Tuning) == whole
    assert whole.chosen in whole.table()
    with pytest.raises(UsageError, match="measured on a made-up engine, now it is another"):
        tune(replace(run, resume=True, budget=Budget(5, cost, "another")), at_home(SPLIT, quiet), quiet)
    with pytest.raises(UsageError, match="another recipe"):
        tune(replace(run, resume=True, recipe=msgspec.structs.replace(SMALL, rate=1.0)), at_home(SPLIT, quiet), quiet)


def test_minutes_bound_the_steps_of_every_trial(tmp_path):
    short = replace(study(tmp_path / "run", minutes=1e-9), recipe=msgspec.structs.replace(SMALL, steps=9))
    assert tune(short, at_home(SPLIT, quiet), quiet).steps == 1


def test_the_picture_is_written(tmp_path):
    half, over = tried("half", 4, 0.6, "worse half after 2 steps"), tried("over", 9, stopped="over 6 ms")
    trials = (tried("fast", 2, 0.71), half, tried("good", 5, 0.80), over)
    tuning = Tuning(
        target="a", where="ort, 496 x 768", budget_ms=6, steps=4, rungs=(2, 4), noise=0.002,
        chosen="good", reason="highest IoU within the budget (0.8000)", trials=trials,
    )  # fmt: skip
    picture(tuning, tmp_path / "tune.png")
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_what_it_cannot_do(tmp_path, capsys):
    recipe = tmp_path / "recipe.json"
    write_recipe(SMALL, recipe)
    for more, message in ((["--engine", "abacus"], "no engine is called 'abacus'"), (["--size", "496"], "rows x columns")):
        with pytest.raises(SystemExit) as stop:
            main(["tune", str(recipe), "--out", str(tmp_path / "run"), "--budget-ms", "5", *more])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
