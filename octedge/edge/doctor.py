"""What works on this machine: each thing tried, not only looked up, with the command that repairs it."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Literal

import numpy as np

import octedge
from octedge.edge.bundle import REFERENCE, Bundle, open_bundle
from octedge.edge.certificate import examine
from octedge.edge.engine import backend, load_engine, open_engine
from octedge.edge.gpu import gpus, missing
from octedge.edge.machine import cores, describe
from octedge.edge.places import cache_folder, engines_folder
from octedge.edge.prepared import read_prepared
from octedge.edge.variant import FIRST, Variant
from octedge.errors import ModelError, ScanError
from octedge.phantom_codings import encoder
from octedge.readers._codecs import CODECS, DamagedFrame, Layout
from octedge.segment import plan, segment

_BUILT = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}  # engine -> its library; what they run is built by `octedge prepare`
_LOADED = {"ort": "onnxruntime", "openvino": "openvino"}  # engine -> its library; they run the bundle's files as they are
_WRONG = 0.9  # below this share of equal labels an engine does not round, it is wrong
_REINSTALL = "pip install --force-reinstall octedge[cpu]"
_NO_CACHE = ": the engine is checked at every start"
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: "ok", "note" (worth knowing) or "fail" (nothing can be segmented), and the repair if there is one."""

    state: Literal["ok", "note", "fail"]
    what: str
    text: str
    repair: str = ""


def findings(bundle: Path | None = None) -> Iterator[Finding]:
    """Everything looked at, one after the other; `bundle` instead of the shipped reference."""
    yield Finding("ok", "python", f"{platform.python_version()}, octedge {octedge.__version__}")
    count = cores()
    yield Finding("ok", "machine", f"{describe()}, {count or os.cpu_count()} cores for the engine")
    for gpu in gpus():
        yield Finding("ok", "gpu", f"{gpu.name}, {gpu.memory / _GIB:.0f} GiB, driver {gpu.driver}")
    packages = packages_distributions()
    yield from _dicom(packages)
    yield _onnxruntime(packages)
    opened = _opened(bundle)
    yield _model(opened, bundle is None) if isinstance(opened, Bundle) else opened
    for engine, library in (_LOADED | _BUILT).items():
        if installed := sorted(set(packages.get(library, ()))):
            yield from _engine(engine, installed, opened if isinstance(opened, Bundle) else None)
    if isinstance(opened, Bundle):
        yield _prepared(opened, "octedge prepare" if bundle is None else f"octedge prepare {bundle}")
    yield _cache()
    yield _space("here", Path.cwd())


def _refused(state: Literal["note", "fail"], what: str, error: ModelError) -> Finding:
    """An error as a finding; what to do stands behind its last semicolon."""
    text, _, repair = str(error).rpartition("; ")
    return Finding(state, what, text, repair)


def _onnxruntime(packages: Mapping[str, list[str]]) -> Finding:
    """ONNX Runtime comes in several packages that overwrite each other without a word; exactly one may be there."""
    found = sorted(set(packages.get("onnxruntime", ())))
    if not found:
        return Finding("fail", "onnxruntime", "not installed", "pip install octedge[cpu]")
    if len(found) > 1:
        repair = f"pip uninstall -y {' '.join(found)} && pip install octedge[cpu]"
        return Finding("fail", "onnxruntime", f"{len(found)} packages overwrite each other: {', '.join(found)}", repair)
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("fail", "onnxruntime", f"cannot be imported: {error}", f"pip install --force-reinstall {found[0]}")
    return Finding("ok", "onnxruntime", f"{onnxruntime.__version__} from package {found[0]}")


def _dicom(packages: Mapping[str, list[str]]) -> Iterator[Finding]:
    """A compressed frame through every decoder that is needed for scans, and whether one is there that must not be."""
    frame = np.add.outer(np.arange(64), 2 * np.arange(64)).astype(np.uint8)
    layout = Layout(1, 64, 64, 8, 8)
    read = []
    for coding in ("RLE", "JPEG", "JPEG-LS", "JPEG 2000"):
        compression = encoder(coding, 8)
        decoder = CODECS[compression.syntax]
        try:
            decoder.check_installed("DICOM")
            wrong = np.abs(decoder.pixels(compression.encode(frame), layout).astype(int) - frame).mean()
        except (ScanError, DamagedFrame) as error:
            yield Finding("note", "dicom", f"{coding} is not read: {error}", f"pip install --force-reinstall {decoder.package}")
            continue
        if wrong > (2 if compression.lossy else 0):
            yield Finding("fail", "dicom", f"{coding} is decoded to wrong pixels", f"pip install --force-reinstall {decoder.package}")
        read.append(coding)
    more = "" if packages.get("imagecodecs") else "; lossless JPEG of more than 8 bit is not, without octedge[dicom]"
    yield Finding("ok", "dicom", f"{', '.join(read)} tried and read{more}")
    if harmful := sorted(set(packages.get("libjpeg", ()))):
        text = f"{', '.join(harmful)} is installed: it makes wrong pixels of truncated JPEG without an error"
        yield Finding("fail", "dicom", text, f"pip uninstall -y {' '.join(harmful)}")


def _opened(bundle: Path | None) -> Bundle | Finding:
    """The bundle, or why there is none."""
    if bundle is None and not REFERENCE.is_dir():
        return Finding("fail", "model", "this octedge ships no reference model", "octedge segment --model BUNDLE ...")
    try:
        return open_bundle(bundle)
    except ModelError as error:
        return Finding("fail", "model", str(error), _REINSTALL) if bundle is None else _refused("fail", "model", error)


def _model(bundle: Bundle, shipped: bool) -> Finding:
    """The bundle's golden frames through the first engine."""
    try:
        engine = load_engine(bundle, str(FIRST))
        found = examine(bundle, FIRST, engine)
    except ModelError as error:
        return Finding("fail", "model", str(error), _REINSTALL) if shipped else _refused("fail", "model", error)
    text = f"{bundle.card.id} on {engine.name}: {found.equal:.3%} of {found.frames} golden frames as the reference, {found.seconds:.1f} s"
    return Finding("fail", "model", text, _REINSTALL) if found.fault() else Finding("ok", "model", text)


def _engine(engine: str, packages: list[str], bundle: Bundle | None) -> Iterator[Finding]:
    """An engine whose library is installed: what it can run here, and each variant of it tried that needs no building."""
    if (engine in _BUILT or "onnxruntime-gpu" in packages) and (why := missing()):
        yield Finding("note", engine, f"{', '.join(packages)} installed, but {why}", "install NVIDIA's driver to use it")
        if engine in _BUILT:
            return  # TensorRT may end the process where there is no driver
    try:
        variants = backend(engine).variants()
    except ModelError as error:
        yield _refused("note", engine, error)
        return
    if engine in _BUILT:
        yield Finding("ok", engine, f"{', '.join(map(str, variants))} can be built", "octedge prepare")
    elif bundle is not None:
        yield from (_tried(bundle, variant) for variant in variants if variant != FIRST and variant.file in bundle.sums)


def _tried(bundle: Bundle, variant: Variant) -> Finding:
    """A variant, loaded and run on a golden frame. It may differ from the reference by its rounding: `octedge prepare` judges that."""
    try:
        known = min(bundle.golden(), key=lambda each: each.frame.size)
        engine = backend(variant.engine).load(bundle, variant, bundle.path)
        answer = segment(known.frame, engine, plan(bundle.card, len(known.frame)))
    except ModelError as error:
        return _refused("note", variant.engine, error)
    equal = float(np.mean(answer.labels == known.labels))
    text = f"{engine.name}: {equal:.3%} of a golden frame as the reference"
    return Finding("ok", variant.engine, text) if equal >= _WRONG else Finding("note", variant.engine, text, "use another engine")


def _prepared(bundle: Bundle, repair: str) -> Finding:
    """What `segment` will use without --engine, and whether it may."""
    try:
        found = read_prepared(engines_folder(bundle))
        if found is None:
            return Finding("ok", "prepared", f"not yet: {FIRST} is used; {repair} finds the fastest engine")
        engine = open_engine(bundle)
    except ModelError as error:
        return Finding("fail", "prepared", str(error).rpartition("; ")[0], repair)
    return Finding("ok", "prepared", f"{found.chosen}, {engine.name}: {found.ms[found.chosen]:.0f} ms for a B-scan of 1024 x 512")


def _cache() -> Finding:
    """Where certificates are kept: without it the engine is checked at every start."""
    try:
        folder = cache_folder()
    except RuntimeError:
        return Finding("note", "cache", f"no home folder{_NO_CACHE}", "set OCTEDGE_CACHE to a folder")
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("note", "cache", f"{folder} cannot be written{_NO_CACHE}", "set OCTEDGE_CACHE to a folder")
    return _space("cache", folder, existing)


def _space(what: str, folder: Path, existing: Path | None = None) -> Finding:
    free = shutil.disk_usage(existing or folder).free / _GIB
    text = f"{folder}: {free:.1f} GiB free"
    return Finding("ok", what, text) if free >= 1 else Finding("note", what, text, "free space before segmenting volumes")
