"""Engines are opened by name, with a certificate from this machine; nothing is substituted unless that was allowed."""

import sys

import msgspec
import numpy as np
import pytest

from octedge.edge import certificate as certificates
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.engine import BACKENDS, load_engine, open_engine, variant_named
from octedge.edge.places import engines_folder
from octedge.edge.prepare import prepare
from octedge.edge.prepared import NAME, Prepared, read_prepared, write_prepared
from octedge.edge.variant import FIRST, Variant
from octedge.errors import ModelError, UsageError
from tests.support import tiny_bundle
from tests.train.tiny import quiet

OPENVINO = Variant("openvino", "fp32")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def prepared(bundle):
    prepare(bundle, ("ort-fp32", "openvino-fp32"), quiet)
    return bundle


def choose(bundle, name):
    """As if this one had been the fastest."""
    folder = engines_folder(bundle)
    found = read_prepared(folder)
    assert found is not None
    write_prepared(folder, msgspec.structs.replace(found, chosen=name))


def edit(of, variant, identity=None, **values):
    """The certificate, given for something else, or with other findings."""
    file = certificates.certificate_file(engines_folder(of), variant)
    kept = certificates.read_certificate(file)
    assert kept is not None
    changed = msgspec.structs.replace(kept.identity, **(identity or {}))
    certificates.write_certificate(file, msgspec.structs.replace(kept, identity=changed, **values))


@pytest.mark.parametrize("name", ["auto", "ort", "ort-fp32"])
def test_without_preparation_the_engine_is_onnxruntime_in_fp32(bundle, name):
    assert open_engine(bundle, name).name.startswith("onnxruntime ")


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("auto", FIRST),
        ("rtx", Variant("rtx", "fp32")),
        ("ort-cuda-fp16", Variant("ort", "fp16", "cuda")),
        ("openvino-bf16", Variant("openvino", "bf16")),
    ],
)
def test_a_name_is_an_engine_and_perhaps_a_device_and_a_precision(name, variant):
    assert variant_named(name) == variant
    assert variant_named(str(variant)) == variant


@pytest.mark.parametrize("name", ["cuda", "", "ort-", "ort-fp8", "fp16", "ort-a-b-fp16", "-fp32"])
def test_an_unknown_engine_is_a_wrong_call(bundle, name):
    with pytest.raises(UsageError, match=f"no engine is called '{name}'; known are auto, ort"):
        open_engine(bundle, name)


@pytest.mark.parametrize("name", [*(name for name in BACKENDS if name != "ort"), "openvino-fp32"])
def test_an_engine_that_was_not_prepared_is_refused(bundle, name):
    with pytest.raises(ModelError, match=rf"run octedge prepare BUNDLE --engine {name}|no NVIDIA|cannot be imported"):
        open_engine(bundle, name)


def test_a_machine_without_onnxruntime_is_told_what_to_install(bundle, monkeypatch):
    monkeypatch.delitem(sys.modules, "octedge.edge.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime cannot be imported.*pip install octedge\[cpu\]"):
        load_engine(bundle)


def test_auto_is_what_preparation_chose(prepared):
    choose(prepared, "openvino-fp32")
    assert open_engine(prepared).name.startswith("openvino ")
    choose(prepared, "ort-fp32")
    assert open_engine(prepared).name.startswith("onnxruntime ")


def test_an_engine_alone_means_its_fastest_variant(prepared):
    assert open_engine(prepared, "openvino").name.startswith("openvino ")
    assert open_engine(prepared, "ort").name.startswith("onnxruntime ")


def test_a_bundle_prepared_for_one_engine_says_why_another_is_not(prepared):
    folder = engines_folder(prepared)
    refused = {"openvino-fp32": "too far off"}
    found = Prepared(bundle=prepared.digest, machine="this", chosen="ort-fp32", ms={"ort-fp32": 1.0}, refused=refused)
    write_prepared(folder, found)
    with pytest.raises(ModelError, match=r"openvino is not prepared .* \(too far off\); run octedge prepare BUNDLE --engine openvino"):
        open_engine(prepared, "openvino")


@pytest.mark.parametrize(
    ("field", "was"),
    [
        ("machine", "Linux another cpu"),
        ("engine", "openvino 2020.1 cpu fp32"),
        ("file", "0" * 64),
        ("bundle", "1" * 64),
        ("octedge", "0.0.1"),
        ("numpy", "1.0"),
    ],
)
def test_a_certificate_for_something_else_is_refused_naming_what_changed(prepared, field, was):
    edit(prepared, OPENVINO, {field: was})
    choose(prepared, "openvino-fp32")
    short = was[:12] if len(was) == 64 else f"'{was}'"
    for name in ("auto", "openvino", "openvino-fp32"):
        with pytest.raises(ModelError, match=f"openvino-fp32 does not hold any more: {field} was {short}, is .*octedge prepare BUNDLE"):
            open_engine(prepared, name)


def test_a_bundle_changed_after_preparation_is_not_served_by_what_was_prepared(prepared):
    (prepared.path / "MODEL_CARD.md").write_text("other words")
    write_sums(prepared.path)
    with pytest.raises(ModelError, match="openvino-fp32 does not hold any more: bundle was"):
        open_engine(open_bundle(prepared.path), "openvino-fp32")


def test_the_first_variant_checks_itself_again_where_its_prepared_certificate_is_for_something_else(prepared):
    edit(prepared, FIRST, {"machine": "another"})
    words: list[str] = []
    open_engine(prepared, "ort-fp32", words.append)
    assert "passed" in words[0]


def test_a_certificate_that_says_fail_is_refused(prepared):
    edit(prepared, OPENVINO, equal=0.5)
    with pytest.raises(ModelError, match=r"openvino-fp32 may not serve tiny: it gives the reference label for 50\.0000%"):
        open_engine(prepared, "openvino-fp32")


def test_a_missing_certificate_is_refused(prepared):
    certificates.certificate_file(engines_folder(prepared), OPENVINO).unlink()
    with pytest.raises(ModelError, match="no certificate for tiny on this machine; run octedge prepare BUNDLE --engine openvino-fp32"):
        open_engine(prepared, "openvino-fp32")


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b'{"schema": 1}'])
def test_a_damaged_choice_is_refused_not_guessed(prepared, damage):
    (engines_folder(prepared) / NAME).write_bytes(damage)
    with pytest.raises(ModelError, match=r"prepared\.json of the prepared engines cannot be read .*; run octedge prepare BUNDLE again"):
        open_engine(prepared)


def test_a_fall_back_is_made_only_when_allowed_and_is_said(bundle):
    with pytest.raises(ModelError):
        open_engine(bundle, "openvino")
    words: list[str] = []
    engine = open_engine(bundle, "openvino", words.append, allow_fallback=True)
    assert engine.name.startswith("onnxruntime ")
    assert "openvino is not prepared" in words[0]
    assert words[0].endswith("falling back to ort-fp32, as allowed")


def test_no_fall_back_hides_that_the_first_variant_fails(bundle):
    golden = dict(np.load(bundle.path / "golden.npz"))
    golden["labels_0"][:20, 5] ^= 1
    np.savez(bundle.path / "golden.npz", **golden)
    write_sums(bundle.path)
    with pytest.raises(ModelError, match="may not serve tiny"):
        open_engine(open_bundle(bundle.path), allow_fallback=True)
