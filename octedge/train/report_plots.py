"""The report's figures: SVG from matplotlib's objects, the same bytes for the same numbers, readable at the width of a phone."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from octedge.train.evidence import Agreement, Box

# Okabe and Ito's colours, distinct without colour vision; lines differ in dashes as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
WIDTH = 4.0  # inches
MANY = 400  # points from which on a scatter is drawn as pixels
_INK, _FAINT, _GRID = "#1f2a33", "#66727c", "#e3e7ea"
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8.5, "svg.fonttype": "path",
    "axes.edgecolor": _FAINT, "axes.labelcolor": _INK, "text.color": _INK, "xtick.color": _FAINT, "ytick.color": _FAINT,
    "xtick.labelcolor": _INK, "ytick.labelcolor": _INK, "axes.linewidth": 0.8, "grid.color": _GRID, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "legend.frameon": False, "svg.hashsalt": "octedge",
}  # fmt: skip

Points = dict[int, dict[int, float]]  # seed -> step -> value


@contextmanager
def _figure(height: float, into: list[bytes]) -> Iterator[Axes]:
    """Axes to draw in; at the end the figure's SVG is appended to `into`."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
        yield figure.add_subplot()
        file = io.BytesIO()
        figure.savefig(file, format="svg", dpi=160, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        into.append(file.getvalue())


def curves(candidates: dict[str, Points], label: str, compared: tuple[int, ...]) -> bytes:
    """A value over the steps: per candidate the mean of its seeds, and a band from the lowest to the highest of them.

    Lines mark the steps after which candidates were compared and only some went on.
    """
    made: list[bytes] = []
    with _figure(2.8, made) as axes:
        for index, (name, seeds) in enumerate(candidates.items()):
            steps, values = seed_matrix(seeds)
            colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
            marker = "o" if len(steps) < 40 else ""
            axes.plot(steps, np.nanmean(values, axis=0), dash, color=colour, lw=1.8, marker=marker, ms=3.2, label=name)
            if len(seeds) > 1:
                axes.fill_between(steps, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.18, lw=0)
        for step in compared:
            axes.axvline(step, color=_FAINT, lw=1, ls=(0, (2, 2)))
            where = ("data", "axes fraction")
            axes.annotate("compared", (step, 1), (3, -2), where, "offset points", fontsize=7.5, color=_FAINT, va="top")
        axes.set(xlabel="training step", ylabel=label)
        axes.grid(axis="y")
        axes.margins(x=0.02)
        axes.legend(loc="best", fontsize=8, handlelength=2.6)
    return made[0]


def seed_matrix(seeds: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All steps (S,), and the values (seeds, S) at them, NaN where a seed has none."""
    steps = sorted({step for points in seeds.values() for step in points})
    return np.array(steps, np.int64), np.array([[points.get(step, np.nan) for step in steps] for points in seeds.values()])


def forest(scores: dict[str, tuple[float, float | None, float | None]]) -> bytes:
    """Selection scores from the target downwards: the value, and its 95 % interval where there is one."""
    made: list[bytes] = []
    with _figure(0.75 + 0.3 * len(scores), made) as axes:
        for row, (value, low, high) in enumerate(scores.values()):
            colour = COLOURS[1] if row == 0 else COLOURS[0]
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color=colour, lw=2.2, solid_capstyle="butt")
            axes.plot([value], [row], "D" if row == 0 else "o", color=colour, ms=6.5)
        axes.set_yticks(range(len(scores)), [f"{name} (target)" if row == 0 else name for row, name in enumerate(scores)])
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set(xlabel="score (IoU, 0 to 1) and 95 % interval")
        axes.margins(x=0.1)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    return made[0]


def boxes(found: dict[str, Box], axial_um: float | None) -> bytes:
    """Signed boundary errors, a box per boundary from the top of the retina downwards; in px, and in um where the scale is known."""
    made: list[bytes] = []
    with _figure(0.85 + 0.27 * len(found) + (0.35 if axial_um else 0), made) as axes:
        stats = [
            {"whislo": box.low, "q1": box.first, "med": box.median, "q3": box.third, "whishi": box.high, "label": name.replace("|", " | ")}
            for name, box in found.items()
        ]
        axes.axvline(0, color=_FAINT, lw=0.9)
        axes.bxp(
            stats, orientation="horizontal", showfliers=False, patch_artist=True, widths=0.62,
            boxprops={"facecolor": "#cfe3f1", "edgecolor": COLOURS[0], "linewidth": 1}, medianprops={"color": COLOURS[1], "linewidth": 2},
            whiskerprops={"color": COLOURS[0]}, capprops={"color": COLOURS[0]},
        )  # fmt: skip
        axes.invert_yaxis()
        axes.set(xlabel="boundary error [px], above 0: too deep")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        if axial_um is not None:
            _um_axis(axes, "x", axial_um, "boundary error [\N{MICRO SIGN}m]")
    return made[0]


def bland_altman(pairs: NDArray[np.float64], title: str, axial_um: float | None) -> bytes:
    """Thickness, predicted minus reference against their mean, a point per B-scan; bias and limits of agreement as lines."""
    made: list[bytes] = []
    found = Agreement.of(pairs)
    with _figure(2.9, made) as axes:
        mean, difference = pairs.mean(axis=1), pairs[:, 0] - pairs[:, 1]
        axes.axhline(0, color=_GRID, lw=1.2)
        axes.scatter(mean, difference, s=16, color=COLOURS[0], alpha=0.6, lw=0, rasterized=len(pairs) > MANY)
        for value, dash, words in ((found.bias, "-", "bias"), (found.low, "--", "\N{MINUS SIGN}1.96 SD"), (found.high, "--", "+1.96 SD")):
            if np.isfinite(value):
                axes.axhline(value, color=COLOURS[1], lw=1.3, ls=dash)
                axes.annotate(
                    f"{words} {value:+.2f}".replace("-", "\N{MINUS SIGN}"), (1, value), (-2, 2), ("axes fraction", "data"), "offset points",
                    fontsize=7.5, ha="right", color=_INK,
                )  # fmt: skip
        axes.set(xlabel="mean of prediction and reference [px]", ylabel="prediction \N{MINUS SIGN} reference [px]")
        axes.set_title(title, fontsize=9.5, fontweight="bold", loc="left")
        axes.margins(x=0.06, y=0.16)
        if axial_um is not None:
            _um_axis(axes, "y", axial_um, "difference [\N{MICRO SIGN}m]")
    return made[0]


def _um_axis(axes: Axes, side: str, axial_um: float, label: str) -> None:
    """The same axis in um, opposite the one in px."""
    convert = (lambda px: px * axial_um, lambda um: um / axial_um)
    if side == "x":
        axes.secondary_xaxis("top", functions=convert).set_xlabel(label, fontsize=8.5)
    else:
        axes.secondary_yaxis("right", functions=convert).set_ylabel(label, fontsize=8.5)


def data_uri(content: bytes, kind: str = "image/svg+xml") -> str:
    """An image inside a page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
