"""A plan on disk, and beside it what it was made from and for: it is handed to no library before all of that is as it was.

`<variant>.engine` is the plain plan, `<variant>.engine.json` says the rest. Both are written whole or not at all, the plan first.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from octedge.edge.trt_build import Profile
from octedge.edge.variant import Variant
from octedge.errors import ModelError
from octedge.results.files import make_folder, write_bytes, write_json

SCHEMA = 1
PREPARE = "run octedge prepare BUNDLE"


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a plan holds for: a change in any of it makes another plan.

    `bundle` and `onnx` are SHA-256; `capability` is the GPU's compute capability, `capabilities` those that were built for;
    `workspace` in bytes.
    """

    bundle: str
    onnx: str
    precision: str
    profiles: tuple[Profile, ...]
    library: str
    gpu: str
    capability: str
    driver: str
    capabilities: tuple[str, ...]
    workspace: int

    @property
    def engine(self) -> str:
        """All that answers depend on besides the plan: library and version, GPU with its driver, precision."""
        return f"{self.library} {self.gpu} sm{self.capability.replace('.', '')} driver {self.driver} {self.precision}"


class Sidecar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is written beside a plan: its key, its SHA-256 and its size in bytes."""

    schema: int = SCHEMA
    key: Key
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it was built, its SHA-256, and what it holds for."""

    data: bytes
    sha256: str
    key: Key


WORDS = {
    "bundle": "another bundle", "onnx": "another ONNX file", "precision": "another precision", "profiles": "other sizes of B-scans",
    "library": "another library", "gpu": "another GPU", "capability": "another compute capability", "driver": "another driver",
    "capabilities": "other kinds of GPU", "workspace": "another limit of working memory",
}  # fmt: skip


def plan_file(folder: Path, variant: Variant) -> Path:
    """Where the plan of a variant lies in the folder of engines."""
    return folder / f"{variant}.engine"


def sidecar_file(folder: Path, variant: Variant) -> Path:
    """Where it is said what the plan was made from and for."""
    return folder / f"{variant}.engine.json"


def write_plan(folder: Path, variant: Variant, plan: bytes, key: Key) -> None:
    """Keep a plan and what it holds for. Raises `OutputError` where they cannot be written."""
    make_folder(folder)
    sidecar = Sidecar(key=key, sha256=hashlib.sha256(plan).hexdigest(), size=len(plan))
    write_bytes(plan_file(folder, variant), plan)
    write_json(sidecar_file(folder, variant), sidecar)


def read_plan(folder: Path, variant: Variant, key: Key) -> Plan:
    """The plan, if it was made for exactly this.

    Raises `ModelError` naming what is missing, changed, or was another then.
    """
    file, beside = plan_file(folder, variant), sidecar_file(folder, variant)
    try:
        sidecar = msgspec.json.decode(beside.read_bytes(), type=Sidecar)
    except FileNotFoundError as error:
        raise ModelError(f"{variant} is not built for this bundle on this machine; {PREPARE}") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{beside.name} cannot be read ({error}): it is damaged or from another version of octedge; {PREPARE}") from error
    if sidecar.schema != SCHEMA:
        raise ModelError(f"{beside.name} has schema {sidecar.schema}, this octedge reads schema {SCHEMA}; {PREPARE}")
    if changed := _changes(sidecar.key, key):
        raise ModelError(f"{file.name} was built for {changed}; {PREPARE}")
    try:
        plan = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file.name} cannot be read ({error.strerror}); {PREPARE}") from error
    if len(plan) != sidecar.size:
        raise ModelError(f"{file.name} has {len(plan)} bytes, {sidecar.size} were written; it is damaged; {PREPARE}")
    if hashlib.sha256(plan).hexdigest() != sidecar.sha256:
        raise ModelError(f"{file.name} was changed since it was built (SHA-256 differs); {PREPARE}")
    return Plan(plan, sidecar.sha256, key)


def _changes(then: Key, now: Key) -> str:
    """What differs, in words; empty if nothing does."""
    names = [name for name in Key.__struct_fields__ if getattr(then, name) != getattr(now, name)]
    return ", ".join(f"{WORDS[name]} ({_short(getattr(then, name))}, now {_short(getattr(now, name))})" for name in names)


def _short(value: object) -> str:
    """A digest by its beginning, all else as it is."""
    if isinstance(value, tuple):
        return "; ".join(map(str, value)) or "none"
    text = str(value)
    return text[:12] if len(text) == 64 and " " not in text else text
