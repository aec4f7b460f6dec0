"""`octedge bench`: what it prints and keeps, how it ends, and what it must not tell."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result

from octedge.edge.bench import Report, read_report
from tests.support import octedge_

QUICK = ("--frames", 6, "--size", "96x140")


def report(result: Result) -> Report:
    return msgspec.json.decode(result.stdout, type=Report)


def test_without_input_a_synthetic_volume_of_the_size_goes_from_file_to_file(bundle):
    result = octedge_("bench", *QUICK, "--model", bundle, "--json", "-")
    assert result.exit_code == 0
    found = report(result)
    (case,) = found.cases
    series = case.series
    assert (series.synthetic, series.frames, series.rows, series.columns, series.factor) == (True, 16, 96, 140, 1.0)
    assert series.bytes > 16 * 96 * 140
    assert list(case.stages) == ["decode", "tile", "engine", "stitch", "quality", "encode"]
    assert list(case.once) == ["receive", "write"]
    assert (case.end_to_end.bscans, case.engine.bscans) == (6, 6)
    for measured in (case.end_to_end, case.engine):
        assert measured.ascans_per_second == pytest.approx(140 * measured.bscans_per_second, rel=0.01)
        assert measured.unstable.startswith("2 B-scans a round are too few")
    assert case.pace is None
    assert (found.subject.variant, len(found.subject.certificate), found.written) == ("ort-fp32", 64, "npz")


def test_people_are_told_the_same_with_the_rules_it_was_measured_by(bundle):
    result = octedge_("bench", *QUICK, "--model", bundle)
    told = result.stdout
    assert result.exit_code == 0
    assert "onnxruntime" in told
    assert "certificate" in told
    assert "3 rounds of 2 B-scans end to end, then 2 of the engine alone; the first 3 of each do not\ncount: a first call" in told
    assert "scan 1: 96 x 140, 16 B-scans, 0.2 MB, a phantom" in told
    starts = ("decode ", "tile ", "engine ", "stitch ", "encode ", "end to end ", "engine alone ", "once a scan, ms: receive ")
    assert all(any(line.startswith(start) for line in told.splitlines()) for start in starts)
    assert "engine alone: not stable: 2 B-scans a round are too few to say; 4 are needed" in told


def test_every_scan_given_is_measured_and_none_is_named(bundle, tmp_path):
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.savez(folder / "secret_1.npz", images=rng.integers(0, 256, (2, 50, 70), np.uint8))
    np.savez(folder / "secret_2.npz", images=rng.integers(0, 256, (3, 60, 40), np.uint8))
    result = octedge_("bench", folder, "--model", bundle, "--frames", 3, "--json", "-")
    assert result.exit_code == 0
    found = [case.series for case in report(result).cases]
    assert [(each.frames, each.rows, each.columns, each.synthetic) for each in found] == [(2, 50, 70, False), (3, 60, 40, False)]
    assert [each.bytes for each in found] == [(folder / f"secret_{n}.npz").stat().st_size for n in (1, 2)]
    assert "secret" not in result.output
    assert "DOE" not in result.output
    assert str(tmp_path) not in result.stdout


def test_a_device_it_keeps_up_with_ends_with_0(bundle):
    pace = ("--a-rate", 1400, "--duration", 0.5, "--deadline-ms", 60_000)
    result = octedge_("bench", "--frames", 1, "--size", "32x140", "--model", bundle, *pace, "--json", "-")
    assert result.exit_code == 0
    (case,) = report(result).cases
    assert case.pace is not None
    assert (case.pace.due, case.pace.answered, case.pace.misses, case.pace.a_per_b) == (5, 5, 0, 140)
    assert "\nkeeps up: headroom " in result.stderr


def test_a_device_that_is_too_fast_ends_with_1_and_says_by_how_much(bundle, tmp_path):
    kept = tmp_path / "kept.json"
    result = octedge_("bench", "--frames", 1, "--size", "96x140", "--model", bundle, "--a-rate", "1e8", "--duration", 0.1, "--json", kept)
    assert result.exit_code == 1
    assert "does not keep up: headroom 0.00 (" in result.stdout
    assert "never handed over for want of room" in result.stdout
    (case,) = read_report(kept).cases
    assert case.pace is not None
    assert not case.pace.keeps_up


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--frames", 0), "--frames"),
        (("--size", "1024"), "'1024' is no size; needed are rows x columns"),
        (("--size", "16x512"), "32 or more of each"),
        (("--a-rate", 0), "--a-rate"),
        (("--a-rate", "nan"), "needed are finite numbers above 0"),
        (("--a-rate", 1000, "--duration", 0), "--duration"),
        (("--a-rate", 1000, "--a-per-b", 139), "139 A-scans per B-scan given; a B-scan of 140 columns has at least as many"),
        (("--a-per-b", 140), "give that with --a-rate"),
        (("nowhere.dcm",), "'nowhere.dcm' does not exist"),
        (("--engine", "abacus"), "no engine is called 'abacus'"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_needed(wrong, words, bundle):
    result = octedge_("bench", "--model", bundle, *QUICK, *wrong)
    assert result.exit_code == 2
    assert words in result.stderr


def test_an_engine_without_certificate_is_not_measured(bundle):
    result = octedge_("bench", *QUICK, "--model", bundle, "--engine", "openvino-fp32")
    assert result.exit_code == 3
    assert "has no certificate" in result.stderr
    assert result.stdout == ""


def test_a_scan_that_cannot_be_read_ends_with_1(bundle, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    result = octedge_("bench", tmp_path / "broken.png", "--model", bundle)
    assert result.exit_code == 1
    assert "error: broken" in result.stderr


@pytest.fixture(scope="module")
def kept(tmp_path_factory, bundle) -> Path:
    file = tmp_path_factory.mktemp("kept") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTEDGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        assert octedge_("bench", *QUICK, "--model", bundle, "--a-rate", 14_000, "--duration", 0.1, "--json", file).exit_code in (0, 1)
    return file


def test_two_runs_of_the_same_are_compared_with_ratios(kept):
    result = octedge_("bench", "--compare", kept, kept)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[-1] == "nothing differs: the ratios are what two runs of the same differ by"
    ratios = [line.split()[-1] for line in lines if line.startswith(("  p", "  max", "decode", "engine p50", "lag", "headroom"))]
    assert len(ratios) >= 10
    assert set(ratios) <= {"1.000", "-"}
    assert "(A and B not stable)" in next(line for line in lines if line.startswith("end to end, 1/s"))


def test_a_comparison_across_scans_and_machines_means_nothing_and_ends_with_1(kept, tmp_path):
    other = json.loads(kept.read_text())
    other["machine"]["kind"] = "another"
    other["cases"][0]["series"]["pixels"] = "0" * 16
    (tmp_path / "b.json").write_text(json.dumps(other))
    result = octedge_("bench", "--compare", kept, tmp_path / "b.json")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "the comparison means nothing, for these differ: machine, scans"
    assert any(line.startswith("machine: ") and "another" in line for line in result.stdout.splitlines())


def test_what_is_no_report_cannot_be_compared(kept, tmp_path):
    (tmp_path / "b.json").write_text("{}")
    assert octedge_("bench", "--compare", kept, tmp_path / "b.json").exit_code == 2
    assert octedge_("bench", "--compare", kept, tmp_path / "none.json").exit_code == 2
    assert octedge_("bench", kept, "--compare", kept, kept).exit_code == 2
