"""A unit for systemd that runs the service with as few rights as it needs."""

from collections.abc import Sequence
from pathlib import Path

from octedge.service.settings import Settings


def unit(settings: Settings, config: Path | None, python: str) -> Sequence[str]:
    """The lines of the unit: a user of its own, the file system read-only but for spool and results, no new rights."""
    spool = Path(settings.spool).absolute()
    writable = [str(spool), *([str(Path(settings.out).absolute())] if settings.out else [])]
    where = f"--config {config.absolute()}" if config else f"--spool {spool} --out {Path(settings.out).absolute()}"
    return (
        "# /etc/systemd/system/octedge.service",
        "# useradd --system octedge; the folders in ReadWritePaths belong to it, mode 0700",
        *(["# settings given as options are not in here: put them into a file and give it with --config"] if config is None else []),
        "[Unit]",
        "Description=octedge: segments OCT scans beside the scanner (research use only)",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "User=octedge",
        f"ExecStart={python} -m octedge serve {where}",
        "KillSignal=SIGTERM",
        "TimeoutStopSec=120",
        "Restart=on-failure",
        "RestartSec=5",
        "CacheDirectory=octedge",
        "Environment=OCTEDGE_CACHE=/var/cache/octedge",
        "UMask=0077",
        f"ReadWritePaths={' '.join(writable)}",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateTmp=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "LockPersonality=yes",
        "RestrictSUIDSGID=yes",
        "RestrictRealtime=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "# not MemoryDenyWriteExecute and not PrivateDevices: engines compile kernels, and a GPU is a device",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    )
