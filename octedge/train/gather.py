"""Adding a source to a cohort file: a block of TOML at its end, everything before it left as it is."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from octedge.errors import OutputError, UsageError
from octedge.train.cohort import content
from octedge.train.manifest import AnySource, Cohort, Phantoms, check_sources, decode, read_cohort

PLACES = {"masks": ("images", "masks"), "boundaries": ("images", "tables"), "npz": ("files",), "vol": ("files",), "phantoms": ()}
Value = str | int | float | bool | list[str] | dict[str, "Value"]


def add(path: Path, kind: str, folders: tuple[Path, ...], keys: Mapping[str, Value], data: Path) -> str:
    """Append a source to the cohort file (made if need be), with the hash of its content; the block of text.

    Raises `UsageError` for keys or folders that make no sound source; nothing is written then.
    """
    keys = {"kind": kind, **keys, **_places(kind, folders, data)}
    before = path.read_text("utf-8") if path.exists() else f"schema = 1\nname = {_toml(path.stem)}\n"
    if path.exists():
        read_cohort(path)
    waiting = path.with_name(path.name + ".new.toml")
    try:
        source = _tried(waiting, before, keys)
        if not isinstance(source, Phantoms):
            keys = {**keys, "sha256": content(source, data)}
        block = _block(keys)
        waiting.write_text(_joined(before, block), "utf-8", newline="\n")
        os.replace(waiting, path)
    except OSError as error:
        raise OutputError(f"{path.name}: cannot be written ({error.strerror})") from error
    finally:
        waiting.unlink(missing_ok=True)
    return block


def _tried(waiting: Path, before: str, keys: Mapping[str, Value]) -> AnySource:
    """The new source, read back from what would be written."""
    waiting.write_text(_joined(before, _block(keys)), "utf-8", newline="\n")
    cohort = decode(waiting, Cohort, "a sound source")
    check_sources(cohort.source)
    return cohort.source[-1]


def _places(kind: str, folders: tuple[Path, ...], data: Path) -> dict[str, Value]:
    wanted = PLACES[kind]
    if len(folders) != len(wanted):
        raise UsageError(f"kind {kind} needs {len(wanted)} paths ({', '.join(wanted) or 'none'}); got {len(folders)}")
    found: dict[str, Value] = {}
    for key, folder in zip(wanted, folders, strict=True):
        full = folder.resolve()
        if not full.exists():
            raise UsageError(f"{folder.name}: does not exist; give the folder of the {key}")
        if not full.is_relative_to(data.resolve()):
            raise UsageError(f"{folder.name}: lies outside the data folder; give --data a folder above it")
        found[key] = full.relative_to(data.resolve()).as_posix()
    return found


def _joined(before: str, block: str) -> str:
    return before + ("" if before.endswith("\n") else "\n") + "\n" + block


def _block(keys: Mapping[str, Value]) -> str:
    """`[[source]]` with its plain keys, then its tables."""
    return "[[source]]\n" + _lines(keys, "source")


def _lines(keys: Mapping[str, Value], place: str) -> str:
    text = "".join(f"{_key(key)} = {_toml(value)}\n" for key, value in keys.items() if not isinstance(value, dict))
    for key, value in keys.items():
        if isinstance(value, dict):
            text += f"[{place}.{_key(key)}]\n" + _lines(value, f"{place}.{_key(key)}")
    return text


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _toml(value: Value) -> str:
    """A TOML value: its strings, numbers and lists are written as JSON's, but for the one control character JSON leaves."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
