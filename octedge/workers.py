"""A batch on a cluster: `run_one` on every scan, by workers whose engine stays warm, and no scan done twice.

What is finished is known by a record beside the results, written last. A scan that was in flight on a worker that died is begun
anew by another one; a second run over the same folder does what has no record.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import msgspec

import octedge
from octedge.batch import Job, Options, Outcome, identities, run_one
from octedge.cluster import cluster
from octedge.edge.model import open_model
from octedge.errors import UsageError, WorkerLost
from octedge.readers import Source
from octedge.results.files import write_json

RECORD = ".done.json"


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be done with scans, in words that another machine understands: no model, but where it lies."""

    bundle: Path | None
    engine: str
    allow_fallback: bool
    out: Path
    options: Options = Options()
    sources: tuple[Source, ...] = field(default=(), compare=False, repr=False)

    def job(self, tell: Callable[[str], None]) -> Job:
        """The same with the model opened on this machine, as `open_model` does it."""
        model = open_model(self.bundle, self.engine, tell, self.allow_fallback)
        return Job(model, self.out, self.options, identities(self.sources))


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.done.json`: what became of a scan that is done, the sizes of its results in bytes, and a SHA-256 of what was asked for."""

    asked: str
    outcome: Outcome
    sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Answered:
    """A scan's outcome, and what the worker had to say of its engine."""

    outcome: Outcome
    told: tuple[str, ...]


def segment_on(address: str, batch: Batch) -> Iterator[Answered]:
    """The batch's scans on the Ray cluster at `address` ("local": one started here), in their order.

    A scan is refused if every worker that was given it died. Raises what `run_one` raises, and `UsageError` if a machine of the
    cluster does not see the folders.
    """
    batch = _absolute(batch)
    with cluster(address, work, batch) as pool:
        for source, answer in zip(batch.sources, pool.start(batch.sources), strict=True):
            try:
                yield answer()
            except WorkerLost as error:
                yield Answered(Outcome(name=source.name, status="refused", error=f"{source.name}: {error}"), ())


def work(source: Source, batch: Batch) -> Answered:
    """Do a scan, or take its record: what the workers run."""
    if not (batch.out.is_dir() and source.paths[0].parent.is_dir()):
        what = "a worker does not see the folders of the scans and the results"
        raise UsageError(f"{what}; on a cluster of several machines both must lie on a file system that all of them share")
    job, told = _warm(batch)
    asked = _asked(source, batch, job)
    outcome = finished(source.name, batch.out, asked)
    if outcome is None:
        outcome = run_one(source, job)
        if outcome.status == "done":
            sizes = {name: (batch.out / name).stat().st_size for name in outcome.outputs}
            write_json(batch.out / f"{source.name}{RECORD}", Record(asked, outcome, sizes))
    return Answered(outcome, told)


def finished(name: str, out: Path, asked: str) -> Outcome | None:
    """What became of the scan `name` if it is done: the same was asked for, and its results are in `out`, whole."""
    try:
        found = msgspec.json.decode((out / f"{name}{RECORD}").read_bytes(), type=Record)
        whole = all((out / result).stat().st_size == size for result, size in found.sizes.items())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found.outcome if whole and found.asked == asked else None


@lru_cache(maxsize=1)
def _warm(batch: Batch) -> tuple[Job, tuple[str, ...]]:
    """This process's job; the engine is certified on this machine and stays open from scan to scan."""
    told: list[str] = []
    return batch.job(told.append), tuple(told)


def _asked(source: Source, batch: Batch, job: Job) -> str:
    """A digest of all that the results depend on: octedge, model, settings, and the input files by size and time."""
    try:
        files = [(str(path), status.st_size, status.st_mtime_ns) for path in source.paths for status in (path.stat(),)]
    except OSError:
        files = []  # reading it will say why
    settings = replace(batch, bundle=None, out=Path(), sources=())
    words = (octedge.__version__, job.model.bundle.digest, job.model.engine.name, repr(settings), files)
    return hashlib.sha256(msgspec.json.encode(words)).hexdigest()


def _absolute(batch: Batch) -> Batch:
    """The same batch for a process that runs in another folder."""
    sources = tuple(replace(source, paths=tuple(path.absolute() for path in source.paths)) for source in batch.sources)
    return replace(batch, bundle=batch.bundle and batch.bundle.absolute(), out=batch.out.absolute(), sources=sources)
