"""A bundle as models of a Triton server: files, names, and a configuration that Triton's own schema takes."""

import shutil
from pathlib import Path

import msgspec
import onnxruntime
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, TYPE_UINT8, ModelConfig

from export.triton import config, model_name, write_triton
from octedge.card import decode_card
from octedge.cli import main
from octedge.edge.bundle import Bundle, open_bundle, write_sums
from octedge.errors import OutputError
from octedge.geometry import AxialRange, Windowing
from octedge.ordered import Chain
from octedge.segment import PIXELS_PER_CALL
from tests.support import CARD, digests, tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    """A bundle with two precisions."""
    folder = tiny_bundle(tmp_path / "tiny")
    shutil.copyfile(folder / "model.onnx", folder / "model.int8.onnx")
    write_sums(folder)
    return open_bundle(folder)


def parsed(text):
    return text_format.Parse(text, ModelConfig())


def facts(text):
    return {key: value.string_value for key, value in parsed(text).parameters.items()}


def test_there_is_a_model_for_every_precision_of_the_bundle(bundle, tmp_path):
    written = write_triton(bundle, tmp_path / "new" / "models")
    assert [model.name for model in written] == ["tiny-fp32", "tiny-int8"]
    assert list(digests(tmp_path / "new" / "models")) == [
        *("tiny-fp32/1/model.onnx", "tiny-fp32/config.pbtxt"),
        *("tiny-int8/1/model.onnx", "tiny-int8/config.pbtxt"),
    ]


def test_the_onnx_file_is_unchanged_and_its_card_inside(bundle, tmp_path):
    for model, file in zip(write_triton(bundle, tmp_path / "models"), ("model.onnx", "model.int8.onnx"), strict=True):
        assert (model / "1" / "model.onnx").read_bytes() == (bundle.path / file).read_bytes()
        inside = onnxruntime.InferenceSession(model / "1" / "model.onnx").get_modelmeta().custom_metadata_map["octedge"]
        assert decode_card(inside.encode()) == bundle.card


def test_triton_takes_the_configuration(bundle, tmp_path):
    for model in write_triton(bundle, tmp_path / "models"):
        found = parsed((model / "config.pbtxt").read_text("ascii"))
        assert (found.name, found.backend, found.platform) == (model.name, "onnxruntime", "")
        assert found.max_batch_size == PIXELS_PER_CALL // (64 * 64)
        assert found.HasField("dynamic_batching")
        tensors = [(each.name, each.data_type, list(each.dims)) for each in (*found.input, *found.output)]
        assert tensors == [("image", TYPE_UINT8, [1, -1, -1]), ("scores", TYPE_FP32, [16, -1, -1]), ("labels", TYPE_UINT8, [-1, -1])]


def test_triton_takes_the_configuration_of_the_shipped_model():
    shipped = open_bundle()
    found = parsed(config(shipped, "fp32"))
    assert found.name == f"{shipped.card.id}-fp32"
    assert 1 <= found.max_batch_size <= PIXELS_PER_CALL // shipped.card.window


def test_the_configurations_tensors_are_the_graphs_with_the_batch_in_front(bundle):
    session = onnxruntime.InferenceSession(bundle.path / "model.onnx")
    graph = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    found = parsed(config(bundle, "fp32"))
    for each in (*found.input, *found.output):
        batch, *rest = graph[each.name]
        assert isinstance(batch, str)
        assert [size if isinstance(size, int) else -1 for size in rest] == list(each.dims)


def test_a_client_can_tile_and_order_from_the_configuration_alone(bundle):
    told = facts(config(bundle, "int8"))
    assert Windowing(*(int(told[key]) for key in ("window", "overlap", "grid"))) == bundle.card.windowing
    assert AxialRange(*map(float, told["axial_um"].split())) == bundle.card.axial_range
    assert Chain.of(tuple(told["structures"].split())) == bundle.card.chain
    assert [int(height) for height in told["heights"].split()] == list(bundle.card.heights)
    assert (told["exact"], told["card"], told["precision"]) == ("true", "tiny", "int8")
    assert told["sha256"] == bundle.sums["model.int8.onnx"]
    assert told["use"] == "Research use only. Not a medical device."


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("backend:", "engine:", 'no field named "engine"'),
        ("TYPE_UINT8", "TYPE_BYTE", "no value named TYPE_BYTE"),
        ("max_batch_size: 256", 'max_batch_size: "many"', "Couldn't parse integer"),
        ("string_value", "text", 'no field named "text"'),
        ('"\n', "\n", "String missing ending quote"),
    ],
)
def test_the_check_names_what_is_wrong_with_a_configuration(bundle, right, wrong, named):
    text = config(bundle, "fp32")
    assert right in text
    with pytest.raises(text_format.ParseError, match=named):
        parsed(text.replace(right, wrong, 1))


@given(st.text())
def test_any_text_of_a_card_arrives_as_it_is(use):
    bundle = Bundle(Path(), msgspec.structs.replace(CARD, use=use), {"model.onnx": ""})
    assert facts(config(bundle, "fp32"))["use"] == use


@given(st.text(max_size=40), st.sampled_from(["fp32", "fp16", "int8"]))
def test_a_models_name_is_valid_whatever_the_cards_id(name, precision):
    found = model_name(msgspec.structs.replace(CARD, id=name), precision)
    assert found.isascii()
    assert set(found) - set("_.-") == {each for each in found if each.isalnum()}
    assert found.endswith(f"-{precision}")  # never "." or ".."


def test_other_models_stay_and_the_same_model_is_replaced_as_a_whole(bundle, tmp_path):
    repository = tmp_path / "models"
    for name in ("other/1/model.plan", "tiny-fp32/2/model.onnx", "tiny-fp32/config.pbtxt"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("old")
    other = digests(repository / "other")
    write_triton(bundle, repository)
    first = digests(repository)
    write_triton(bundle, repository)
    assert digests(repository) == first
    assert digests(repository / "other") == other
    assert sorted(each.name for each in repository.iterdir()) == ["other", "tiny-fp32", "tiny-int8"]
    assert list(digests(repository / "tiny-fp32")) == ["1/model.onnx", "config.pbtxt"]


def test_a_file_in_the_place_of_the_repository_or_of_a_model_is_refused(bundle, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file: cannot be written .*the path is a file; choose another folder"):
        write_triton(bundle, tmp_path / "file")
    repository = tmp_path / "models"
    repository.mkdir()
    (repository / "tiny-fp32").write_text("mine")
    with pytest.raises(OutputError, match=r"tiny-fp32: cannot be written .*choose another folder"):
        write_triton(bundle, repository)
    assert digests(repository) == {"tiny-fp32": digests(tmp_path)["file"]}


def octedge_(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_bundle_one_was_given_becomes_a_repository_from_the_command_line(bundle, tmp_path):
    result = octedge_("export", bundle.path, "--triton", tmp_path / "models")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'models' / 'tiny-fp32'}\n{tmp_path / 'models' / 'tiny-int8'}\n"
    assert (tmp_path / "models" / "tiny-fp32" / "config.pbtxt").read_text("ascii") == config(bundle, "fp32")


def test_export_without_a_target_and_of_no_bundle_is_refused(bundle, tmp_path):
    result = octedge_("export", bundle.path)
    assert result.exit_code == 2
    assert "--out" in result.output
    assert "--triton" in result.output
    result = octedge_("export", tmp_path, "--triton", tmp_path / "models")
    assert result.exit_code == 3
    assert "no readable SHA256SUMS" in result.output
