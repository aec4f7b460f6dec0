"""The picture of a tuning: IoU against latency, the front, the budget, and the chosen trial."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from octedge.train.tuning import Tried, Tuning

# Okabe and Ito 2008: told apart by everybody, and each kind of point has a mark of its own.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"


def front(trials: Sequence[Tried]) -> list[Tried]:
    """Those that no other beats in IoU without being slower, fastest first."""
    found: list[Tried] = []
    for each in sorted(trials, key=lambda each: (each.ms, -each.last)):
        if not found or each.last > found[-1].last:
            found.append(each)
    return found


def picture(tuning: Tuning, path: Path) -> None:
    """Write the PNG: latency in ms, IoU of the last rung each trial reached; what was never trained lies on the lower edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    stopped = [each for each in tuning.trials if each.stopped and each.iou]
    never = [each for each in tuning.trials if not each.iou]
    best = front(tuning.finished)
    chosen = next(each for each in tuning.trials if each.name == tuning.chosen)
    axes.plot([each.ms for each in best], [each.last for each in best], color=BLUE, lw=1.5, zorder=1, label="front of the finished")
    for trials, marker, color, label in (
        (tuning.finished, "o", BLUE, f"trained to the end ({tuning.steps} steps)"),
        (stopped, "v", GREY, "stopped early, IoU of its last rung"),
    ):
        axes.scatter([each.ms for each in trials], [each.last for each in trials], s=42, zorder=2, marker=marker, color=color, label=label)
    axes.scatter([chosen.ms], [chosen.last], s=230, facecolors="none", edgecolors=ORANGE, linewidths=2.2, zorder=3, label="chosen")
    low, high = axes.get_ylim()
    span = high - low
    axes.set_ylim(low - 0.12 * span, high + 0.12 * span)
    axes.scatter(
        [each.ms for each in never], [low - 0.08 * span] * len(never), marker="x", color=GREY, label="over the budget, not trained"
    )
    for each in (*tuning.finished, *stopped, *never):
        y = each.last if each.iou else low - 0.08 * span
        axes.annotate(each.name, (each.ms, y), (5, 6), textcoords="offset points", fontsize=7, rotation=25, color="black")
    axes.axvline(tuning.budget_ms, color=GREEN, ls="--", lw=1.5, label=f"budget {tuning.budget_ms:g} ms")
    axes.margins(x=0.18)  # room for the names
    axes.set_xlabel(f"ms per B-scan ({tuning.where})", fontsize=9)
    axes.set_ylabel("mean IoU on the validation set")
    axes.set_title(textwrap.fill(f"Chosen: {chosen.name}, {chosen.ms:.1f} ms - {tuning.reason}", 95), fontsize=10)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)
