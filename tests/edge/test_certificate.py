"""No engine serves without the reference answers; a check is kept, and only for what it holds for."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from octedge.edge import certificate as module
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.certificate import GATES, Certificate, changes, examine, identify
from octedge.edge.engine import load_engine, open_engine
from octedge.edge.variant import FILES, FIRST
from octedge.errors import ModelError
from tests.support import tiny_bundle


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path, cache):
    return open_bundle(tiny_bundle(tmp_path / "tiny"))


def told(bundle) -> list[str]:
    words: list[str] = []
    open_engine(bundle, tell=words.append)
    return words


class Changed:
    """The engine with its scores changed before anyone sees them."""

    def __init__(self, engine, change):
        self.name, self.sha256, self._engine, self._change = engine.name, engine.sha256, engine, change

    def __call__(self, windows):
        scores = self._change(self._engine(windows)[0])
        return scores, scores.argmax(axis=1).astype(np.uint8)


def test_the_first_opening_checks_and_the_second_trusts_it(bundle, cache):
    [words] = told(bundle)
    assert words.startswith("checking the engine against 2 golden frames ... passed, ")
    assert len(list(cache.rglob("*.json"))) == 1
    assert told(bundle) == []


def test_a_changed_bundle_is_checked_anew(bundle):
    told(bundle)
    (bundle.path / "MODEL_CARD.md").write_text("other words")
    write_sums(bundle.path)
    assert len(told(open_bundle(bundle.path))) == 1


@pytest.mark.parametrize(
    ("owner", "name"), [("octedge", "0.0.0"), ("numpy", "1.0"), ("machine", "another kind"), ("engine", "another version")]
)
def test_other_software_or_another_machine_is_checked_anew(bundle, monkeypatch, owner, name):
    told(bundle)
    real = module.identify
    monkeypatch.setattr(module, "identify", lambda *args: msgspec.structs.replace(real(*args), **{owner: name}))
    assert len(told(bundle)) == 1


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b'{"schema": 1, "unknown": 2}'])
def test_a_damaged_certificate_is_no_certificate(bundle, cache, damage):
    told(bundle)
    [file] = cache.rglob("*.json")
    file.write_bytes(damage)
    assert len(told(bundle)) == 1
    assert told(bundle) == []


def test_a_certificate_of_something_else_under_this_name_does_not_count(bundle, cache):
    told(bundle)
    [file] = cache.rglob("*.json")
    file.write_bytes(file.read_bytes().replace(bundle.digest.encode(), b"0" * 64))
    assert len(told(bundle)) == 1


def test_a_cache_that_cannot_be_written_means_checking_every_time(bundle, cache):
    cache.write_text("a file in the place of the folder")
    assert len(told(bundle)) == 1
    assert len(told(bundle)) == 1


def test_no_home_folder_means_checking_every_time(bundle, monkeypatch):
    monkeypatch.setattr("octedge.edge.engine.cache_folder", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert len(told(bundle)) == 1
    assert len(told(bundle)) == 1


def test_wrong_answers_are_refused_every_time_and_nothing_is_kept(bundle, cache):
    golden = dict(np.load(bundle.path / "golden.npz"))
    golden["labels_0"][:20, 5] ^= 1
    np.savez(bundle.path / "golden.npz", **golden)
    write_sums(bundle.path)
    wrong = open_bundle(bundle.path)
    for _ in range(2):
        words: list[str] = []
        with pytest.raises(ModelError, match=r"may not serve tiny: it gives the reference label for 99\.\d+% .*; needed are 99\.99%"):
            open_engine(wrong, tell=words.append)
        assert "failed" in words[0]
    assert not list(cache.rglob("*.json"))


def test_surfaces_and_labels_of_other_sizes_are_refused(bundle):
    known = bundle.golden()[0]
    np.savez(bundle.path / "golden.npz", frame_0=known.frame, labels_0=known.labels[1:], surfaces_0=known.surfaces)
    with pytest.raises(ModelError, match="sizes of frames and reference answers do not fit"):
        examine(bundle, FIRST, load_engine(bundle))


def test_the_reference_engine_differs_from_itself_in_nothing(bundle):
    found = examine(bundle, FIRST, load_engine(bundle))
    assert (found.equal, found.mean_px, found.p99_px, found.max_px) == (1, 0, 0, 0)
    assert set(found.iou.values()) == {1.0}
    assert found.ms > 0
    assert found.fault() == ""


def test_the_differences_are_those_of_a_count_by_hand(bundle):
    engine = Changed(load_engine(bundle), lambda scores: np.roll(scores, 3, axis=3))
    found = examine(bundle, FIRST, engine)
    from octedge.segment import plan, segment

    pairs = [(segment(known.frame, engine, plan(bundle.card, len(known.frame))), known) for known in bundle.golden()]
    px = np.sort(np.concatenate([np.abs(answer.surfaces - known.surfaces).ravel() for answer, known in pairs]))
    same = sum(int((answer.labels == known.labels).sum()) for answer, known in pairs)
    assert found.equal == pytest.approx(same / sum(known.labels.size for _, known in pairs))
    assert found.max_px == pytest.approx(px[-1], abs=1e-4)
    assert px[int(0.985 * len(px))] <= found.p99_px <= px[-1]
    for index, key in enumerate(bundle.card.structures):
        both = sum(int(((answer.labels == index) & (known.labels == index)).sum()) for answer, known in pairs)
        either = sum(int(((answer.labels == index) | (known.labels == index)).sum()) for answer, known in pairs)
        assert found.iou.get(key) == (pytest.approx(both / either, abs=1e-4) if either else None)


def certificate(bundle, precision, **values) -> Certificate:
    found = examine(bundle, FIRST, load_engine(bundle))
    identity = msgspec.structs.replace(found.identity, variant=f"ort-{precision}")
    return msgspec.structs.replace(found, identity=identity, **values)


@pytest.mark.parametrize(
    ("precision", "values", "fault"),
    [
        ("fp32", {"equal": 0.9998}, r"99\.9800% of the golden pixels; needed are 99\.99%"),
        ("fp16", {"p99_px": 0.26}, r"0\.26 px from the reference .*fp16 may have 0\.25"),
        ("bf16", {"p99_px": 0.26}, r"0\.26 px from the reference .*bf16 may have 0\.25"),
        ("int8", {"p99_px": 1.01, "iou_loss": 0.0}, r"1\.01 px from the reference .*int8 may have 1"),
        ("int8", {"p99_px": 0.9, "iou_loss": 0.006}, r"loses 0\.0060 of IoU on labelled scans; int8 may lose 0\.005"),
        ("int8", {"p99_px": 0.9}, "its loss of IoU on labelled scans is unknown; int8 may lose"),
    ],
)
def test_each_precision_is_refused_for_what_it_must_reach(bundle, precision, values, fault):
    found = certificate(bundle, precision, **values)
    with pytest.raises(ModelError, match=fault):
        raise ModelError(found.fault())


@pytest.mark.parametrize(
    ("precision", "values"),
    [("fp32", {"p99_px": 9.0}), ("fp16", {"p99_px": 0.25, "equal": 0.99}), ("int8", {"p99_px": 1.0, "iou_loss": 0.005, "equal": 0.9})],
)
def test_each_precision_passes_at_its_limit(bundle, precision, values):
    assert certificate(bundle, precision, **values).fault() == ""


def test_every_precision_has_a_gate():
    assert set(GATES) == set(FILES)


def test_what_changed_is_named_with_before_and_after(bundle):
    now = identify(bundle, FIRST, load_engine(bundle))
    assert changes(now, now) == ""
    words = changes(msgspec.structs.replace(now, engine="onnxruntime 1.0 cpu fp32", bundle="0" * 64), now)
    assert words == f"bundle was {'0' * 12}, is {bundle.digest[:12]}, engine was 'onnxruntime 1.0 cpu fp32', is {now.engine!r}"


def test_an_identity_names_the_file_the_engine_runs(bundle):
    assert identify(bundle, FIRST, load_engine(bundle)).file == bundle.sums["model.onnx"]


@pytest.mark.real_timing
def test_latency_is_measured_on_one_b_scan_of_1024_x_512():
    frame = module.timed_frame()
    assert frame.shape == (1024, 512)
    np.testing.assert_array_equal(frame, module.timed_frame())


def test_the_card_states_the_loss_of_a_precision(bundle):
    from octedge.card import Precision

    card = msgspec.structs.replace(bundle.card, precisions=(Precision(name="fp32", equal=1, p99_px=0, iou_loss=0.25),))
    assert examine(replace(bundle, card=card), FIRST, load_engine(bundle)).iou_loss == 0.25
