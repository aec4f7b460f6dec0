"""A model answers scans: frame by frame what `segment` answers, and says what one must know."""

from dataclasses import replace

import numpy as np
import pytest

import octedge
from octedge.edge.clock import Clock
from octedge.edge.model import Model, open_model
from octedge.errors import ScanError
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


def test_a_broken_frame_refuses_the_scan(model):
    with pytest.raises(ScanError, match="frame 1 decodes to"):
        model.segment(replace(SCAN, decode=lambda index: noise(index)[: 50 - index]))


def test_a_scan_larger_than_memory_is_refused_in_words(model):
    with pytest.raises(ScanError, match="do not fit into memory"):
        model.segment(replace(SCAN, frames=10**6, rows=10**6, columns=10**4))


def test_stages_are_counted(model):
    clock = Clock()
    model.segment(SCAN, clock=clock)
    assert set(clock.seconds) == {"read", "engine", "order"}
    assert all(seconds > 0 for seconds in clock.seconds.values())


def test_a_stage_within_a_stage_is_counted_once(monkeypatch):
    times = iter([0.0, 10.0, 13.0, 20.0, 100.0, 101.0])
    monkeypatch.setattr("octedge.edge.clock.time.perf_counter", lambda: next(times))
    clock = Clock()
    with clock.stage("outer"):
        clock.timed("inner", lambda: None)()
    with clock.stage("inner"):
        pass
    assert clock.seconds == {"inner": 4.0, "outer": 17.0}
    assert clock.total == 21.0


def test_the_package_offers_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    assert octedge.open_model(tiny_bundle(tmp_path / "tiny")).segment(SCAN).model == "tiny"
