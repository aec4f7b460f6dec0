"""When not to trust an answer: measures of every B-scan and its surfaces, cheap enough to be always on, and the flags they raise.

    signal     gCNR of retina and vitreous (Rodriguez-Molares 2020, IEEE TUFFC 67(4):745): 1 - sum over greys of min(p_retina, p_vitreous).
               0: no difference, 1: no grey in common. No gain, gamma or logarithm of a display changes it.
    greys      share of the grey range between the 0.1th and the 99.9th percentile of the B-scan
    saturated  share of the retina's pixels that are white, 255
    missing    share of columns in which no retina (nor disc) was found
    clipped    share of columns whose retina touches the first or the last rows: there is more of it outside
    jumps      how often the inner or the outer border of the retina jumps from a column to the next, further than anatomy goes
    certainty  mean probability that the network gives to the answer, in the retina
    checksum   CRC-32 of the pixels, equal for equal B-scans

`benchmarks/quality.py` prints what they are on real scans, as they are and with planted faults. The thresholds lie beyond all of its
135 real B-scans, healthy and oedematous: signal from 0.54, greys from 0.38, saturated to 0.004, missing to 0.016, certainty from 0.84.
But for `clipped` and `jumps`: there the flagged ones are cut off at the top, or have a wrong surface, mostly in the nerve head.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import RETINA, is_ordered, members
from octedge.scan import Frame, Spacing

EDGE = 3  # rows; a retina that comes nearer to the border goes on behind it
# How far a border of the retina may move from a column to the next: up the steepest anatomical slope, 63 degrees, and 8 um of error.
# Lines drawn by people and by a device reach 60 degrees. Without a scale: the rows that is with the finest rows in use.
_SLOPE, _ERROR_UM, _ROWS = 2.0, 8.0, 16.0
_FEWEST = 0.01  # share of the pixels: with fewer there is no retina to measure, or no vitreous to compare with
_EVERY = 8  # rows; certainty looks at one of so many
_USUAL = 3  # B-scans with a signal: of fewer nobody can say what is usual
_SHOWN = 10  # numbers in a sentence


@dataclass(frozen=True, slots=True)
class Gauge:
    """What is measured of the answers of a model: its classes, the surfaces that bound the retina, and how far these may jump, in rows.

    `inner` and `outer` are None where the model knows nothing beyond the retina; `disc` is the surface above the disc.
    """

    vitreous: tuple[int, ...]
    retina: tuple[int, ...]
    inner: int | None
    outer: int | None
    disc: int | None
    jump: float

    @classmethod
    def of(cls, classes: tuple[str, ...], spacing: Spacing = Spacing()) -> "Gauge":
        """The gauge for a model's classes (see `anatomy.check_classes`), at the scan's scale."""
        parts = [set(members(group)) for group in classes]
        chain = [keys for keys, group in zip(parts, classes, strict=True) if is_ordered(group)]
        places = [place for place, keys in enumerate(chain) if keys & set(RETINA)]
        return cls(
            vitreous=tuple(index for index, keys in enumerate(parts) if keys == {"vitreous"}),
            retina=tuple(index for index, keys in enumerate(parts) if keys & {*RETINA, "fluid"}),
            inner=places[0] - 1 if places and places[0] > 0 else None,
            outer=places[-1] if places and places[-1] < len(chain) - 1 else None,
            disc=len(chain) - 2 if len(chain) > 1 and chain[-1] == {"disc"} else None,
            jump=_jump(spacing),
        )


def _jump(spacing: Spacing) -> float:
    if spacing.axial is None or spacing.lateral is None:
        return _ROWS
    return (_SLOPE * spacing.lateral + _ERROR_UM / 1000) / spacing.axial


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """The measures of one B-scan, NaN where there is nothing to measure."""

    signal: float = math.nan
    greys: float = math.nan
    saturated: float = math.nan
    missing: float = math.nan
    clipped: float = math.nan
    jumps: float = math.nan
    certainty: float = math.nan
    checksum: float = math.nan  # a whole number that a float holds exactly


MEASURES = tuple(each.name for each in fields(FrameQuality))


@dataclass(frozen=True, slots=True)
class Flag:
    """Something a user must know: what is out of bounds in which B-scans (counted from 0), the worst value, its bound, and a sentence."""

    name: str
    value: float
    threshold: float
    frames: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A measure, its bound, and what it means to be below (`low`) or above it."""

    name: str
    measure: str
    threshold: float
    low: bool
    says: str


# `drop` is the signal as a share of the scan's median, `repeated` 1 where a B-scan is the one before again.
RULES = (
    Rule("weak signal", "signal", 0.4, True, "the retina hardly stands out from the vitreous"),
    Rule("signal drop", "drop", 0.6, True, "the signal is far below that of the scan's other B-scans, as in a blink"),
    Rule("few greys", "greys", 0.25, True, "little of the grey range is used"),
    Rule("saturated", "saturated", 0.1, False, "much of the retina is white"),
    Rule("no retina", "missing", 0.05, False, "columns without any retina"),
    Rule("clipped", "clipped", 0.02, False, "the retina leaves the image at the top or the bottom"),
    Rule("jumps", "jumps", 0.0, False, "a border of the retina jumps further than anatomy goes: eye movement, or a wrong surface"),
    Rule("repeated", "repeated", 0.0, False, "the same image as the B-scan before"),
    Rule("unsure", "certainty", 0.8, True, "the network itself is unsure of its answer"),
)


def certainty(scores: NDArray[np.floating], labels: NDArray[np.uint8], gauge: Gauge) -> NDArray[np.float64]:
    """Mean probability (W,) of the answer in each column's retina, NaN where there is none; every eighth row is looked at.

    From log-probabilities (C, P, W) and labels (H, W); P, the rows the network saw, may be other than H.
    """
    rows, columns = labels.shape
    looked = np.arange(min(_EVERY // 2, rows - 1), rows, _EVERY)
    inside = np.zeros(256, np.bool_)
    inside[list(gauge.retina)] = True
    answer = labels[looked]
    row, column = np.divmod(np.flatnonzero(inside.take(answer)), columns)
    seen = ((looked + 0.5) * (scores.shape[1] / rows)).astype(np.intp)
    score = scores[answer[row, column], seen[row], column]
    given = np.exp(np.fmin(np.fmax(score, -np.inf), 0))  # a score that is NaN gives nothing
    count = np.bincount(column, minlength=columns)
    total = np.bincount(column, given, columns)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(columns, np.nan), where=count > 0)
    return mean


def frame_quality(
    frame: Frame, labels: NDArray[np.uint8], surfaces: NDArray[np.float32], sure: NDArray[np.float64], gauge: Gauge
) -> FrameQuality:
    """The measures of a B-scan uint8 (H, W) with its labels uint8 (H, W) and surfaces float32 (L, W); `sure` (W,) from `certainty`."""
    counts = np.bincount((labels.astype(np.uint16) << 8 | frame).ravel(), minlength=1 << 16).reshape(256, 256)
    retina, vitreous = (counts[list(classes)].sum(axis=0) for classes in (gauge.retina, gauge.vitreous))
    rows, columns = frame.shape
    # A border that the model does not know stays where it is, inside the image.
    inner = np.full(columns, EDGE) if gauge.inner is None else surfaces[gauge.inner]
    outer = np.full(columns, rows - 1 - EDGE) if gauge.outer is None else surfaces[gauge.outer]
    found = outer > inner
    # In the nerve head no choroid lies below the retina, if there is any, but the nerve.
    nerve = np.zeros(columns, np.bool_) if gauge.disc is None else (surfaces[gauge.disc] < rows) & (surfaces[gauge.disc] == outer)
    known = sure[~np.isnan(sure)]
    return FrameQuality(
        signal=_signal(retina, vitreous, frame.size),
        greys=_range(counts.sum(axis=0)),
        saturated=float(retina[255] / retina.sum()) if retina.any() else math.nan,
        missing=float(np.mean(~found & ~nerve)),
        clipped=float(np.mean(found & ((inner < EDGE) | (outer > rows - 1 - EDGE)))),
        jumps=_jumps(np.stack([inner, outer]), found & ~nerve, gauge.jump),
        certainty=float(np.mean(known)) if len(known) else math.nan,
        checksum=float(zlib.crc32(np.ascontiguousarray(frame).data)),
    )


def _signal(retina: NDArray[np.intp], vitreous: NDArray[np.intp], pixels: int) -> float:
    """gCNR from the numbers of pixels (256,) by grey; 0 without a retina, NaN without vitreous."""
    if retina.sum() < _FEWEST * pixels:
        return 0.0
    if vitreous.sum() < _FEWEST * pixels:
        return math.nan
    return float(1 - np.minimum(retina / retina.sum(), vitreous / vitreous.sum()).sum())


def _range(greys: NDArray[np.intp]) -> float:
    """Share of the grey range that is used, from the numbers of pixels (256,) by grey."""
    darkest, brightest = np.searchsorted(np.cumsum(greys), np.array([0.001, 0.999]) * greys.sum())
    return float(brightest - darkest) / 255


def _jumps(borders: NDArray[np.floating], known: NDArray[np.bool_], most: float) -> float:
    """How often one of the borders (2, W) moves by more than `most` rows between neighbouring columns that are both known (W,)."""
    far = (np.abs(np.diff(borders, axis=1)) > most).any(axis=0)
    return float(np.sum(far & known[1:] & known[:-1]))


def measures(frames: Sequence[FrameQuality]) -> NDArray[np.float64]:
    """The measures (F, Q) of F B-scans, in the order of `MEASURES`."""
    return np.array([astuple(each) for each in frames], np.float64).reshape(-1, len(MEASURES))


def flags(frames: Sequence[FrameQuality]) -> tuple[Flag, ...]:
    """The flags of a scan from the measures of its F B-scans; `FrameQuality()` stands for one without an answer."""
    found = dict(zip(MEASURES, measures(frames).T, strict=True))
    found["drop"] = found["signal"] / _usual(found["signal"])
    found["repeated"] = np.diff(found["checksum"], prepend=np.nan) == 0
    raised = (_flag(rule, found[rule.measure]) for rule in RULES)
    return tuple(flag for flag in raised if flag is not None)


def _usual(signal: NDArray[np.float64]) -> float:
    """The median signal (F,) of a scan, NaN if that says nothing."""
    known = signal[~np.isnan(signal)]
    usual = float(np.median(known)) if len(known) >= _USUAL else 0.0
    return usual if usual > 0 else math.nan


def _flag(rule: Rule, values: NDArray[np.float64]) -> Flag | None:
    """The flag that a measure (F,) raises, if it does."""
    out = np.flatnonzero(values < rule.threshold if rule.low else values > rule.threshold)
    if not len(out):
        return None
    worst = float(values[out].min() if rule.low else values[out].max())
    where = ""
    if len(values) > 1:
        numbers = ", ".join(map(str, out[:_SHOWN])) + ", ..." * (len(out) > _SHOWN)
        where = f" in {len(out)} of {len(values)} B-scans ({numbers}, counted from 0)"
    bound = f"at {'least' if rule.low else 'most'} {rule.threshold:g} is usual"
    text = f"{rule.name}{where}: {rule.says} ({rule.measure} {worst:.2g}, {bound})"
    return Flag(rule.name, worst, rule.threshold, tuple(map(int, out)), text)
