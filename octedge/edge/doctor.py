"""What works on this machine: each thing tried, not only looked up, with the command that repairs it."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Literal

import octedge
from octedge.edge.bundle import REFERENCE, open_bundle
from octedge.edge.certificate import AGREEMENT, cache_folder, examine
from octedge.edge.engine import load_engine
from octedge.edge.machine import cores, describe
from octedge.errors import ModelError

_LATER = ("openvino", "tensorrt", "tensorrt-rtx-cu13")  # engines of later versions
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
    yield _onnxruntime()
    for name in _LATER:
        if (found := _version(name)) is not None:
            yield Finding("note", name, f"{found} installed; not used by this version of octedge")
    yield _model(bundle)
    yield _cache()
    yield _space("here", Path.cwd())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> Finding:
    """ONNX Runtime comes in several packages that overwrite each other without a word; exactly one may be there."""
    packages = sorted(set(packages_distributions().get("onnxruntime", ())))
    if not packages:
        return Finding("fail", "onnxruntime", "not installed", "pip install octedge[cpu]")
    if len(packages) > 1:
        repair = f"pip uninstall -y {' '.join(packages)} && pip install octedge[cpu]"
        return Finding("fail", "onnxruntime", f"{len(packages)} packages overwrite each other: {', '.join(packages)}", repair)
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("fail", "onnxruntime", f"cannot be imported: {error}", f"pip install --force-reinstall {packages[0]}")
    return Finding("ok", "onnxruntime", f"{onnxruntime.__version__} from package {packages[0]}")


def _model(bundle: Path | None) -> Finding:
    """The bundle, and its golden frames through the engine."""
    what = "model"
    if bundle is None and not REFERENCE.is_dir():
        return Finding("fail", what, "this octedge ships no reference model", "octedge segment --model BUNDLE ...")
    try:
        opened = open_bundle(bundle)
        engine = load_engine(opened)
        result = examine(opened, engine, engine.name)
    except ModelError as error:
        return Finding("fail", what, str(error), "pip install --force-reinstall octedge[cpu]")
    same = f"{result.equal:.3%} of {result.frames} golden frames as the reference"
    text = f"{opened.card.id} on {engine.name}: {same}, {result.seconds:.1f} s"
    if result.equal < AGREEMENT:
        return Finding("fail", what, text, "pip install --force-reinstall octedge[cpu]")
    return Finding("ok", what, text)


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
