"""The sheet of samples."""

import numpy as np

from octedge.anatomy import structure
from octedge.metrics import IGNORED
from octedge.train.cohort import Example, Set, Split
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, Sampling
from octedge.train.sample_sheet import sheet, tinted
from octedge.train.sampling import Sample

GROUPS = ("vitreous", "nfl", "choroid+sclera")


def test_a_sample_is_tinted_with_the_colours_of_its_groups_and_untouched_between_the_hatching_where_nobody_graded() -> None:
    reference = np.repeat(np.array([0, 1, 2, IGNORED], np.uint8), 8)[:, None] * np.ones(8, np.uint8)
    picture = tinted(Sample(np.full((32, 8), 100, np.uint8), reference, 0), GROUPS)
    for group, key in enumerate(("vitreous", "nfl", "choroid")):
        expected = 100 + 0.45 * (np.array(structure(key).colour) - 100)
        assert np.abs(picture[reference == group] - expected).max() <= 0.5
    ungraded = picture[reference == IGNORED]
    assert (ungraded == 100).all(axis=-1).mean() == 7 / 8


def test_the_sheet_shows_validation_windows_and_every_sample_of_its_batches() -> None:
    reference = np.zeros((60, 90), np.uint8)
    reference[20:28], reference[28:] = 1, 2
    one = Set("a", GROUPS, (Example("x", "p", (40 + 80 * reference).astype(np.uint8), reference, np.zeros((2, 90))),), 1.0)
    sampling = Sampling(window=32, stride=16, heights=(64,), pixels=4 * 64 * 32)
    recipe = Recipe(name="x", source=(), candidates={"a": UNet(downs=2)}, sampling=sampling)
    picture = sheet(recipe, Split((one,), (one,)), batches=2)
    assert picture.mode == "RGB"
    assert picture.width == 4 * (2 * 32 + 2 + 6)
    assert picture.height > 3 * 64  # nine samples, four abreast
    assert np.asarray(picture).std() > 10
