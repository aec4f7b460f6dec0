"""The command line where something is bad: scans, frames, engines, disks; each costs itself alone and is said in one line."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

import octedge
from octedge.errors import ModelError
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from tests.support import LOOK, digests, lines, octedge_, tiny_bundle

CANARY = "CANARY^SECRET"


def rewritten(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """A JPEG 2000 volume whose compressed frames `change` has passed through."""
    write_dicom(Phantom(LOOK, 3, 1), path, coding="JPEG 2000")
    dataset = dcmread(path)
    dataset.PixelData = encapsulate(change(list(generate_frames(dataset.PixelData, number_of_frames=3))))
    dataset.save_as(path)


def scrambled(path: Path) -> None:
    rewritten(path, lambda frames: [frame[::-1] for frame in frames])


def truncated(path: Path, make: Callable[[Path], object]) -> None:
    make(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def colour(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)


def png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 140), dtype=np.uint8)).save(path)


BAD: dict[str, Callable[[Path], object]] = {
    "empty.dcm": lambda path: path.write_bytes(b""),
    "empty.png": lambda path: path.write_bytes(b""),
    "empty.npz": lambda path: path.write_bytes(b""),
    "empty.vol": lambda path: path.write_bytes(b""),
    "text.dcm": lambda path: path.write_text("no DICOM, but words"),
    "zeros.tif": lambda path: path.write_bytes(bytes(4096)),
    "colour.png": colour,
    "half.png": lambda path: truncated(path, png),
    "half.dcm": lambda path: truncated(path, lambda path: write_dicom(Phantom(LOOK, 3, 1), path)),
    "scrambled.dcm": scrambled,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["segment", "check"])
def test_a_bad_scan_is_refused_in_one_line_and_the_others_are_done(scans, bundle, tmp_path, name, command):
    BAD[name](scans / name)
    options = ("--out", tmp_path / "out", "--model", bundle) if command == "segment" else ()
    result = octedge_(command, scans, *options)
    assert result.exit_code == 1
    if command == "segment":
        [line] = [line for line in result.stderr.splitlines() if line.startswith("refused: ")]
        assert line.startswith(f"refused: {Path(name).stem}: ")
        assert result.stderr.splitlines()[-1] == "scans: 2 done, 1 refused; research use only"
        assert sorted(path.name for path in (tmp_path / "out").glob("*.npz")) == ["picture.npz", "scan7.npz"]
        assert not [path for path in digests(tmp_path / "out") if "tmp" in path or Path(name).stem in path]
    else:
        assert result.stdout.count("verdict  can be segmented") == 2
        assert result.stdout.count("verdict  refused: ") == 1


def torn_volume(path: Path, bad: tuple[int, ...], frames: int = 4) -> None:
    """A TIFF volume some of whose pages cannot be used: they have 16 bit, the others 8."""
    pages = [Image.fromarray(bscan.image) for bscan in (Phantom(LOOK, frames, 1).bscan(index) for index in range(frames))]
    pages = [page.convert("I;16") if index in bad else page for index, page in enumerate(pages)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def test_a_frame_that_cannot_be_decoded_costs_that_frame_alone(bundle, tmp_path):
    torn_volume(tmp_path / "torn.tif", bad=(1,))
    torn_volume(tmp_path / "whole.tif", bad=())
    out = tmp_path / "out"
    result = octedge_("segment", tmp_path, "--out", out, "--model", bundle, "--json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "scans: 1 done, 1 in part, 0 refused; research use only"
    torn, whole = lines(result)
    reason = "torn.tif: page 1 has 16 bit, page 2 has 8; save all pages alike"
    assert (torn["status"], torn["failed"]) == ("partial", {"1": reason})
    assert torn["notes"][-1] == f"1 of 4 B-scans could not be decoded and have no answer: 1 (counted from 0); the first: {reason}"
    assert torn["outputs"] == ["torn.npz", *(f"torn/overlay_00{index}.png" for index in (0, 2, 3))]
    assert sorted(digests(out)) == sorted(torn["outputs"] + whole["outputs"])
    with np.load(out / "torn.npz", allow_pickle=False) as one, np.load(out / "whole.npz", allow_pickle=False) as other:
        assert (one["failed_frames"].tolist(), other["failed_frames"].tolist()) == ([1], [])
        assert (one["labels"][1] == 255).all()
        assert np.isnan(one["surfaces"][1]).all()
        for name in ("labels", "surfaces"):
            assert np.array_equal(np.delete(one[name], 1, axis=0), np.delete(other[name], 1, axis=0))
        assert one["notes"][-1] == torn["notes"][-1]


@pytest.mark.parametrize("bad", range(4))
def test_it_may_be_any_of_the_frames(bundle, tmp_path, bad):
    path = tmp_path / "torn.tif"
    pages = [Image.fromarray(Phantom(LOOK, 4, 1).bscan(index).image) for index in range(4)]
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_deflate")
    with Image.open(path) as image:
        image.seek(bad)
        start = image.tag_v2[273][0]  # type: ignore[attr-defined]
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * 40 + data[start + 40 :])
    [scan] = lines(octedge_("segment", path, "--out", tmp_path / "out", "--model", bundle, "--json"))
    assert (scan["status"], list(scan["failed"])) == ("partial", [str(bad)])


def test_a_compressed_frame_that_is_cut_off_costs_that_frame_alone(bundle, tmp_path):
    rewritten(tmp_path / "cut.dcm", lambda frames: [frames[0], frames[1][:500], frames[2]])
    [verdict] = lines(octedge_("check", tmp_path / "cut.dcm", "--json"))
    assert (verdict["status"], verdict["coding"]) == ("partial", "JPEG 2000 lossless")
    assert verdict["verdict"].startswith("can be segmented but for 1 of 3 B-scans; the first: cut.dcm: frame 1 ends before its end marker")
    [scan] = lines(octedge_("segment", tmp_path / "cut.dcm", "--out", tmp_path / "out", "--model", bundle, "--json"))
    assert (scan["status"], list(scan["failed"])) == ("partial", ["1"])


def test_check_names_a_frame_that_cannot_be_decoded(tmp_path):
    torn_volume(tmp_path / "torn.tif", bad=(1, 3))
    result = octedge_("check", tmp_path / "torn.tif", "--json")
    assert result.exit_code == 1
    [verdict] = lines(result)
    assert verdict["status"] == "partial"
    assert verdict["verdict"].startswith("can be segmented but for 2 of 4 B-scans; the first: torn.tif: page 1 has 16 bit, page 2 has 8")


def test_a_scan_of_frames_that_cannot_be_decoded_is_refused_and_leaves_nothing(bundle, tmp_path, monkeypatch):
    torn_volume(tmp_path / "torn.tif", bad=())
    monkeypatch.setattr("octedge.readers.images.to_uint8", lambda image, _: image[1:])
    result = octedge_("segment", tmp_path, "--out", tmp_path / "out", "--model", bundle)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0].startswith("refused: torn: none of its 4 B-scans can be decoded; the first: frame 0 decodes to")
    assert not digests(tmp_path / "out")


class Dies:
    """An engine that fails in the middle of a volume."""

    name, sha256 = "dies", ""

    def __init__(self, engine, calls: int) -> None:
        self.engine, self.left = engine, calls

    def __call__(self, windows):
        self.left -= 1
        if self.left < 0:
            raise ModelError("the engine is gone")
        return self.engine(windows)


@pytest.mark.parametrize("formats", ["npz", "npz,overlay"])
def test_an_engine_that_dies_in_mid_volume_ends_with_3_and_leaves_whole_files_only(bundle, tmp_path, monkeypatch, formats):
    torn_volume(tmp_path / "a.tif", bad=())
    torn_volume(tmp_path / "b.tif", bad=(), frames=8)
    opened = octedge.open_model(bundle)
    monkeypatch.setattr("octedge.workers.open_model", lambda *_: replace(opened, engine=Dies(opened.engine, 4 + 5)))
    result = octedge_("segment", tmp_path, "--out", tmp_path / "out", "--model", bundle, "--format", formats)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == "error: the engine is gone"
    found = sorted(digests(tmp_path / "out"))
    assert found[0] == "a.npz"
    assert {Path(name).suffix for name in found[1:]} <= {".png"}
    for name in found[1:]:
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()


def test_a_damaged_bundle_ends_with_3(scans, tmp_path):
    folder = tiny_bundle(tmp_path / "tiny")
    (folder / "model.onnx").write_bytes(b"")
    options = ("--out", tmp_path / "out", "--model", folder)
    for call in (("segment", scans, *options), ("inspect", folder), ("demo", *options)):
        result = octedge_(*call)
        assert result.exit_code == 3
        assert "error: tiny/model.onnx was changed" in result.stderr


def test_an_output_folder_below_a_file_ends_with_1_and_one_line(scans, bundle, tmp_path):
    (tmp_path / "file").write_text("")
    result = octedge_("segment", scans, "--out", tmp_path / "file" / "out", "--model", bundle)
    assert result.exit_code == 1
    assert "cannot be written (Not a directory); a part of the path is a file; choose another folder" in result.stderr.splitlines()[-1]


def test_a_full_disk_stops_the_run_and_leaves_no_part_of_a_file(scans, bundle, tmp_path, monkeypatch):
    octedge_("segment", scans / "picture.png", "--out", tmp_path / "out", "--model", bundle)
    before = digests(tmp_path / "out")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", bundle)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].endswith("free space on the disk, or choose another folder")
    assert digests(tmp_path / "out") == before


def test_an_input_is_never_overwritten(bundle, tmp_path):
    np.savez(tmp_path / "scan.npz", image=Phantom(LOOK, 1, 1).bscan(0).image)
    before = digests(tmp_path)
    result = octedge_("segment", tmp_path / "scan.npz", "--out", tmp_path, "--model", bundle, "--format", "npz")
    assert result.exit_code == 2
    assert "is an input" in result.stderr
    assert digests(tmp_path) == before


def test_ctrl_c_ends_with_130_and_one_line(scans, bundle, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("octedge.batch.npz_by_frame", stop)
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", bundle)
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("stopped: ")
    assert not list((tmp_path / "out").rglob("*.tmp")) + list((tmp_path / "out").rglob(".octedge*"))


@pytest.mark.parametrize("broken", [False, True])
def test_no_patient_is_in_any_output(bundle, tmp_path, broken):
    path = tmp_path / "in" / "scan7.dcm"
    path.parent.mkdir()
    write_dicom(Phantom(LOOK, 2, 1), path)
    dataset = dcmread(path)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = CANARY, "CANARY-ID", "19010203"
    dataset.PatientComments = dataset.StudyDescription = dataset.AccessionNumber = dataset.InstitutionName = "CANARY"
    if broken:
        dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(path)
    for options in ((), ("--json",)):
        results = [
            octedge_("segment", path.parent, "--out", tmp_path / "out", "--model", bundle, *options),
            octedge_("check", path.parent, *options),
        ]
        assert [result.exit_code for result in results] == [int(broken)] * 2
        for text in [result.output for result in results]:
            assert "CANARY" not in text
            assert "1901" not in text
    for file in (file for file in (tmp_path / "out").rglob("*") if file.is_file()):
        content = file.read_bytes()
        if file.suffix == ".png":
            with Image.open(file) as picture:
                content += repr(picture.info).encode()
        assert b"CANARY" not in content
        assert "CANARY".encode("utf-32-le") not in content
