"""A bundle that was changed, or put together from parts, is refused by what is wrong with it; also where its sums were made to match."""

import hashlib
import shutil

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from octedge.card import encode_card
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.contract import PRECISION_KEY
from octedge.edge.engine import open_engine
from octedge.errors import ModelError
from tests.support import CARD, tiny_bundle, tiny_graph


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A bundle of all precisions, whose card names its golden answers."""
    folder = tmp_path_factory.mktemp("bundles")
    golden = hashlib.sha256((tiny_bundle(folder / "first") / "golden.npz").read_bytes()).hexdigest()
    card = msgspec.structs.replace(CARD, golden=golden)
    path = tiny_bundle(folder / "tiny", card)
    for precision in ("fp16", "int8"):
        model = tiny_graph(card)
        model.metadata_props.add(key=PRECISION_KEY, value=precision)
        onnx.save(model, path / f"model.{precision}.onnx")
    write_sums(path)
    return path


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy to spoil, and no certificate from before."""
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(whole, tmp_path / "tiny")


def one_weight(folder):
    model = onnx.load(folder / "model.onnx")
    tensor = next(each for each in model.graph.initializer if each.name == "weights")
    weights = numpy_helper.to_array(tensor).copy()
    weights[3, 0, 5, 5] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    onnx.save(model, folder / "model.onnx")


def another_network(folder):
    onnx.save(tiny_graph(open_bundle(folder).card, seed=1), folder / "model.onnx")


def int8_for_fp16(folder):
    shutil.copyfile(folder / "model.int8.onnx", folder / "model.fp16.onnx")


def fp32_for_int8(folder):
    shutil.copyfile(folder / "model.onnx", folder / "model.int8.onnx")


def card_edited(folder):
    (folder / "card.json").write_bytes(encode_card(msgspec.structs.replace(open_bundle(folder).card, axial_um=(1.0, 3.87, 9.0))))


def golden_cut(folder):
    with np.load(folder / "golden.npz", allow_pickle=False) as file:
        np.savez_compressed(folder / "golden.npz", **{key: file[key] for key in file.files if key.endswith("_0")})


MUTATIONS = [
    (one_weight, "model.onnx", "ort", r"may not serve tiny: it gives the reference label for \d+\.\d+% of the golden pixels"),
    (another_network, "model.onnx", "ort", r"may not serve tiny: it gives the reference label for \d+\.\d+% of the golden pixels"),
    (int8_for_fp16, "model.fp16.onnx", "ort-fp16", r"model\.fp16\.onnx: the graph inside is in int8, asked for was fp16"),
    (fp32_for_int8, "model.int8.onnx", "ort-int8", r"model\.int8\.onnx: the graph inside is in fp32, asked for was int8"),
    (card_edited, "card.json", "ort", r"model\.onnx: the card inside differs from card\.json"),
    (golden_cut, "golden.npz", "ort", r"golden\.npz holds other golden answers than tiny was exported with"),
]


def test_the_bundle_before_serves_in_every_precision_that_is_certified(folder):
    assert open_engine(open_bundle(folder)).sha256 == open_bundle(folder).sums["model.onnx"]
    for name in ("ort-fp16", "ort-int8"):  # these load, and only lack what `octedge prepare` would add
        with pytest.raises(ModelError, match="has no certificate"):
            open_engine(open_bundle(folder), name)


@pytest.mark.parametrize(("mutate", "file", "engine", "reason"), MUTATIONS)
def test_the_sums_name_the_file_that_was_changed(folder, mutate, file, engine, reason):
    mutate(folder)
    with pytest.raises(ModelError, match=f"^tiny/{file} was changed since the bundle was made"):
        open_bundle(folder)


@pytest.mark.parametrize(("mutate", "file", "engine", "reason"), MUTATIONS)
def test_where_the_sums_match_the_contents_give_it_away(folder, mutate, file, engine, reason):
    mutate(folder)
    write_sums(folder)
    with pytest.raises(ModelError, match=reason):
        open_engine(open_bundle(folder), engine)


def test_an_older_card_that_names_no_golden_answers_is_taken(tmp_path):
    golden_cut(tiny_bundle(tmp_path / "older"))
    write_sums(tmp_path / "older")
    assert len(open_bundle(tmp_path / "older").golden()) == 1
