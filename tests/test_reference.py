"""The shipped model: what it is, that its answers are always possible, and how good it is on subjects it has not seen."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from octedge.anatomy import KEYS
from octedge.edge.bundle import REFERENCE
from octedge.edge.model import open_model
from octedge.geometry import labels_from_surfaces
from octedge.segment import plan, segment
from octedge.train.cohort import load
from octedge.train.recipe import read_recipe
from octedge.train.validate import Answer, score

RECIPE = Path(__file__).parents[1] / "recipes" / "reference.toml"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return open_model()


def test_it_knows_every_structure_and_says_what_rests_on_phantoms(model):
    card = model.bundle.card
    assert card.structures == KEYS
    assert card.exact
    caveats = " ".join(card.caveats)
    for key in ("gcl", "elm", "mz", "sclera", "disc", "phantoms"):
        assert key in caveats
    assert {source.name for source in card.sources} == {"duke-dme", "octlayers", "phantoms"}
    assert all(source.licence for source in card.sources)


def test_it_is_small_enough_to_ship_and_every_file_is_listed():
    files = {file.name: file.stat().st_size for file in REFERENCE.iterdir()}
    assert max(files.values()) == files["model.onnx"] <= 4_000_000
    listed = {line.split("  ")[1] for line in (REFERENCE / "SHA256SUMS").read_text().splitlines()}
    assert listed == set(files) - {"SHA256SUMS"}


def noise(rng):
    return rng.integers(0, 256, (300, 130), np.uint8)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(lambda rng: noise(rng), id="noise"),
        pytest.param(lambda rng: np.zeros((496, 200), np.uint8), id="black"),
        pytest.param(lambda rng: np.full((200, 97), 255, np.uint8), id="saturated"),
        pytest.param(lambda rng: np.where(noise(rng) > 250, 255, 0).astype(np.uint8), id="salt"),
        pytest.param(lambda rng: np.sort(noise(rng), axis=0), id="brighter downwards"),
        pytest.param(lambda rng: np.sort(noise(rng), axis=0)[::-1].copy(), id="brighter upwards"),
        pytest.param(lambda rng: noise(rng)[:1], id="one row"),
        pytest.param(lambda rng: noise(rng)[:, :1], id="one column"),
    ],
)
@pytest.mark.parametrize("axial_um", [None, 1.95])
def test_surfaces_are_ordered_in_every_column_of_any_image(model, frame, axial_um):
    image = frame(np.random.default_rng(5))
    how = plan(model.bundle.card, len(image))
    if axial_um:
        how = type(how)(how.chain, how.windowing, model.bundle.card.axial_range.factor(axial_um))
    layers = segment(image, model.engine, how)
    assert (np.diff(layers.surfaces, axis=0) >= 0).all()
    assert (layers.surfaces >= 0).all()
    assert (layers.surfaces <= len(image)).all()
    fluid = layers.labels == KEYS.index("fluid")
    np.testing.assert_array_equal(labels_from_surfaces(layers.surfaces, len(image))[~fluid], layers.labels[~fluid])


@pytest.fixture(scope="module")
def scores(model, data):
    recipe = read_recipe(RECIPE)
    sets = load(msgspec.structs.replace(recipe, source=recipe.source[:2]), data).validation
    card = model.bundle.card
    return score(lambda frame: Answer.of(segment(frame, model.engine, plan(card, len(frame))), card.chain), card.structures, sets).sets


def test_healthy_subjects_it_has_not_seen_are_found_to_a_pixel(scores):
    assert scores["octlayers"].dice >= 0.90
    assert scores["octlayers"].boundary <= 1.0


def test_an_oedematous_eye_it_has_not_seen_is_found(scores):
    assert scores["duke-dme"].dice >= 0.85


def test_ez_os_and_rpe_come_apart_though_no_set_separates_all_three(scores):
    assert scores["duke-dme"].by_group()["ez"][1] > 0.7
    assert scores["octlayers"].by_group()["rpe"][1] > 0.7


def test_the_cards_scores_are_those_of_the_bundle(model, scores):
    for known in model.bundle.card.scores:
        if known.source != "phantoms":
            iou, dice = scores[known.source].by_group()[known.label]
            assert known.iou == pytest.approx(iou, abs=0.002)
            assert known.dice == pytest.approx(dice, abs=0.002)
