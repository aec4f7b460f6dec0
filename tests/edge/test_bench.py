"""What a measurement says: throughput, latencies, whether the machine was stable, and what two reports can say together."""

import json
from dataclasses import replace
from hashlib import sha256

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octedge.edge import bench
from octedge.edge.bench import Report, differences, fingerprint, of_engine, of_ledgers, read_report, subject_of, unsteady, verdict
from octedge.edge.ledger import BScan, Latency, Ledger, Span
from octedge.edge.model import Model, open_model
from octedge.edge.pace import WARM_UP
from octedge.edge.places import cache_folder
from octedge.edge.prepare import prepare
from octedge.errors import UsageError
from octedge.scan import Spacing
from tests.support import tiny_bundle

MS = 1_000_000


def ledger(period: int, latency: int, count: int = 9) -> Ledger:
    """B-scans that take so many ms each and follow each other after so many."""
    bscans = (BScan(k, (Span("engine", k * period * MS, (k * period + latency) * MS),)) for k in range(count))
    whole = (Span("receive", 0, 2 * MS), Span("write", 900 * MS, 904 * MS))
    return Ledger(model="m", engine="e", machine="x", rows=5, columns=70, whole=whole, bscans=tuple(bscans))


def test_throughput_is_by_the_time_between_answers_and_latency_by_the_time_under_way():
    found, stages, once = of_ledgers([ledger(10, 25), ledger(10, 25), ledger(10, 25)])
    assert (found.bscans, found.bscans_per_second, found.ascans_per_second) == (18, 100.0, 7000.0)
    assert found.latency == stages["engine"] == Latency(25, 25, 25, 25, 25)
    assert (found.drift, found.spread, found.unstable) == (0, 0, "")
    assert once == {"receive": 2.0, "write": 4.0}


def test_the_first_b_scans_of_a_round_do_not_count():
    even = ledger(10, 25)
    cold = tuple(BScan(each.index, (Span("engine", 0, each.spans[0].end),)) for each in ledger(10, 600).bscans[:WARM_UP])
    assert of_ledgers([msgspec.structs.replace(even, bscans=(*cold[:-1], *even.bscans[WARM_UP - 1 :]))] * 3)[0] == of_ledgers([even] * 3)[0]


def test_a_machine_that_grows_slower_is_not_stable_and_says_so():
    found = of_engine([[100.0] * 6, [103.0] * 6, [110.0] * 6], columns=512)
    assert found.drift == pytest.approx(0.1)
    assert found.unstable == "the last round was 10% slower than the first; 5% may be"
    assert (found.bscans, found.bscans_per_second) == (18, pytest.approx(9.58, abs=0.01))


def test_a_machine_that_wavers_is_not_stable_though_its_rounds_are_alike():
    found = of_engine([[80.0, 120.0] * 3] * 3, columns=512)
    assert found.drift == 0
    assert found.unstable == "half of the B-scans lie 40% apart; 15% may be"


def test_two_b_scans_a_round_are_too_few_to_say():
    assert of_engine([[100.0] * 2] * 3, columns=512).unstable == "2 B-scans a round are too few to say; 4 are needed"


@given(st.integers(1, 20), st.floats(-1, 1), st.floats(0, 2))
def test_figures_are_trusted_only_when_nothing_is_wrong(fewest, drift, spread):
    trusted = fewest >= bench.ENOUGH and abs(drift) <= bench.DRIFT and spread <= bench.SPREAD
    assert (unsteady(fewest, drift, spread) == "") == trusted


@given(st.lists(st.lists(st.floats(0.01, 1e4), min_size=5, max_size=20), min_size=3, max_size=3))
def test_throughput_times_the_time_is_the_count(rounds):
    found = of_engine(rounds, columns=100)
    total = sum(map(sum, rounds))
    assert found.bscans_per_second * total / 1000 == pytest.approx(found.bscans, abs=0.006 * total / 1000 + 1e-6)


def test_other_grey_values_or_another_shape_have_another_fingerprint():
    frames = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert fingerprint(frames) == fingerprint(frames.copy())
    assert len({fingerprint(frames), fingerprint(frames[:1]), fingerprint(frames.reshape(2, 4, 3)), fingerprint(frames + 1)}) == 4


def test_this_process_takes_some_memory_and_never_less_than_before():
    before = bench.memory_mb()
    assert 10 < before < 100_000
    room = np.ones(50_000_000, np.uint8)
    assert bench.memory_mb() >= max(before, room.nbytes / 1e6)


@pytest.fixture
def model(tmp_path, monkeypatch) -> Model:
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return open_model(tiny_bundle(tmp_path / "tiny"))


def test_the_engine_alone_runs_as_often_as_asked(model):
    calls = []

    class Counting:
        name, sha256 = model.engine.name, model.engine.sha256

        def __call__(self, windows):
            calls.append(windows.shape)
            return model.engine(windows)

    frames = list(np.zeros((2, 50, 90), np.uint8))
    ms = bench.engine_alone(replace(model, engine=Counting()), frames, Spacing(), 5)
    assert len(ms) == 5
    assert min(ms) > 0
    assert calls == [(1, 1, 64, 92)] * (5 + WARM_UP)


def test_a_subject_names_the_certificate_it_serves_with(model):
    found = subject_of(model)
    (kept,) = (cache_folder() / "certificates").iterdir()
    assert (found.variant, found.certificate) == ("ort-fp32", sha256(kept.read_bytes()).hexdigest())
    assert (found.model, found.bundle, found.engine) == ("tiny", model.bundle.digest, model.engine.name)


def test_after_prepare_it_is_the_certificate_of_the_chosen_variant(model):
    prepare(model.bundle, ("openvino-fp32",), lambda words: None)
    opened = open_model(model.bundle.path, "openvino")
    found = subject_of(opened)
    file = model.bundle.path / "engines" / "openvino-fp32.certificate.json"
    assert (found.variant, found.certificate) == ("openvino-fp32", sha256(file.read_bytes()).hexdigest())


def test_without_a_place_to_keep_it_the_certificate_has_no_name(model, monkeypatch):
    monkeypatch.delenv("OCTEDGE_CACHE")
    monkeypatch.setattr("octedge.edge.bench.cache_folder", lambda: (_ for _ in ()).throw(RuntimeError))
    assert (subject_of(model).variant, subject_of(model).certificate) == ("ort-fp32", "")


def report(**changes: object) -> Report:
    latency, stable = Latency(1, 2, 3, 4, 5), {"drift": 0.0, "spread": 0.0, "unstable": ""}
    measured = bench.Measured(bscans=9, bscans_per_second=10.0, ascans_per_second=5120.0, latency=latency, **stable)
    series = bench.Series(synthetic=True, frames=2, rows=1024, columns=512, factor=1.0, bytes=9, pixels="ab")
    whole = Report(
        date="2026-01-01",
        machine=bench.Machine(kind="box", cores=2, gpus=(), load=0.1, octedge="1", python="3", numpy="2"),
        subject=bench.Subject(model="m", bundle="b" * 64, engine="e", variant="ort-fp32", certificate="c"),
        written="npz",
        rounds=3,
        warm_up=3,
        memory_mb=1.0,
        cases=(bench.Case(series=series, end_to_end=measured, stages={"engine": latency}, once={"write": 1.0}, engine=measured),),
    )
    return msgspec.structs.replace(whole, **changes)


def other(what: str) -> Report:
    """A report that differs in one thing."""
    plain = report()
    (case,) = plain.cases
    changed = {
        "machine": {"machine": msgspec.structs.replace(plain.machine, cores=4)},
        "software": {"machine": msgspec.structs.replace(plain.machine, numpy="3")},
        "model": {"subject": msgspec.structs.replace(plain.subject, bundle="d" * 64)},
        "engine": {"subject": msgspec.structs.replace(plain.subject, variant="openvino-fp32")},
        "scans": {"cases": (msgspec.structs.replace(case, series=msgspec.structs.replace(case.series, pixels="cd")),)},
        "results": {"written": "seg"},
        "": {"date": "2027-01-01", "memory_mb": 2.0, "machine": msgspec.structs.replace(plain.machine, load=9.0)},
    }
    return report(**changed[what])


@pytest.mark.parametrize("what", ["machine", "software", "model", "engine"])
def test_the_one_thing_that_differs_is_what_is_compared(what):
    different = differences(report(), other(what))
    assert list(different) == [what]
    assert verdict(different) == (True, f"the {what} differs and nothing else: the ratios are due to it")


@pytest.mark.parametrize("what", ["scans", "results"])
def test_reports_about_other_scans_or_results_mean_nothing_together(what):
    assert verdict(differences(report(), other(what))) == (False, f"the comparison means nothing, for these differ: {what}")


def test_when_two_things_differ_nobody_knows_which_one_it_was():
    both = msgspec.structs.replace(other("machine"), subject=other("engine").subject)
    assert verdict(differences(report(), both)) == (False, "the comparison means nothing, for these differ: machine, engine")


def test_another_day_load_or_memory_is_no_difference():
    assert differences(report(), other("")) == {}
    assert verdict({})[0]


def test_a_report_comes_back_from_its_file(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(msgspec.json.encode(report()))
    assert read_report(file) == report()


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 1}', "\xff"])
def test_another_file_is_refused_by_what_is_needed(text, tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="no report of octedge bench"):
        read_report(file)


def test_a_report_with_unknown_fields_or_of_another_schema_is_refused(tmp_path):
    file, plain = tmp_path / "a.json", json.loads(msgspec.json.encode(report()))
    for change, words in (({"more": 1}, "more"), ({"schema": 2}, "has schema 2, this octedge reads schema 1")):
        file.write_text(json.dumps(plain | change))
        with pytest.raises(UsageError, match=words):
            read_report(file)
