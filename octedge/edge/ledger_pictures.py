"""A ledger drawn: which stage had which B-scan when, and how the latencies are spread.

    python -m octedge.edge.ledger_pictures scan7.ledger.json --out pictures

Needs matplotlib, which a device need not have.
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from octedge.edge.ledger import STAGES, Ledger, place
from octedge.errors import UsageError
from octedge.results.files import make_folder, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By stage; Okabe and Ito's colours, which the colour-blind can tell apart, the engine's the strongest.
_TONES = "#000000 #56b4e9 #0072b2 #f0e442 #d55e00 #e69f00 #009e73 #90d0b0 #b2df8a #cc79a7 #999999"
COLOURS = dict(zip(STAGES, _TONES.split(), strict=True))
OTHER = "#bbbbbb"


def waterfall(ledger: Ledger) -> "Figure":
    """A row per B-scan, time from left to right: bars where a stage had it, a line where it waited; on top what is done once for all."""
    figure, axes = _figure(max(3.0, min(12.0, 1.5 + 0.2 * len(ledger.bscans))))
    for row, spans in enumerate((ledger.whole, *(bscan.spans for bscan in ledger.bscans))):
        if spans:
            axes.hlines(row, min(span.start for span in spans) / 1e6, max(span.end for span in spans) / 1e6, OTHER, linewidth=0.8, zorder=0)
        for span in spans:
            colour = COLOURS.get(span.stage, OTHER)  # of the edge, too: a short span is a line
            left, width = span.start / 1e6, (span.end - span.start) / 1e6
            axes.barh(row, width, left=left, height=0.8, color=colour, edgecolor=colour, linewidth=0.6, label=span.stage)
    step = -(-len(ledger.bscans) // 20) or 1
    rows = range(1, len(ledger.bscans) + 1, step)
    axes.set_yticks([0, *rows], ["all", *(str(ledger.bscans[row - 1].index) for row in rows)])
    axes.set_ylim(len(ledger.bscans) + 0.6, -0.6)
    axes.set_xlabel("ms")
    axes.set_ylabel("B-scan")
    _finish(axes, ledger)
    return figure


def cumulative(ledger: Ledger) -> "Figure":
    """The share of B-scans that a stage, and all together, took so many ms at most for."""
    figure, axes = _figure(4.5)
    for stage in ledger.summary().stages:
        _steps(axes, (ms for bscan in ledger.bscans if (ms := bscan.ms(stage)) is not None), stage, COLOURS.get(stage, OTHER))
    _steps(axes, (bscan.end_to_end for bscan in ledger.bscans), "end to end", "#000000")
    axes.set_xscale("log")
    axes.set_xlabel("ms")
    axes.set_ylabel("share of B-scans")
    axes.grid(alpha=0.3, which="both")
    _finish(axes, ledger)
    return figure


def draw(ledger: Ledger, folder: Path) -> list[Path]:
    """Write both as `waterfall.png` and `latencies.png`.

    Raises `UsageError` if matplotlib is missing, `OutputError` if they cannot be written.
    """
    make_folder(folder)
    paths = []
    for name, make in (("waterfall", waterfall), ("latencies", cumulative)):
        picture = BytesIO()
        make(ledger).savefig(picture, format="png", dpi=120)
        paths.append(folder / f"{name}.png")
        write_bytes(paths[-1], picture.getvalue())
    return paths


def _figure(height: float) -> "tuple[Figure, Axes]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("pictures of a ledger need matplotlib; pip install matplotlib") from error
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, figure.subplots()


def _steps(axes: "Axes", ms: Iterable[float], name: str, colour: str) -> None:
    values = np.sort(np.fromiter(ms, float))
    axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post", label=name, color=colour, linewidth=1.6)


def _finish(axes: "Axes", ledger: Ledger) -> None:
    """A title, and a legend that names each stage once, in their order."""
    axes.set_title(f"{ledger.rows} x {ledger.columns}, {ledger.model}, {ledger.engine}", fontsize=9)
    handles, names = axes.get_legend_handles_labels()
    once = dict(sorted(zip(names, handles, strict=True), key=lambda pair: place(pair[0])))
    axes.legend(once.values(), once.keys(), loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
def main(file: Path, out: Path) -> None:
    """Draw the ledger in FILE."""
    draw(msgspec.json.decode(file.read_bytes(), type=Ledger), out)


if __name__ == "__main__":
    main()
