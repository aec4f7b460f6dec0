"""No engine serves without the reference answers; a check is kept, and only for what it holds for."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from octedge.edge import certificate as module
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.certificate import cache_folder, certify
from octedge.edge.engine import load_engine, open_engine
from octedge.errors import ModelError
from tests.support import tiny_bundle


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path, cache):
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


def told(bundle) -> list[str]:
    words: list[str] = []
    open_engine(bundle, tell=words.append)
    return words


def test_the_first_opening_checks_and_the_second_trusts_it(bundle, cache):
    [words] = told(bundle)
    assert words.startswith("checking the engine against 2 golden frames ... passed, ")
    assert len(list(cache.rglob("*.json"))) == 1
    assert told(bundle) == []


def test_a_changed_bundle_is_checked_anew(bundle):
    told(bundle)
    (bundle.path / "MODEL_CARD.md").write_text("other words")
    write_sums(bundle.path)
    assert len(told(open_bundle(bundle.path))) == 1


@pytest.mark.parametrize(("owner", "name"), [("octedge", "0.0.0"), ("numpy", "1.0"), ("machine", "another kind")])
def test_other_software_or_another_machine_is_checked_anew(bundle, monkeypatch, owner, name):
    told(bundle)
    real = module._identity
    monkeypatch.setattr(module, "_identity", lambda *args: msgspec.structs.replace(real(*args), **{owner: name}))
    assert len(told(bundle)) == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"schema": 1, "unknown": 2}'])
def test_a_damaged_certificate_is_no_certificate(bundle, cache, damage):
    told(bundle)
    [file] = cache.rglob("*.json")
    file.write_bytes(damage)
    assert len(told(bundle)) == 1
    assert told(bundle) == []


def test_a_certificate_of_something_else_under_this_name_does_not_count(bundle, cache):
    told(bundle)
    [file] = cache.rglob("*.json")
    file.write_bytes(file.read_bytes().replace(bundle.digest.encode(), b"0" * 64))
    assert len(told(bundle)) == 1


def test_a_cache_that_cannot_be_written_means_checking_every_time(bundle, cache):
    cache.write_text("a file in the place of the folder")
    assert len(told(bundle)) == 1
    assert len(told(bundle)) == 1


def test_no_home_folder_means_checking_every_time(bundle, monkeypatch):
    monkeypatch.setattr(module, "cache_folder", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(told(bundle)) == 1
    assert len(told(bundle)) == 1


def wrong_in(pixels: int, engine):
    """The engine, sure of another class in so many pixels of every answer."""

    def run(windows):
        scores, labels = engine(windows)
        scores, labels = scores.copy(), labels.copy()
        for row in range(pixels):
            labels[0, row, 5] = 0 if labels[0, row, 5] else 1
        return scores, labels

    return run


def test_wrong_answers_are_refused_every_time_and_nothing_is_kept(bundle, cache):
    engine = wrong_in(20, load_engine(bundle))
    for _ in range(2):
        words: list[str] = []
        with pytest.raises(ModelError, match=r"reference label for 9\d\.\d+% of the golden pixels of tiny; needed are 99\.99%"):
            certify(bundle, engine, "wrong", words.append)
        assert "failed" in words[0]
    assert not list(cache.rglob("*.json"))


def test_surfaces_and_labels_of_other_sizes_are_refused(bundle):
    known = bundle.golden()[0]
    np.savez(bundle.path / "golden.npz", frame_0=known.frame, labels_0=known.labels[1:], surfaces_0=known.surfaces)
    with pytest.raises(ModelError, match="sizes of frames and reference answers do not fit"):
        certify(bundle, load_engine(bundle), "ort", print)


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
