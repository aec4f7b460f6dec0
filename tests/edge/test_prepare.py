"""Preparation certifies what a machine can run, chooses the fastest, and may be stopped and repeated."""

import pytest

from octedge.edge import certificate as certificates
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.engine import open_engine
from octedge.edge.places import engines_folder
from octedge.edge.prepare import prepare
from octedge.edge.prepared import NAME, read_prepared
from octedge.edge.variant import Variant
from octedge.errors import ModelError, OutputError, UsageError
from tests.support import digests, tiny_bundle
from tests.train.tiny import quiet

TWO = ("ort-fp32", "openvino-fp32")


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


def test_every_passing_variant_is_certified_timed_and_the_fastest_chosen(bundle):
    found = prepare(bundle, TWO, quiet)
    assert set(found.ms) == set(TWO)
    assert found.chosen == min(found.ms, key=found.ms.get)
    assert read_prepared(engines_folder(bundle)) == found
    for name in TWO:
        kept = certificates.read_certificate(engines_folder(bundle) / f"{name}.certificate.json")
        assert kept.identity.bundle == bundle.digest
        assert kept.fault() == ""
        open_engine(bundle, name)


def test_without_names_everything_the_machine_has_is_tried_and_the_rest_said(bundle):
    words: list[str] = []
    found = prepare(bundle, (), words.append)
    assert set(TWO) <= set(found.ms)
    assert any(line.startswith("tensorrt: not here: ") for line in words) or "tensorrt-fp32" in {*found.ms, *found.refused}


def test_the_bundle_stays_as_it_was(bundle):
    before = digests(bundle.path)
    prepare(bundle, TWO, quiet)
    after = digests(bundle.path)
    assert {name: digest for name, digest in after.items() if not name.startswith("engines/")} == before
    assert open_bundle(bundle.path).digest == bundle.digest


def test_what_is_certified_is_not_certified_again(bundle):
    prepare(bundle, TWO, quiet)
    words: list[str] = []
    prepare(bundle, TWO, words.append)
    assert [line for line in words if "certified" in line] == [f"{name}: certified before" for name in TWO]


def test_an_interrupted_preparation_keeps_what_was_certified_and_chooses_nothing(bundle):
    def stop(line):
        if line.startswith("openvino-fp32: certified"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(bundle, TWO, stop)
    assert not (engines_folder(bundle) / NAME).exists()
    words: list[str] = []
    assert set(prepare(bundle, TWO, words.append).ms) == set(TWO)
    assert "ort-fp32: certified before" in words


def test_a_variant_that_fails_is_named_and_not_chosen(bundle):
    golden = bundle.path / "golden.npz"
    import numpy as np

    arrays = dict(np.load(golden))
    arrays["labels_0"][:20, 5] ^= 1
    np.savez(golden, **arrays)
    write_sums(bundle.path)
    words: list[str] = []
    with pytest.raises(ModelError, match="no engine of this machine may serve tiny; see octedge doctor"):
        prepare(open_bundle(bundle.path), TWO, words.append)
    assert [line for line in words if "refused: it gives the reference label for 99." in line]


def test_a_named_engine_that_is_not_here_is_refused(bundle):
    with pytest.raises(ModelError, match="NVIDIA"):
        prepare(bundle, ("tensorrt",), quiet)


def test_a_named_variant_that_cannot_run_here_is_refused(bundle):
    with pytest.raises(ModelError, match="ort-bf16 cannot run on this machine; possible are ort-fp32"):
        prepare(bundle, ("ort-bf16",), quiet)


def test_a_named_precision_that_the_bundle_lacks_is_refused(bundle):
    with pytest.raises(ModelError, match=r"ort-int8 needs model\.int8\.onnx, which tiny does not have; export the bundle with it"):
        prepare(bundle, ("ort-int8",), quiet)


def test_an_unknown_name_is_a_wrong_call(bundle):
    with pytest.raises(UsageError, match="no engine is called 'cuda'"):
        prepare(bundle, ("cuda",), quiet)


def test_a_folder_that_cannot_be_written_is_said(bundle):
    (bundle.path / "engines").write_text("a file in its place")
    with pytest.raises(OutputError, match="the path is a file; choose another folder"):
        prepare(bundle, ("ort-fp32",), quiet)


def test_the_fastest_of_an_engine_is_of_that_engine():
    from octedge.edge.prepared import Prepared

    found = Prepared(bundle="", machine="", chosen="rtx-fp16", ms={"ort-fp32": 5, "ort-int8": 3, "rtx-fp16": 1})
    assert (found.fastest("ort"), found.fastest("rtx"), found.fastest("openvino")) == ("ort-int8", "rtx-fp16", None)
    assert str(Variant("ort", "int8")) == "ort-int8"
