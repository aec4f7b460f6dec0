"""The spool: one folder that loses nothing, whatever dies and when.

    spool.db    what is known of every object and job: SQLite (`records`)
    owner.db    locked for as long as one process works on the spool
    incoming/   files on their way in; what lies here at start was never acknowledged, and is removed
    objects/    whole files, until their job is delivered
    results/    one folder per job, until it is delivered

An *object* is a received file; a *job* is the scan that one or more objects make. An object has the state of its job, so
exactly one: *pending* at a step (growing -> received -> written), *delivered*, or *quarantined* with a reason.

    arrive      incoming/ file: fsync; renamed into objects/: folder fsync; row: COMMIT   -> only now it is acknowledged
    begin       the try is counted and committed before it is made: a scan that kills the process is tried a few times only
    written     results are on the disk, folders too; COMMIT                              -> from here they are never made anew
    choose      which file a destination gets, committed before it is sent: never the same result under another UID
    delivered   COMMIT; then objects and results are removed

Identity is the SOP Instance UID and the content together. The same UID with the same content is acknowledged again and makes no
second job. The same UID with other content is a fault of the sender (a UID names one object, PS3.5 section 9), and is kept, in
quarantine: to overwrite would lose the first, to refuse would lose the second where a device deletes after a few tries, and
block its queue before.

Nothing of a patient is in here but the files themselves: names are hashes, UIDs are hashed with a salt that never leaves the spool.
"""

import hashlib
import os
import secrets
import shutil
import sqlite3
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec

from octedge.errors import OutputError, UsageError
from octedge.results.files import output_error, sync_folder
from octedge.service.records import Records

Step = Literal["growing", "received", "written", "delivered"]

SAME_UID = "its SOP Instance UID came before with other content, and a UID names one object; compare both, then retry or remove it"
LATE = "came after its series had been segmented without it; send a series within the quiet time, or retry to segment it alone"


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a whole file: the SHA-256 of its content, its SOP Instance UID (none: the content stands for it),
    its Series Instance UID if it is one frame of a series, and its ending.

    From a watched folder also its `name` without ending, which results get, and a `stamp` by which the file is known again.
    """

    content: str
    uid: str = ""
    series: str = ""
    suffix: str = ".dcm"
    name: str = ""
    stamp: str = ""


class Receipt(msgspec.Struct, frozen=True):
    """What became of an arrival: its job, and whether it is a new object, grows a series, or went into quarantine."""

    job: str
    new: bool
    growing: bool = False
    quarantined: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A scan, as a listing shows it: `reason` says why it waits, `note` what is to be known of its results; `added` (UTC) is for people."""

    id: str
    state: str  # "pending", "delivered" or "quarantined"
    step: Step
    objects: int
    bytes: int
    tries: int
    reason: str
    added: str
    note: str


_OBJECTS = "SELECT objects.id, suffix FROM objects JOIN jobs ON jobs.id = job"
_JOBS = """
SELECT jobs.id, CASE WHEN quarantined THEN 'quarantined' WHEN step = 'delivered' THEN 'delivered' ELSE 'pending' END AS state,
       step, count(objects.id) AS objects, total(size) AS bytes, tries, reason, added, note
FROM jobs LEFT JOIN objects ON objects.job = jobs.id
"""


class Spool:
    """The spool in `folder`, made if need be. With `own`, this process works on it, and nobody else; without, it looks and retries.

    Raises `UsageError` if another process owns it or it is from another version, `OutputError` if it cannot be written.
    """

    def __init__(self, folder: Path, own: bool = True) -> None:
        self.folder = folder
        self.incoming, self.objects, self.results = (folder / name for name in ("incoming", "objects", "results"))
        if not own and not (folder / "spool.db").is_file():
            raise UsageError(f"{folder}: no spool is here; name the folder that octedge serve or octedge watch uses")
        self._make_folders()
        self._records = Records(folder, own)
        try:
            if own:
                self._sweep()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the spool."""
        self._records.close()

    # Receiving

    def temporary(self) -> FileIO:
        """A new file in incoming/, mode 0600, unbuffered; whoever fills it hands its path to `arrive`, or removes it."""
        path = self.incoming / f"{secrets.token_hex(8)}.tmp"
        return FileIO(path, "x+b", opener=lambda name, flags: os.open(name, flags, 0o600))

    def arrive(self, temporary: Path, arrival: Arrival) -> Receipt:
        """Take in a whole file whose bytes are on the disk (fsync): when this returns, no crash loses it.

        Raises `OutputError` if it cannot be kept; then it was not received.
        """
        uid = self.hashed(arrival.uid or arrival.content)
        entry = self.hashed(f"{uid} {arrival.content}")[:16]
        path = self.objects / f"{entry}{arrival.suffix}"
        with self._records.alone():
            known = self._records.all("SELECT job, step FROM objects JOIN jobs ON jobs.id = job WHERE objects.id = ?", entry)
            try:
                if known and (known[0][1] == "delivered" or path.exists()):
                    temporary.unlink()
                else:
                    temporary.replace(path)
                    sync_folder(self.objects)
                with self._records.transaction() as db:
                    receipt = Receipt(known[0][0], new=False) if known else self._enter(db, entry, uid, arrival)
                    if not known:
                        size = path.stat().st_size
                        db.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", (entry, uid, arrival.suffix, size, receipt.job))
                    if arrival.stamp:
                        db.execute("INSERT OR IGNORE INTO stamps VALUES (?)", (self.hashed(arrival.stamp),))
            except (OSError, OutputError) as error:
                if not known:
                    path.unlink(missing_ok=True)
                raise error if isinstance(error, OutputError) else output_error(path, error) from error
            return receipt

    def knows(self, stamp: str) -> bool:
        """Whether a file with this stamp has been taken in."""
        return bool(self._records.all("SELECT 1 FROM stamps WHERE stamp = ?", self.hashed(stamp)))

    def grown(self, job: str) -> None:
        """A series is complete: nothing more came for the quiet time."""
        self._records.change("UPDATE jobs SET step = 'received' WHERE id = ? AND step = 'growing'", job)

    # Working

    def pending(self, step: Step) -> list[Job]:
        """The jobs at a step that are not in quarantine, the oldest first."""
        return self._list("WHERE step = ? AND NOT quarantined", step)

    def paths(self, job: str) -> list[Path]:
        """The files of a job's objects, in the order they came."""
        rows = self._records.all(f"{_OBJECTS} WHERE job = ? ORDER BY objects.rowid", job)
        return [self.objects / f"{entry}{suffix}" for entry, suffix in rows]

    def name(self, job: str) -> str:
        """What results are called outside the spool: as the file was, in a watched folder; else by the job's id."""
        names = [name for (name,) in self._records.all("SELECT name FROM jobs WHERE id = ?", job) if name]
        return str(names[0]) if names else job

    def begin(self, job: str, step: Step) -> int | None:
        """Count a try before it is made; the number of it, None if the job is no longer at this step."""
        count = "UPDATE jobs SET tries = tries + 1 WHERE id = ? AND step = ? AND NOT quarantined RETURNING tries"
        found = self._records.change(count, job, step)
        return int(found[0][0]) if found else None

    def put_back(self, job: str, reason: str = "", counted: bool = True) -> None:
        """The try came to nothing, for this reason; a try that was only interrupted does not count."""
        self._records.change(
            "UPDATE jobs SET reason = ?, tries = max(0, tries - ?) WHERE id = ? AND NOT quarantined", reason, int(not counted), job
        )

    def empty_results(self, job: str) -> Path:
        """An empty folder for a job's results; what an earlier try left is removed, it was never sent."""
        folder = self.results / job
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise output_error(folder, error) from error
        return folder

    def written(self, job: str, note: str = "") -> None:
        """The results in the folder are whole, and their files on the disk; they are never made anew."""
        for folder in (self.results, self.results / job, *(self.results / job).rglob("*/")):
            if folder.is_dir():  # before Python 3.13 the pattern finds files too
                sync_folder(folder)
        done = "UPDATE jobs SET step = 'written', tries = 0, reason = '', note = ? WHERE id = ? AND step = 'received' AND NOT quarantined"
        self._records.change(done, note, job)

    def chosen(self, job: str, destination: str) -> dict[str, tuple[str, bool]]:
        """Item -> the file a destination gets of it, and whether it has it."""
        rows = self._records.all("SELECT item, file, sent FROM sendings WHERE job = ? AND destination = ?", job, destination)
        return {item: (file, bool(sent)) for item, file, sent in rows}

    def choose(self, job: str, destination: str, item: str, file: str) -> None:
        """Before a file is sent: it is this one that the destination gets of the item."""
        self._records.change("INSERT OR REPLACE INTO sendings VALUES (?, ?, ?, ?, 0)", job, destination, item, file)

    def unchoose(self, job: str, destination: str, item: str) -> None:
        """The destination has said that it does not take the chosen file, so it does not have it."""
        self._records.change("DELETE FROM sendings WHERE job = ? AND destination = ? AND item = ?", job, destination, item)

    def sent(self, job: str, destination: str, item: str) -> None:
        """The destination has the item."""
        self._records.change("UPDATE sendings SET sent = 1 WHERE job = ? AND destination = ? AND item = ?", job, destination, item)

    def delivered(self, job: str, note: str = "") -> None:
        """Every destination has everything it takes; the files of the job are removed."""
        done = (
            "UPDATE jobs SET step = 'delivered', reason = '', note = ? WHERE id = ? AND step = 'written' AND NOT quarantined RETURNING id"
        )
        if self._records.change(done, note, job):
            for path in self.paths(job):
                path.unlink(missing_ok=True)
            shutil.rmtree(self.results / job, ignore_errors=True)

    def quarantine(self, job: str, reason: str) -> None:
        """Nothing is tried any more until a person says `retry`; all files stay."""
        self._records.change("UPDATE jobs SET quarantined = 1, reason = ? WHERE id = ? AND step != 'delivered'", reason, job)

    # Looking

    def jobs(self) -> list[Job]:
        """All jobs, the oldest first."""
        return self._list("")

    def job(self, job: str) -> Job:
        """One job. Raises `UsageError` if there is none of this id."""
        found = self._list("WHERE jobs.id = ?", job)
        if not found:
            raise UsageError(f"no job {job!r} is in {self.folder}; octedge spool list shows the jobs")
        return found[0]

    def counts(self) -> dict[str, int]:
        """Objects by state."""
        counted = self._records.all(f"SELECT state, total(objects) FROM ({_JOBS} GROUP BY jobs.id) GROUP BY state")
        return {"pending": 0, "delivered": 0, "quarantined": 0} | {state: int(count) for state, count in counted}

    def retry(self, job: str) -> Job:
        """Out of quarantine, or out of a long wait: the next try is made at once, from the step that was reached.

        Raises `UsageError` if there is no such job, or it is delivered.
        """
        if self.job(job).state == "delivered":
            raise UsageError(f"job {job!r} is delivered; there is nothing to retry")
        again = "quarantined = 0, tries = 0, reason = '', step = replace(step, 'growing', 'received')"
        self._records.change(f"UPDATE jobs SET {again} WHERE id = ? AND step != 'delivered'", job)
        return self.job(job)

    def hashed(self, text: str) -> str:
        """A name for what must not be named: the same in this spool, meaningless outside."""
        return hashlib.blake2b(text.encode(), key=self._records.salt, digest_size=16).hexdigest()

    # Inside

    def _make_folders(self) -> None:
        try:
            for path in (self.folder, self.incoming, self.objects, self.results):
                if not path.is_dir():
                    path.mkdir(mode=0o700, parents=True)
                    sync_folder(path.parent)
        except OSError as error:
            raise output_error(self.folder, error) from error

    def _sweep(self) -> None:
        """Remove what crashes left: files never acknowledged, results never finished, files of what is delivered."""
        kept = {f"{entry}{suffix}" for entry, suffix in self._records.all(f"{_OBJECTS} WHERE step != 'delivered'")}
        done = {job for (job,) in self._records.all("SELECT id FROM jobs WHERE step = 'written'")}
        for path in [*self.incoming.iterdir(), *(path for path in self.objects.iterdir() if path.name not in kept)]:
            path.unlink(missing_ok=True)
        for path in self.results.iterdir():
            if path.name not in done:
                shutil.rmtree(path)

    def _enter(self, db: sqlite3.Connection, entry: str, uid: str, arrival: Arrival) -> Receipt:
        """The job of a new object."""
        holder = "SELECT 1 FROM objects JOIN jobs ON jobs.id = job WHERE uid = ? AND NOT quarantined"  # what nobody can use holds no UID
        if db.execute(holder, (uid,)).fetchone():
            return _new_job(db, entry, arrival, SAME_UID)
        if not arrival.series:
            return _new_job(db, entry, arrival)
        series = self.hashed(arrival.series)
        last = db.execute(
            "SELECT id, step, quarantined, tries FROM jobs WHERE series = ? ORDER BY rowid DESC LIMIT 1", (series,)
        ).fetchone()
        if last is None:
            if arrival.name and db.execute("SELECT 1 FROM jobs WHERE name = ? AND series IS NOT NULL", (arrival.name,)).fetchone():
                arrival = msgspec.structs.replace(arrival, name=f"{arrival.name}-{entry[:8]}")  # two series in one folder
            return _new_job(db, entry, arrival, series=series)
        job, step, quarantined, tries = last
        if step in ("growing", "received") and (quarantined or not tries):  # not begun, or waiting for a person: it grows
            db.execute("UPDATE jobs SET step = 'growing' WHERE id = ? AND NOT quarantined", (job,))
            return Receipt(job, new=True, growing=not quarantined, quarantined=bool(quarantined))
        return _new_job(db, entry, arrival, LATE, series)

    def _list(self, where: str, *values: str) -> list[Job]:
        rows = self._records.all(f"{_JOBS} {where} GROUP BY jobs.id ORDER BY jobs.rowid", *values)
        return [msgspec.convert(dict(zip(Job.__struct_fields__, row, strict=True)), Job, strict=False) for row in rows]


def _new_job(db: sqlite3.Connection, entry: str, arrival: Arrival, reason: str = "", series: str | None = None) -> Receipt:
    step: Step = "received" if reason or series is None else "growing"
    added = datetime.now(UTC).isoformat(timespec="seconds")
    db.execute(
        "INSERT INTO jobs VALUES (?, ?, ?, ?, 0, ?, ?, ?, '')", (entry, step, int(bool(reason)), reason, series, arrival.name, added)
    )
    return Receipt(entry, new=True, growing=step == "growing", quarantined=bool(reason))
