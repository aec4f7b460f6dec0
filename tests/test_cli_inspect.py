"""`octedge inspect`: what a bundle is, and what this machine has made of it."""

import hashlib
import json
import shutil

import msgspec
import pytest
from click.testing import CliRunner

from octedge.card import ModelCard, Precision
from octedge.cli import main
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.certificate import Certificate, certificate_file, examine, write_certificate
from octedge.edge.engine import load_engine, open_engine
from octedge.edge.variant import FIRST
from tests.support import CARD, tiny_bundle

FP16 = Precision(name="fp16", equal=0.99987, p99_px=0.03)
INT8 = Precision(name="int8", equal=0.9971, p99_px=0.4, iou_loss=0.0021, in_float=("first", "last"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return tiny_bundle(tmp_path / "tiny")


def inspect(*arguments):
    result = CliRunner().invoke(main, ["inspect", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert result.output.isascii()
    return result.stdout


def told(folder):
    text = inspect(folder, "--json")
    assert text.count("\n") == 1
    return json.loads(text)


def certificate(folder, **changes):
    """A certificate of the first variant, as if it had been found otherwise."""
    bundle = open_bundle(folder)
    found = examine(bundle, FIRST, load_engine(bundle))
    identity = {name: changes.pop(name) for name in list(changes) if name in found.identity.__struct_fields__}
    return msgspec.structs.replace(found, identity=msgspec.structs.replace(found.identity, **identity), **changes)


def test_the_precisions_of_the_bundle_are_listed_with_what_the_card_says_of_them(tmp_path):
    folder = tiny_bundle(tmp_path / "tiny", msgspec.structs.replace(CARD, precisions=(FP16, INT8)))
    for file in ("model.fp16.onnx", "model.int8.onnx"):
        shutil.copyfile(folder / "model.onnx", folder / file)
    write_sums(folder)
    size = (folder / "model.onnx").stat().st_size
    assert [line for line in inspect(folder).splitlines() if line.startswith("precision")] == [
        f"precision  fp32: model.onnx, {size} bytes",
        f"precision  fp16: model.fp16.onnx, {size} bytes; 99.987% of the labels as in fp32, surfaces within 0.03 px (99th percentile)",
        f"precision  int8: model.int8.onnx, {size} bytes; 99.710% of the labels as in fp32, surfaces within 0.40 px (99th percentile),"
        " 0.0021 of mean IoU lost on labelled scans, 2 convolutions left in floating point",
    ]


def test_a_precision_without_a_file_is_not_listed(folder):
    assert [line for line in inspect(folder).splitlines() if line.startswith("precision")] == [
        f"precision  fp32: model.onnx, {(folder / 'model.onnx').stat().st_size} bytes"
    ]


def test_a_bundle_that_was_never_used_has_no_certificate(folder):
    assert "certified  nothing on this machine yet; see octedge prepare\n" in inspect(folder)


def test_the_check_on_first_use_is_shown_for_its_own_bundle_alone(folder, tmp_path):
    engine = open_engine(open_bundle(folder))
    text = inspect(folder)
    assert f"certified  ort-fp32 on {engine.name}: 100.000% of the labels as the reference, surfaces within 0.00 px" in text
    assert "does not hold" not in text
    assert "may not serve" not in text
    other = tiny_bundle(tmp_path / "other", msgspec.structs.replace(CARD, id="other"))
    assert "certified  nothing on this machine yet" in inspect(other)


def test_a_certificate_of_another_machine_or_bundle_is_said_not_to_hold(folder):
    file = certificate_file(folder / "engines", FIRST)
    write_certificate(file, certificate(folder, machine="Linux m68k"))
    assert "           does not hold any more: machine was 'Linux m68k', is " in inspect(folder)
    write_certificate(file, certificate(folder, bundle="0" * 64))
    assert "           does not hold any more: bundle was 000000000000, is " in inspect(folder)


def test_an_engine_that_failed_its_check_is_said_not_to_serve(folder):
    write_certificate(certificate_file(folder / "engines", FIRST), certificate(folder, equal=0.5))
    assert "           may not serve: it gives the reference label for 50.0000% of the golden pixels" in inspect(folder)


def test_what_was_built_here_is_listed_with_its_digest(folder):
    assert "made on this machine" not in inspect(folder)
    (folder / "engines").mkdir()
    (folder / "engines" / "rtx-fp16.engine").write_bytes(b"a plan")
    text = inspect(folder)
    assert f"           6 bytes  {hashlib.sha256(b'a plan').hexdigest()}  rtx-fp16.engine\n" in text
    assert "4 files as listed in SHA256SUMS, 1 made on this machine; 2 golden frames\n" in text


def test_as_json_the_same_is_on_one_line(folder):
    write_certificate(certificate_file(folder / "engines", FIRST), certificate(folder, machine="Linux m68k", equal=0.5))
    (folder / "engines" / "rtx-fp16.engine").write_bytes(b"a plan")
    opened, found = open_bundle(folder), told(folder)
    assert msgspec.convert(found["card"], ModelCard) == opened.card
    assert found["digest"] == opened.digest
    assert {file["name"]: file["sha256"] for file in found["files"]} == opened.sums
    assert {file["name"]: file["bytes"] for file in found["files"]} == {name: (folder / name).stat().st_size for name in opened.sums}
    assert found["precisions"] == {"fp32": "model.onnx"}
    assert found["golden_frames"] == 2
    assert found["engines"] == [{"name": "rtx-fp16.engine", "bytes": 6, "sha256": hashlib.sha256(b"a plan").hexdigest()}]
    (kept,) = found["certificates"]
    assert msgspec.convert(kept["certificate"], Certificate).equal == 0.5
    assert kept["changed"].startswith("machine was 'Linux m68k'")
    assert kept["fault"].startswith("it gives the reference label for 50.0000%")


def test_the_json_names_no_folder_of_the_machine(folder, tmp_path):
    open_engine(open_bundle(folder))
    assert str(tmp_path) not in inspect(folder, "--json")


def test_a_machine_without_a_home_folder_shows_the_bundle_all_the_same(folder, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr("octedge.cli.inspect_bundle.cache_folder", homeless)
    assert "certified  nothing on this machine yet" in inspect(folder)
