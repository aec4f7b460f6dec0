"""A model answers scans: frame by frame what `segment` answers, and says what one must know."""

from dataclasses import replace

import numpy as np
import pytest

import octedge
from octedge.edge.model import Model, open_model
from octedge.errors import ScanError
from octedge.quality import FrameQuality
from octedge.scan import Scan, Spacing
from octedge.segment import Plan, segment
from tests.support import CARD, tiny_bundle


@pytest.fixture
def model(tmp_path, monkeypatch) -> Model:
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return open_model(tiny_bundle(tmp_path / "tiny"))


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (50, 171), dtype=np.uint8)


SCAN = Scan("noise", 3, 50, 171, noise, Spacing(0.0039, 0.01, None, "a test"), notes=("from the scan",))


def test_every_frame_gets_the_answer_of_segment_in_its_place(model):
    result = model.segment(SCAN)
    for index in range(3):
        alone = segment(noise(index), model.engine, Plan(CARD.chain, CARD.windowing))
        assert np.array_equal(result.labels[index], alone.labels)
        assert np.allclose(result.surfaces[index], alone.surfaces, atol=1e-4)
    assert (result.labels.dtype, result.surfaces.dtype) == (np.uint8, np.float32)
    assert result.surfaces.shape == (3, len(result.surface_names), 171)
    assert (result.name, result.model, result.engine) == ("noise", "tiny", model.engine.name)
    assert (result.structures, result.surface_names) == (CARD.structures, CARD.surfaces)
    assert (result.spacing, result.factor, result.notes) == (SCAN.spacing, 1.0, ("from the scan",))


def test_progress_is_heard_after_every_frame(model):
    heard = []
    model.segment(SCAN, lambda done, of: heard.append((done, of)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_a_scaled_scan_says_by_how_much(model):
    result = model.segment(replace(SCAN, spacing=Spacing(0.00195, None, None, "a test")))
    assert result.factor == pytest.approx(1.95 / 3.87)
    assert result.notes == ("from the scan", "rows scaled by 0.50 from 1.95 to 3.87 um for the network")
    assert result.labels.shape == (3, 50, 171)


def test_a_scan_of_unknown_scale_says_so(model):
    result = model.segment(replace(SCAN, spacing=Spacing()))
    assert result.factor == 1
    assert result.notes[-1] == "scale unknown: rows taken as they are; results in pixels; give --axial-um"


def torn(*bad):
    """Frames of which some are a row short."""
    return lambda index: noise(index)[: 49 if index in bad else 50]


def test_a_broken_frame_costs_that_frame_and_is_named(model):
    whole, result = model.segment(SCAN), model.segment(replace(SCAN, decode=torn(1)))
    assert result.failed == {1: "frame 1 decodes to uint8 (49, 171), needed is uint8 (50, 171); the file is probably damaged"}
    assert (result.labels[1] == 255).all()
    assert np.isnan(result.surfaces[1]).all()
    for index in (0, 2):
        assert np.array_equal(result.labels[index], whole.labels[index])
        assert np.array_equal(result.surfaces[index], whole.surfaces[index])
    assert result.quality == (whole.quality[0], FrameQuality(), whole.quality[2])
    which = "1 of 3 B-scans could not be decoded and have no answer: 1 (counted from 0); the first: "
    assert result.notes == ("from the scan", which + result.failed[1])
    assert whole.failed == {}


def test_a_note_names_a_few_of_many_broken_frames(model):
    result = model.segment(replace(SCAN, frames=15, decode=torn(*range(14))))
    assert len(result.failed) == 14
    assert " 14 of 15 B-scans could not" in " " + result.notes[-1]
    assert ": 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... (counted from 0)" in result.notes[-1]


def test_a_scan_of_broken_frames_is_refused(model):
    with pytest.raises(ScanError, match="noise: none of its 3 B-scans can be decoded; the first: frame 0 decodes to"):
        model.segment(replace(SCAN, decode=torn(0, 1, 2)))
    with pytest.raises(ScanError, match="noise: frame 0 decodes to"):
        model.segment(replace(SCAN, frames=1, decode=torn(0)))


def test_flags_are_raised_over_the_b_scans_of_a_scan(model):
    result = model.segment(replace(SCAN, decode=lambda index: noise(min(index, 1))))
    assert {flag.name: flag.frames for flag in result.flags}["repeated"] == (2,)
    assert "repeated" not in {flag.name for flag in model.segment(SCAN).flags}


def test_a_scan_larger_than_memory_is_refused_in_words(model):
    with pytest.raises(ScanError, match="do not fit into memory"):
        model.segment(replace(SCAN, frames=10**6, rows=10**6, columns=10**4))


def test_a_run_knows_when_each_stage_had_each_frame(model):
    run = model.run(replace(SCAN, decode=torn(1)))
    for _ in run.answers():
        pass
    ledger = run.ledger()
    assert [bscan.index for bscan in ledger.bscans] == [0, 2]
    assert {tuple(span.stage for span in bscan.spans) for bscan in ledger.bscans} == {("decode", "tile", "engine", "stitch", "quality")}
    assert (ledger.model, ledger.engine, ledger.rows, ledger.columns) == ("tiny", model.engine.name, 50, 171)


def test_the_package_offers_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    assert octedge.open_model(tiny_bundle(tmp_path / "tiny")).segment(SCAN).model == "tiny"
