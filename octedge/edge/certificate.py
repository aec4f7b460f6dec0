"""No engine serves without having given the reference answers on this machine: the check, its record, and what it holds for."""

import hashlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import octedge
from octedge.card import ModelCard
from octedge.edge.bundle import Bundle, Golden
from octedge.edge.machine import describe
from octedge.edge.variant import NamedEngine, Variant
from octedge.errors import ModelError
from octedge.metrics import overlap
from octedge.results.files import make_folder, write_bytes
from octedge.scan import Frame
from octedge.segment import Engine, plan, segment

SCHEMA = 2
TIMED = "cirrus"  # the look of the B-scan whose latency is measured: 1024 x 512
RUNS = 3


class Gate(msgspec.Struct, frozen=True):
    """What a precision must reach: share of equal labels, 99th percentile of surface differences in px, loss of mean IoU at export."""

    equal: float = 0.0
    p99_px: float = float("inf")
    iou_loss: float = float("inf")


GATES = {
    "fp32": Gate(equal=0.9999),
    "fp16": Gate(p99_px=0.25),
    "bf16": Gate(p99_px=0.25),
    "int8": Gate(p99_px=1.0, iou_loss=0.005),
}


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a certificate holds for: bundle, variant, the file it runs, its engine (library, device, driver), kind of machine, software."""

    bundle: str
    variant: str
    file: str
    engine: str
    machine: str
    octedge: str = octedge.__version__
    numpy: str = np.__version__

    @property
    def id(self) -> str:
        """The certificate's name in results: the same for the same check, whenever it was made."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the check found on the golden frames, after the ordered decode.

    `equal` share of pixels with the reference label; `mean_px`, `p99_px`, `max_px` of |surface - reference surface|; `iou` per
    structure against the reference labels; `iou_loss` of this precision on labelled validation scans, as the card states it;
    `ms` for one B-scan of 1024 x 512.
    """

    schema: int = SCHEMA
    identity: Identity
    frames: int
    equal: float
    mean_px: float
    p99_px: float
    max_px: float
    iou: dict[str, float]
    iou_loss: float | None
    ms: float
    seconds: float

    def fault(self) -> str:
        """Why the engine may not serve; empty if it may."""
        return shortfall(self.identity.variant.rpartition("-")[2], self.equal, self.p99_px, self.iou_loss)


def shortfall(precision: str, equal: float, p99_px: float, iou_loss: float | None) -> str:
    """What a precision lacks to pass its gate, in words; empty if it passes."""
    gate = GATES[precision]
    if equal < gate.equal:
        return f"it gives the reference label for {equal:.4%} of the golden pixels; needed are {gate.equal:.2%}"
    if p99_px > gate.p99_px:
        return f"its surfaces lie up to {p99_px:.2f} px from the reference (99th percentile); {precision} may have {gate.p99_px:g}"
    if gate.iou_loss < float("inf") and not (iou_loss is not None and iou_loss <= gate.iou_loss):
        known = "its loss of IoU on labelled scans is unknown" if iou_loss is None else f"it loses {iou_loss:.4f} of IoU on labelled scans"
        return f"{known}; {precision} may lose {gate.iou_loss:g}"
    return ""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far answers lie from the reference ones: `equal` share of equal labels, |surface difference| in px, IoU (C,) of the labels."""

    equal: float
    mean_px: float
    p99_px: float
    max_px: float
    iou: NDArray[np.float64]


def compare(golden: Sequence[Golden], engine: Engine, card: ModelCard) -> Difference:
    """Run golden frames through `segment` and compare, after the ordered decode.

    Raises `ModelError` if the engine fails or the reference answers do not fit their frames.
    """
    answers = [segment(known.frame, engine, plan(card, len(known.frame))) for known in golden]
    if any(a.labels.shape != b.labels.shape or a.surfaces.shape != b.surfaces.shape for a, b in zip(answers, golden, strict=True)):
        raise ModelError(f"golden.npz of {card.id}: sizes of frames and reference answers do not fit; export the bundle anew")
    labels = np.concatenate([answer.labels.ravel() for answer in answers])
    reference = np.concatenate([known.labels.ravel() for known in golden])
    px = np.concatenate([np.abs(a.surfaces - b.surfaces).ravel() for a, b in zip(answers, golden, strict=True)])
    spread = (_rounded(px.mean()), _rounded(np.percentile(px, 99)), _rounded(px.max()))
    return Difference(float(np.mean(labels == reference)), *spread, overlap(labels[None], reference[None], len(card.structures)).iou)


def examine(bundle: Bundle, variant: Variant, engine: NamedEngine) -> Certificate:
    """Run the golden frames through `segment` and compare with the reference answers, whatever comes of it.

    Raises `ModelError` if the engine fails or the golden answers do not fit their frames.
    """
    start = time.perf_counter()
    card, golden = bundle.card, bundle.golden()
    found = compare(golden, engine, card)
    return Certificate(
        identity=identify(bundle, variant, engine),
        frames=len(golden),
        equal=found.equal,
        mean_px=found.mean_px,
        p99_px=found.p99_px,
        max_px=found.max_px,
        iou={key: _rounded(value) for key, value in zip(card.structures, found.iou, strict=True) if np.isfinite(value)},
        iou_loss=next((each.iou_loss for each in card.precisions if each.name == variant.precision), None),
        ms=round(latency(bundle, engine), 2),
        seconds=round(time.perf_counter() - start, 2),
    )


def latency(bundle: Bundle, engine: Engine) -> float:
    """The ms that `segment` takes for one B-scan of 1024 x 512: the median of some calls after a first one."""
    frame = timed_frame()
    how = plan(bundle.card, len(frame))
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        segment(frame, engine, how)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[1:])


def timed_frame() -> Frame:
    """The B-scan that latency is measured with: synthetic, 1024 x 512, the same everywhere."""
    from octedge.phantom import LOOKS, Phantom

    return Phantom(LOOKS[TIMED], 1, 1, "R", "macula", False).bscan(0).image


def identify(bundle: Bundle, variant: Variant, engine: NamedEngine) -> Identity:
    """What a certificate of this engine holds for."""
    return Identity(bundle=bundle.digest, variant=str(variant), file=engine.sha256, engine=engine.name, machine=describe())


def changes(kept: Identity, now: Identity) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    names = [name for name in Identity.__struct_fields__ if getattr(kept, name) != getattr(now, name)]
    return ", ".join(f"{name} was {_short(getattr(kept, name))}, is {_short(getattr(now, name))}" for name in names)


def certificate_file(folder: Path, variant: Variant) -> Path:
    """Where the certificate of a variant lies in the folder of engines."""
    return folder / f"{variant}.certificate.json"


def self_certificate_file(cache: Path, identity: Identity) -> Path:
    """Where the check on first use is kept in the cache: named by what it holds for."""
    return cache / "certificates" / f"{hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:32]}.json"


def read_certificate(file: Path) -> Certificate | None:
    """The certificate in `file`; None where there is none, or none this octedge understands."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Certificate)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_certificate(file: Path, certificate: Certificate) -> None:
    """Keep a certificate. Raises `OutputError` where it cannot be written."""
    make_folder(file.parent)
    write_bytes(file, msgspec.json.format(msgspec.json.encode(certificate), indent=1) + b"\n")


def _rounded(value: float | np.floating | NDArray[np.floating]) -> float:
    return round(float(value), 4)


def _short(value: str) -> str:
    """A digest by its beginning; anything else as it is."""
    return value[:12] if len(value) == 64 and " " not in value else repr(value)
