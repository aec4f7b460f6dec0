"""A file is written whole or not at all."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from octedge.errors import OutputError
from octedge.results.files import make_folder, write_atomic, write_bytes


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_the_writer_writes_is_in_the_file(tmp_path):
    write_atomic(tmp_path / "a result", lambda file: file.writelines([b"half", b" whole"]))
    assert (tmp_path / "a result").read_bytes() == b"half whole"
    assert entries(tmp_path) == ["a result"]


def test_a_new_file_replaces_the_old_one(tmp_path):
    write_bytes(tmp_path / "x", b"old")
    write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX systems")
def test_others_may_read_results_as_the_user_has_set_it(tmp_path):
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "x", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("failure", [ValueError("a fault"), KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    write_bytes(tmp_path / "x", b"old")

    def fail(file):
        file.write(b"half")
        raise failure

    with pytest.raises(type(failure)):
        write_atomic(tmp_path / "x", fail)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert entries(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_the_system_refuses_is_an_output_error_that_names_the_path(tmp_path, monkeypatch, number, call):
    write_bytes(tmp_path / "x", b"old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), refuse)
    with pytest.raises(OutputError, match=r"x: cannot be written \(.+\); ") as caught:
        write_bytes(tmp_path / "x", b"new")
    assert ("free space" in str(caught.value)) == (number == errno.ENOSPC)
    assert (tmp_path / "x").read_bytes() == b"old"
    assert entries(tmp_path) == ["x"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_a_file_cut_short_by_the_system_leaves_nothing(tmp_path):
    """A real limit, in a process of its own: the system takes the first 20 kB only."""
    script = """
import resource, sys
from pathlib import Path
from octedge.errors import OutputError
from octedge.results.files import write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_bytes(Path(sys.argv[1]), bytes(1_000_000))
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, text=True, check=True)
    assert "x: cannot be written (File too large)" in done.stdout
    assert entries(tmp_path) == []


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="choose another folder"):
            make_folder(path)
    with pytest.raises(OutputError, match="choose another folder"):
        write_bytes(tmp_path / "file" / "x", b"")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(OutputError, match="the path is a folder"):
        write_bytes(tmp_path / "x", b"")
    assert entries(tmp_path) == ["x"]
