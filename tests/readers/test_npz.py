"""NumPy archives: one array of B-scans, whichever way it is stored."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.errors import ScanError
from octedge.readers import read
from octedge.readers.npz import read_npz
from tests.readers.opt_files import frames


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
@pytest.mark.parametrize("key", ["image", "images", "frames", "volume", "anything"])
def test_frames_come_back_as_saved(tmp_path: Path, save, dtype: str, key: str) -> None:
    array = frames(top=1 << (8 * np.dtype(dtype).itemsize), dtype=np.uint16).astype(dtype)
    save(tmp_path / "a.npz", **{key: array})
    scan = read(tmp_path / "a.npz")
    assert np.array_equal(np.stack(list(scan)), array if dtype == "u1" else array >> 8)
    assert scan.spacing.source == "unknown"


def test_one_image_and_its_spacing(tmp_path: Path) -> None:
    image = frames(1)[0]
    np.savez(tmp_path / "a.npz", image=image, other=np.zeros(3), spacing_mm=[0.0039, 0.0116])
    scan = read(tmp_path / "a.npz")
    assert np.array_equal(scan.frame(0), image)
    assert (scan.spacing.axial, scan.spacing.lateral, scan.spacing.between) == (0.0039, 0.0116, None)
    assert scan.spacing.source == "NPZ spacing_mm"
    np.savez(tmp_path / "b.npz", image=image, spacing_mm=[np.nan, 11.6, 0.1])
    scan = read(tmp_path / "b.npz")
    assert (scan.spacing.axial, scan.spacing.lateral, scan.spacing.between) == (None, None, 0.1)
    assert any("lateral spacing 11.6 mm" in note for note in scan.notes)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": np.zeros((2, 3, 4), np.float32)}, "is float32, needed is uint8 or uint16"),
        ({"images": np.full((3, 4), np.nan)}, "is float64"),
        ({"images": np.zeros((2, 3, 4), np.int16)}, "is int16"),
        ({"images": np.zeros(4, np.uint8)}, "has shape (4,)"),
        ({"images": np.zeros((2, 0, 4), np.uint8)}, "has shape (2, 0, 4)"),
        ({"images": np.zeros((2, 3, 4, 5), np.uint8)}, "has shape (2, 3, 4, 5)"),
        ({"images": np.asfortranarray(np.ones((3, 4), np.uint8))}, "Fortran order"),
        ({"images": np.array([[None]])}, "is object"),
        ({"labels": np.zeros((3, 4), np.uint8), "surfaces": np.zeros((3, 4))}, "2 arrays, not exactly one of them"),
        ({"image": np.zeros((3, 4), np.uint8), "images": np.zeros((3, 4), np.uint8)}, "not exactly one of them"),
    ],
)
def test_other_arrays_are_refused_by_name(tmp_path: Path, arrays: dict, reason: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ScanError) as caught:
        read(tmp_path / "a.npz")
    assert str(caught.value).startswith("a.npz: ")
    assert reason in str(caught.value)


def test_a_plainly_stored_volume_costs_a_few_frames_of_memory(tmp_path: Path) -> None:
    array = np.zeros((64, 256, 256), np.uint8)
    np.savez(tmp_path / "a.npz", images=array)
    read(tmp_path / "a.npz")
    tracemalloc.start()
    try:
        assert sum(int(frame.max()) for frame in read(tmp_path / "a.npz")) == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * array[0].nbytes


@given(data=st.data(), packed=st.booleans(), overwrite=st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_damaged_archive_is_refused_or_right(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool, overwrite: bool
) -> None:
    array = frames()
    path = tmp_path_factory.getbasetemp() / "cut.npz"
    (np.savez_compressed if packed else np.savez)(path, images=array)
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place] + (b"\x55" + content[place + 1 :] if overwrite else b""))
    try:
        got = np.stack(list(read_npz(path, "a")))
    except ScanError:
        return
    assert overwrite or np.array_equal(got, array)
