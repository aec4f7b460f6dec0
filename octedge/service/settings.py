"""The settings of the service: one TOML file; every command-line option is one of them.

spool = "/var/lib/octedge"
out = "/data/results"                # a folder gets every result, each named after its job
[receive]
ae_title = "OCTEDGE"
host = "192.0.2.10"                 # 127.0.0.1 unless said
port = 11112
allow = ["CIRRUS1", "SPECTRALIS"]   # calling AE titles
[[peer]]                            # results by C-STORE
ae_title = "PACS"
host = "192.0.2.20"
port = 104
[[web]]                             # results by DICOMweb STOW-RS
url = "https://pacs.example/dicom-web"
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Any

import msgspec

from octedge.errors import UsageError

Title = Annotated[str, msgspec.Meta(pattern=r"^[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?$")]  # PS3.5 section 6.2: AE
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Tls(_Settings, frozen=True):
    """PEM files: our certificate and its key, and the CA that the other side's certificate must be of."""

    certificate: str = ""
    key: str = ""
    ca: str = ""


class Receive(_Settings, frozen=True):
    """Who may send, and where to. `allow`: calling AE titles, all where it is empty. Below `free_mb` of disk nothing is taken.

    A series is complete when its sender has hung up and nothing came for `quiet_s`.
    """

    ae_title: Title = "OCTEDGE"
    host: str = "127.0.0.1"
    port: Port = 11112
    allow: tuple[Title, ...] = ()
    associations: Count = 24
    timeout_s: Seconds = 30.0
    free_mb: Annotated[int, msgspec.Meta(ge=0)] = 2000
    quiet_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 15.0
    tls: Tls | None = None


class Peer(_Settings, frozen=True):
    """An archive that gets results by C-STORE; `calling` is the AE title we show."""

    ae_title: Title
    host: str
    port: Port
    calling: Title = "OCTEDGE"
    timeout_s: Seconds = 30.0
    tls: Tls | None = None


class Web(_Settings, frozen=True):
    """A DICOMweb service that gets results by STOW-RS; `token_file` holds a bearer token."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s@]+$")]
    token_file: str = ""
    timeout_s: Seconds = 30.0
    tls: Tls | None = None


class Settings(_Settings, frozen=True):
    """Everything: the spool's folder, the model and its engine, what is written, and where it goes.

    A try that failed is repeated after `wait_s`, then twice that, and so on up to `longest_wait_s`; after `tries` it is quarantined.
    """

    spool: str
    out: str = ""
    model: str = ""
    engine: str = "auto"
    formats: tuple[str, ...] = ()
    receive: Receive = Receive()
    peer: tuple[Peer, ...] = ()
    web: tuple[Web, ...] = ()
    health_port: Port | None = None
    wait_s: Seconds = 5.0
    longest_wait_s: Seconds = 900.0
    tries: Count = 300


def read_settings(path: Path | None, options: dict[str, object]) -> Settings:
    """The settings of a TOML file, with options before them ("receive.port" is the port in [receive]).

    Raises `UsageError` naming the setting that is wrong, and what is needed.
    """
    told = _read(path) if path else {}
    for name, value in options.items():
        table, _, key = name.rpartition(".")
        place = told.setdefault(table, {}) if table else told
        if not isinstance(place, dict):
            raise UsageError(f"{path}: {table} is not a table; write [{table}] above its settings")
        place[key] = value
    try:
        settings = msgspec.convert(told, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path or 'options'}: {error}") from error
    _check(settings, path)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        told = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no TOML file ({error})") from error
    assert isinstance(told, dict)
    return told


def _check(settings: Settings, path: Path | None) -> None:
    where = path or "options"
    if not (settings.out or settings.peer or settings.web):
        raise UsageError(f"{where}: results go nowhere; give out (a folder), a [[peer]] or a [[web]]")
    if not _loopback(settings.receive.host) and not settings.receive.allow:
        raise UsageError(f"{where}: receive.host {settings.receive.host} is open to the network; name who may send in receive.allow")
    if len(names := [*(f"{peer.ae_title}@{peer.host}" for peer in settings.peer), *(web.url for web in settings.web)]) != len(set(names)):
        raise UsageError(f"{where}: a peer or web is named twice; each gets everything once")
    for tls in [settings.receive.tls, *(peer.tls for peer in settings.peer), *(web.tls for web in settings.web)]:
        if tls is not None and bool(tls.certificate) != bool(tls.key):
            raise UsageError(f"{where}: tls needs certificate and key together")
    if settings.receive.tls is not None and not settings.receive.tls.certificate:
        raise UsageError(f"{where}: receive.tls needs a certificate and its key")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
