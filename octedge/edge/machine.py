"""What an engine's speed and answers depend on: the cores this process may use, and the kind of machine."""

import os
import platform
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Physical cores this process may use, at least 1; 0 where the system does not tell (the engine then decides).

    No more than OMP_NUM_THREADS, which a cluster sets for each of the workers that share a machine.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    most = int(said) if said.isascii() and said.isdigit() else 0
    if not hasattr(os, "sched_getaffinity"):
        return most
    usable = os.sched_getaffinity(0)
    groups = {_siblings(cpu) for cpu in usable}
    return max(1, min(len(groups), _quota() or len(groups), most or len(groups)))


def _siblings(cpu: int) -> str:
    """The hardware threads that share this one's core, as Linux writes them ("0,8"); itself where it does not say."""
    try:
        return (_CPU / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """A container's share of CPU time in whole CPUs (cgroup v2 `cpu.max`: "quota period"), None without one."""
    try:
        quota, period = _QUOTA.read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


def describe() -> str:
    """System, architecture and CPU model; nothing that names this one machine."""
    return " ".join(filter(None, (platform.system(), platform.machine(), _cpu_model() or platform.processor())))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))), "")
