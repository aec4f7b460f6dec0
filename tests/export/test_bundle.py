"""From a run folder to a bundle: the graph, its card and golden answers, and what is refused."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.bundle import Scans, export
from export.card import tiles_exactly
from export.to_onnx import to_graph
from octedge.card import decode_card
from octedge.edge import certificate
from octedge.edge.bundle import open_bundle
from octedge.edge.certificate import compare
from octedge.edge.contract import CARD_KEY
from octedge.edge.ort import OrtEngine
from octedge.edge.variant import FILES
from octedge.errors import ModelError, UsageError
from octedge.scan import Spacing
from octedge.segment import plan, segment
from octedge.train.cohort import Split
from octedge.train.fit import Course
from octedge.train.manifest import Phantoms
from octedge.train.networks import Graph, UNet, build, receptive_field
from octedge.train.recipe import Recipe, Sampling
from octedge.train.select import train_all
from octedge.train.validate import TorchEngine
from tests.export.graphs import once
from tests.train.tiny import SPLIT, quiet

RECIPE = Recipe(
    name="tiny",
    source=(Phantoms(name="bands"),),
    candidates={"small": UNet(convs=1, kernels=4, downs=2), "smaller": UNet(convs=1, kernels=2, downs=2)},
    sampling=Sampling(window=32, stride=16, heights=(64,), pixels=2 * 64 * 32, augment=False),
    steps=4, validate_every=4, precision="fp32",
)  # fmt: skip

SCANS = Scans(Split(SPLIT.train, SPLIT.validation), travel=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train_all(Course(RECIPE, Split(SPLIT.train, SPLIT.validation), quiet), folder)
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Graphs of the same weights are exported once."""
    monkeypatch.setattr("export.bundle.to_graph", once)


@pytest.fixture(scope="module", autouse=True)
def few():
    """What int8 moves is measured on few B-scans: a network of so few steps has nothing to lose."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("export.bundle._checked", lambda frames: frames[:3])
        yield


@pytest.fixture(scope="module")
def bundle(run, few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    export(run, folder, "small", SCANS, quiet)
    return open_bundle(folder)


def test_the_graph_is_opset_18_ir_10_in_one_file_and_says_nothing_of_its_origin(bundle):
    model = onnx.load(bundle.path / "model.onnx", load_external_data=False)
    assert model.ir_version == 10
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 18)]
    assert not any(each.external_data for each in model.graph.initializer)
    text = (bundle.path / "model.onnx").read_bytes()
    for origin in (b".py", b"stack_trace", b"site-packages", b"torch.onnx", bytes(Path.home())):
        assert origin not in text


def test_batch_height_and_width_are_free_on_the_grid(bundle):
    engine = OrtEngine(bundle.path / "model.onnx", bundle.card)
    for size in ((1, 1, 64, 32), (3, 1, 128, 68), (2, 1, 4, 4)):
        scores, labels = engine(np.zeros(size, np.uint8))
        assert scores.shape == (size[0], 16, *size[2:])
        assert labels.shape == (size[0], *size[2:])


def test_the_card_is_in_the_graph_and_beside_it(bundle):
    model = onnx.load(bundle.path / "model.onnx")
    inside = {each.key: each.value for each in model.metadata_props}
    assert decode_card(inside[CARD_KEY].encode()) == bundle.card


def test_the_golden_answers_are_torchs_and_the_runtimes(bundle):
    engine = OrtEngine(bundle.path / "model.onnx", bundle.card)
    golden = bundle.golden()
    assert {each.frame.shape[0] for each in golden} == {496, 885, 992, 1024, 1536} | {60}  # every look, and the held-out scans
    for known in golden:
        np.testing.assert_array_equal(segment(known.frame, engine, plan(bundle.card, len(known.frame))).labels, known.labels)


def test_the_card_names_the_golden_answers(bundle):
    assert bundle.card.golden == bundle.sums["golden.npz"]


@pytest.mark.soak
def test_two_exports_of_a_run_are_the_same_bytes(run, bundle, tmp_path):
    export(run, tmp_path, "small", SCANS, quiet)
    for name in ("model.onnx", "card.json", "SHA256SUMS", "MODEL_CARD.md"):
        assert (tmp_path / name).read_bytes() == (bundle.path / name).read_bytes(), name


def test_held_out_scans_travel_only_where_they_may(quick, run, bundle, tmp_path):
    held_out = [each.image for data in SPLIT.validation for each in data.examples]
    trained = [each.image for data in SPLIT.train for each in data.examples]

    def among(frames, scans):
        return sum(any(np.array_equal(frame, scan) for scan in scans) for frame in frames)

    frames = [each.frame for each in bundle.golden()]
    assert (among(frames, held_out), among(frames, trained)) == (len(held_out), 0)
    export(run, tmp_path, "small", Scans(SCANS.split, travel=False), quiet)
    frames = [each.frame for each in open_bundle(tmp_path).golden()]
    assert (among(frames, held_out), among(frames, trained)) == (0, 0)


def test_every_precision_is_a_file_with_the_card_and_its_name_inside(bundle):
    assert {each.name for each in bundle.card.precisions} == {"fp16", "int8"}
    for precision in ("fp32", "fp16", "int8"):
        model = onnx.load(bundle.path / FILES[precision])
        inside = {each.key: each.value for each in model.metadata_props}
        assert inside["octedge_precision"] == precision
        assert decode_card(inside[CARD_KEY].encode()) == bundle.card
        OrtEngine(bundle.path / FILES[precision], bundle.card, precision=precision)


def test_what_the_card_says_of_a_precision_is_what_a_certificate_finds(bundle):
    for each in bundle.card.precisions:
        found = compare(bundle.golden(), OrtEngine(bundle.path / FILES[each.name], bundle.card, precision=each.name), bundle.card)
        assert (found.equal, found.p99_px) == (each.equal, each.p99_px)


def test_without_scans_there_is_no_int8_and_nothing_is_claimed_of_fp16(quick, run, tmp_path):
    card = export(run, tmp_path, "small", None, quiet)
    assert [(each.name, each.iou_loss) for each in card.precisions] == [("fp16", None)]
    assert "model.int8.onnx" not in open_bundle(tmp_path).sums


def test_a_precision_that_moves_the_masks_too_far_is_left_out_and_named(quick, run, bundle, tmp_path, monkeypatch):
    shutil.copytree(bundle.path, tmp_path / "out")  # an older bundle, with the file
    monkeypatch.setitem(certificate.GATES, "int8", certificate.Gate(equal=1.1))
    words: list[str] = []
    card = export(run, tmp_path / "out", "small", SCANS, words.append)
    assert [each.name for each in card.precisions] == ["fp16"]
    assert any(line.startswith("int8 is left out: ") for line in words)
    assert not (tmp_path / "out" / "model.int8.onnx").exists()


def test_int8_is_calibrated_on_the_training_set_alone(monkeypatch, run, tmp_path):
    seen = []

    def to_int8(model, card, frames, checked):
        seen.extend([*frames, *checked])
        raise ModelError("no")

    monkeypatch.setattr("export.bundle.to_int8", to_int8)
    export(run, tmp_path, "small", SCANS, quiet)
    held_out = [each.image for data in SPLIT.validation for each in data.examples]
    assert seen
    assert not any(np.array_equal(frame, scan) for frame in seen for scan in held_out)


def test_the_card_says_exact_and_the_receptive_field_lies_within_the_overlap(bundle):
    card = bundle.card
    assert card.exact
    assert 0 < 2 * card.receptive_field < card.overlap < card.window


def test_an_exact_networks_tiles_give_the_whole_width_at_the_edge_too(bundle):
    engine = OrtEngine(bundle.path / "model.onnx", bundle.card)
    frame = np.random.default_rng(0).integers(0, 256, (96, 3 * bundle.card.window + 11), np.uint8)
    wide = plan(bundle.card, len(frame))
    assert wide.windowing.window > frame.shape[1]
    narrow = type(wide)(wide.chain, bundle.card.windowing)
    np.testing.assert_array_equal(segment(frame, engine, wide).labels, segment(frame, engine, narrow).labels)


class Pooled(torch.nn.Module):
    """A network that looks at the whole tile: its mean."""

    def forward(self, x):
        return torch.cat([x - x.mean((2, 3), keepdim=True), -x], 1)


def test_a_network_that_looks_at_the_whole_tile_is_not_called_exact(bundle):
    card = decode_card(bundle.path.joinpath("card.json").read_bytes())
    two = msgspec.structs.replace(card, structures=("vitreous", "rpe"))
    assert not tiles_exactly(Graph(Pooled()).eval(), two)


def test_the_measured_receptive_field_is_that_of_a_known_network():
    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(1, 2, (1, 11), padding=(0, 5))

        def forward(self, x):
            return self.layer(x)

    torch.manual_seed(0)
    assert receptive_field(Graph(Shifted()).eval(), 4) == 5


def test_an_unfinished_run_and_an_unknown_candidate_are_refused(tmp_path, run):
    with pytest.raises(UsageError, match="recipe"):
        export(tmp_path, tmp_path / "out", None, None, quiet)
    with pytest.raises(UsageError, match="smallest"):
        export(run, tmp_path / "out", "smallest", None, quiet)


def test_a_runtime_that_answers_otherwise_stops_the_export(quick, run, tmp_path, monkeypatch):
    class Wrong(OrtEngine):
        def __call__(self, windows):
            scores, labels = super().__call__(windows)
            return np.roll(scores, 1, axis=1), (labels + 1) % 16

    monkeypatch.setattr("export.bundle.OrtEngine", Wrong)
    with pytest.raises(ModelError, match="do not ship"):
        export(run, tmp_path, "small", SCANS, quiet)
    assert not (tmp_path / "SHA256SUMS").exists()


def test_exported_scores_are_torchs_to_the_last_bits():
    torch.manual_seed(1)
    graph = build(UNet(convs=2, kernels=4, downs=3), 5).eval()
    image = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 64), np.uint8)
    session = onnxruntime.InferenceSession(to_graph(graph, 3).SerializeToString())
    scores, labels = session.run(["scores", "labels"], {"image": image})
    expected, places = TorchEngine(graph)(image)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, places)


def test_a_known_spacing_outside_the_cards_range_scales_the_rows(bundle):
    low, nominal, _ = bundle.card.axial_um
    assert plan(bundle.card, 496, Spacing(axial=nominal / 1000)).factor == 1
    assert plan(bundle.card, 496).factor == 1
    assert plan(bundle.card, 1024, Spacing(axial=low / 2000)).factor == pytest.approx(low / 2 / nominal)
