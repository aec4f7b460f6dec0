"""OpenVINO answers as ONNX Runtime does, computes in what was asked for, and keeps off the network."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from octedge.edge import ov
from octedge.edge.bundle import REFERENCE, open_bundle
from octedge.edge.ort import OrtEngine
from octedge.edge.ov import OpenVinoEngine, check_used
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from octedge.phantom import LOOKS, Phantom
from octedge.segment import plan, segment
from tests.edge.graphs import in_precision, saved
from tests.support import CARD, tiny_bundle, tiny_graph

openvino = import_module("openvino")  # only now: imported before octedge.edge.ov, it would report to its makers
SILENCED = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")  # each would silence a library by itself
BF16 = Variant("openvino", "bf16")
WATCHED = """
import atexit, sys
seen = []

def refuse(event, _):
    if event.startswith(("socket.", "os.fork", "os.posix_spawn", "subprocess.", "urllib.")):
        seen.append(event)
        raise RuntimeError(event)

sys.addaudithook(refuse)
atexit.register(lambda: print("seen:", *sorted(set(seen))))
"""
RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from octedge.card import decode_card
from octedge.edge.ort import OrtEngine
from octedge.edge.ov import OpenVinoEngine
folder = Path(sys.argv[1])
card = decode_card((folder / "card.json").read_bytes())
for engine in (OrtEngine, OpenVinoEngine):
    engine(folder / "model.onnx", card)(np.zeros((1, 1, 16, 16), np.uint8))
"""


@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.is_dir():
        pytest.skip("octedge/models holds no bundle; `make reference` trains one")
    return open_bundle()


@pytest.fixture(scope="module")
def frames(reference):
    """The golden B-scans, phantoms in every look, and one more of another seed."""
    return [*(known.frame for known in reference.golden()), Phantom(replace(LOOKS["spectralis"], columns=160), 1, 4711).bscan(0).image]


def answers(engine, bundle, frames):
    return [segment(frame, engine, plan(bundle.card, len(frame))) for frame in frames]


def agreement(some, others) -> float:
    """The share of pixels with equal labels, all frames together."""
    equal = [one.labels == other.labels for one, other in zip(some, others, strict=True)]
    return sum(map(np.count_nonzero, equal)) / sum(each.size for each in equal)


@pytest.mark.slow
def test_in_fp32_the_reference_model_gives_the_labels_and_surfaces_of_onnx_runtime(reference, frames):
    expected = answers(OrtEngine(reference.path / "model.onnx", reference.card), reference, frames)
    found = answers(OpenVinoEngine(reference.path / "model.onnx", reference.card), reference, frames)
    assert agreement(found, expected) >= 0.9999
    apart = np.concatenate([np.abs(one.surfaces - other.surfaces).ravel() for one, other in zip(found, expected, strict=True)])
    assert np.quantile(apart, 0.99) < 0.01


@pytest.mark.slow
@pytest.mark.skipif(BF16 not in ov.BACKEND.variants(), reason="this processor does not compute in bf16")
def test_in_bf16_it_answers_almost_so(reference, frames, tmp_path):
    whole, half = (ov.BACKEND.load(reference, Variant("openvino", kind), tmp_path) for kind in ("fp32", "bf16"))
    assert half.name == whole.name.replace("fp32", "bf16")
    same = agreement(answers(half, reference, frames[:2]), answers(whole, reference, frames[:2]))
    assert 0.98 < same < 1


def test_the_name_says_library_version_device_and_precision(tmp_path):
    name = OpenVinoEngine(saved(tiny_graph(), tmp_path), CARD).name
    assert name == f"openvino {openvino.__version__.split('-')[0]} cpu fp32"


def test_threads_share_an_engine(tmp_path):
    engine = OpenVinoEngine(saved(tiny_graph(), tmp_path), CARD)
    windows = [np.random.default_rng(seed).integers(0, 256, (1, 1, 64, 16 + 4 * seed), dtype=np.uint8) for seed in range(16)]
    alone = [engine(each)[1] for each in windows]
    with ThreadPoolExecutor(4) as pool:
        together = [labels for _, labels in pool.map(engine, windows)]
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_another_device_or_type_than_asked_for_is_refused(tmp_path):
    path = saved(tiny_graph(), tmp_path)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    check_used(compiled, "CPU", "f32")
    for target, kind in (("GPU", "f32"), ("CPU", "bf16")):
        with pytest.raises(ModelError, match=f"would run on CPU in f32, asked for was {target} in {kind}; use an engine"):
            check_used(compiled, target, kind)


def test_a_device_that_is_not_there_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"^model\.onnx: openvino [\d.]+ cannot load it in fp32 on npu [^\n]*; use another engine"):
        OpenVinoEngine(saved(tiny_graph(), tmp_path), CARD, device="npu")


def test_a_type_that_the_processor_lacks_is_refused_and_not_run_as_another(tmp_path):
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in fp16")
    path = saved(in_precision(tiny_graph(), "fp16"), tmp_path)
    with pytest.raises(ModelError, match="asked for was CPU in f16"):
        OpenVinoEngine(path, CARD, precision="fp16")


def test_a_gpu_is_named_in_full_with_its_driver_where_openvino_tells():
    told = {"FULL_DEVICE_NAME": "a card", "GPU_DRIVER_VERSION": "32.1"}
    for known in (["GPU_DRIVER_VERSION"], []):
        core = SimpleNamespace(get_property=lambda _, key, known=known: known if key == "SUPPORTED_PROPERTIES" else told[key])
        assert ov._device(core, "GPU") == ("gpu a card driver 32.1" if known else "gpu a card")
        assert ov._device(core, "CPU") == "cpu"


def test_an_openvino_that_finds_no_device_says_so(monkeypatch):
    def fail():
        raise RuntimeError("Exception from src/core.cpp:1:\nno plugin")

    monkeypatch.setattr(openvino, "Core", fail)
    with pytest.raises(ModelError, match=r"finds no device \(no plugin\); use another engine"):
        ov.BACKEND.variants()


def test_the_variants_are_those_of_the_devices_here():
    found = list(map(str, ov.BACKEND.variants()))
    kinds = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert found[0] == "openvino-fp32"
    assert ("openvino-bf16" in found) == ("BF16" in kinds)
    assert ("openvino-int8" in found) == ("INT8" in kinds)
    assert ("openvino-gpu-fp16" in found) == any(each.startswith("GPU") for each in openvino.Core().available_devices)


def watched(code: str, home: Path, *arguments: object) -> str:
    """What Python code did that leads to the network, all of it refused; as on a user's machine, not as in automatic tests."""
    taken = {name: value for name, value in os.environ.items() if name not in SILENCED}
    home.mkdir()
    command = [sys.executable, "-c", WATCHED + code, *map(str, arguments)]
    environment = taken | {"HOME": str(home), "LOCALAPPDATA": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_engines_open_no_socket_start_no_process_and_leave_nothing_at_home(tmp_path):
    """What they leave at home otherwise is an identity for reports to their makers."""
    home = tmp_path / "home"
    assert watched(RUN, home, tiny_bundle(tmp_path / "tiny")) == "seen:"
    assert not list(home.iterdir())


def test_the_watch_sees_what_openvino_does_when_it_is_left_alone(tmp_path):
    assert watched("import openvino", tmp_path / "home") != "seen:"
    assert list((tmp_path / "home").iterdir())


def test_the_telemetry_package_can_be_imported_by_others_afterwards():
    assert sys.modules.get("openvino_telemetry", "absent") is not None
