"""`octedge serve`."""

import re
import sys
from pathlib import Path

import click

from octedge.cli.console import complain, say
from octedge.errors import UsageError
from octedge.service.service import serve as run
from octedge.service.settings import read_settings
from octedge.service.systemd import unit

_PEER = re.compile(r"(?P<ae_title>[^@]{1,16})@(?P<host>\[[^]]+\]|[^:\[\]]+):(?P<port>\d+)")


def _words(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A list separated by commas."""
    return None if value is None else tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with the settings; options go before it.")
@click.option("--spool", metavar="DIR", help="The folder that keeps what is received until it is delivered; on a local disk.")
@click.option("--out", metavar="DIR", help="A folder that gets every result.")
@click.option("--model", metavar="BUNDLE", help="A model bundle's folder [default: the shipped reference].")
@click.option("--engine", metavar="NAME", help="What runs the network [default: auto].")
@click.option("--format", "formats", callback=_words, metavar="LIST", help="What is written per scan [default: all that somebody gets].")
@click.option("--ae-title", "receive__ae_title", metavar="TITLE", help="Our AE title; who calls another is rejected [default: OCTEDGE].")
@click.option("--host", "receive__host", metavar="ADDRESS", help="The address to listen on [default: 127.0.0.1].")
@click.option("--port", "receive__port", type=int, help="The port to listen on [default: 11112].")
@click.option("--allow", "receive__allow", multiple=True, metavar="TITLE", help="An AE title that may send; may be repeated.")
@click.option("--peer", multiple=True, metavar="TITLE@HOST:PORT", help="An archive that gets results by C-STORE; may be repeated.")
@click.option("--web", multiple=True, metavar="URL", help="A DICOMweb service that gets results by STOW-RS; may be repeated.")
@click.option("--health-port", type=int, help="Port on 127.0.0.1 for /healthz, /readyz and /metrics.")
@click.option("--print-systemd", is_flag=True, help="Print a unit for systemd, hardened, that runs this, and end.")
def serve(config: Path | None, print_systemd: bool, peer: tuple[str, ...], web: tuple[str, ...], **options: object) -> None:
    """Receive OCT scans by DICOM, segment them, and send the results: whatever dies and when, nothing acknowledged is lost.

    Success is answered when a scan is on the disk and in the spool's records. TLS is set in the file of --config.
    Ends on SIGTERM and Ctrl-C after the B-scan at hand; the rest stays pending.
    """
    given: dict[str, object] = {name.replace("__", "."): value for name, value in options.items() if value not in (None, ())}
    given |= {"peer": [_peer(text) for text in peer]} if peer else {}
    given |= {"web": [{"url": url} for url in web]} if web else {}
    settings = read_settings(config, given)
    if print_systemd:
        for line in unit(settings, config, sys.executable):
            say(line)
    else:
        run(settings, complain)


def _peer(text: str) -> dict[str, object]:
    match = _PEER.fullmatch(text)
    if not match:
        raise UsageError(f"--peer {text!r}: needed is TITLE@HOST:PORT, as PACS@192.0.2.20:104")
    return {"ae_title": match["ae_title"], "host": match["host"].strip("[]"), "port": int(match["port"])}
