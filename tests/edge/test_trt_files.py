"""Plans in their files: what is taken over, and what is refused by what changed."""

import msgspec
import pytest

from octedge.edge.trt_build import Profile
from octedge.edge.trt_files import WORDS, Key, plan_file, read_plan, sidecar_file, write_plan
from octedge.errors import ModelError
from tests.edge.trt_parts import FP16, FP32, KEY, PROFILES


@pytest.fixture
def kept(tmp_path):
    """A folder with a plan."""
    write_plan(tmp_path / "engines", FP16, b"a plan of some bytes", KEY)
    return tmp_path / "engines"


def test_a_plan_that_fits_is_taken_over_as_it_is(kept):
    found = read_plan(kept, FP16, KEY)
    assert (found.data, found.key) == (b"a plan of some bytes", KEY)
    assert plan_file(kept, FP16).read_bytes() == found.data  # nothing before it, nothing behind it
    assert KEY.engine == "tensorrt_rtx 1.7.1.116 NVIDIA RTX 4090 sm89 driver 580.65.06 fp16"


OTHER = {
    "bundle": ("c" * 64, r"another bundle \(bbbbbbbbbbbb, now cccccccccccc\)"),
    "onnx": ("1" * 64, r"another ONNX file \(000000000000, now 111111111111\)"),
    "precision": ("fp32", r"another precision \(fp16, now fp32\)"),
    "profiles": ((*PROFILES, Profile(128, (1, 4), (1, 768), (1, 8192))), r"other sizes of B-scans \(64 rows .*, now 64 rows .*; 128 rows"),
    "library": ("tensorrt_rtx 1.8.0.1", r"another library \(tensorrt_rtx 1.7.1.116, now tensorrt_rtx 1.8.0.1\)"),
    "gpu": ("NVIDIA RTX 5090", r"another GPU \(NVIDIA RTX 4090, now NVIDIA RTX 5090\)"),
    "capability": ("12.0", r"another compute capability \(8.9, now 12.0\)"),
    "driver": ("590.1", r"another driver \(580.65.06, now 590.1\)"),
    "capabilities": (("SM86", "SM89"), r"other kinds of GPU \(CURRENT, now SM86; SM89\)"),
    "workspace": (1 << 31, r"another limit of working memory \(1073741824, now 2147483648\)"),
}


@pytest.mark.parametrize("name", Key.__struct_fields__)
def test_a_plan_for_anything_else_is_refused_by_what_changed(kept, name):
    value, words = OTHER[name]
    with pytest.raises(ModelError, match=rf"^rtx-fp16\.engine was built for {words}.*; run octedge prepare BUNDLE$"):
        read_plan(kept, FP16, msgspec.structs.replace(KEY, **{name: value}))
    assert set(WORDS) == set(OTHER) == set(Key.__struct_fields__)


def test_all_that_changed_is_named(kept):
    with pytest.raises(ModelError, match=r"another library .*, another driver "):
        read_plan(kept, FP16, msgspec.structs.replace(KEY, library="tensorrt_rtx 2.0", driver="600.0"))


def test_a_plan_cut_short_or_changed_is_refused(kept):
    file = plan_file(kept, FP16)
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=r"rtx-fp16\.engine has 19 bytes, 20 were written; it is damaged; run octedge prepare BUNDLE"):
        read_plan(kept, FP16, KEY)
    file.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ModelError, match=r"rtx-fp16\.engine was changed since it was built \(SHA-256 differs\); run octedge prepare"):
        read_plan(kept, FP16, KEY)
    file.unlink()
    with pytest.raises(ModelError, match=r"rtx-fp16\.engine cannot be read .*; run octedge prepare BUNDLE"):
        read_plan(kept, FP16, KEY)


def test_a_missing_or_damaged_or_later_sidecar_is_refused(kept):
    with pytest.raises(ModelError, match="rtx-fp32 is not built for this bundle on this machine; run octedge prepare BUNDLE"):
        read_plan(kept, FP32, KEY)
    file = sidecar_file(kept, FP16)
    text = file.read_text("utf-8")
    for damaged in ("", "{}", text[:-20], text.replace('"size"', '"length"'), "\0"):
        file.write_text(damaged, "utf-8")
        with pytest.raises(ModelError, match=r"rtx-fp16\.engine\.json cannot be read .*; run octedge prepare BUNDLE"):
            read_plan(kept, FP16, KEY)
    file.write_text(text.replace('"schema": 1', '"schema": 2'), "utf-8")
    with pytest.raises(ModelError, match=r"has schema 2, this octedge reads schema 1; run octedge prepare BUNDLE"):
        read_plan(kept, FP16, KEY)


@pytest.mark.parametrize("between", ["write_bytes", "write_json"])
def test_a_build_that_is_interrupted_between_its_files_is_not_taken_over(kept, monkeypatch, between):
    def interrupted(*_):
        raise KeyboardInterrupt

    now = msgspec.structs.replace(KEY, driver="590.1")
    monkeypatch.setattr(f"octedge.edge.trt_files.{between}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_plan(kept, FP16, b"another plan of bytes", now)
    with pytest.raises(ModelError, match="another driver"):
        read_plan(kept, FP16, now)
    if between == "write_json":  # what is there is not what the old sidecar stands for
        with pytest.raises(ModelError, match="21 bytes, 20 were written"):
            read_plan(kept, FP16, KEY)
