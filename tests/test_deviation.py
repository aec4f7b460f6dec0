"""Standard deviations of surfaces in results: where the model knows its temperature, on every B-scan's own rows."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

from octedge.edge.bundle import open_bundle
from octedge.edge.engine import open_engine
from octedge.edge.model import Model
from octedge.errors import ModelError
from octedge.ordered import Chain
from octedge.phantom import LOOKS, Phantom
from octedge.segment import plan
from octedge.spread import deviation, spread
from octedge.train.calibrate import EVERY, NORMAL, TEMPERATURES, Errors, fitted, observe
from octedge.train.cohort import Example, Set
from tests.support import CARD, octedge_, tiny_bundle

WARM = msgspec.structs.replace(CARD, temperature=3.0)
PHANTOM = Phantom(replace(LOOKS["spectralis"], rows=96, columns=70), 1, 1)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    return tiny_bundle(tmp_path_factory.mktemp("warm") / "bundle", WARM)


def test_the_format_gives_every_surface_its_deviation_in_rows(warm, tmp_path):
    image = PHANTOM.bscan(0).image
    Image.fromarray(image).save(tmp_path / "scan.png")
    result = octedge_("segment", tmp_path / "scan.png", "--out", tmp_path, "--model", warm, "--format", "npz,deviation")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "scan.npz") as answer, np.load(tmp_path / "scan.deviation.npz") as found:
        assert found["deviation"].shape == answer["surfaces"].shape
        assert found["surface_names"].tolist() == answer["surface_names"].tolist()
        assert str(found["model"]) == "tiny"
        engine = open_engine(open_bundle(warm))
        padded = np.zeros((1, 1, 128, 72), np.uint8)
        padded[0, 0, :96, :70] = image
        scores = engine(padded)[0][0, :, :96, :70]
        np.testing.assert_allclose(found["deviation"][0], deviation(scores, WARM.chain, 3.0), atol=1e-4)


def test_rows_scaled_for_the_network_are_scaled_back(warm):
    opened = open_bundle(warm)
    model = Model(opened, open_engine(opened))
    scan = PHANTOM.scan()
    halved = replace(scan, spacing=replace(scan.spacing, axial=WARM.axial_um[1] / 2000))
    (answer,) = list(model.run(halved, deviations=True).answers())
    how = plan(WARM, 96, halved.spacing)
    assert how.factor == pytest.approx(0.5)
    assert answer.deviation is not None
    assert answer.deviation.min() >= 2 * np.sqrt(1 / 12) - 1e-6
    assert answer.deviation.shape == (len(WARM.surfaces), 70)
    (plain,) = list(model.run(halved).answers())
    assert plain.deviation is None


def test_a_model_without_a_temperature_leaves_them_out_and_says_so(bundle, tmp_path):
    Image.fromarray(PHANTOM.bscan(0).image).save(tmp_path / "scan.png")
    result = octedge_("segment", tmp_path / "scan.png", "--out", tmp_path, "--model", bundle, "--format", "npz,deviation", "--json")
    told = json.loads(result.stdout)
    assert told["outputs"] == ["scan.npz"]
    assert [note for note in told["notes"] if note.startswith("no deviation: ") and "--data" in note]
    opened = open_bundle(bundle)
    with pytest.raises(ModelError, match="no temperature"):
        Model(opened, open_engine(opened)).run(PHANTOM.scan(), deviations=True)


@pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
def test_a_card_with_an_impossible_temperature_is_refused(temperature):
    with pytest.raises(ModelError, match="temperature"):
        msgspec.structs.replace(CARD, temperature=temperature)


def test_the_temperature_is_the_one_whose_deviations_are_those_of_the_errors():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 3, 20_000)
    error = truth * rng.standard_normal(20_000)
    found = np.stack([truth * temperature / 4 for temperature in TEMPERATURES])
    errors = Errors(np.zeros(20_000, np.intp), error, found)
    assert errors.at(4.0).within() == pytest.approx(NORMAL, abs=0.01)
    assert fitted({"a": errors, "b": errors}) == 4.0


def test_errors_are_observed_where_the_set_grades_a_surface_the_model_has():
    classes, groups = ("vitreous", "nfl", "choroid"), ("vitreous", "nfl", "choroid")
    marked = np.array([[5.0, np.nan, 4.0], [11.0, 10.0, 12.0]]).repeat(EVERY, axis=1)
    image = np.zeros((16, 3 * EVERY), np.uint8)
    labels = (np.arange(16)[:, None] > [5, 6, 5]).astype(int) + (np.arange(16)[:, None] > [10, 11, 10])
    labels = labels.repeat(EVERY, axis=1)
    scores = np.where(np.arange(3)[:, None, None] == labels, -0.1, -3.0).astype(np.float32)

    def engine(windows):
        padded = np.full((1, 3, *windows.shape[2:]), -1.0, np.float32)
        padded[0, :, :16, : 3 * EVERY] = scores
        return padded, padded.argmax(1).astype(np.uint8)

    chain = Chain.of(classes)
    card = msgspec.structs.replace(CARD, structures=classes)
    found = observe(
        Set("a", groups, (Example("p", "s", image, labels.astype(np.uint8), marked),), 1.0),
        0,
        engine,
        lambda rows: plan(card, rows),
        classes,
    )
    assert found.surface.tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(found.error, [0.5, 1.5, -0.5, 1.5, -1.5], atol=0.5)
    expected = np.sqrt(spread(scores, chain, 2.0)[1][0, 0] ** 2 + 1 / 12)
    assert found.at(2.0).deviation[0] == pytest.approx(expected, rel=1e-5)
