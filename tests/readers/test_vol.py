"""Heidelberg raw exports: a file made by `struct` here, and the real ones against eyepy where it is installed."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.errors import ScanError
from octedge.readers import read
from octedge.readers.vol import device_lines, display, read_vol

MISSING = np.finfo(np.float32).max


def vol(
    frames: np.ndarray, *, eye: bytes = b"OS", pattern: int = 3, between: float = 0.12, lines: int = 2, extra: int = 40, places=()
) -> bytes:
    """A raw export of reflectivity (F, H, W), its line k of frame f at row 10 k + f, missing in the last column.

    `places` are where the B-scans lie on the fundus image: x, y of the first A-scan, x, y of the last, in mm.
    """
    count, rows, columns = frames.shape
    frame_header = 256 + 4 * lines * columns + extra
    head = struct.pack("<12s3i3d2i", b"HSF-OCT-103", columns, count, rows, 0.0116, between, 0.0039, 5, 4)
    head = head.ljust(84, b"\0") + eye.ljust(4, b"\0")
    head = head.ljust(96, b"\0") + struct.pack("<2i", pattern, frame_header)
    parts = [head.ljust(2048, b"\0"), b"\7" * 20]
    for index, frame in enumerate(frames):
        drawn = np.repeat(10.0 * np.arange(lines)[:, None] + index, columns, axis=1).astype("<f4")
        drawn[:, -1] = MISSING
        place = places[index] if places else (0, 0, 1, 1)
        block = struct.pack("<12si4d2i", b"HSF-BS-103", frame_header, *place, lines, 256).ljust(256, b"\0") + drawn.tobytes()
        parts += [block.ljust(frame_header, b"\0"), frame.astype("<f4").tobytes()]
    return b"".join(parts)


def reflectivity(count: int = 3, rows: int = 7, columns: int = 5) -> np.ndarray:
    values = np.random.default_rng(3).random((count, rows, columns), np.float32)
    values[:, 0, 0] = MISSING
    return values


def test_frames_are_shown_by_the_fourth_root(tmp_path: Path) -> None:
    values = reflectivity()
    (tmp_path / "a.vol").write_bytes(vol(values))
    scan = read(tmp_path / "a.vol")
    expected = np.where(values > 1e30, 0, np.round(255 * values.astype(np.float64) ** 0.25))
    assert np.abs(np.stack(list(scan)) - expected).max() <= 1  # float32 may round a half the other way
    assert (np.stack(list(scan)) != expected).mean() < 0.01
    assert scan.spacing.source == "vendor header (HSF-OCT-103)"
    assert (scan.spacing.axial, scan.spacing.lateral, scan.spacing.between) == (0.0039, 0.0116, 0.12)
    assert (scan.laterality, scan.pattern) == ("L", "volume")


def test_display_maps_missing_to_black_and_clips() -> None:
    values = np.array([[0, 1, 2, -1, 1 / 16, MISSING, np.nan, np.inf]], np.float32)
    assert display(values).tolist() == [[0, 255, 255, 0, 128, 0, 0, 0]]


@pytest.mark.parametrize(("eye", "side"), [(b"OD", "R"), (b"OS", "L"), (b"", None)])
@pytest.mark.parametrize(("pattern", "word"), [(0, "unknown"), (1, "line"), (2, "circle"), (4, "volume"), (5, "radial"), (99, "unknown")])
def test_eye_and_pattern_come_from_the_header(tmp_path: Path, eye: bytes, side: str | None, pattern: int, word: str) -> None:
    (tmp_path / "a.vol").write_bytes(vol(reflectivity(1), eye=eye, pattern=pattern))
    scan = read(tmp_path / "a.vol")
    assert (scan.laterality, scan.pattern, scan.spacing.between) == (side, word, None)


def test_a_volume_without_distance_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.vol").write_bytes(vol(reflectivity(), between=0.0))
    scan = read(tmp_path / "a.vol")
    assert scan.spacing.between is None
    assert "the header states no distance between B-scans" in scan.notes


@pytest.mark.parametrize(
    ("pattern", "places", "expected"),
    [
        (3, [(1, 2, 7, 2), (1, 4, 7, 4), (1, 6, 7, 6)], ("right", "down")),
        (3, [(1, 6, 7, 6), (1, 4, 7, 4), (1, 2, 7, 2)], ("right", "up")),
        (3, [(1, 7, 1, 1), (2, 7, 2, 1), (3, 7, 3, 1)], ("up", "right")),
        (5, [(1, 2, 7, 2), (1, 4, 7, 4), (1, 6, 7, 6)], ("right", None)),
        (3, [(np.nan, 2, 7, 2)] * 3, (None, None)),
    ],
)
def test_the_headers_of_the_bscans_tell_where_they_run_on_the_fundus(tmp_path: Path, pattern, places, expected) -> None:
    (tmp_path / "a.vol").write_bytes(vol(reflectivity(), pattern=pattern, places=places))
    assert read(tmp_path / "a.vol").directions == expected


@pytest.mark.parametrize(
    ("eye", "start", "expected"), [(b"OD", 2, "tsnit"), (b"OS", 8, "tsnit"), (b"OD", 8, None), (b"OS", 2, None), (b"", 2, None)]
)
def test_a_circle_that_begins_on_the_temporal_side_is_known(tmp_path: Path, eye, start, expected) -> None:
    (tmp_path / "a.vol").write_bytes(vol(reflectivity(1), eye=eye, pattern=2, places=[(start, 4, 5, 4)]))
    assert read(tmp_path / "a.vol").directions == (expected, None)


@pytest.mark.parametrize(("lines", "keys"), [(0, []), (2, ["ILM", "BM"]), (3, ["ILM", "BM", "NFL"]), (17, ["ILM", "BM", "NFL"])])
def test_the_device_lines_are_in_rows_and_missing_is_nan(tmp_path: Path, lines: int, keys: list) -> None:
    (tmp_path / "a.vol").write_bytes(vol(reflectivity(), lines=lines))
    found = device_lines(tmp_path / "a.vol")
    assert list(found) == keys
    for place, line in enumerate(found.values()):
        assert line.dtype == np.float32
        assert np.array_equal(line[:, :-1], np.repeat(10 * place + np.arange(3.0)[:, None], 4, axis=1))
        assert np.isnan(line[:, -1]).all()


@given(data=st.data(), overwrite=st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_damaged_export_is_refused_or_right(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, overwrite: bool) -> None:
    content = vol(reflectivity())
    place = data.draw(st.integers(0, len(content) - 1) if not overwrite else st.integers(0, 2047))
    path = tmp_path_factory.getbasetemp() / "cut.vol"
    path.write_bytes(content[:place] + (b"\xf5" + content[place + 1 :] if overwrite else b""))
    try:
        np.stack(list(read_vol(path, "a")))
        device_lines(path)
    except ScanError:
        return
    assert overwrite  # every byte counts


def test_the_real_line_scans_are_as_eyepy_reads_them(data: Path) -> None:
    reader = pytest.importorskip("eyepy.io", reason="eyepy, the independent reader, is not installed")
    paths = sorted((data / "spectralis-vol").glob("*.vol"))
    assert len(paths) == 10
    for path in paths:
        parsed = reader.HeVolReader(path).parsed_file  # its `volume` refuses circles
        scan = read(path)
        assert (scan.frames, scan.rows, scan.columns) == (parsed.n_bscans, parsed.size_y, parsed.size_x) == (1, 496, 768)
        assert (scan.spacing.axial, scan.spacing.lateral) == (parsed.scale_y, parsed.scale_x)
        assert scan.laterality == {"OD": "R", "OS": "L"}[parsed.scan_position]
        assert scan.pattern == {1: "line", 2: "circle"}[parsed.scan_pattern]
        values = np.asarray(parsed.bscans[0].data)
        assert np.array_equal(scan.frame(0), display(values))
        assert 0.02 < (scan.frame(0) > 100).mean() < 0.5
        for line, key in zip(parsed.bscans[0].layer_segmentations, device_lines(path), strict=True):
            assert np.array_equal(device_lines(path)[key][0], np.where(line > 1e30, np.nan, line), equal_nan=True)


def test_the_device_lines_of_the_real_scans_lie_where_the_retina_is(data: Path) -> None:
    for path in sorted((data / "spectralis-vol").glob("*.vol")):
        lines = device_lines(path)
        thickness = (lines["BM"] - lines["ILM"])[np.isfinite(lines["BM"] - lines["ILM"])] * 3.87
        assert 150 < np.median(thickness) < 500
        above, below = (read(path).frame(0)[rows].mean() for rows in _around(lines))
        assert below > above + 20  # brighter inside the retina than in the vitreous


def _around(lines: dict[str, np.ndarray]) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pixels 12 rows above and 12 rows below the ILM."""
    columns = np.flatnonzero(np.isfinite(lines["ILM"][0]))
    depth = lines["ILM"][0, columns].astype(int)
    return (depth - 12, columns), (depth + 12, columns)
