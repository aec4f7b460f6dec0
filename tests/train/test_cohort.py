"""From folders to a split by patient, with bad input refused by name."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from octedge.errors import ScanError, UsageError
from octedge.metrics import IGNORED
from octedge.train.cohort import load
from octedge.train.labelmaps import LabelMap
from octedge.train.manifest import Boundaries, Masks, Phantoms
from octedge.train.masks import read_mask
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, read_recipe, write_recipe

VALUES = LabelMap(values={0: "vitreous", 1: "nfl", 2: "choroid"})
MASKS = Masks(name="set", images="images", masks="masks", labels=VALUES, patient=r"^(p\d+)_")


def recipe(source, **more):
    return Recipe(name="test", source=(source,), candidates={"small": UNet(convs=1, kernels=4, downs=2)}, **more)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for patient in range(12):
        for slice_ in range(2):
            save(tmp_path, f"p{patient}_{slice_}", np.full((20, 30), 10 * patient, np.uint8), mask())
    return tmp_path


def mask():
    return np.repeat(np.repeat([[0], [1], [2]], [8, 5, 7], axis=0), 30, axis=1).astype(np.uint8)


def save(folder, name, image, labels):
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray(labels).save(folder / "masks" / f"{name}.png")


def test_no_patient_is_in_both_parts_and_none_is_lost(folder):
    split = load(recipe(MASKS), folder)
    train, held = set(split.train[0].patients), set(split.validation[0].patients)
    assert not train & held
    assert train | held == {f"p{number}" for number in range(12)}
    assert len(split.train[0].examples) == 2 * len(train)


def test_phantoms_are_learnt_whole_but_graded_as_far_down_as_their_image_shows_anything():
    split = load(recipe(Phantoms(count=1, validation_count=6)), Path())
    (learnt,) = split.train[0].examples
    assert (learnt.reference != IGNORED).all()
    cut = 0
    for each in split.validation[0].examples:
        shown = each.reference != IGNORED
        assert (np.diff(shown.astype(int), axis=0) <= 0).all()  # from the top down, without a hole
        assert not (each.surfaces > shown.sum(axis=0)).any()
        assert np.isfinite(each.surfaces[0]).mean() > 0.9
        cut += (~shown).sum()
    assert cut > 0


def test_named_patients_are_held_back_and_unknown_names_refused(folder):
    named = msgspec.structs.replace(MASKS, validation=("p3", "p4"))
    assert load(recipe(named), folder).validation[0].patients == ("p3", "p4")
    with pytest.raises(UsageError, match="nobody"):
        load(recipe(msgspec.structs.replace(MASKS, validation=("nobody",))), folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Image.fromarray(mask()[:19]).save(f / "masks" / "p3_0.png"), r"p3_0.png is \(19, 30\), its image is \(20, 30\)"),
        (lambda f: Image.fromarray(mask() * 50).save(f / "masks" / "p3_0.png"), r"p3_0.png: mask holds the values \[50, 100\]"),
        (lambda f: (f / "masks" / "p3_0.png").unlink(), "p3_0.png has no mask"),
        (lambda f: (f / "images" / "p3_0.png").write_bytes(b""), "p3_0.png: is no readable image"),
        (lambda f: Image.new("RGB", (30, 20), "red").save(f / "images" / "p3_0.png"), "p3_0.png: is in colour"),
        (lambda f: Image.new("RGB", (30, 20)).save(f / "masks" / "p3_0.png"), "p3_0.png: mask mode RGB"),
    ],
)
def test_a_bad_image_or_mask_is_refused_by_name(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ScanError, match=message):
        load(recipe(MASKS), folder)


def test_a_mask_with_nan_is_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.array([[1.0, np.nan]]))
    with pytest.raises(ScanError, match="NaN"):
        read_mask(tmp_path / "m.npy")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no images in images"):
        load(recipe(MASKS), tmp_path)


def test_boundary_tables_become_regions_counted_from_the_sets_first_row(tmp_path):
    Image.fromarray(np.zeros((20, 4), np.uint8)).save(tmp_path / "S1_02.png")
    np.savetxt(tmp_path / "S1_1.txt", [[99, 6.0]] * 4, delimiter=",")
    np.savetxt(tmp_path / "S1_2.txt", [[99, 11.5]] * 3 + [[99, np.nan]], delimiter=",")
    source = Boundaries(
        name="set", images=".", tables=".", image=r"^(S\d)_(\d+)$", table="{patient}_{boundary}.txt",
        groups=("vitreous", "nfl", "choroid"), first_row=1.0, validation=("S1",),
    )  # fmt: skip
    example = load(recipe(source), tmp_path).validation[0].examples[0]
    assert example.reference[:, 0].tolist() == [0] * 5 + [1] * 6 + [2] * 9
    assert (example.reference[:, 3] == IGNORED).all()
    np.testing.assert_array_equal(example.surfaces[:, 0], [5.0, 10.5])


def test_the_shipped_recipe_reads_and_comes_back_from_a_run_unchanged(tmp_path):
    shipped = read_recipe(Path(__file__).parents[2] / "recipes" / "reference.toml")
    write_recipe(shipped, tmp_path / "recipe.json")
    assert read_recipe(tmp_path / "recipe.json") == shipped


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "candidates"),
        ('name = "x"\n[candidates.a]\ndowns = 3\nfamily = "unet"', "no source"),
        ('name = "x"\nsource = []\n[candidates]', "no candidates"),
        ('name = "x"\nsource = []\nsurprise = 1\n[candidates.a]\nfamily = "unet"\ndowns = 3', "surprise"),
        ('name = "x"\nsource = []\n[sampling]\nheights = [300]\n[candidates.a]\nfamily = "unet"\ndowns = 2', "power of two"),
        ('name = "x"\nsource = []\n[sampling]\nstride = 256\n[candidates.a]\nfamily = "unet"\ndowns = 2', "stride"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_field(tmp_path, text, message):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(tmp_path / "recipe.toml")


def test_the_real_sets_read_with_their_merges(data):
    shipped = read_recipe(Path(__file__).parents[2] / "recipes" / "reference.toml")
    split = load(msgspec.structs.replace(shipped, source=shipped.source[:2]), data)
    assert {each.name: len(each.examples) for each in split.validation} == {"duke-dme": 11, "octlayers": 20}
    assert {each.name: len(each.examples) for each in split.train} == {"duke-dme": 44, "octlayers": 50}
    for each in split.validation:
        for example in each.examples:
            deepest = np.fmax.accumulate(example.surfaces, axis=0)
            assert not (example.surfaces < deepest).any()
            assert np.isfinite(example.surfaces).mean() > 0.5
