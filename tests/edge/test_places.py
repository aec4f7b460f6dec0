"""What is found out about a bundle is kept beside it, or in the user's cache."""

import os
import sys

import pytest

from octedge.edge.bundle import open_bundle
from octedge.edge.places import cache_folder, engines_folder
from tests.support import tiny_bundle


@pytest.mark.parametrize(
    ("system", "environment", "end"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/octedge"),
        ("linux", {"HOME": "/me"}, "/me/.cache/octedge"),
        ("darwin", {"HOME": "/me"}, "/me/Library/Caches/octedge"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/octedge/cache"),
        ("linux", {"OCTEDGE_CACHE": "/mine"}, "/mine"),
    ],
)
def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, system, environment, end):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "OCTEDGE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert cache_folder().as_posix() == end


def test_engines_lie_beside_the_files_they_are_made_of(tmp_path):
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    assert engines_folder(bundle) == bundle.path / "engines"


def test_engines_of_the_shipped_bundle_lie_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path))
    bundle = open_bundle()
    assert engines_folder(bundle) == tmp_path / "engines" / bundle.digest[:16]


def test_engines_of_a_bundle_that_cannot_be_written_lie_in_the_cache_unless_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    bundle = open_bundle(tiny_bundle(tmp_path / "tiny"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != bundle.path and real(path, mode))
    assert engines_folder(bundle) == tmp_path / "cache" / "engines" / bundle.digest[:16]
    (bundle.path / "engines").mkdir()
    assert engines_folder(bundle) == bundle.path / "engines"
