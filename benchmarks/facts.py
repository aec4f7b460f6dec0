"""Where and when a table was made: the line above every table; by itself, `python -m benchmarks.facts`."""

from collections.abc import Iterable
from importlib.metadata import version

from octedge.edge.bench import this_machine, today


def facts(*packages: str) -> str:
    """Machine, load, date, and the versions of octedge, Python, numpy and these packages."""
    machine = this_machine()
    load = "" if machine.load is None else f", load {machine.load:g} before"
    gpus = "".join(f", {gpu}" for gpu in machine.gpus)
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    software = f"octedge {machine.octedge}, Python {machine.python}, numpy {machine.numpy}"
    return f"{today()}; {machine.kind}, {machine.cores} cores{gpus}{load}; {software}{', ' * bool(versions)}{versions}"


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def head(first: str, *others: str) -> str:
    """The head of a Markdown table, numbers on the right."""
    return f"{row(first, *others)}\n|---{'|--:' * len(others)}|"


def ms(values: Iterable[float]) -> list[str]:
    """Milliseconds as a table has them."""
    return [f"{value:.0f}" if value >= 100 else f"{value:.1f}" for value in values]


if __name__ == "__main__":
    print(f"{facts('onnxruntime', 'openvino', 'torch')}\n")
