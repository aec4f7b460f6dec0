"""The spool's records: SQLite, opened so that what is committed stays committed, and the lock that gives a spool one owner.

SQLite (write-ahead log, synchronous=FULL) and no journal of our own: its commits are checksummed, brought to the disk with the
folder, and tested against power cuts for twenty years; other processes can look while the service works; the standard library
has it. It needs a local disk: the log does not work on network shares.
"""

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from octedge.errors import OutputError, UsageError
from octedge.results.files import sync_folder

VERSION = 1

_TABLES = """
CREATE TABLE spool (salt BLOB NOT NULL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, step TEXT NOT NULL, quarantined INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
    tries INTEGER NOT NULL DEFAULT 0, series TEXT, name TEXT NOT NULL, added TEXT NOT NULL, note TEXT NOT NULL DEFAULT ''
);
CREATE TABLE objects (
    id TEXT PRIMARY KEY, uid TEXT NOT NULL, suffix TEXT NOT NULL, size INTEGER NOT NULL, job TEXT NOT NULL REFERENCES jobs (id)
);
CREATE TABLE sendings (
    job TEXT NOT NULL REFERENCES jobs (id), destination TEXT NOT NULL, item TEXT NOT NULL, file TEXT NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job, destination, item)
);
CREATE TABLE stamps (stamp TEXT PRIMARY KEY);
CREATE INDEX objects_uid ON objects (uid);
CREATE INDEX objects_job ON objects (job);
CREATE INDEX jobs_step ON jobs (step);
CREATE INDEX jobs_series ON jobs (series);
"""


class Records:
    """The database of the spool in `folder`, made if need be; with `own`, locked against every other process that works on it.

    Raises `UsageError` if another process owns it or it is from another version, `OutputError` if it cannot be read or written.
    """

    def __init__(self, folder: Path, own: bool) -> None:
        self._path, self._lock = folder / "spool.db", threading.RLock()
        self._owner = _own(folder / "owner.db") if own else None
        try:
            _make_private(self._path)  # SQLite gives its log the same mode
            self._db = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            with self.alone():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
            sync_folder(folder)
            ((self.salt,),) = self.all("SELECT salt FROM spool")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close, and let go of the lock."""
        for connection in (getattr(self, "_db", None), self._owner):
            if connection is not None:
                connection.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One thread at a time; what SQLite reports is an `OutputError`."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise OutputError(f"{self._path}: cannot be used ({error}); is the disk full, or the file damaged?") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on the disk when it is left."""
        with self.alone():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def change(self, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
        """A transaction of one statement; the rows it returns."""
        with self.transaction() as db:
            return db.execute(statement, values).fetchall()

    def all(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self.alone():
            return self._db.execute(query, values).fetchall()

    def _prepare(self) -> None:
        with self.transaction() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in _TABLES.split(";\n"):
                    db.execute(statement)
                db.execute("INSERT INTO spool VALUES (?)", (secrets.token_bytes(32),))
                db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise UsageError(f"{self._path}: has version {version}, needed is {VERSION}; use the octedge that made it")


def _own(path: Path) -> sqlite3.Connection:
    """A lock that ends with its process, on every system: an exclusive transaction that never ends."""
    _make_private(path)
    owner = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        owner.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        owner.close()
        raise UsageError(f"{path.parent}: another octedge works on this spool; stop it, or name another folder") from None
    return owner


def _make_private(path: Path) -> None:
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
