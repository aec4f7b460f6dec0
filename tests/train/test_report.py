"""The report: one page that is whole, names nobody, and shows the run's own numbers."""

import json
import re
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from octedge.cli import main
from octedge.errors import UsageError
from octedge.metrics import IGNORED
from octedge.train.cohort import Example, Set, load
from octedge.train.evidence import Agreement, Box, confused, gather
from octedge.train.fit import Course
from octedge.train.labelmaps import LabelMap
from octedge.train.manifest import Masks
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, Sampling
from octedge.train.report import difference, page, study
from octedge.train.report_gallery import fill, gallery
from octedge.train.report_plots import seed_matrix
from octedge.train.report_tables import heat_map, number
from octedge.train.select import train_all
from octedge.train.validate import Answer, Counts, Scores, SetScores

RETINA = "nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe"
GROUPS = ("vitreous", RETINA, "choroid+sclera")
LABELS = LabelMap(values=dict(enumerate(GROUPS)))


def source(name):
    images, masks, held = f"{name}/images", f"{name}/masks", ("p3", "p4")
    return Masks(name=name, images=images, masks=masks, labels=LABELS, patient="_(p[0-9]+)_", validation=held, vendor="Maker")


RECIPE = Recipe(
    name="tiny <&>",
    source=(source("first"), source("second")),
    candidates={"small": UNet(convs=1, kernels=4, downs=2), "smaller": UNet(convs=1, kernels=2, downs=2)},
    sampling=Sampling(window=32, stride=16, heights=(32,), pixels=2 * 32 * 32, augment=False),
    seeds=(1, 2), steps=8, validate_every=4, precision="fp32", average=0.5,
)  # fmt: skip


def bands(seed):
    """Image and reference (32, 48): dark, bright, grey."""
    rng = np.random.default_rng(seed)
    top = 8 + np.rint(3 * np.sin(np.arange(48) / 9 + seed)).astype(int)
    depth = np.arange(32)[:, None]
    reference = (depth >= top).astype(np.uint8) + (depth >= top + 9)
    image = np.array([10, 220, 110])[reference] * rng.gamma(8, 1 / 8, reference.shape)
    return np.clip(image, 0, 255).astype(np.uint8), reference


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """Two sources whose files are named after people."""
    folder = tmp_path_factory.mktemp("data set")
    for first, name in enumerate(("first", "second")):
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        for patient in range(1, 5):
            for part, content in zip(("images", "masks"), bands(10 * first + patient), strict=True):
                Image.fromarray(content).save(folder / name / part / f"Miller-Jane_p{patient}_1.png")
    return folder


@pytest.fixture(scope="module")
def run(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny run"
    train_all(Course(RECIPE, load(RECIPE, data_folder), lambda _: None), folder)
    return folder


@pytest.fixture(scope="module")
def found(run, data_folder):
    return study(run, data_folder, lambda _: None, {"second": 4.0})


@pytest.fixture(scope="module")
def html(found):
    return page(found)


class Reader(HTMLParser):
    """Keeps tags, tables by the id of the heading before them, and complains of tags that do not match."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.tags, self.tables, self.heading, self.cell = [], [], set(), {}, "", None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.tags.add(tag)
        self.heading = named["id"] if tag == "h2" else self.heading
        if tag == "img":
            self.images.append(named)
        if tag == "table":
            self.tables.setdefault(self.heading, []).append([])
        if tag == "tr":
            self.tables[self.heading][-1].append([])
        if tag in {"td", "th"}:
            self.tables[self.heading][-1][-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[self.heading][-1][-1][-1] += data.strip()


def value(text):
    return float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))


def counts(run, source):
    """The target's counts as they stand in scores.json, patients added up by hand."""
    selection = json.loads((run / "selection.json").read_bytes())["candidates"][0]
    folders = sorted((run / selection["name"]).glob("seed*/scores.json"))
    means = {each: scores_of(json.loads(each.read_bytes())) for each in folders}
    best = json.loads(max(folders, key=lambda each: means[each]).read_bytes())["sets"][source]["patients"].values()
    return {key: np.sum([each[key] for each in best], axis=0) for key in Counts.__struct_fields__}


def scores_of(record):
    """Mean over both sources of the IoU of their one layer."""
    total = 0.0
    for each in record["sets"].values():
        layer = ([own[key][1] for own in each["patients"].values()] for key in ("shared", "predicted", "reference"))
        shared, predicted, reference = map(sum, layer)
        total += shared / (predicted + reference - shared)
    return total / 2


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(html):
    reader = Reader(html)
    assert html.startswith("<!DOCTYPE html>")
    assert len(reader.images) > 10
    for image in reader.images:
        assert image["src"].startswith(("data:image/svg+xml;base64,", "data:image/webp;base64,"))
        assert len(image["alt"]) > 15
    assert not {"script", "link", "iframe", "object"} & reader.tags
    assert not re.search(r"https?:|url\(|@import", html)
    assert len(html.encode()) < 5e6
    assert "Research use only" in html
    assert "tiny &lt;&amp;&gt;" in html


def test_the_page_holds_no_file_name_no_patient_and_no_folder(html, data_folder):
    text = re.sub(r"base64,[^\"]*", "", html)
    for secret in ("Miller", "Jane", "p3", "p4", str(data_folder), str(Path.home())):
        assert secret not in text, secret
    assert "second, B-scan 2 of 2, patient 2" in html


def test_the_command_writes_the_same_bytes(html, run, data_folder, tmp_path):
    out = tmp_path / "a report.html"
    result = CliRunner().invoke(main, ["report", str(run), "--data", str(data_folder), "--out", str(out), "--axial-um", "second", "4"])
    assert result.exit_code == 0, result.output
    assert out.read_bytes().decode() == html


def test_the_tables_show_the_numbers_of_the_scores(html, run):
    tables = Reader(html).tables
    heat = {row[0]: row[1:] for row in tables["iou"][0]}
    for column, name in enumerate(("first", "second")):
        own = counts(run, name)
        iou = own["shared"] / (own["predicted"] + own["reference"] - own["shared"])
        assert [heat[group][column] for group in ("vitreous", "choroid + sclera")] == [f"{iou[0]:.3f}", f"{iou[2]:.3f}"]
        assert heat["mean over layers"][column] == f"{iou[1]:.3f}"
        rows = tables["boundaries"][column][1:]
        if name == "second":  # whose rows are 4 um deep
            assert [value(row.pop(2)) for row in rows] == pytest.approx(4 * own["absolute"] / own["columns"], abs=0.051)
        assert [value(row[1]) for row in rows] == pytest.approx(own["absolute"] / own["columns"], abs=0.0051)
        assert [value(row[2]) for row in rows] == pytest.approx(own["signed"] / own["columns"], abs=0.0051)
        assert [value(row[3]) for row in rows] == own["columns"].tolist()


def test_the_selection_table_has_every_candidate_with_its_verdict(html, run):
    rows = {row[0]: row for row in Reader(html).tables["selection"][0][1:]}
    for each in json.loads((run / "selection.json").read_bytes())["candidates"]:
        row = rows[each["name"]]
        assert value(row[1]) == each["parameters"]
        assert row[4].startswith(number(each["mean"]["value"]))
        assert row[8].startswith(each["verdict"])


def test_the_page_says_whether_the_scores_are_found_again(found, html):
    assert difference(found) == 0
    assert "gives the run's own scores" in html.replace("&#39;", "'")
    one = found.scores.sets["first"]
    patients = {name: msgspec.structs.replace(each, shared=tuple(n // 2 for n in each.shared)) for name, each in one.patients.items()}
    other = replace(found, scores=Scores({"first": msgspec.structs.replace(one, patients=patients)}), evidence=found.evidence[:1])
    assert difference(other) > 0.1
    assert "The scores do not agree" in page(other)


def test_other_data_and_unfinished_runs_are_refused(run, data_folder, tmp_path):
    with pytest.raises(UsageError, match="third is 4 um"):
        study(run, data_folder, lambda _: None, {"third": 4.0})
    with pytest.raises(UsageError, match=r"recipe\.json"):
        study(tmp_path, data_folder, lambda _: None, {})
    for name in ("first", "second"):
        for part in ("images", "masks"):
            (tmp_path / name / part).mkdir(parents=True)
            for path in (data_folder / name / part).glob("*.png"):
                (tmp_path / name / part / path.name).write_bytes(path.read_bytes())
                if "p3" in path.name:
                    (tmp_path / name / part / path.name.replace("_1", "_2")).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match="3 B-scans of 2 patients"):
        study(run, tmp_path, lambda _: None, {})


def test_the_template_lies_in_the_package():
    assert files("octedge.train").joinpath("report.html.j2").is_file()


def test_limits_of_agreement_are_those_by_hand():
    # Differences 1, 2, 3, -2: mean 1; squares about it 0, 1, 4, 9 sum to 14, over 3 is 4.6667, its root 2.1602.
    found = Agreement.of(np.array([[11.0, 10], [12, 10], [8, 5], [7, 9]]))
    assert (found.bias, found.n) == (1, 4)
    assert (found.low, found.high) == pytest.approx((1 - 1.96 * 2.160247, 1 + 1.96 * 2.160247))
    assert np.isnan(Agreement.of(np.array([[1.0, 2]])).high)


def test_a_box_is_made_of_the_quantiles():
    values = np.random.default_rng(1).normal(size=203).astype(np.float32)
    cuts = statistics.quantiles(values.tolist(), n=20, method="inclusive")
    box = Box.of(values)
    assert (box.low, box.first, box.median, box.third, box.high) == pytest.approx([cuts[at] for at in (0, 4, 9, 14, 18)])
    assert box.n == 203


def test_confusion_counts_every_graded_pixel_once():
    rng = np.random.default_rng(2)
    reference = rng.choice(np.array([0, 1, 2, IGNORED], np.uint8), (9, 11))
    predicted = rng.integers(0, 4, (9, 11)).astype(np.uint8)
    expected = [[int(((reference == row) & (predicted == column)).sum()) for column in range(4)] for row in range(3)]
    assert confused(predicted, reference, 3).tolist() == expected


STRUCTURES = ("vitreous", "nfl", "gcl", "choroid", "fluid")


def flat(name, thickness, ungraded=0):
    """vitreous above row 10, then a layer of `thickness` rows (nfl+gcl), then choroid; some columns nobody graded."""
    reference = np.repeat(((np.arange(40) >= 10).astype(np.uint8) + (np.arange(40) >= 10 + thickness))[:, None], 30, axis=1)
    surfaces = np.stack([np.full(30, 9.5), np.full(30, 9.5 + thickness)])
    surfaces[1, :ungraded] = np.nan
    return Example(name, name, 40 * reference, reference, surfaces)


def always(_):
    """Everything a row too deep at the top, the bottom at row 20."""
    surfaces = np.stack([np.full(30, 10.5), np.full(30, 13.0), np.full(30, 19.5)])
    labels = np.repeat((np.searchsorted([10.5, 13.0, 19.5], np.arange(40)))[:, None], 30, axis=1).astype(np.uint8)
    return Answer(labels, labels, surfaces)


def test_evidence_of_a_known_answer_is_known():
    data = Set("x", ("vitreous", "nfl+gcl", "choroid"), (flat("a", 10), flat("b", 8, ungraded=12)), 1.0, "Maker")
    found = gather(always, STRUCTURES, data)
    assert found.errors["vitreous|nfl"].tolist() == [1.0] * 60
    assert found.errors["gcl|choroid"].tolist() == [0.0] * 30 + [2.0] * 18
    assert found.thickness["nfl+gcl"].tolist() == [[9, 10], [9, 8]]
    assert found.dice.tolist() == pytest.approx([2 * 9 / 19, 2 * 7 / 17])
    assert found.worst() == [1, 0]
    assert found.confusion.tolist() == [[600, 0, 0, 0], [60, 480, 0, 0], [0, 60, 1200, 0]]


def test_the_gallery_shows_the_twenty_worst_first():
    examples = tuple(flat(f"{index}", 5 + index % 23) for index in range(23))
    data = Set("x", ("vitreous", "nfl+gcl", "choroid"), examples, 1.0, "Maker")
    items = gallery(always, STRUCTURES, (gather(always, STRUCTURES, data),))
    # The overlap is min(t, 10) - 1 of t and 9 rows.
    dice = sorted((2 * (min(thick, 10) - 1) / (thick + 9), thick) for thick in range(5, 28))
    assert [each.dice for each in items] == pytest.approx([value for value, _ in dice[:20]])
    assert items[0].number == dice[0][1] - 4
    assert all(each.reference.startswith("data:image/webp") and each.reference != each.predicted for each in items)


def test_a_missing_boundary_takes_the_place_of_the_next():
    nan = np.nan
    assert fill(np.array([[3.0, nan, 3.0], [4.0, 5.0, nan], [nan, nan, 9.0]]), 12).tolist() == [[3, 5, 3], [4, 5, 9], [12, 12, 9]]


def test_seeds_with_other_steps_leave_gaps():
    steps, values = seed_matrix({1: {5: 0.5, 10: 1.0}, 2: {10: 3.0}})
    assert steps.tolist() == [5, 10]
    np.testing.assert_array_equal(values, [[0.5, 1.0], [np.nan, 3.0]])


def test_a_vendor_of_several_sources_pools_their_pixels():
    def scores(vendor, groups, shared):
        return SetScores(vendor, groups, (), {"a": Counts(shared, (100,) * len(groups), (100,) * len(groups), (), (), ())})

    sets = {"x": scores("M", ("nfl", "inl"), (50, 0)), "y": scores("M", ("nfl",), (100,)), "z": scores("N", ("nfl",), (80,))}
    found = heat_map(Scores(sets))
    assert found.columns == (("x", "M"), ("y", "M"), ("z", "N"), ("M", "all its sources"))
    assert dict(found.rows) == {"nfl": pytest.approx((1 / 3, 1, 2 / 3, 150 / 250)), "inl": (0, None, None, 0)}
