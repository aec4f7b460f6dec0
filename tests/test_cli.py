"""The command line: what it prints, what it writes, and how it ends, for good input and bad."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate, generate_frames

import octedge
from octedge.batch import Options, scaled
from octedge.cli import COMMANDS
from octedge.edge.bundle import REFERENCE, open_bundle
from octedge.edge.ledger import Ledger
from octedge.errors import ModelError
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.scan import Scan, Spacing
from tests.support import CARD, digests, octedge_, tiny_bundle

LOOK = replace(LOOKS["spectralis"], rows=96, columns=140, span_mm=0.5)
CANARY = "CANARY^SECRET"


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def scans(tmp_path) -> Path:
    """A volume of three B-scans, and a picture."""
    folder = tmp_path / "my scans"
    folder.mkdir()
    write_dicom(Phantom(LOOK, 3, 1), folder / "scan7.dcm")
    Image.fromarray(Phantom(LOOK, 1, 2).bscan(0).image).save(folder / "picture.png")
    return folder


def test_segment_needs_no_option_but_out_and_model(scans, bundle, tmp_path):
    out = tmp_path / "new" / "out"
    result = octedge_("segment", scans, "--out", out, "--model", bundle)
    assert result.exit_code == 0
    assert result.stdout == ""
    pictures = [f"scan7/overlay_00{index}.png" for index in range(3)]
    assert sorted(digests(out)) == ["picture.npz", "picture.overlay.png", "scan7.npz", *pictures]
    told = result.stderr.splitlines()
    assert any(line.startswith("scan7: 3 B-scans of 96 x 140, 3.87 um per row, ") for line in told)
    assert any(line.startswith("picture: 1 B-scan of 96 x 140, scale unknown, ") for line in told)
    assert told[-1] == "scans: 2 done, 0 refused; research use only"


def test_the_result_holds_what_the_model_answers(scans, bundle, tmp_path):
    octedge_("segment", scans / "scan7.dcm", "--out", tmp_path / "out", "--model", bundle, "--format", "npz")
    direct = octedge.open_model(bundle).segment(octedge.read(scans / "scan7.dcm"))
    with np.load(tmp_path / "out" / "scan7.npz", allow_pickle=False) as file:
        assert np.array_equal(file["labels"], direct.labels)
        assert np.array_equal(file["surfaces"], direct.surfaces)
        assert file["spacing_mm"][0] == pytest.approx(0.00387)
    assert sorted(digests(tmp_path / "out")) == ["scan7.npz"]


def test_json_is_one_line_per_scan_on_stdout(scans, bundle, tmp_path):
    (scans / "broken.dcm").write_bytes(b"")
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", bundle, "--json", "--axial-um", 3.5)
    assert result.exit_code == 1
    found = {line["name"]: line for line in lines(result)}
    assert {name: line["status"] for name, line in found.items()} == {"broken": "refused", "picture": "done", "scan7": "done"}
    assert found["broken"]["error"]
    scan = found["scan7"]
    assert (scan["frames"], scan["rows"], scan["columns"], scan["model"]) == (3, 96, 140, "tiny")
    assert scan["spacing"] == {
        "axial_um": 3.5,
        "lateral_um": pytest.approx(11.6),
        "between_um": pytest.approx(250),
        "source": f"axial given by the user, else {octedge.read(scans / 'scan7.dcm').spacing.source}",
    }
    assert scan["notes"][-1] == "axial spacing 3.5 um given by the user; the file says 3.87 um"
    assert set(scan["seconds"]) == {"read", "engine", "order", "write"}
    assert max(scan["seconds"].values()) * 1000 / 3 <= scan["ms_per_bscan"] + 0.1  # stages run at the same time
    assert scan["failed"] == {}
    assert scan["outputs"] == ["scan7.npz", "scan7/overlay_000.png", "scan7/overlay_001.png", "scan7/overlay_002.png"]
    assert all((tmp_path / "out" / name).is_file() for name in scan["outputs"])


def test_flags_are_told_in_full_in_the_json_line_and_in_brief_to_people(bundle, tmp_path):
    np.savez(tmp_path / "twice.npz", frames=np.stack([Phantom(LOOK, 1, 1).bscan(0).image] * 2))
    Image.fromarray(Phantom(LOOK, 1, 2).bscan(0).image // 16).save(tmp_path / "dark.png")
    result = octedge_("segment", tmp_path, "--out", tmp_path / "out", "--model", bundle, "--json", "--format", "npz")
    found = {line["name"]: {flag["name"]: flag for flag in line["flags"]} for line in lines(result)}
    repeated = found["twice"]["repeated"]
    assert (repeated["value"], repeated["threshold"], repeated["frames"]) == (1, 0, [1])
    assert repeated["text"].startswith("repeated in 1 of 2 B-scans (1, counted from 0): the same image as the B-scan before")
    told = {line.partition(":")[0]: line for line in result.stderr.splitlines()}
    assert "repeated (1 of 2)" in told["twice"]
    assert "few greys" in told["dark"].partition("; flags: ")[2].partition(";")[0]
    assert "(1 of 1)" not in told["dark"]
    with np.load(tmp_path / "out" / "twice.npz", allow_pickle=False) as file:
        assert file["flags"].tolist() == [flag["text"] for flag in found["twice"].values()]
        assert file["quality"].shape == (2, len(file["quality_names"]))


def test_equal_input_gives_equal_bytes(scans, bundle, tmp_path):
    for name in ("one", "two"):
        octedge_("segment", scans, "--out", tmp_path / name, "--model", bundle)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_results_inside_the_input_folder_are_no_input_of_the_next_run(scans, bundle):
    first, second = (octedge_("segment", scans, "--out", scans / "results", "--model", bundle) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, second.stderr
    assert first.stderr.splitlines()[-1] == second.stderr.splitlines()[-1]


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


def test_overlays_are_there_before_the_volume_is_done(bundle, tmp_path, monkeypatch):
    torn_volume(tmp_path / "scan.tif", bad=())
    seen = []

    @contextmanager
    def watching(*_):
        yield lambda done, of: seen.append(((tmp_path / "out" / "scan" / f"overlay_00{done - 1}.png").is_file(), done, of))

    monkeypatch.setattr("octedge.cli.segment.progress_bar", watching)
    octedge_("segment", tmp_path / "scan.tif", "--out", tmp_path / "out", "--model", bundle)
    assert seen == [(True, done, 4) for done in (1, 2, 3, 4)]


def test_the_ledger_is_kept_if_asked_for(scans, bundle, tmp_path):
    result = octedge_("segment", scans / "scan7.dcm", "--out", tmp_path / "out", "--model", bundle, "--ledger", "--json")
    [scan] = lines(result)
    assert scan["outputs"][-1] == "scan7.ledger.json"
    ledger = msgspec.json.decode((tmp_path / "out" / "scan7.ledger.json").read_bytes(), type=Ledger)
    assert set(ledger.summary().stages) == {"decode", "tile", "engine", "stitch", "quality", "encode", "write"}
    assert [span.stage for span in ledger.whole] == ["receive", "write"]
    assert ledger.wall * 1000 / 3 == pytest.approx(scan["ms_per_bscan"], abs=0.01)


WRONG_CALLS = [
    ("segment",),
    ("segment", "nowhere.dcm", "--out", "out"),
    ("segment", "scan7.dcm"),
    ("segment", "scan7.dcm", "--out", "out", "--format", "report"),
    ("segment", "scan7.dcm", "--out", "out", "--format", "npz,pdf"),
    ("segment", "scan7.dcm", "--out", "out", "--format", ","),
    ("segment", "scan7.dcm", "--out", "out", "--engine", "cuda"),
    ("segment", "scan7.dcm", "--out", "out", "--axial-um", "0"),
    ("segment", "scan7.dcm", "--out", "out", "--axial-um", "0.00387"),
    ("segment", "scan7.dcm", "--out", "out", "--lateral-um", "nan"),
    ("segment", "scan7.dcm", "--out", "out", "--unknown"),
    ("check",),
    ("check", "nowhere"),
    ("unknown",),
]


@pytest.mark.parametrize("call", WRONG_CALLS, ids=" ".join)
def test_a_wrong_call_ends_with_2_and_writes_nothing(scans, monkeypatch, call):
    monkeypatch.chdir(scans)
    before = digests(scans)
    assert octedge_(*call).exit_code == 2
    assert digests(scans) == before


def test_what_is_no_format_is_told_what_is(scans, tmp_path):
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--format", "npz,report")
    assert "'report' is no format; available are deviation, heightmap, npz, overlay, seg, seg-binary, sr, thickness" in result.stderr


def test_a_fovea_is_a_place_in_one_scan(scans, tmp_path):
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--fovea", "3,70")
    assert result.exit_code == 2
    assert "--fovea is a place in one scan, but" in result.stderr


@pytest.mark.parametrize("given", ["7", "1,2,3", "here,there"])
def test_a_fovea_is_a_bscan_and_a_column(scans, tmp_path, given):
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--fovea", given)
    assert result.exit_code == 2
    assert "needed are B-scan and column, counted from 0" in result.stderr


@pytest.mark.parametrize("engine", ["openvino", "tensorrt", "rtx", "openvino-fp32"])
def test_an_engine_without_a_certificate_ends_with_3(scans, tmp_path, engine):
    folder = tiny_bundle(tmp_path / "tiny")
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", folder, "--engine", engine)
    assert result.exit_code == 3
    assert result.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_fall_back_that_is_allowed_is_said_and_stated_in_the_result(scans, tmp_path):
    folder = tiny_bundle(tmp_path / "tiny")
    options = ("--out", tmp_path / "out", "--model", folder, "--format", "npz", "--json")
    result = octedge_("segment", scans, *options, "--engine", "openvino", "--allow-fallback")
    assert result.exit_code == 0
    assert "falling back to ort-fp32, as allowed" in result.stderr
    assert {json.loads(line)["engine"].split()[0] for line in result.stdout.splitlines()} == {"onnxruntime"}


def test_an_unknown_engine_ends_with_2(scans, bundle, tmp_path):
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", bundle, "--engine", "cuda")
    assert result.exit_code == 2
    assert "no engine is called 'cuda'; known are auto, ort" in result.stderr


def test_prepare_chooses_and_segment_uses_the_choice(scans, tmp_path):
    folder = tiny_bundle(tmp_path / "tiny")
    found = octedge_("prepare", folder, "--engine", "openvino", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["chosen"] in ("openvino-fp32", "openvino-bf16")
    assert "openvino-fp32: certified: 100.000% of the labels as the reference" in found.stderr
    result = octedge_("segment", scans, "--out", tmp_path / "out", "--model", folder, "--format", "npz", "--json")
    assert result.exit_code == 0
    assert {json.loads(line)["engine"].split()[0] for line in result.stdout.splitlines()} == {"openvino"}


def test_prepare_says_what_is_missing_for_an_engine_that_was_asked_for(tmp_path):
    folder = tiny_bundle(tmp_path / "tiny")
    result = octedge_("prepare", folder, "--engine", "tensorrt")
    assert result.exit_code == 3
    assert "NVIDIA" in result.stderr


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


def test_check_says_what_a_scan_is(scans):
    result = octedge_("check", scans)
    assert result.exit_code == 0
    volume = result.stdout[result.stdout.index("scan7") :].splitlines()
    assert volume[1] == "  device   octedge phantom, looks like Spectralis"
    assert volume[2] == "  pattern  volume, 3 B-scans of 96 x 140"
    assert volume[3].startswith("  spacing  3.87 x 11.60 um per px, 250 um between B-scans (DICOM")
    assert volume[4:7] == ["  eye      right", "  order    by plane position", "  stored   uncompressed"]
    assert volume[-1] == "  verdict  can be segmented"
    assert "  spacing  scale unknown" in result.stdout


def test_check_as_json_says_the_same(scans):
    found = {line["name"]: line for line in lines(octedge_("check", "--json", scans))}
    assert found["scan7"]["laterality"] == "R"
    assert found["scan7"]["spacing"]["axial_um"] == pytest.approx(3.87)
    assert found["picture"]["spacing"]["axial_um"] is None
    assert (found["scan7"]["order"], found["scan7"]["coding"]) == ("by plane position", "uncompressed")
    assert (found["picture"]["order"], found["picture"]["coding"]) == ("as stored", "PNG")
    assert {line["status"] for line in found.values()} == {"ok"}


def test_inspect_shows_card_files_and_golden_frames(bundle):
    result = octedge_("inspect", bundle)
    assert result.exit_code == 0
    assert "model      tiny" in result.stdout
    for name, digest in open_bundle(bundle).sums.items():
        assert f"{digest}  {name}" in result.stdout
    assert "2 golden frames" in result.stdout


def test_doctor_tries_the_model(bundle):
    result = octedge_("doctor", "--model", bundle)
    assert result.exit_code == 0
    assert "ok    model        tiny on onnxruntime" in result.stdout
    assert "100.000% of 2 golden frames" in result.stdout


def test_doctor_names_packages_that_overwrite_each_other(bundle, monkeypatch):
    both = {"onnxruntime": ["onnxruntime", "onnxruntime-gpu"]}
    monkeypatch.setattr("octedge.edge.doctor.packages_distributions", lambda: both)
    result = octedge_("doctor", "--model", bundle)
    assert result.exit_code == 3
    assert "repair: pip uninstall -y onnxruntime onnxruntime-gpu && pip install octedge[cpu]" in result.stdout


def test_doctor_ends_with_3_where_nothing_can_be_segmented(tmp_path, monkeypatch):
    monkeypatch.setattr("octedge.edge.doctor.packages_distributions", dict)
    result = octedge_("doctor", "--model", tmp_path)
    assert result.exit_code == 3
    assert "fail  onnxruntime  not installed; repair: pip install octedge[cpu]" in result.stdout
    assert "fail  model" in result.stdout


def test_doctor_notes_a_cache_that_cannot_be_written(bundle, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "file"))
    result = octedge_("doctor", "--model", bundle)
    assert result.exit_code == 0
    assert "cannot be written: the engine is checked at every start; repair: set OCTEDGE_CACHE" in result.stdout


def test_the_overview_lists_every_command_without_importing_one():
    result = octedge_("--help")
    assert all(f"  {name} " in result.stdout for name in COMMANDS)
    assert "Research use only" in " ".join(result.stdout.split())
    assert octedge_("--version").stdout == f"octedge, version {octedge.__version__}\n"


def test_the_scale_given_by_the_user_is_used_and_said():
    scan = Scan("s", 1, 2, 2, lambda _: np.zeros((2, 2), np.uint8), Spacing(0.002, 0.01, 0.1, "a header"))
    assert scaled(scan, Options()) is scan
    assert scaled(scan, Options(axial_um=2.001)).notes == ()  # as the file says
    both = scaled(replace(scan, spacing=Spacing()), Options(axial_um=2, lateral_um=10)).spacing
    assert both == Spacing(0.002, 0.01, None, "axial and lateral given by the user")
    assert scaled(scan, Options(lateral_um=12)).spacing == Spacing(0.002, 0.012, 0.1, "lateral given by the user, else a header")
    assert CARD.axial_range.factor(2.0) != 1


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference model in this checkout")
def test_the_reference_model_is_intact():
    assert octedge_("inspect").exit_code == 0
