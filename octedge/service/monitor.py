"""What the service tells of itself: one line per event, never a patient's data.

An event has a word and facts: the job, a salted hash of the SOP Instance UID, sizes, milliseconds, codes. The libraries that
handle DICOM print values of files in their warnings, so `silence` takes their voice.
"""

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("octedge.service")


def nobody(event: str, facts: dict[str, Any]) -> None:
    """Count nothing."""


class Monitor:
    """Writes events to the log, and tells whoever counts them; `ready` is set once the model is warm and certified."""

    def __init__(self, count: Callable[[str, dict[str, Any]], None] = nobody) -> None:
        self.ready = threading.Event()
        self._count = count

    def event(self, event: str, /, **facts: Any) -> None:
        """Something happened; `facts` hold no value of a file."""
        LOGGER.info("%s", " ".join([f"event={event}", *(f"{key}={_plain(value)}" for key, value in facts.items())]))
        self._count(event, facts)


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else ascii(text)


def log_to_stderr() -> None:
    """One line per event: when, how grave, what; of a thread that dies, where."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    threading.excepthook = lambda died: LOGGER.error("event=thread-died why=%s", _plain(where(died.exc_value or RuntimeError())))


def where(error: BaseException) -> str:
    """The kind of an error and the line it came from, without its words, which may hold values of a file."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return type(error).__name__ + "".join(f" at {Path(frame.filename).name}:{frame.lineno}" for frame in last)


def silence() -> None:
    """Take the voice of pydicom and pynetdicom, for the whole process: what they say holds values of files."""
    for name in ("pydicom", "pynetdicom"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False
        warnings.filterwarnings("ignore", module=name)
