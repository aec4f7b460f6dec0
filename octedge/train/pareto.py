"""The picture of a tuning: IoU against latency, the front, the budget, and the chosen candidate."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from octedge.train.selection import Candidate, Selection
from octedge.train.tuning import Tuning

# Okabe and Ito 2008: told apart by everybody, and each kind of point has a mark of its own.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats in IoU without being slower, fastest first."""
    found: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (each.cost, -each.iou)):
        if not found or each.iou > found[-1].iou:
            found.append(each)
    return found


def picture(tuning: Tuning, selection: Selection, path: Path) -> None:
    """Write the PNG: latency in ms, IoU where each candidate stopped; what was never trained lies on the lower edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    chosen = selection.target
    stopped = [each for each in selection.candidates if each.verdict == "stopped"]
    finished = [each for each in selection.candidates if each.verdict != "stopped"]
    best = front(finished)
    axes.plot([each.cost for each in best], [each.iou for each in best], color=BLUE, lw=1.5, zorder=1, label="front of the finished")
    for trials, marker, color, label in (
        (finished, "o", BLUE, "trained to the end"),
        (stopped, "v", GREY, "stopped early, IoU of its last rung"),
    ):
        axes.scatter([each.cost for each in trials], [each.iou for each in trials], s=42, zorder=2, marker=marker, color=color, label=label)
    axes.scatter([chosen.cost], [chosen.iou], s=230, facecolors="none", edgecolors=ORANGE, linewidths=2.2, zorder=3, label="chosen")
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low - 0.12 * (high - low)) - 0.05 * (high - low), high + 0.2 * (high - low))
    edge = axes.get_xaxis_transform()  # rows as shares of the picture: what was not trained has no IoU
    axes.scatter(
        list(tuning.over.values()), [0.03] * len(tuning.over), marker="x", color=GREY, transform=edge, label="over the budget, not trained"
    )
    trained = [(each.name, each.cost, each.iou, axes.transData) for each in selection.candidates]
    for name, x, y, place in (*trained, *((name, ms, 0.03, edge) for name, ms in tuning.over.items())):
        axes.annotate(name, (x, y), (5, 6), xycoords=place, textcoords="offset points", fontsize=7, rotation=25, color="black")
    axes.axvline(tuning.budget_ms, color=GREEN, ls="--", lw=1.5, label=f"budget {tuning.budget_ms:g} ms")
    costs = [*(each.cost for each in selection.candidates), *tuning.over.values(), tuning.budget_ms]
    room = 0.12 * (max(costs) - min(costs) or 1)
    axes.set_xlim(min(costs) - room, max(costs) + 2 * room)
    axes.set_xlabel(f"ms per B-scan ({tuning.where})", fontsize=9)
    axes.set_ylabel("mean IoU on the validation set")
    axes.set_title(textwrap.fill(f"Chosen: {chosen.name}, {chosen.cost:.1f} ms - {chosen.reason}", 95), fontsize=10)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
