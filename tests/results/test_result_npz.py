"""The result NPZ is what others rely on."""

import io
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from octedge.anatomy import KEYS, surface_names
from octedge.errors import UsageError
from octedge.quality import FrameQuality
from octedge.results.npz import npz_by_frame, write_npz
from octedge.scan import Spacing
from octedge.segment import Layers, Segmentation

RNG = np.random.default_rng(0)
RESULT = Segmentation(
    "scan7",
    3,
    KEYS,
    surface_names(KEYS),
    Spacing(0.00387, None, 0.12, "a test"),
    "tiny",
    "an engine",
    0.5,
    ("a note", "\u00e4nother"),
    {2: "torn", 0: "empty"},
    labels=np.sort(RNG.integers(0, 16, (3, 200, 40), dtype=np.uint8), axis=1),
    surfaces=RNG.random((3, 14, 40), dtype=np.float32),
)


def written(result: Segmentation) -> bytes:
    file = io.BytesIO()
    write_npz(file, result)
    return file.getvalue()


def test_it_holds_what_the_contract_says_without_pickle():
    with np.load(io.BytesIO(written(RESULT)), allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    assert np.array_equal(found["labels"], RESULT.labels)
    assert np.array_equal(found["surfaces"], RESULT.surfaces)
    assert (found["labels"].dtype, found["surfaces"].dtype, found["spacing_mm"].dtype) == (np.uint8, np.float32, np.float64)
    assert tuple(found["structures"]) == KEYS
    assert tuple(found["surface_names"]) == RESULT.surface_names
    assert found["spacing_mm"][[0, 2]].tolist() == [0.00387, 0.12]
    assert math.isnan(found["spacing_mm"][1])
    words = {name: found[name].item() for name in ("spacing_source", "model", "engine", "factor")}
    assert words == {"spacing_source": "a test", "model": "tiny", "engine": "an engine", "factor": 0.5}
    assert found["notes"].tolist() == list(RESULT.notes)
    assert found["failed_frames"].tolist() == [0, 2]


@pytest.mark.parametrize("notes", [(), ("one",)])
def test_no_note_and_one_note_are_lists_too(notes):
    result = replace(RESULT, spacing=Spacing(), notes=notes, failed={})
    with np.load(io.BytesIO(written(result)), allow_pickle=False) as file:
        assert file["notes"].shape == (len(notes),)
        assert np.isnan(file["spacing_mm"]).all()
        assert file["failed_frames"].shape == (0,)


def test_quality_is_a_column_per_measure_and_flags_are_sentences():
    frames = (FrameQuality(signal=0.9, checksum=5.0), FrameQuality(), FrameQuality(signal=0.1, checksum=2**32 - 1.0))
    result = replace(RESULT, quality=frames)
    with np.load(io.BytesIO(written(result)), allow_pickle=False) as file:
        found = dict(zip(file["quality_names"].tolist(), file["quality"].T, strict=True))
        assert found["signal"][[0, 2]].tolist() == [0.9, 0.1]
        assert found["checksum"][[0, 2]].tolist() == [5, 2**32 - 1]
        assert np.isnan(file["quality"][1]).all()
        assert file["flags"].tolist() == [flag.text for flag in result.flags]
        assert "weak signal in 1 of 3 B-scans (2, counted from 0)" in file["flags"][0]
    with np.load(io.BytesIO(written(RESULT)), allow_pickle=False) as file:
        assert (len(file["quality"]), len(file["flags"])) == (0, 0)


def test_the_same_result_gives_the_same_bytes(monkeypatch):
    first = written(RESULT)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert written(RESULT) == first


def test_labels_are_compressed():
    assert len(written(RESULT)) < RESULT.labels.nbytes / 2 + RESULT.surfaces.nbytes


def test_frame_by_frame_it_holds_no_labels_and_asks_what_they_mean_when_all_are_there():
    shape, asked, file = (40, 400, 300), [], io.BytesIO()

    def layers():
        for index in range(shape[0]):
            assert not asked
            yield Layers(np.full(shape[1:], index, np.uint8), np.full((3, 300), index, np.float32))

    def about():
        asked.append(True)
        return RESULT

    tracemalloc.start()
    with npz_by_frame(file, shape, about) as add:
        for each in layers():
            add(each)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < np.prod(shape) / 2
    with np.load(io.BytesIO(file.getvalue()), allow_pickle=False) as found:
        assert (found["labels"] == np.arange(40)[:, None, None]).all()
        assert found["labels"].shape == shape
        assert (found["surfaces"] == np.arange(40)[:, None, None]).all()


def test_surfaces_of_any_number_of_frames_take_no_more_memory(monkeypatch, tmp_path):
    expected = written(RESULT)
    monkeypatch.setattr("octedge.results.npz._IN_MEMORY", 1000)
    assert written(RESULT) == expected  # wherever they have waited
    each = Layers(np.zeros((2, 2000), np.uint8), np.ones((14, 2000), np.float32))
    with (tmp_path / "a.npz").open("wb") as file:
        tracemalloc.start()
        with npz_by_frame(file, (200, 2, 2000), lambda: RESULT) as add:
            for _ in range(200):
                add(replace(each, surfaces=each.surfaces + 1))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 200 * each.surfaces.nbytes / 10
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found["surfaces"].shape == (200, 14, 2000)
        assert (found["surfaces"] == 2).all()


@pytest.mark.parametrize("count", [0, 2, 4])
def test_one_answer_for_each_frame_is_needed(count):
    labels, surfaces = RESULT.labels.repeat(2, axis=0)[:count], RESULT.surfaces.repeat(2, axis=0)[:count]
    with pytest.raises(UsageError, match=f"{count} answers came for 3 B-scans"):
        write_some(labels, surfaces)


def write_some(labels, surfaces):
    with npz_by_frame(io.BytesIO(), RESULT.labels.shape, lambda: RESULT) as add:
        for each in map(Layers, labels, surfaces):
            add(each)
