"""The same work on a Ray cluster: every job a task that is tried again where its worker dies.

Plain tasks, and neither Ray Tune nor actors: what is finished lies in files, and one rule for what is done holds with and without
a cluster. A worker process takes job after job, so what it keeps (an engine, say) is warm from its second job on. Ray itself
moves jobs and data between processes by pickling them; nothing of that is written or read by octedge.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Generic, TypeVar

from octedge.errors import OctedgeError, UsageError, WorkerLost

LOCAL = "local"
RETRIES = 3  # of a job whose worker died; a job that raises an error is not tried again
Job = TypeVar("Job")
Shared = TypeVar("Shared")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Pool(Generic[Job, Result]):
    """Workers that do jobs, one CPU each, and a GPU each where the cluster has any."""

    submit: Callable[[Job], Any]
    ray: ModuleType

    def start(self, jobs: Iterable[Job]) -> list[Callable[[], Result]]:
        """Set all jobs going; what waits for each one's result, and raises the job's error, or `WorkerLost`."""
        return [partial(self._result, self.submit(job)) for job in jobs]

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """All results, in order; an error is raised only when every job has ended, so that what the others did is kept."""
        tasks = [self.submit(job) for job in jobs]
        self.ray.wait(tasks, num_returns=len(tasks))
        return [self._result(task) for task in tasks]

    def _result(self, task: Any) -> Result:
        try:
            result: Result = self.ray.get(task)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OctedgeError):
                raise error.cause from error
            raise
        except self.ray.exceptions.RayError as error:
            what = f"a worker died {RETRIES + 1} times ({type(error).__name__}), perhaps for want of memory"
            raise WorkerLost(f"{what}; what is finished is kept: go on from there with fewer workers at once") from error
        return result


@contextmanager
def cluster(
    address: str, function: Callable[[Job, Shared], Result], shared: Shared, cpus: int | None = None
) -> Iterator[Pool[Job, Result]]:
    """What runs `function(job, shared)` for many jobs at once.

    `address` of a running cluster, or "local": one started here with `cpus` workers (none given: as many as CPUs), listening
    on this machine alone, and stopped at the end. Ray's usage reports are off. Raises `UsageError` where there is no cluster.
    """
    ray = _ray(address)
    _join(ray, address, cpus)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=gpus)(function)
        once = ray.put(shared)
        yield Pool(lambda job: task.remote(job, once), ray)
    finally:
        ray.shutdown()


def _ray(address: str) -> ModuleType:
    """Ray, told before it is imported to report nothing, and on a cluster of this machine alone to listen on loopback only."""
    if not address:
        raise UsageError("--cluster is empty; give the address of a Ray cluster (HOST:PORT), or local")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for: take 127.0.0.1 as this machine's address
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"a cluster needs Ray, which cannot be imported ({error}); pip install octedge[cluster]") from error
    return ray


def _join(ray: ModuleType, address: str, cpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == LOCAL:
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"no Ray cluster answers at {address} ({reason}); start one (ray start --head), or use --cluster local") from error
