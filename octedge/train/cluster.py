"""The same work on a Ray cluster: every job a task that is tried again where its worker dies.

Plain tasks, not Ray Tune: what is finished lies in the run's folder, and one halving rule holds with and without a cluster;
Tune's schedulers, checkpoints and result files would be a second account of the same things. Ray itself moves jobs and data
between processes by pickling them; nothing of that is written or read by octedge.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from octedge.errors import OctedgeError, UsageError

LOCAL = "local"
RETRIES = 3  # of a job whose worker died; a job that raises an error is not tried again
Job = TypeVar("Job")
Shared = TypeVar("Shared")
Result = TypeVar("Result")


@contextmanager
def cluster(
    address: str, function: Callable[[Job, Shared], Result], shared: Shared, cpus: int | None = None
) -> Iterator[Callable[[Sequence[Job]], list[Result]]]:
    """What runs `function(job, shared)` for many jobs at once, one CPU each, and a GPU each where the cluster has any.

    `address` of a running cluster, or "local": one started here with `cpus` workers (none given: as many as CPUs), listening
    on this machine alone, and stopped at the end. Ray's usage reports are off. Raises `UsageError` where there is no cluster.
    """
    ray = _ray(address)
    _join(ray, address, cpus)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        task = ray.remote(max_retries=RETRIES, num_cpus=1, num_gpus=gpus)(function)
        once = ray.put(shared)
        yield lambda jobs: _collect(ray, [task.remote(job, once) for job in jobs])
    finally:
        ray.shutdown()


def _ray(address: str) -> ModuleType:
    """Ray, told before it is imported to report nothing, and on a cluster of this machine alone to listen on loopback only."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for: take 127.0.0.1 as this machine's address
    import ray

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


def _collect(ray: ModuleType, tasks: list[Any]) -> list[Any]:
    """All results, in order; an error is raised only when every job has ended, so that what the others did is kept."""
    ray.wait(tasks, num_returns=len(tasks))
    try:
        return list(ray.get(tasks))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OctedgeError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        what = f"a worker died {RETRIES + 1} times ({type(error).__name__}), perhaps for want of memory"
        raise OctedgeError(f"{what}; what is finished is kept: go on with --resume, with fewer trials at once") from error
