"""The pictures of a ledger show every span and every latency."""

import sys

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from octedge.edge.ledger import BScan, Ledger, Span
from octedge.edge.ledger_pictures import COLOURS, cumulative, draw, main, waterfall
from octedge.errors import UsageError

MS = 1_000_000


def bscan(index: int) -> BScan:
    return BScan(index, (Span("decode", index * MS, (index + 1) * MS), Span("engine", (index + 2) * MS, (2 * index + 4) * MS)))


WHOLE = (Span("receive", 0, MS),)
LEDGER = Ledger(model="m", engine="e", machine="x", rows=5, columns=7, whole=WHOLE, bscans=tuple(bscan(index) for index in range(50)))


def test_every_span_is_a_bar_at_its_time():
    [axes] = waterfall(LEDGER).axes
    boxes = [bar.get_path().get_extents(bar.get_patch_transform()) for bar in axes.patches]
    bars = {(round(box.y0 + 0.4), round(box.x0), round(box.x1)) for box in boxes}
    assert len(boxes) == len(bars) == 101
    assert (0, 0, 1) in bars
    assert (8, 9, 18) in bars  # the engine with B-scan 7
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["receive", "decode", "engine"]
    assert axes.yaxis.get_ticklabels()[0].get_text() == "all"


def test_the_lines_rise_to_all_b_scans_at_the_longest_latency():
    [axes] = cumulative(LEDGER).axes
    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in axes.lines}
    assert set(lines) == {"decode", "engine", "end to end"}
    assert lines["engine"][-1].tolist() == [51, 1]
    assert (np.diff(lines["engine"], axis=0) >= 0).all()


def test_every_stage_has_a_colour_of_its_own():
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_pictures_are_written_from_the_file(tmp_path):
    (tmp_path / "scan.ledger.json").write_bytes(msgspec.json.encode(LEDGER))
    done = CliRunner().invoke(main, [str(tmp_path / "scan.ledger.json"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for name in ("waterfall.png", "latencies.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        draw(LEDGER, tmp_path)
