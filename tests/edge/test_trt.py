"""TensorRT's side of the edge: what is built, what is taken over, what is refused, and how a plan is run."""

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx
from cuda.bindings import runtime
from hypothesis import given, settings
from hypothesis import strategies as st

from octedge.edge import trt, trt_progress
from octedge.edge.bundle import open_bundle
from octedge.edge.gpu import Gpu, gpus, missing
from octedge.edge.ort import OrtEngine
from octedge.edge.trt import RTX, TENSORRT
from octedge.edge.trt_build import CURRENT, PORTABLE, Options, Profile, build_plan, messages, profiles, reason
from octedge.edge.trt_files import WORDS, Key, Plan, plan_file, read_plan, sidecar_file, write_plan
from octedge.edge.trt_progress import Progress
from octedge.edge.trt_run import PlanEngine, cuda, profile_for
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from octedge.scan import Spacing
from octedge.segment import plan, segment
from tests.edge import simulated_gpu
from tests.edge.simulated_gpu import SimulatedGpu
from tests.support import CARD, tiny_bundle, tiny_graph

FP16 = Variant("rtx", "fp16")
FP32 = Variant("rtx", "fp32")
ADA = Gpu("NVIDIA RTX 4090", (8, 9), "580.65.06", 24 << 30)
PROFILES = (Profile(64, (1, 4), (1, 768), (1, 16384)),)
KEY = Key(
    bundle="b" * 64, onnx="0" * 64, precision="fp16", profiles=PROFILES, library="tensorrt_rtx 1.7.1.116",
    gpu="NVIDIA RTX 4090", capability="8.9", driver="580.65.06", capabilities=("CURRENT",), workspace=1 << 30,
)  # fmt: skip

without_gpu = pytest.mark.skipif(bool(gpus()), reason="this machine has a GPU")


def quiet(_):
    pass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("trt") / "tiny"))


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


# ---- what is taken over


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


# ---- a plan at work


@pytest.fixture
def simulated(bundle, monkeypatch):
    """Makes an engine on a simulated GPU: of a card, with some room, keeping its kernels in a file; calls are small."""
    monkeypatch.setattr("octedge.segment.PIXELS_PER_CALL", 1 << 14)

    def make(kernels, card=bundle.card, room=1 << 40, data=b"plan", classes=16):
        rows = profiles(card, (48, 100))
        gpu = SimulatedGpu(bundle.path / "model.onnx", rows, classes, room)
        monkeypatch.setattr("cuda.bindings.runtime", gpu.cuda)
        key = msgspec.structs.replace(KEY, profiles=rows)
        return gpu, lambda: PlanEngine(gpu.trt, Plan(data, "5" * 64, key), card, kernels)

    return make


@pytest.mark.parametrize("exact", [True, False])
def test_a_plan_gives_what_its_graph_gives_at_every_size(bundle, simulated, tmp_path, exact):
    card = msgspec.structs.replace(CARD, exact=exact)
    gpu, make = simulated(tmp_path / "kernels", card)
    engine, reference = make(), OrtEngine(bundle.path / "model.onnx", CARD)
    assert (engine.name, engine.sha256) == (KEY.engine, "5" * 64)
    rng = np.random.default_rng(0)
    for size in ((48, 70), (100, 300), (64, 33), (64, 700), (128, 1)):
        frame = rng.integers(0, 256, size, np.uint8)
        found, known = (segment(frame, each, plan(card, size[0])) for each in (engine, reference))
        np.testing.assert_array_equal(found.labels, known.labels)
        np.testing.assert_array_equal(found.surfaces, known.surfaces)
    assert len(gpu.cuda.memory) == 6


def test_calls_from_several_threads_do_not_meet(bundle, simulated, tmp_path):
    engine, reference = simulated(tmp_path / "kernels")[1](), OrtEngine(bundle.path / "model.onnx", CARD)
    windows = [np.random.default_rng(each).integers(0, 256, (1, 1, 64, 64), np.uint8) for each in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for found, each in zip(pool.map(engine, windows), windows, strict=True):
            np.testing.assert_array_equal(found[1], reference(each)[1])


def test_nothing_of_a_closed_engine_stays_on_the_gpu(simulated, tmp_path):
    gpu, make = simulated(tmp_path / "kernels")
    engine = make()
    assert gpu.cuda.memory
    assert gpu.cuda.streams
    del engine
    gc.collect()
    assert not gpu.cuda.memory
    assert not gpu.cuda.streams


def test_a_full_gpu_is_named_and_what_was_taken_is_given_back(simulated, tmp_path):
    gpu, make = simulated(tmp_path / "kernels", room=500_000)
    with pytest.raises(ModelError, match=r"cudaMalloc fails on the GPU: cudaErrorMemoryAllocation \(2\)"):
        make()
    assert not gpu.cuda.memory
    assert not gpu.cuda.streams


def test_what_the_library_refuses_at_run_time_is_said_in_its_words(simulated, tmp_path):
    with pytest.raises(ModelError, match=r"simulated 1\.0 cannot load the plan \(no magic in it\); run octedge prepare BUNDLE again"):
        simulated(tmp_path / "kernels", data=b"nonsense")[1]()
    with pytest.raises(ModelError, match=r"the plan has 9 classes, its card 16"):
        simulated(tmp_path / "kernels", classes=9)[1]()
    gpu, make = simulated(tmp_path / "kernels")
    gpu.fault = "an illegal memory access"
    with pytest.raises(ModelError, match=r"fails on windows \(1, 1, 64, 8\) \(an illegal memory access\)"):
        make()(np.zeros((1, 1, 64, 8), np.uint8))


def test_kernels_compiled_on_the_way_are_kept_for_the_next_process(simulated, tmp_path):
    file = tmp_path / "kernels"
    _, make = simulated(file)
    make()(np.zeros((1, 1, 64, 8), np.uint8))
    assert file.read_text() == "1 1 64 8\n"
    again = make()
    again(np.zeros((1, 1, 128, 4), np.uint8))
    assert file.read_text() == "1 1 64 8\n1 1 128 4\n"
    stamp = file.stat().st_mtime_ns
    make()(np.zeros((1, 1, 64, 8), np.uint8))
    assert file.stat().st_mtime_ns == stamp
    unwritable = simulated(tmp_path / "no such folder" / "kernels")[1]()
    assert unwritable(np.zeros((1, 1, 64, 8), np.uint8))[1].shape == (1, 64, 8)


def test_a_library_without_a_store_for_kernels_runs_too(simulated, tmp_path, monkeypatch):
    monkeypatch.delattr(simulated_gpu.Engine, "create_runtime_config")
    monkeypatch.setattr(simulated_gpu.Engine, "create_execution_context", lambda self: simulated_gpu.Context(self, None))
    assert simulated(tmp_path / "kernels")[1]()(np.zeros((1, 1, 64, 8), np.uint8))[0].shape == (1, 16, 64, 8)
    assert not (tmp_path / "kernels").exists()


def test_the_simulated_gpu_offers_nothing_that_the_real_packages_lack():
    pairs = {
        simulated_gpu.Cuda: runtime,
        simulated_gpu.Context: tensorrt_rtx.IExecutionContext,
        simulated_gpu.Engine: tensorrt_rtx.ICudaEngine,
        simulated_gpu.Config: tensorrt_rtx.IRuntimeConfig,
        simulated_gpu.Store: tensorrt_rtx.IRuntimeCache,
        simulated_gpu.Runtime: tensorrt_rtx.Runtime,
    }
    for made, real in pairs.items():
        offered = {name for name in vars(made) if not name.startswith("_")} - {"compute"}
        assert offered
        assert not [name for name in offered if not hasattr(real, name)]
    for name in ("active_optimization_profile", "set_tensor_address"):
        assert hasattr(tensorrt_rtx.IExecutionContext, name)
    assert hasattr(tensorrt_rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")


@without_gpu
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cudaMalloc", (10,)),
        ("cudaHostAlloc", (10, runtime.cudaHostAllocDefault)),
        ("cudaMemcpyAsync", (16, 32, 8, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, runtime.cudaStream_t(0))),
        ("cudaStreamSynchronize", (runtime.cudaStream_t(0),)),
    ],
)
def test_cuda_takes_the_arguments_and_its_errors_are_named(name, arguments):
    with pytest.raises(ModelError, match=rf"{name} fails on the GPU: cudaErrorInsufficientDriver \(35\)"):
        cuda(getattr(runtime, name), *arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason=missing())
@pytest.mark.parametrize("backend", [TENSORRT, RTX])
def test_a_real_gpu_gives_the_reference_answers(bundle, tmp_path, backend):
    try:
        variant = backend.variants()[0]
    except ModelError as error:
        pytest.skip(str(error))
    backend.build(bundle, variant, tmp_path, quiet)
    engine = backend.load(bundle, variant, tmp_path)
    assert gpus()[0].name in engine.name
    for known in bundle.golden():
        found = segment(known.frame, engine, plan(bundle.card, len(known.frame)))
        assert np.mean(found.labels == known.labels) >= 0.9999
    again = backend.load(bundle, variant, tmp_path)
    assert (again.name, again.sha256) == (engine.name, engine.sha256)


def test_current_is_what_both_backends_build_for():
    assert RTX.capabilities == CURRENT
    assert TENSORRT.capabilities == ()
