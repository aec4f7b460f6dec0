"""The ledger: what it says of times."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.edge.ledger import SCHEMA, BScan, Latency, Ledger, Span, Times, listening, make_ledger, note, now

MS = 1_000_000


def ledger(*bscans, whole=()):
    """Spans given as (stage, start, end) in ms."""
    made = [tuple(Span(stage, round(start * MS), round(end * MS)) for stage, start, end in spans) for spans in (*bscans, whole)]
    numbered = tuple(BScan(index, one) for index, one in enumerate(made[:-1]))
    return Ledger(model="m", engine="e", machine="x", rows=5, columns=7, whole=made[-1], bscans=numbered)


TWO = ledger(
    [("decode", 1, 2), ("engine", 2, 6), ("stitch", 6, 7), ("encode", 8, 9), ("encode", 9.5, 10)],
    [("decode", 2, 4), ("engine", 6, 12), ("stitch", 12, 13), ("encode", 13, 13.5)],
    whole=[("receive", 0, 1), ("write", 14, 16)],
)


def test_stages_are_summed_by_b_scan_and_told_in_their_order():
    summary = TWO.summary()
    assert list(summary.stages) == ["decode", "engine", "stitch", "encode"]
    assert msgspec.structs.astuple(summary.stages["encode"]) == (0.5, 1.5, 1.5, 1.5, 1.5)
    assert msgspec.structs.astuple(summary.end_to_end) == (9.0, 11.5, 11.5, 11.5, 11.5)
    assert (summary.bscans, summary.per_second) == (2, 125.0)
    assert TWO.wall == 0.016
    assert TWO.seconds() == {"receive": 0.001, "decode": 0.003, "engine": 0.01, "stitch": 0.002, "encode": 0.002, "write": 0.002}


def test_the_table_has_a_line_for_every_stage():
    assert TWO.summary().table().splitlines() == [
        "ms                 p50       p95       p99     p99.9       max",
        "decode            1.00      2.00      2.00      2.00      2.00",
        "engine            4.00      6.00      6.00      6.00      6.00",
        "stitch            1.00      1.00      1.00      1.00      1.00",
        "encode            0.50      1.50      1.50      1.50      1.50",
        "end to end        9.00     11.50     11.50     11.50     11.50",
    ]


@given(st.lists(st.integers(0, 10**9).map(lambda value: value / 1000), min_size=1, max_size=300))
def test_percentiles_are_latencies_that_occurred_and_rise(ms):
    found = msgspec.structs.astuple(Latency.of(ms))
    assert set(found) <= set(ms)
    assert list(found) == sorted(found)
    assert found[-1] == max(ms)
    assert sum(value <= found[1] for value in ms) >= 0.95 * len(ms)


def test_it_is_json_of_a_stated_schema_and_nothing_else():
    data = msgspec.json.encode(TWO)
    assert msgspec.json.decode(data, type=Ledger) == TWO
    assert msgspec.json.decode(data)["schema"] == SCHEMA
    assert "p99.9" in msgspec.json.decode(msgspec.json.encode(TWO.summary()))["end_to_end"]
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(data.replace(b'"rows":5', b'"rows":5,"patient":"x"'), type=Ledger)


def test_times_begin_with_the_first_span_of_all():
    whole, one, other = Times(), Times(), Times()
    for times in (whole, other, one):
        with times.stage("decode"):
            pass
    made = make_ledger("m", "e", (5, 7), {1: one, 0: other}, whole)
    assert [bscan.index for bscan in made.bscans] == [0, 1]
    assert made.whole[0].start == 0
    assert 0 < made.bscans[0].spans[0].start < made.bscans[1].spans[0].start


def test_a_stage_that_fails_has_its_time_too():
    times = Times()
    with pytest.raises(ValueError, match="torn"), times.stage("decode"):
        raise ValueError("torn")
    assert [span.stage for span in times.spans] == ["decode"]


def test_a_clock_that_is_set_back_changes_nothing(monkeypatch):
    times = Times()
    monkeypatch.setattr("time.time", lambda: 0.0)
    with times.stage("decode"):
        monkeypatch.setattr("time.time", lambda: -1e9)
    assert times.spans[0].end >= times.spans[0].start


def test_an_engines_parts_are_heard_only_while_somebody_listens():
    note("copy", 0, 1)
    with listening() as parts:
        note("copy", 0, 1)
    assert parts == [Span("copy", 0, 1)]
    with listening() as whole:
        pass
    assert [span.stage for span in whole] == ["engine"]
    assert whole[0].start <= whole[0].end <= now()
