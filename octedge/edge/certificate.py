"""No engine serves without having given the reference answers on this machine: the check, and its record."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

import octedge
from octedge.edge.bundle import Bundle
from octedge.edge.machine import describe
from octedge.errors import ModelError, OutputError
from octedge.results.files import write_bytes
from octedge.segment import Engine, plan, segment

SCHEMA = 1
AGREEMENT = 0.9999  # the least share of pixels with the reference label


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a certificate holds for: one bundle, one engine, one kind of machine, one software."""

    bundle: str
    engine: str
    machine: str
    octedge: str = octedge.__version__
    numpy: str = np.__version__


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The check's result: frames compared, share of equal labels, largest surface difference in px, seconds taken."""

    schema: int = SCHEMA
    identity: Identity
    frames: int
    equal: float
    surface_px: float
    seconds: float


def certify(bundle: Bundle, engine: Engine, name: str, tell: Callable[[str], None]) -> Certificate:
    """The certificate of the engine called `name`, kept from an earlier check if all is as it was then; else check now, and keep it.

    Raises `ModelError` if fewer than 99.99 % of the golden pixels get the reference label.
    """
    identity = _identity(bundle, name)
    file = _file(identity)
    kept = _read(file)
    if kept is not None and kept.identity == identity:
        return kept
    certificate = examine(bundle, engine, name)
    words = f"checking the engine against {certificate.frames} golden frames ... {{}}, {certificate.seconds:.1f} s"
    if certificate.equal < AGREEMENT:
        tell(words.format("failed"))
        raise ModelError(
            f"{name} gives the reference label for {certificate.equal:.4%} of the golden pixels of {bundle.card.id};"
            f" needed are {AGREEMENT:.2%}; use another engine, or another version of its library"
        )
    tell(words.format("passed"))
    _keep(file, certificate)
    return certificate


def cache_folder() -> Path:
    """Where certificates are kept: $OCTEDGE_CACHE, or `octedge` in the system's folder for caches."""
    if chosen := os.environ.get("OCTEDGE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "octedge" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "octedge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octedge"


def examine(bundle: Bundle, engine: Engine, name: str) -> Certificate:
    """Run the golden frames through `segment` and compare with the reference answers, whatever comes of it."""
    start = time.perf_counter()
    golden = bundle.golden()
    equal = pixels = 0
    surface_px = 0.0
    for known in golden:
        answer = segment(known.frame, engine, plan(bundle.card, known.frame.shape[0]))
        if answer.labels.shape != known.labels.shape or answer.surfaces.shape != known.surfaces.shape:
            raise ModelError(f"{bundle.path.name}/golden.npz: sizes of frames and reference answers do not fit; export the bundle anew")
        equal += int(np.count_nonzero(answer.labels == known.labels))
        pixels += known.labels.size
        surface_px = max(surface_px, float(np.abs(answer.surfaces - known.surfaces).max(initial=0)))
    return Certificate(
        identity=_identity(bundle, name),
        frames=len(golden),
        equal=equal / pixels,
        surface_px=round(surface_px, 4),
        seconds=round(time.perf_counter() - start, 2),
    )


def _identity(bundle: Bundle, engine: str) -> Identity:
    return Identity(bundle=bundle.digest, engine=engine, machine=describe())


def _file(identity: Identity) -> Path | None:
    """The certificate's file, named by what it holds for; None where the system knows no home folder."""
    try:
        folder = cache_folder() / "certificates"
    except RuntimeError:
        return None
    return folder / f"{hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]}.json"


def _read(file: Path | None) -> Certificate | None:
    """The certificate in `file`; None where there is none, or none this octedge understands."""
    if file is None:
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=Certificate)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _keep(file: Path | None, certificate: Certificate) -> None:
    """Keep it for the next process; where the folder cannot be written, that one checks again."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, msgspec.json.format(msgspec.json.encode(certificate), indent=1) + b"\n")
    except (OSError, OutputError):
        return
