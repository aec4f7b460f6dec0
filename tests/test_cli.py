"""The command line: what it prints, what it writes, and how it ends."""

import json
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

import octedge
from octedge.batch import Options, scaled
from octedge.cli import COMMANDS
from octedge.edge.bundle import REFERENCE, open_bundle
from octedge.edge.ledger import Ledger
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.scan import Scan, Spacing
from tests.support import CARD, LOOK, digests, lines, octedge_, tiny_bundle


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


def test_overlays_are_there_before_the_volume_is_done(bundle, tmp_path, monkeypatch):
    write_dicom(Phantom(LOOK, 4, 1), tmp_path / "scan.dcm")
    seen = []

    @contextmanager
    def watching(*_):
        yield lambda done, of: seen.append(((tmp_path / "out" / "scan" / f"overlay_00{done - 1}.png").is_file(), done, of))

    monkeypatch.setattr("octedge.cli.segment.progress_bar", watching)
    octedge_("segment", tmp_path / "scan.dcm", "--out", tmp_path / "out", "--model", bundle)
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
