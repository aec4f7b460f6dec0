"""Engines are opened by name; nothing is substituted."""

import sys

import pytest

from octedge.edge.bundle import open_bundle
from octedge.edge.engine import load_engine
from octedge.errors import ModelError, UsageError
from tests.support import tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


@pytest.mark.parametrize("name", ["auto", "ort"])
def test_auto_is_onnxruntime(bundle, name):
    assert load_engine(bundle, name).name.startswith("onnxruntime ")


@pytest.mark.parametrize("name", ["openvino", "tensorrt", "rtx"])
def test_engines_of_later_versions_are_refused_not_replaced(bundle, name):
    with pytest.raises(ModelError, match=f"{name} is not in this version of octedge; use --engine ort"):
        load_engine(bundle, name)


def test_an_unknown_engine_is_a_wrong_call(bundle):
    with pytest.raises(UsageError, match="no engine is called 'cuda'; known are auto, ort"):
        load_engine(bundle, "cuda")


def test_a_machine_without_onnxruntime_is_told_what_to_install(bundle, monkeypatch):
    monkeypatch.delitem(sys.modules, "octedge.edge.ort", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"onnxruntime cannot be imported.*pip install octedge\[cpu\]"):
        load_engine(bundle)
