"""Scans decoded frame by frame, and the rule from many bits to eight."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octedge.errors import ScanError
from octedge.scan import Scan, Spacing, range_note, to_uint8


def scan_of(*frames: np.ndarray, rows: int = 4, columns: int = 6) -> Scan:
    return Scan("scan7", len(frames), rows, columns, lambda index: frames[index])


def test_frames_are_decoded_one_by_one_and_only_when_asked_for() -> None:
    decoded = []

    def decode(index: int) -> np.ndarray:
        decoded.append(index)
        return np.full((4, 6), index, np.uint8)

    scan = Scan("scan7", 3, 4, 6, decode)
    assert len(scan) == 3
    frames = iter(scan)
    assert decoded == []
    assert next(frames)[0, 0] == 0
    assert decoded == [0]
    assert [frame[0, 0] for frame in frames] == [1, 2]
    assert scan.frame(1)[0, 0] == 1
    assert decoded == [0, 1, 2, 1]


@pytest.mark.parametrize("index", [-1, 2, 99])
def test_a_frame_that_does_not_exist_is_refused(index: int) -> None:
    scan = scan_of(*[np.zeros((4, 6), np.uint8)] * 2)
    with pytest.raises(ScanError, match=rf"scan7: frame {index} asked for, but the scan has frames 0\.\.1"):
        scan.frame(index)


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 5), np.uint8), np.zeros((6, 4), np.uint8), np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint16)]
)
def test_a_frame_of_another_size_or_type_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ScanError, match=r"scan7: frame 0 decodes to uint.*, needed is uint8 \(4, 6\); the file is probably damaged"):
        scan_of(frame).frame(0)


def test_what_nobody_said_is_unknown() -> None:
    scan = scan_of()
    assert scan.spacing == Spacing(None, None, None, "unknown")
    assert (scan.laterality, scan.pattern, scan.device, scan.notes) == (None, "unknown", "unknown", ())
    assert dict(scan.source_ids) == {}


def test_scans_do_not_share_their_identifiers_and_are_frozen() -> None:
    one, other = scan_of(), scan_of()
    assert one.source_ids is not other.source_ids
    with pytest.raises(FrozenInstanceError):
        one.rows = 5  # type: ignore[misc]


def test_a_printed_scan_shows_neither_pixels_nor_identifiers() -> None:
    scan = Scan("scan7", 1, 4, 6, lambda _: np.zeros((4, 6), np.uint8), source_ids={"SOPInstanceUID": "1.2.3"})
    assert "1.2.3" not in repr(scan)
    assert "lambda" not in repr(scan)


@given(st.integers(9, 16).flatmap(lambda bits: st.tuples(st.just(bits), hnp.arrays(np.uint16, 5, elements=st.integers(0, 2**bits - 1)))))
def test_the_eight_highest_of_the_stored_bits_are_kept(case: tuple[int, np.ndarray]) -> None:
    bits, image = case
    out = to_uint8(image, bits)
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, image // 2 ** (bits - 8))
    assert to_uint8(np.array([0, 2**bits - 1], np.uint16), bits).tolist() == [0, 255]


def test_eight_bits_stay_as_they_are() -> None:
    image = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(image, 8), image)
    assert to_uint8(image.astype(np.uint16), 8).dtype == np.uint8


@pytest.mark.parametrize(("top", "bits", "noted"), [(63, 8, True), (64, 8, False), (1023, 12, True), (1024, 12, False), (0, 16, True)])
def test_a_scan_below_a_quarter_of_its_range_is_noted(top: int, bits: int, noted: bool) -> None:
    note = range_note(np.array([[0, top]], np.uint16), bits)
    assert (note is not None) == noted
    if note:
        assert f"brightest value {top} of {2**bits - 1}" in note
