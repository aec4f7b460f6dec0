"""`octedge report`: a run as one page."""

from pathlib import Path

import click

from octedge.cli.console import complain, say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--out", type=click.Path(path_type=Path), help="The page to write. [default: RUN/report.html]")
def report(run: Path, data: Path, out: Path | None) -> None:
    """Make one self-contained HTML page of RUN: curves, selection, scores, errors, and its worst B-scans."""
    from octedge.train.report import write_report

    page = out or run / "report.html"
    write_report(run, data, page, complain)
    say(str(page))
