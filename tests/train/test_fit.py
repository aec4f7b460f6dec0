"""Training end to end, small: it learns, resumes to the same weights, and its run folder rebuilds it."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.train.cohort import Example, Set, Split
from octedge.train.fit import Course, Trial, fit, learning_rate, load_weights
from octedge.train.manifest import Phantoms
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, Sampling, read_recipe
from octedge.train.select import choose, read_selection, read_split, train_all
from octedge.train.validate import Counts, Scores, SetScores

RECIPE = Recipe(
    name="tiny",
    source=(Phantoms(),),
    candidates={"a": UNet(convs=1, kernels=6, downs=2), "b": UNet(convs=1, kernels=4, downs=2)},
    sampling=Sampling(window=32, stride=16, heights=(64,), pixels=4 * 64 * 32, augment=False),
    steps=60, rate=1e-2, validate_every=20, average=0.9, precision="fp32",
)  # fmt: skip
GROUPS = ("vitreous", "nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe", "choroid+sclera")


def bands(seed):
    """Dark above, bright band, grey below: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    top = 20 + np.rint(5 * np.sin(np.arange(64) / 9 + seed)).astype(int)
    depth = np.arange(60)[:, None]
    reference = (depth >= top).astype(np.uint8) + (depth >= top + 12)
    image = np.array([10, 220, 110])[reference] * rng.gamma(8, 1 / 8, reference.shape)
    return Example(f"{seed}", f"{seed}", np.clip(image, 0, 255).astype(np.uint8), reference, np.stack([top, top + 12]) - 0.5)


SPLIT = Split(
    (Set("bands", GROUPS, tuple(bands(seed) for seed in range(4)), 1.0),),
    (Set("bands", GROUPS, tuple(bands(seed) for seed in range(10, 12)), 1.0),),
)


def quiet(_: str) -> None:
    """Tells nobody."""


COURSE = Course(RECIPE, SPLIT, quiet)


def test_a_network_learns_bands_it_has_not_seen(tmp_path):
    scores = fit(Trial("a", 1), COURSE, tmp_path)
    assert scores.sets["bands"].iou > 0.9
    assert scores.sets["bands"].boundary < 1


def test_a_resumed_run_ends_with_the_weights_of_the_undisturbed_one(tmp_path):
    fit(Trial("b", 1), COURSE, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_after_40(line):
        if "step 40:" in line:
            raise Stop

    with pytest.raises(Stop):
        fit(Trial("b", 1), replace(COURSE, say=stop_after_40), tmp_path / "halves")
    fit(Trial("b", 1), replace(COURSE, resume=True), tmp_path / "halves")
    whole, halves = (load_weights(tmp_path / name, RECIPE.candidates["b"], len(KEYS)).state_dict() for name in ("whole", "halves"))
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name


def test_a_run_compares_its_candidates_and_can_be_rebuilt_from_its_folder(tmp_path):
    screened = msgspec.structs.replace(RECIPE, steps=40, screen_steps=20)
    selection = train_all(replace(COURSE, recipe=screened), tmp_path / "run")
    assert {each.name for each in selection.candidates} == {"a", "b"}
    assert selection.candidates[0].iou >= selection.candidates[1].iou
    assert read_selection(tmp_path / "run") == selection
    assert [each.patients for each in read_split(tmp_path / "run")["validation"]] == [("10", "11")]
    again = read_recipe(tmp_path / "run" / "recipe.json")
    assert again == screened
    train_all(replace(COURSE, recipe=again), tmp_path / "again")
    target = selection.target.name
    folders = (Trial(target, 1).folder(tmp_path / run) for run in ("run", "again"))
    first, second = (load_weights(folder, screened.candidates[target], len(KEYS)).state_dict() for folder in folders)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_of_equal_candidates_the_smaller_is_chosen():
    counts = Counts((80,), (100,), (90,), (), (), ())
    scores = Scores({"x": SetScores("maker", ("nfl",), (), {"someone": counts})})
    assert choose(RECIPE, 1, {Trial("a", 1): scores, Trial("b", 1): scores}).target.name == "b"


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate(step, 200, 1.0) for step in range(200)]
    assert np.argmax(rates) == 9
    assert rates[0] < 0.2
    assert rates[-1] < 1e-3
    assert (np.diff(rates[9:]) <= 0).all()


def test_an_unfinished_candidate_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not finished"):
        load_weights(tmp_path, RECIPE.candidates["a"], 3)
    with pytest.raises(UsageError, match="let `octedge train` finish"):
        read_selection(tmp_path)
