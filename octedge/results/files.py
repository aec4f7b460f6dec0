"""Writing a file whole or not at all: a full disk, Ctrl-C or a power cut leaves the old file or the new one."""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from octedge.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "free space on the disk, or choose another folder",
    errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC: "free space within your quota, or choose another folder",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "the path is a file; choose another folder",
    errno.EISDIR: "the path is a folder; rename it or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter path",
}


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A temporary file in the same folder; left without an error, it is brought to the disk and given its name.

    Raises `OutputError` naming the path and what to do; no temporary file is left behind.
    """
    temporary = path.parent / f".octedge-{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise output_error(path, error) from error
    except BaseException:  # Ctrl-C included: tidy up, then let it pass
        _remove(temporary)
        raise


def write_atomic(path: Path, writer: Callable[[BinaryIO], None]) -> None:
    """`atomic` for what one function writes."""
    with atomic(path) as file:
        writer(file)


def write_bytes(path: Path, data: bytes) -> None:
    """`write_atomic` for what is in memory already."""
    write_atomic(path, lambda file: _write_all(file, data))


def write_json(path: Path, value: object) -> None:
    """`write_atomic` for a value as JSON that people can read."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def make_folder(path: Path) -> None:
    """Make sure the folder exists.

    Raises `OutputError` naming the path and what to do.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """The `OutputError` for what the system reported about `path`."""
    advice = _ADVICE.get(error.errno or 0, "choose another folder")
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut; Windows keeps names without being asked."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
