"""Bundles: what is intact opens, what is not is named."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from octedge.edge import bundle as module
from octedge.edge.bundle import NEEDED, SUMS, open_bundle, write_sums
from octedge.errors import ModelError
from tests.support import CARD, tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "a bundle")


def test_an_intact_bundle_opens_with_its_card(folder):
    opened = open_bundle(folder)
    assert opened.card == CARD
    assert set(opened.sums) == {*NEEDED, "MODEL_CARD.md"}
    assert [known.frame.shape for known in opened.golden()] == [(48, 70), (64, 33)]


def test_sums_are_lines_that_sha256sum_checks(folder):
    for line in (folder / SUMS).read_text("ascii").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", [*NEEDED, "MODEL_CARD.md"])
def test_one_changed_byte_in_any_listed_file_is_named(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} was changed"):
        open_bundle(folder)


@pytest.mark.parametrize("name", [*NEEDED, "MODEL_CARD.md"])
def test_a_missing_listed_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        open_bundle(folder)


def test_files_that_are_not_listed_do_not_matter(folder):
    before = open_bundle(folder).digest
    (folder / "engines").mkdir()
    (folder / "engines" / "a.plan").write_bytes(b"built here")
    assert open_bundle(folder).digest == before


def test_the_digest_changes_with_any_file(folder):
    before = open_bundle(folder).digest
    (folder / "MODEL_CARD.md").write_text("other words")
    write_sums(folder)
    assert open_bundle(folder).digest != before


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "engines/../../x", "C:\\x", ""])
def test_sums_must_not_name_files_outside_the_bundle(folder, name):
    with (folder / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match="is not a line of"):
        open_bundle(folder)


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_bundle_needs_must_be_listed(folder, name):
    lines = [line for line in (folder / SUMS).read_text().splitlines() if not line.endswith(name)]
    (folder / SUMS).write_text("\n".join(lines))
    with pytest.raises(ModelError, match=f"does not list {name}"):
        open_bundle(folder)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"no sums at all"])
def test_damaged_sums_are_refused(folder, damage):
    (folder / SUMS).write_bytes(damage)
    with pytest.raises(ModelError, match=SUMS):
        open_bundle(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no readable SHA256SUMS"):
        open_bundle(tmp_path)
    with pytest.raises(ModelError, match="not a folder"):
        open_bundle(tmp_path / "nowhere")


def test_an_octedge_without_reference_model_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REFERENCE", tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"ships no reference model.*--model"):
        open_bundle()


def test_without_a_path_the_reference_is_opened(folder, monkeypatch):
    monkeypatch.setattr(module, "REFERENCE", folder)
    assert open_bundle().card == CARD


NO_GOLDEN = [b"", b"PK broken", b"\x93NUMPY\x01\x00", {"frame_0": np.zeros((2, 2))}, {"other": np.zeros(1)}, {"frame_0": np.array([{}])}]


@pytest.mark.parametrize("golden", NO_GOLDEN)
def test_golden_frames_that_cannot_be_read_are_refused(folder, golden):
    if isinstance(golden, bytes):
        (folder / "golden.npz").write_bytes(golden)
    else:
        np.savez(folder / "golden.npz", **golden)
    write_sums(folder)
    with pytest.raises(ModelError, match=r"golden\.npz"):
        open_bundle(folder).golden()
