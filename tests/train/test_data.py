"""Checks find what was planted in phantoms, name where, and find nothing in what is sound; sources are added and shown."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from octedge.anatomy import KEYS
from octedge.cli import main
from octedge.errors import UsageError
from octedge.phantom import LOOKS, Phantom
from octedge.train.annotations import items
from octedge.train.check_data import check
from octedge.train.cohort import load, load_whole
from octedge.train.labelmaps import LabelMap
from octedge.train.manifest import Archives, Boundaries, DeviceLines, Masks, read_cohort
from octedge.train.networks import UNet
from octedge.train.preview import picture
from octedge.train.recipe import Recipe, read_recipe, read_sources

LOOK = replace(LOOKS["spectralis"], rows=248, columns=256, axial_um=7.74)
GROUPS = ("vitreous", "nfl", "gcl+ipl", "inl", "opl", "onl+elm+mz", "ez+os", "rpe", "choroid+sclera")
PLACE = np.array([next((i for i, group in enumerate(GROUPS) if key in group.split("+")), 0) for key in KEYS], np.uint8)
MASKS = Masks(
    name="set", images="images", masks="masks", patient="^(p[0-9]+)", eye="_(R|L)$", validation=("p2",),
    labels=LabelMap(values=dict(enumerate(GROUPS))),
)  # fmt: skip
BOUNDARIES = Boundaries(
    name="tables", images="images", tables="tables", image=r"^(p\d+)(_)?", table="{patient}_{boundary}.txt", groups=GROUPS, first_row=1.0
)


@pytest.fixture(scope="session")
def bscans():
    """Four eyes: image and group mask."""
    found = []
    for seed in range(4):
        bscan = Phantom(LOOK, 1, 50 + seed, "R", "macula", False).bscan(0)
        found.append((bscan.image, PLACE[bscan.labels]))
    return found


@pytest.fixture
def folder(tmp_path, bscans):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number, (image, mask) in enumerate(bscans):
        save(tmp_path / "images" / f"p{number}_R.png", image)
        save(tmp_path / "masks" / f"p{number}_R.png", mask)
    return tmp_path


def save(path, array):
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def findings(folder, *sources, **more):
    recipe = Recipe(name="test", source=sources, candidates={"small": UNet()}, **more)
    return [f"{each.source}|{each.file}|{each.what}|{each.todo}" for each in check(recipe, folder)]


def mask_of(folder, number):
    return np.asarray(Image.open(folder / "masks" / f"p{number}_R.png"))


def test_a_sound_set_has_no_finding(folder):
    assert findings(folder, MASKS) == []


def plant_everywhere(change):
    def plant(folder):
        for number in range(4):
            save(folder / "masks" / f"p{number}_R.png", change(mask_of(folder, number)))

    return plant


def plant_twice(folder):
    save(folder / "images" / "p2_R.png", np.asarray(Image.open(folder / "images" / "p1_R.png")))
    save(folder / "masks" / "p2_R.png", mask_of(folder, 1))


def plant_strange(folder):
    mask = mask_of(folder, 1).copy()
    mask[0, 0] = 77
    save(folder / "masks" / "p1_R.png", mask)


def plant_crossing(folder):
    mask = mask_of(folder, 1).copy()
    mask[2:6, :40] = 3
    save(folder / "masks" / "p1_R.png", mask)


EXCHANGED = np.array([0, 1, 2, 5, 4, 3, 6, 7, 8], np.uint8)
PLANTS = {
    "a scan twice": (plant_twice, "set|p2_R|the same B-scan as p1_R of patient p1"),
    "another size": (lambda f: save(f / "masks" / "p1_R.png", mask_of(f, 1)[:-1]), r"set|p1_R|p1_R.png is (247, 256), its image is"),
    "a strange value": (plant_strange, "set|p1_R|p1_R.png: mask holds the values [77]"),
    "crossing": (plant_crossing, "set|p1_R|boundaries cross"),
    "mirrored": (
        lambda f: save(f / "masks" / "p1_R.png", mask_of(f, 1)[:, ::-1]),
        "set|p1_R|the image fits its annotation far better mirrored",
    ),
    "all upside down": (plant_everywhere(lambda mask: mask[::-1]), "set||'vitreous' lies below 'nfl'"),
    "image upside down": (
        lambda f: save(f / "images" / "p1_R.png", np.asarray(Image.open(f / "images" / "p1_R.png"))[::-1]),
        "set|p1_R|the image fits its annotation far better upside down",
    ),
    "exchanged values": (plant_everywhere(lambda mask: EXCHANGED[mask]), "the labels lie vitreous, nfl, gcl+ipl, onl+elm+mz, opl, inl"),
    "no pixel": (plant_everywhere(lambda mask: np.where(mask == 4, 5, mask).astype(np.uint8)), "set||no pixel is 'opl'"),
    "no mask": (lambda f: (f / "masks" / "p1_R.png").unlink(), "set|p1_R|p1_R.png has no mask"),
    "empty": (lambda f: [path.unlink() for path in (f / "images").iterdir()], "set||no images in images"),
}


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_found_and_named(folder, name):
    plant, expected = PLANTS[name]
    plant(folder)
    assert any(expected in each for each in findings(folder, MASKS)), findings(folder, MASKS)


def test_masks_that_are_ignored_altogether_are_refused(folder):
    save(folder / "masks" / "p1_R.png", np.full((248, 256), 99, np.uint8))
    source = msgspec.structs.replace(MASKS, labels=LabelMap(values=dict(enumerate(GROUPS)), ignored=(99,)))
    assert ["no pixel is annotated" in each and "p1_R" in each for each in findings(folder, source)] == [True]


def test_one_patient_only_is_a_finding_and_an_error(folder):
    source = msgspec.structs.replace(MASKS, patient="^(p)", validation=())
    assert ["one patient only" in each for each in findings(folder, source)] == [True]
    with pytest.raises(UsageError, match="source set: one patient only"):
        load(Recipe(name="x", source=(source,), candidates={"a": UNet()}), folder)


def write_tables(folder, bscans, shift=1.0):
    (folder / "tables").mkdir(exist_ok=True)
    for number, (_, mask) in enumerate(bscans):
        for boundary in range(1, len(GROUPS)):
            np.savetxt(folder / "tables" / f"p{number}_{boundary}.txt", (mask < boundary).sum(axis=0)[:, None] - 0.5 + shift, delimiter=",")


def tables(folder, **more):
    for path in sorted((folder / "images").glob("*.png")):
        path.rename(path.with_name(f"{path.stem[:2]}_1.png"))
    return msgspec.structs.replace(BOUNDARIES, image=r"^(p\d+)_(\d+)$", validation=("p2",), **more)


def test_tables_that_count_from_another_row_are_found_and_the_right_ones_not(folder, bscans):
    write_tables(folder, bscans)
    source = tables(folder)
    assert findings(folder, source) == []
    found = findings(folder, msgspec.structs.replace(source, first_row=0.0))
    assert ["try first_row = 1" in each for each in found] == [True]


def test_crossing_tables_are_found(folder, bscans):
    write_tables(folder, bscans)
    source = tables(folder)
    one, two = (folder / "tables" / f"p1_{boundary}.txt" for boundary in (5, 6))
    first = one.read_text()
    one.write_text(two.read_text())
    two.write_text(first)
    assert any(each.startswith("tables|p1_1|boundary 5 lies") for each in findings(folder, source))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LabelMap(values={0: "vitreous", 1: "ipl+gcl"})}, "source set: key `labels`: .*'gcl' stands after 'ipl'"),
        ({"labels": LabelMap(values={0: "vitreous", 1: "nlf"})}, "did you mean 'nfl'"),
        ({"labels": LabelMap(values={1: "nfl", 2: "sclera"}, outside=0, below="choroid")}, "name the first and the last"),
        ({"patient": ""}, "source set: key `patient` is missing"),
        ({"patient": "("}, "key `patient` is no regular expression"),
    ],
)
def test_what_a_source_says_wrongly_is_refused_with_its_key(tmp_path, change, message):
    from octedge.train.manifest import check_sources

    with pytest.raises(UsageError, match=message):
        check_sources((msgspec.structs.replace(MASKS, **change),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\n[[source]]\nkind = "masks"\nname = "a"\nimages = "i"\nmasks = "m"\npatiend = "x"', "did you mean 'patient'"),
        ('name = "x"\n[[source]]\nkind = "mask"', "did you mean 'masks'"),
        ('name = "x"\n[[source]]\nkind = "phantoms"\n[[source]]\nkind = "phantoms"', "2 sources have this name"),
    ],
)
def test_a_mistyped_cohort_is_refused_with_a_suggestion(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_cohort(tmp_path / "c.toml")


def test_archives_with_both_arrays_and_results_of_octedge_are_read(folder, bscans):
    for part in ("both", "scans", "results"):
        (folder / part).mkdir()
    for number in (0, 1):
        image, mask = bscans[number]
        unseen = np.full_like(mask, 255)
        np.savez(folder / "both" / f"p{number}.npz", images=np.stack([image, image]), labels=np.stack([mask, unseen]))
        np.savez(folder / "scans" / f"p{number}.npz", images=image)
        np.savez(folder / "results" / f"p{number}.npz", labels=mask[None], structures=np.array(GROUPS))
    values = LabelMap(values=dict(enumerate(GROUPS)), ignored=(255,))
    both = Archives(name="both", files="both", patient=r"^(p\d)", labels=values)
    own = Masks(name="own", images="scans", masks="results", patient=r"^(p\d)")
    assert [each.name for each in load_whole(both, folder).examples] == ["p0_000", "p1_000"]
    whole = load_whole(own, folder)
    assert whole.groups == GROUPS
    np.testing.assert_array_equal(whole.examples[1].reference, bscans[1][1])


def test_dicom_frames_meet_their_masks_by_place_and_their_patient_by_a_hash(tmp_path):
    from octedge.phantom_files import write_dicom

    phantom = Phantom(replace(LOOK, rows=64, columns=48, axial_um=30.0), 3, 7, "L", "macula", False)
    (tmp_path / "scans").mkdir()
    (tmp_path / "masks").mkdir()
    write_dicom(phantom, tmp_path / "scans" / "a.dcm", profile="shuffled")
    for index in (0, 2):
        save(tmp_path / "masks" / f"a_{index + 1}.png", phantom.bscan(index).labels)
    source = Masks(
        name="d", images="scans", masks="masks", patient="header", labels=LabelMap(values=dict(enumerate(KEYS))), first_frame=1
    )  # fmt: skip
    examples = items(source, tmp_path)[1][0].read()
    assert [each.name for each in examples] == ["a_000", "a_002"]
    assert {(each.patient[:3], each.eye) for each in examples} == {("id-", "L")}
    assert "PHANTOM" not in examples[0].patient
    for each, index in zip(examples, (0, 2), strict=True):
        np.testing.assert_array_equal(each.image, phantom.bscan(index).image)
        np.testing.assert_array_equal(each.reference, phantom.bscan(index).labels)


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


def test_a_source_is_added_below_what_is_there_with_its_hash_and_a_change_is_found(folder):
    cohort = folder / "set.toml"
    cohort.write_text('name = "mine" # kept\n')
    (folder / "labels.toml").write_text("[values]\n" + "".join(f'{value} = "{group}"\n' for value, group in enumerate(GROUPS)))
    arguments = ("add", cohort, "--kind", "masks", folder / "images", folder / "masks", "--data", folder, "--name", 'a "b"', "--patient")
    done = run(*arguments, r"^(p\d+)", "--labels", folder / "labels.toml", "--set", 'validation = ["p2"]')
    assert done.exit_code == 0, done.output
    assert cohort.read_text().startswith('name = "mine" # kept\n')
    source = read_cohort(cohort).source[0]
    assert (source.name, source.patient, source.validation) == ('a "b"', r"^(p\d+)", ("p2",))
    assert run("check", cohort, "--data", folder).exit_code == 0
    plant_crossing(folder)
    done = run("check", cohort, "--data", folder, "--json")
    assert done.exit_code == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"sha256", "boundaries cross"} <= {word for line in lines for word in ("sha256", "boundaries cross") if word in line["what"]}


def test_a_source_that_is_not_sound_is_not_added(folder):
    cohort = folder / "set.toml"
    done = run("add", cohort, "--kind", "masks", folder / "images", folder / "masks", "--data", folder, "--set", "pacient = 'x'")
    assert done.exit_code == 2
    assert "did you mean 'patient'" in done.output
    assert not list(folder.glob("*.toml"))


def test_a_recipe_takes_its_sources_from_a_cohort_and_a_lock_from_a_run_and_stands_alone(folder):
    (folder / "c.toml").write_text('name = "c"\n[[source]]\nkind = "phantoms"\n')
    (folder / "split.json").write_text('{"train": [{"source": "s", "patients": ["a"]}], "validation": []}')
    text = 'name = "r"\ncohort = "c.toml"\n[split]\nlocked = "split.json"\n[candidates.a]\nfamily = "unet"\n'
    (folder / "r.toml").write_text(text)
    recipe = read_recipe(folder / "r.toml")
    assert (recipe.cohort, recipe.source[0].name) == ("", "phantoms")
    assert recipe.split.locked == {"train": {"s": ("a",)}, "validation": {}}
    assert read_sources(folder / "r.toml") == recipe
    assert read_sources(folder / "c.toml").source == recipe.source


def test_the_preview_shows_each_group_in_its_colour_and_the_sheet_says_own_merged_or_lacking(folder):
    (folder / "c.toml").write_bytes(msgspec.json.encode({"name": "c"}))
    image = np.asarray(picture(load_whole(MASKS, folder)))
    assert (image == (230, 159, 0)).all(axis=2).any()  # nfl, in the legend
    (folder / "c.json").write_bytes(msgspec.json.encode({"name": "c", "source": [MASKS]}))
    done = run("preview", folder / "c.json", "--data", folder, "--out", folder / "out")
    assert done.exit_code == 0, done.output
    sheet = (folder / "out" / "datasheet.md").read_text("utf-8")
    assert "| nfl | own " in sheet
    assert "| gcl | in gcl+ipl " in sheet
    assert "| fluid | - |" in sheet
    assert (folder / "out" / "set.png").is_file()


def test_device_lines_are_read_from_raw_exports(data):
    source = DeviceLines(name="vol", files="spectralis-vol", patient=r"^([A-Z]\w+?_[BT]_\d+)")
    whole = load_whole(source, data)
    assert len(whole.examples) == 10
    assert len(whole.groups) == 3


def test_nothing_is_found_in_the_real_sets_but_planted_first_rows_are(data):
    recipe = read_recipe(Path(__file__).parents[2] / "recipes" / "reference.toml")
    assert list(check(recipe, data)) == []
    wrong = msgspec.structs.replace(recipe, source=(msgspec.structs.replace(recipe.source[1], first_row=0.0),))
    assert ["try first_row = 1" in each.todo for each in check(wrong, data)] == [True]
