"""TensorRT's side of the edge: what a machine has, what is built, and what is refused."""

import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.edge import trt, trt_progress
from octedge.edge.bundle import open_bundle
from octedge.edge.gpu import Gpu
from octedge.edge.trt import RTX, TENSORRT
from octedge.edge.trt_build import PORTABLE, Options, Profile, build_plan, messages, profiles, reason
from octedge.edge.trt_files import plan_file, read_plan
from octedge.edge.trt_progress import Progress
from octedge.edge.trt_run import profile_for
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from octedge.scan import Spacing
from octedge.segment import plan, segment
from tests.edge.trt_parts import FP16, FP32, PROFILES, quiet, without_gpu
from tests.support import CARD, tiny_graph

ADA = Gpu("NVIDIA RTX 4090", (8, 9), "580.65.06", 24 << 30)


@pytest.fixture(scope="module")
def bundle(bundle):
    return open_bundle(bundle)


# ---- what a machine has


@without_gpu
@pytest.mark.parametrize("backend", [RTX, TENSORRT])
def test_a_machine_without_gpu_is_told_what_is_missing_before_any_library_is_touched(backend):
    with pytest.raises(ModelError, match=f"^{backend.engine} needs an NVIDIA GPU: .*; install its driver, or use --engine ort$"):
        backend.variants()
    script = f"""import sys
from octedge.edge.trt import RTX, TENSORRT
from octedge.errors import ModelError
try:
    {"RTX" if backend is RTX else "TENSORRT"}.variants()
except ModelError:
    print([name for name in sys.modules if name.startswith(("tensorrt", "cuda"))])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.fixture
def pretend(monkeypatch):
    """A function that makes the backends believe in a GPU."""

    def believe(gpu):
        monkeypatch.setattr(trt, "missing", lambda: "")
        monkeypatch.setattr(trt, "gpus", lambda: (gpu,))

    believe(ADA)
    return believe


def test_every_precision_is_offered_where_library_and_gpu_are(pretend):
    assert RTX.variants() == (FP32, FP16, Variant("rtx", "int8"))


def test_a_missing_package_is_named_with_its_command(pretend):
    with pytest.raises(ModelError, match=r"No module named 'tensorrt'.*pip install octedge\[tensorrt\] .*NVIDIA's own"):
        TENSORRT.variants()
    with pytest.raises(ModelError, match=r"No module named 'tensorrt_of_old'.*pip install octedge\[rtx\]$"):
        replace(RTX, module="tensorrt_of_old").variants()


def test_a_library_that_is_too_old_is_refused(pretend):
    with pytest.raises(ModelError, match=r"tensorrt_rtx 1\.\S+ is too old; needed is 99\.0; pip install --upgrade octedge\[rtx\]"):
        replace(RTX, oldest=(99, 0)).variants()


def test_a_gpu_that_rtx_has_no_code_for_is_refused(pretend):
    pretend(replace(ADA, name="NVIDIA H200", capability=(9, 0)))
    with pytest.raises(ModelError, match=r"has no code for NVIDIA H200 \(SM90\), only for SM75, SM80, .*; use --engine tensorrt or ort"):
        RTX.variants()


# ---- which shapes an engine is built for


class Recorder:
    """An engine that keeps the shapes it is asked for."""

    def __init__(self, classes):
        self.classes, self.shapes = classes, []

    def __call__(self, windows):
        self.shapes.append(windows.shape)
        count, _, height, width = windows.shape
        return np.zeros((count, self.classes, height, width), np.float32), np.zeros((count, height, width), np.uint8)


TWO = msgspec.structs.replace(CARD, structures=("vitreous", "rpe"))


@st.composite
def cards(draw):
    grid = 1 << (downs := draw(st.integers(0, 5)))
    window = grid * draw(st.integers(2, 40))
    overlap = grid * draw(st.integers(0, window // grid - 1))
    return msgspec.structs.replace(TWO, downs=downs, window=window, overlap=overlap, exact=draw(st.booleans()), heights=())


@settings(max_examples=60, deadline=None)
@given(cards(), st.integers(1, 600), st.integers(1, 3000), st.sampled_from([None, 1.5, 3.87, 11.0]))
def test_whatever_segment_asks_of_an_engine_fits_the_profile_of_its_height(card, rows, columns, axial_um):
    engine = Recorder(2)
    how = plan(card, rows, Spacing() if axial_um is None else Spacing(axial=axial_um / 1000))
    segment(np.zeros((rows, columns), np.uint8), engine, how)
    for shape in engine.shapes:
        found = profiles(card, (shape[2],))
        assert found[profile_for(shape, found)].height == shape[2]


@settings(max_examples=60, deadline=None)
@given(cards(), st.integers(1, 2048))
def test_profiles_lie_on_the_grid_and_their_ends_are_asked_for(card, rows):
    grid = card.windowing.grid
    (found,) = profiles(card, (rows,))
    for count, width in (found.least, found.usual, found.most):
        assert width % grid == 0
        assert found.least[0] <= count <= found.most[0]
        assert found.least[1] <= width <= found.most[1]
    assert found.least == (1, grid)
    rule = plan(card, rows).windowing
    assert found.most[1] == rule.window
    assert rule.window == card.window or card.exact


def test_an_exact_network_gets_one_window_as_wide_as_memory_allows_another_one_a_batch_of_its_own():
    exact = msgspec.structs.replace(CARD, window=512, overlap=256, downs=4, heights=(256, 512))
    assert profiles(exact) == (Profile(256, (1, 16), (1, 768), (1, 4096)), Profile(512, (1, 16), (1, 768), (1, 2048)))
    other = msgspec.structs.replace(exact, exact=False)
    assert profiles(other)[1] == Profile(512, (1, 16), (2, 512), (4, 512))


def test_the_heights_are_the_cards_and_those_of_the_frames_that_certify():
    assert [each.height for each in profiles(CARD, (885, 48, 496))] == [64, 512, 1024]


def test_a_card_without_heights_is_refused():
    with pytest.raises(ModelError, match="names no heights"):
        profiles(TWO if not TWO.heights else msgspec.structs.replace(TWO, heights=()))


def test_windows_of_another_size_are_refused_with_the_sizes_there_are():
    two = (*PROFILES, Profile(128, (1, 4), (2, 768), (3, 8192)))
    assert profile_for((1, 1, 64, 80), two) == 0
    assert profile_for((3, 1, 128, 8192), two) == 1
    with pytest.raises(ModelError, match="windows of 256 rows came, the engine was built for 64, 128; use --engine ort"):
        profile_for((1, 1, 256, 80), two)
    for shape in ((4, 1, 128, 80), (1, 1, 128, 8196), (1, 1, 128, 0)):
        with pytest.raises(ModelError, match="was built for 1 to 3 windows of 4 to 8192 columns"):
            profile_for(shape, two)


# ---- builds that are kept


ANY = replace(RTX, capabilities=("SM86",))  # a real build that needs no GPU


def test_a_build_is_kept_and_taken_over_until_something_changes(bundle, tmp_path, pretend):
    said = []
    ANY.build(bundle, FP32, tmp_path, said.append)
    first = read_plan(tmp_path, FP32, trt._key(tensorrt_rtx, bundle, FP32, ("SM86",)))
    assert first.key.onnx == bundle.sums["model.onnx"]
    assert first.key.bundle == bundle.digest
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rtx-fp32.engine", "rtx-fp32.engine.json"]
    stamp = plan_file(tmp_path, FP32).stat().st_mtime_ns
    ANY.build(bundle, FP32, tmp_path, said.append)
    assert plan_file(tmp_path, FP32).stat().st_mtime_ns == stamp
    assert not said
    pretend(replace(ADA, driver="590.1"))
    ANY.build(bundle, FP32, tmp_path, said.append)
    assert said == ["building anew: rtx-fp32.engine was built for another driver (580.65.06, now 590.1)"]
    assert plan_file(tmp_path, FP32).stat().st_mtime_ns != stamp


def test_nothing_is_handed_to_the_library_that_does_not_fit(bundle, tmp_path, pretend, monkeypatch):
    ANY.build(bundle, FP32, tmp_path, quiet)
    handed = []
    monkeypatch.setattr("octedge.edge.trt_run.PlanEngine", lambda *rest: handed.append(rest))
    pretend(replace(ADA, driver="590.1"))
    with pytest.raises(ModelError, match="another driver"):
        ANY.load(bundle, FP32, tmp_path)
    pretend(ADA)
    plan_file(tmp_path, FP32).write_bytes(b"?" * plan_file(tmp_path, FP32).stat().st_size)
    with pytest.raises(ModelError, match="SHA-256 differs"):
        ANY.load(bundle, FP32, tmp_path)
    assert not handed


def test_a_precision_that_the_bundle_lacks_is_refused_by_its_file(bundle, tmp_path, pretend):
    with pytest.raises(ModelError, match=r"tiny has no model\.fp16\.onnx, which rtx-fp16 needs"):
        ANY.build(bundle, FP16, tmp_path, quiet)


@without_gpu
def test_loading_without_gpu_ends_in_words_of_cuda(bundle, tmp_path, pretend):
    ANY.build(bundle, FP32, tmp_path, quiet)
    with pytest.raises(ModelError, match=r"cudaStreamCreate fails on the GPU: cudaErrorInsufficientDriver \(35\); see octedge doctor"):
        ANY.load(bundle, FP32, tmp_path)


@without_gpu
def test_the_library_takes_the_plan_file_as_it_is_as_far_as_it_can_without_gpu(bundle, tmp_path, pretend):
    ANY.build(bundle, FP32, tmp_path, quiet)
    file = plan_file(tmp_path, FP32).read_bytes()
    for data, words in ((file, "cudaError 35"), (b"x" + file, "magicTag")):
        messages(tensorrt_rtx).errors.clear()
        assert tensorrt_rtx.Runtime(messages(tensorrt_rtx)).deserialize_cuda_engine(data) is None
        assert words in reason(tensorrt_rtx)


# ---- builds that fail, builds that are watched


@without_gpu
def test_a_failed_build_says_the_librarys_own_reason(bundle, tmp_path, pretend):
    with pytest.raises(ModelError, match=r"model\.onnx: tensorrt_rtx \S+ cannot build it \(.*cudaError 35: .*\); use another engine"):
        RTX.build(bundle, FP32, tmp_path, quiet)
    assert not list(tmp_path.iterdir())


def graph(folder, model):
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_what_is_no_graph_or_lacks_an_end_is_refused(tmp_path):
    options = Options(PROFILES, ("SM86",))
    (tmp_path / "not.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"not\.onnx: tensorrt_rtx \S+ cannot read the graph \(.*Failed to parse the ONNX model"):
        build_plan(tensorrt_rtx, tmp_path / "not.onnx", CARD, options, quiet)
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read"):
        build_plan(tensorrt_rtx, tmp_path / "none.onnx", CARD, options, quiet)
    with pytest.raises(ModelError, match=r"the graph has .* classes uint8 of rank 3; needed is .* labels uint8 of rank 3"):
        build_plan(tensorrt_rtx, graph(tmp_path, tiny_graph(labels="classes")), CARD, options, quiet)
    fewer = msgspec.structs.replace(CARD, structures=CARD.structures[:9])
    with pytest.raises(ModelError, match="the graph has 16 classes, its card 9"):
        build_plan(tensorrt_rtx, graph(tmp_path, tiny_graph()), fewer, options, quiet)


def test_shapes_and_gpus_that_the_library_refuses_are_named(tmp_path):
    file = graph(tmp_path, tiny_graph())
    turned = (Profile(64, (1, 800), (1, 768), (1, 16384)),)
    with pytest.raises(ModelError, match=r"refuses the shapes .* MIN<=OPT<=MAX"):
        build_plan(tensorrt_rtx, file, CARD, Options(turned, ("SM86",)), quiet)
    with pytest.raises(ModelError, match=r"cannot build for SM90; it knows SM75, SM80, SM86"):
        build_plan(tensorrt_rtx, file, CARD, Options(PROFILES, ("SM90",)), quiet)
    with pytest.raises(ModelError, match=r"cannot build for SM90"):
        build_plan(tensorrt_rtx, file, CARD, Options(PROFILES, ("SM89", "SM90")), quiet)


def test_a_limit_of_working_memory_and_kept_timings_are_passed_on(tmp_path):
    """RTX makes nothing of either, and says so of the timings; what is seen is that TensorRT would get them."""
    seen = []

    class Config:
        def set_memory_pool_limit(self, pool, size):
            seen.append((pool, size))

        def create_timing_cache(self, data):
            return data

        def set_timing_cache(self, cache, ignore):
            seen.append((cache, ignore))
            return cache == b""

    from octedge.edge.trt_build import _configure

    (tmp_path / "timings").write_bytes(b"of another GPU")
    assert _configure(tensorrt_rtx, None, Config(), Options((), workspace=5, timings=tmp_path / "timings")) == b""
    assert seen == [(tensorrt_rtx.MemoryPoolType.WORKSPACE, 5), (b"of another GPU", False), (b"", False)]


def test_how_far_a_build_is_and_how_long_it_takes_is_told_now_and_then():
    now, said = [0.0], []
    progress = Progress(said.append, lambda: now[0])
    progress.start("Building engine", None, 6)
    progress.start("Computing profile costs", "Building engine", 10)
    for step in range(10):
        progress.start("Timing graph nodes", "Computing profile costs", 2)
        now[0] += 3
        assert progress.step("Timing graph nodes", 0)
        progress.finish("Timing graph nodes")
        now[0] += 3
        assert progress.step("Computing profile costs", step)
    progress.finish("Computing profile costs")
    assert said[:2] == ["computing profile costs: 10%, about 54 s left", "computing profile costs: 20%, about 48 s left"]
    assert said[-1] == "computing profile costs: 90%, about 6 s left"
    assert len(said) == 9


def test_long_builds_are_told_in_minutes_and_unknown_phases_are_borne():
    now, said = [0.0], []
    progress = Progress(said.append, lambda: now[0])
    progress.start("Building engine", None, 0)
    progress.start("costs", "Building engine", 100)
    now[0] = 60.0
    assert progress.step("costs", 0)
    assert progress.step("never begun", 0)
    progress.finish("never begun")
    assert said == ["costs: 1%, about 99 min left"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, BrokenPipeError])
def test_ctrl_c_and_a_closed_pipe_stop_a_real_build(tmp_path, monkeypatch, stop, capfd):
    monkeypatch.setattr(trt_progress, "EVERY", 0.0)

    def tell(_):
        raise stop

    with pytest.raises(stop):
        build_plan(tensorrt_rtx, graph(tmp_path, tiny_graph()), CARD, Options(PROFILES, ("SM86",)), tell)
    assert capfd.readouterr() == ("", "")


def test_a_real_build_tells_its_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(trt_progress, "EVERY", 0.0)
    said = []
    assert build_plan(tensorrt_rtx, graph(tmp_path, tiny_graph()), CARD, Options(PROFILES, PORTABLE), said.append)
    assert any(words.startswith("computing profile costs: ") and words.endswith(" left") for words in said)
