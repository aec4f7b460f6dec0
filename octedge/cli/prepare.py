"""`octedge prepare`."""

from pathlib import Path

import click

from octedge.cli.console import complain, say, say_json
from octedge.edge.bundle import open_bundle
from octedge.edge.prepare import prepare as find_fastest


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--engine", "names", multiple=True, metavar="NAME", help="Only this engine (rtx) or variant (rtx-fp16); may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="What was found, on one line of stdout.")
def prepare(bundle: Path | None, names: tuple[str, ...], as_json: bool) -> None:
    """Find the fastest engine of this machine that gives the reference answers of BUNDLE [default: the shipped reference].

    Builds what the machine can run, checks each against the bundle's golden answers, times those that pass, and keeps the
    choice for `segment`. Needs no network; may be interrupted and repeated.
    """
    opened = open_bundle(bundle)
    found = find_fastest(opened, names, complain)
    if as_json:
        say_json(found)
    else:
        say(f"{opened.card.id}: {found.chosen}, {found.ms[found.chosen]:.1f} ms for a B-scan of 1024 x 512; octedge segment will use it")
