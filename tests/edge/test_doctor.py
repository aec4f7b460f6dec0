"""The doctor tries what is installed, and names what does not work with what repairs it."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import onnxruntime
import pytest

from octedge.edge import doctor, ort
from octedge.edge.bundle import open_bundle, write_sums
from octedge.edge.doctor import findings
from octedge.edge.engine import backend
from octedge.edge.gpu import Gpu, gpus
from octedge.edge.prepare import prepare
from octedge.edge.prepared import read_prepared, write_prepared
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from octedge.readers._codecs import CODECS
from tests.edge.graphs import in_precision, quantised_graph, saved
from tests.support import tiny_bundle, tiny_graph
from tests.train.tiny import quiet


@pytest.fixture
def folder(tmp_path):
    return tiny_bundle(tmp_path / "tiny")


def found(folder, what):
    return [each for each in findings(folder) if each.what == what]


def test_every_finding_is_one_line_of_ascii_and_what_is_not_ok_has_a_repair(folder):
    for each in findings(folder):
        line = f"{each.state} {each.what} {each.text} {each.repair}"
        assert line.isascii()
        assert line.isprintable()
        assert each.state == "ok" or each.repair


def test_the_decoders_of_compressed_dicom_are_tried(folder):
    [each] = found(folder, "dicom")
    assert (each.state, each.text) == ("ok", "RLE, JPEG, JPEG-LS, JPEG 2000 tried and read")


def test_a_missing_decoder_is_noted_with_its_package(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    monkeypatch.setattr(doctor, "packages_distributions", dict)
    note, each = found(folder, "dicom")
    assert (note.state, note.repair) == ("note", "pip install --force-reinstall pyjpegls")
    assert note.text.startswith("JPEG-LS is not read: ")
    assert each.text == "RLE, JPEG, JPEG 2000 tried and read; lossless JPEG of more than 8 bit is not, without octedge[dicom]"


def test_a_decoder_that_makes_wrong_pixels_fails(folder, monkeypatch):
    rle = CODECS["1.2.840.10008.1.2.5"]
    monkeypatch.setitem(CODECS, "1.2.840.10008.1.2.5", replace(rle, decode=lambda data, layout: bytes(64 * 64)))
    fail = found(folder, "dicom")[0]
    assert (fail.state, fail.text, fail.repair) == (
        "fail", "RLE is decoded to wrong pixels", "pip install --force-reinstall pylibjpeg-rle",
    )  # fmt: skip


def test_the_decoder_that_hides_truncation_is_refused(folder, monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"libjpeg": ["pylibjpeg-libjpeg"]})
    fail = found(folder, "dicom")[-1]
    assert (fail.state, fail.repair) == ("fail", "pip uninstall -y pylibjpeg-libjpeg")
    assert "wrong pixels of truncated JPEG without an error" in fail.text


def test_every_variant_that_needs_no_building_is_run(folder):
    for precision, graph in (("fp16", in_precision(tiny_graph(), "fp16")), ("int8", quantised_graph())):
        saved(graph, folder, f"model.{precision}.onnx")
    write_sums(folder)
    for engine in ("ort", "openvino"):
        tried = found(folder, engine)
        variants = [variant for variant in backend(engine).variants() if str(variant) != "ort-fp32"]
        assert len(tried) == len(variants) >= 2
        for each, variant in zip(tried, variants, strict=True):
            assert each.state == "ok"
            assert f"{variant.precision}: " in each.text
            assert each.text.endswith("% of a golden frame as the reference")


def test_an_engine_that_refuses_its_file_is_noted_and_the_others_serve(folder):
    saved(in_precision(tiny_graph(), "fp32"), folder, "model.fp16.onnx")
    write_sums(folder)
    [note] = found(folder, "ort")
    assert (note.state, note.repair) == ("note", "export the bundle anew")
    assert note.text.startswith("model.fp16.onnx: the graph inside is in fp32, asked for was fp16")
    assert not [each for each in findings(folder) if each.state == "fail"]


def test_wrong_answers_are_noted(folder):
    saved(in_precision(tiny_graph(seed=1), "int8"), folder, "model.int8.onnx")
    write_sums(folder)
    [note] = found(folder, "ort")
    assert (note.state, note.repair) == ("note", "use another engine")


def test_a_bundle_that_cannot_be_opened_fails_and_the_rest_is_still_looked_at(tmp_path):
    [model] = found(tmp_path, "model")
    assert (model.state, model.repair) == ("fail", "is this the right folder?")
    assert found(tmp_path, "here")
    assert not found(tmp_path, "openvino")


def test_golden_answers_that_cannot_be_read_fail_in_words(folder):
    (folder / "golden.npz").write_bytes(b"")
    write_sums(folder)
    states = {each.what: each.state for each in findings(folder)}
    assert (states["model"], states["openvino"]) == ("fail", "note")


def test_an_openvino_without_its_library_is_not_mentioned(folder, monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime"]})
    assert not found(folder, "openvino")
    assert not found(folder, "rtx")


def test_without_a_driver_tensorrt_is_named_and_not_touched(folder):
    if gpus():
        pytest.skip("this machine has a driver")
    code = "import sys; from octedge.edge.doctor import findings; print(*findings(sys.argv[1]), 'tensorrt_rtx' in sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, touched = done.stdout.splitlines()
    assert touched == "False"
    [line] = [line for line in lines if "what='rtx'" in line]
    assert "state='note'" in line
    assert "no NVIDIA driver" in line
    assert "install NVIDIA's driver" in line


def test_a_gpu_without_an_engine_built_for_it_is_shown_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(doctor, "missing", str)
    possible = SimpleNamespace(variants=lambda: (Variant("rtx", "fp32"), Variant("rtx", "fp16")))
    monkeypatch.setattr(doctor, "backend", lambda name: possible if name == "rtx" else backend(name))
    [rtx] = found(folder, "rtx")
    assert (rtx.state, rtx.text, rtx.repair) == ("ok", "rtx-fp32, rtx-fp16 can be built", "octedge prepare")


def test_what_an_engine_lacks_here_is_noted(folder, monkeypatch):
    def lacking():
        raise ModelError("rtx needs a newer driver; update it")

    monkeypatch.setattr(doctor, "missing", str)
    monkeypatch.setattr(doctor, "backend", lambda name: SimpleNamespace(variants=lacking) if name == "rtx" else backend(name))
    [note] = found(folder, "rtx")
    assert (note.state, note.text, note.repair) == ("note", "rtx needs a newer driver", "update it")


def test_onnx_runtime_for_gpus_without_a_driver_is_named(folder, monkeypatch):
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    monkeypatch.setattr(doctor, "missing", lambda: "no driver here")
    [note] = found(folder, "ort")
    assert (note.state, note.text) == ("note", "onnxruntime-gpu installed, but no driver here")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_cannot_start_is_named_instead_of_using_the_cpu(folder, monkeypatch, tmp_path, capfd):
    """The installed ONNX Runtime is one for CPUs: what it does without CUDA is real, only the GPU is not."""
    card = (Gpu("a card", (8, 6), "580.1", 24 << 30),)
    for module in (doctor, ort):
        monkeypatch.setattr(module, "gpus", lambda: card)
        monkeypatch.setattr(module, "missing", str)
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [ort.CUDA, ort.CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("CUDA is not here"))
    [gpu] = found(folder, "gpu")
    assert gpu.text == "a card, 24 GiB, driver 580.1"
    [note] = found(folder, "ort")
    assert (note.state, note.repair) == ("note", "update NVIDIA's driver, or use ort-fp32")
    assert "cannot load it on cuda" in note.text
    library = tmp_path / "capi" / "libonnxruntime_providers_cuda.so"
    library.parent.mkdir()
    library.write_bytes(b"no library")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    [note] = found(folder, "ort")
    assert note.repair == "pip install octedge[gpu]"
    assert library.name in note.text
    assert capfd.readouterr() == ("", "")  # results may be on stdout


def test_the_tiny_bundle_is_fine_as_it_is(folder):
    [model] = found(folder, "model")
    assert model.state == "ok"
    assert f"100.000% of {len(open_bundle(folder).golden())} golden frames" in model.text


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    folder = tiny_bundle(tmp_path / "tiny")
    prepare(open_bundle(folder), ("ort-fp32", "openvino-fp32"), quiet)
    return folder


def choice(folder):
    return next(each for each in findings(folder) if each.what == "prepared")


def test_a_bundle_that_was_not_prepared_says_how_to(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTEDGE_CACHE", str(tmp_path / "cache"))
    folder = tiny_bundle(tmp_path / "tiny")
    found = choice(folder)
    assert (found.state, found.text) == ("ok", f"not yet: ort-fp32 is used; octedge prepare {folder} finds the fastest engine")


def test_a_prepared_bundle_says_what_was_chosen(prepared):
    found = choice(prepared)
    assert found.state == "ok"
    assert found.text.split(",")[0] in ("ort-fp32", "openvino-fp32")


def test_a_choice_that_does_not_hold_any_more_fails_and_says_what_changed(prepared):
    folder = prepared / "engines"
    known = read_prepared(folder)
    assert known is not None
    write_prepared(folder, msgspec.structs.replace(known, chosen="openvino-fp32"))
    file = folder / "openvino-fp32.certificate.json"
    file.write_bytes(file.read_bytes().replace(b"openvino 20", b"openvino 19"))
    found = choice(prepared)
    assert found.state == "fail"
    assert "does not hold any more: engine was 'openvino 19" in found.text
    assert found.repair == f"octedge prepare {prepared}"
