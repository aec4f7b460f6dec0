"""The stopwatch times what is deployed, on the engine that runs it."""

import numpy as np
import pytest
import torch

from export.latency import Stopwatch, random_graph
from octedge.errors import UsageError
from octedge.ordered import Chain, decode
from octedge.train.networks import UNet

STRUCTURES = ("vitreous", "nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe", "choroid+sclera")
SMALL = UNet(convs=1, kernels=2, downs=2)


def test_every_shape_gets_the_median_of_its_own_runs(monkeypatch):
    ticks = iter(np.cumsum([0, 1, 0, 2, 0, 9, 0, 5]).tolist())  # what each pair of looks at the clock is apart: 1, 2, 9, 5
    seen = []

    def segment(frame, engine, how):
        seen.append((frame.shape, engine.name, how.windowing.grid))

    monkeypatch.setattr("export.latency.segment", segment)
    monkeypatch.setattr("export.latency.perf_counter", lambda: next(ticks))
    told: list[str] = []
    assert Stopwatch(STRUCTURES, (30, 50), "ort", rounds=2, runs=2, say=told.append)([SMALL]) == [3500.0]
    assert told == ["timing: exporting shape 1 of 1", "timing: round 1 of 2", "timing: round 2 of 2"]
    assert len(seen) == 6  # each round: one to warm up, two that count
    assert all(shape == (30, 50) and name.startswith("onnxruntime") and grid == 4 for shape, name, grid in seen)


def test_a_random_graph_needs_the_decode_almost_everywhere():
    frame = np.random.default_rng(1).integers(0, 256, (1, 1, 64, 64), np.uint8)
    with torch.inference_mode():
        scores, labels = random_graph(SMALL, 3)(torch.from_numpy(frame))
    ordered, _ = decode(scores[0].numpy(), Chain.of(STRUCTURES), labels[0].numpy())
    assert (ordered != labels[0].numpy()).any(axis=0).mean() > 0.95


def test_an_unknown_engine_is_refused_before_anything_is_exported():
    with pytest.raises(UsageError, match="no engine is called 'abacus'; known are"):
        Stopwatch(STRUCTURES, engine="abacus")
