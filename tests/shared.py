"""What the processes of one test run (pytest-xdist) share: a folder, removed by the process that started them."""

import tempfile
from pathlib import Path


def folder_of(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"octedge-test-run-{run}"
