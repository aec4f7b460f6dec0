"""The result NPZ is what others rely on."""

import io
import math

import numpy as np
import pytest

from octedge.anatomy import KEYS, surface_names
from octedge.results.npz import write_npz
from octedge.scan import Spacing
from octedge.segment import Segmentation

RNG = np.random.default_rng(0)
RESULT = Segmentation(
    "scan7",
    np.sort(RNG.integers(0, 16, (3, 200, 40), dtype=np.uint8), axis=1),
    RNG.random((3, 14, 40), dtype=np.float32),
    KEYS,
    surface_names(KEYS),
    Spacing(0.00387, None, 0.12, "a test"),
    "tiny",
    "an engine",
    0.5,
    ("a note", "\u00e4nother"),
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


@pytest.mark.parametrize("notes", [(), ("one",)])
def test_no_note_and_one_note_are_lists_too(notes):
    result = Segmentation("x", RESULT.labels, RESULT.surfaces, KEYS, RESULT.surface_names, Spacing(), "m", "e", notes=notes)
    with np.load(io.BytesIO(written(result)), allow_pickle=False) as file:
        assert file["notes"].shape == (len(notes),)
        assert np.isnan(file["spacing_mm"]).all()


def test_the_same_result_gives_the_same_bytes(monkeypatch):
    first = written(RESULT)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert written(RESULT) == first


def test_labels_are_compressed():
    assert len(written(RESULT)) < RESULT.labels.nbytes / 2 + RESULT.surfaces.nbytes
