"""The demo's comparison with the truth: an exact answer is perfect, a shifted one is off by the shift."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octedge.anatomy import KEYS, surface_names
from octedge.cli.demo import compare
from octedge.phantom import Phantom
from octedge.phantom_look import LOOKS
from octedge.results.files import write_atomic
from octedge.results.npz import write_npz
from octedge.scan import Spacing
from octedge.segment import Segmentation

PHANTOM = Phantom(replace(LOOKS["spectralis"], rows=496, columns=300, span_mm=0.2), 2, 11, field="wide")
MERGED = ("vitreous", "nfl", "gcl+ipl", "inl+opl+onl+elm+mz", "ez+os+rpe", "choroid+sclera+disc", "fluid")


def result(path: Path, classes: tuple[str, ...], shift: int = 0) -> Path:
    """The phantom's own truth as a result with these classes, `shift` rows too deep."""
    truth = [PHANTOM.bscan(index) for index in range(2)]
    table = np.array([next(index for index, group in enumerate(classes) if key in group.split("+")) for key in KEYS], np.uint8)
    chosen = [surface_names(KEYS).index(name) for name in surface_names(classes)]
    labels = np.stack([np.roll(table[bscan.labels], shift, axis=0) for bscan in truth])
    surfaces = np.stack([bscan.surfaces[chosen] + shift for bscan in truth]).astype(np.float32)
    answer = Segmentation("x", 2, classes, surface_names(classes), Spacing(), "m", "e", labels=labels, surfaces=surfaces)
    write_atomic(path / "x.npz", lambda file: write_npz(file, answer))
    return path / "x.npz"


@pytest.mark.parametrize("classes", [KEYS, MERGED])
def test_the_truth_itself_is_a_perfect_answer(tmp_path, classes):
    found = compare(result(tmp_path, classes), PHANTOM)
    assert (found.mean_dice, found.mean_iou, found.mean_boundary_px) == (1, 1, 0)
    assert "vitreous" not in found.dice
    assert set(found.boundary_px) == set(surface_names(classes))


@pytest.mark.parametrize("classes", [KEYS, MERGED])
def test_an_answer_three_rows_too_deep_is_three_pixels_off(tmp_path, classes):
    found = compare(result(tmp_path, classes, 3), PHANTOM)
    assert found.mean_boundary_px == pytest.approx(3, abs=1e-3)
    assert 0.3 < found.mean_iou < found.mean_dice < 0.95
