"""What goes to the console: ASCII, one line at a time, results on stdout and everything else on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import msgspec

from octedge.flow import Progress


def plain(text: str) -> str:
    """Text any console can show: other characters escaped, no control characters, one line.

    >>> plain("caf\u00e9\\n")
    'caf\\\\xe9 '
    """
    text = "".join(character if character.isprintable() else " " for character in text)
    return text.encode("ascii", "backslashreplace").decode()


def say(text: str = "") -> None:
    """A line of what was asked for."""
    click.echo(plain(text))


def complain(text: str) -> None:
    """A line beside the results: progress, notes, errors."""
    click.echo(plain(text), err=True)


def say_json(value: object) -> None:
    """One JSON line."""
    click.echo(msgspec.json.encode(value).decode())


@contextmanager
def progress_bar(name: str, wanted: bool) -> Iterator[Progress | None]:
    """A bar on stderr that hears (done, of); None where nobody watches."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(plain(name).replace("[", "("), total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
