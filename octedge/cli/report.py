"""`octedge report`: a run as one page."""

from pathlib import Path

import click

from octedge.cli.console import complain, say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--out", type=click.Path(path_type=Path), help="The page to write. [default: RUN/report.html]")
@click.option("--axial-um", "scales", multiple=True, type=(str, float), metavar="SOURCE UM", help="Depth of a source's rows.")
def report(run: Path, data: Path, out: Path | None, scales: tuple[tuple[str, float], ...]) -> None:
    """Make one self-contained HTML page of RUN: curves, selection, scores, errors, and its worst B-scans."""
    from octedge.results.files import write_bytes
    from octedge.train.report import page, study

    path = out or run / "report.html"
    write_bytes(path, page(study(run, data, complain, dict(scales))).encode())
    say(str(path))
