"""`octedge watch`."""

from pathlib import Path

import click

from octedge.cli.console import complain
from octedge.service.service import watch as run
from octedge.service.settings import read_settings


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results; made if need be.")
@click.option(
    "--spool", type=click.Path(path_type=Path), help="Where scans are kept until they are done [default: .octedge-spool in --out]."
)
@click.option("--model", metavar="BUNDLE", help="A model bundle's folder [default: the shipped reference].")
@click.option("--engine", metavar="NAME", help="What runs the network [default: auto].")
@click.option("--quiet-s", "quiet_s", type=float, help="A series of single files is complete when so long nothing came [default: 15].")
def watch(folder: Path, out: Path, spool: Path | None, quiet_s: float | None, **options: object) -> None:
    """Segment every scan that appears in FOLDER, once, into --out, each result named after its scan.

    A file is taken when it is whole, and copied: FOLDER may be tidied at any time. Ends on SIGTERM and Ctrl-C after the B-scan
    at hand, and goes on where it was when started again.
    """
    given = {"out": str(out), "spool": str(spool or out / ".octedge-spool"), "receive.quiet_s": quiet_s, **options}
    settings = read_settings(None, {name: value for name, value in given.items() if value is not None})
    run(folder, settings, complain)
