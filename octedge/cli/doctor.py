"""`octedge doctor`."""

from pathlib import Path

import click

from octedge.cli.console import say
from octedge.edge.doctor import findings


@click.command()
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A model bundle's folder [default: the shipped reference].")
@click.pass_context
def doctor(ctx: click.Context, bundle: Path | None) -> None:
    """Say what works on this machine, one line each, with the command that repairs what does not.

    Ends with 0 if scans can be segmented, 3 if not.
    """
    failed = False
    for finding in findings(bundle):
        failed |= finding.state == "fail"
        say(f"{finding.state:<6}{finding.what:<13}{finding.text}" + (f"; repair: {finding.repair}" if finding.repair else ""))
    ctx.exit(3 if failed else 0)
