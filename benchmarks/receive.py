"""Receiving, `octedge serve` against dcmtk's storescp: seconds per object and peak memory, in turns, by the same storescu.

    python -m benchmarks.receive --frames 128 --rounds 7

The object is a phantom of frames x 1024 x 512, 8 bit (67 MB for 128). octedge brings it to the disk, takes its digest and records it
before it answers; storescp does none of this. Its receiver runs in a process of its own, without a model. Needs dcmtk.
"""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import click

from octedge.phantom import LOOKS, Phantom
from octedge.phantom_files import write_dicom

SERVER = """
import sys, time
from pathlib import Path
from octedge.service.monitor import Monitor, silence
from octedge.service.receive import Receiver
from octedge.service.series import Series
from octedge.service.settings import Receive
from octedge.service.spool import Spool
silence()
with Spool(Path(sys.argv[1])) as spool:
    Receiver(spool, Series(spool, 15), Receive(port=int(sys.argv[2]), free_mb=0), Monitor()).start()
    sys.stdin.read()
"""


def copies(folder: Path, frames: int, rounds: int) -> list[Path]:
    """The same volume under `rounds` + 1 SOP Instance UIDs of the same length."""
    first = folder / "0.dcm"
    look = replace(LOOKS["spectralis"], rows=1024, columns=512)
    write_dicom(Phantom(look, frames, seed=0), first)
    data, uid = first.read_bytes(), _uid(first)
    paths = [first]
    for number in range(1, rounds + 1):
        other = f"{uid[:-4]}{number:04d}".encode()
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data.replace(uid.encode(), other))
    return paths


def _uid(path: Path) -> str:
    from pydicom import dcmread

    return str(dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that listens on the port; ended when it is left."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(port)
            yield process
        finally:
            process.kill()


def wait_for(port: int) -> None:
    """Until somebody listens on the port of this machine."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"nobody listens on port {port}")


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peak_mb(pid: int) -> float:
    """The most memory a process has had (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@click.command()
@click.option("--frames", default=128, show_default=True)
@click.option("--rounds", default=7, show_default=True)
def main(frames: int, rounds: int) -> None:
    """Print seconds (median, all) of both, their ratio, and the peak memory of octedge's receiver."""
    if not shutil.which("storescp"):
        raise click.ClickException("needs dcmtk's storescp and storescu: apt-get install dcmtk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "theirs").mkdir()
        files = copies(folder, frames, rounds)
        ports = {"octedge": free_port(), "storescp": free_port()}
        ours = [sys.executable, "-c", SERVER, str(folder / "spool"), str(ports["octedge"])]
        theirs = ["storescp", "-aet", "OCTEDGE", "-pdu", "131072", "-od", str(folder / "theirs"), str(ports["storescp"])]
        seconds: dict[str, list[float]] = {who: [] for who in ports}
        with running(ours, ports["octedge"]) as octedge, running(theirs, ports["storescp"]):
            before = peak_mb(octedge.pid)
            for number, file in enumerate(files):
                for who in sorted(ports, reverse=bool(number % 2)):
                    begun = time.perf_counter()
                    subprocess.run(
                        ["storescu", "-R", "-aec", "OCTEDGE", "-pdu", "131072", "127.0.0.1", str(ports[who]), str(file)], check=True
                    )
                    if number:  # the first warms up
                        seconds[who].append(time.perf_counter() - begun)
            peak = peak_mb(octedge.pid)
        mb = os.path.getsize(files[0]) / 1e6
    told = {who: round(median(times), 3) for who, times in seconds.items()}
    ratios = [ours_ / theirs_ for ours_, theirs_ in zip(seconds["octedge"], seconds["storescp"], strict=True)]
    click.echo(json.dumps({
        "object_mb": round(mb, 1), "rounds": rounds, "median_s": told, "ratio_of_medians": round(told["octedge"] / told["storescp"], 2),
        "median_ratio": round(median(ratios), 2), "all_s": {who: [round(each, 3) for each in times] for who, times in seconds.items()},
        "octedge_peak_mb": round(peak), "octedge_before_mb": round(before), "machine": f"{platform.system()} {os.cpu_count()} cores",
    }))  # fmt: skip


if __name__ == "__main__":
    main()
