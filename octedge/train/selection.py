"""What `selection.json` holds: every candidate's scores, its verdict and the rule it rests on.

The IoU of a source is the mean over its layers, of pixels counted over all its patients; that of a vendor the mean over its
sources. Each is the mean over the seeds. The score that ranks candidates is the mean of two: the mean IoU over the sources
and the IoU of the worst vendor.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from octedge.train.bootstrap import RESAMPLES
from octedge.train.validate import Scores, SetScores, is_layer

RULE = (
    "score = mean of the mean IoU over the sources and the IoU of the worst vendor, over all seeds; leader = highest score; "
    f"no difference = the 95 % interval of the difference to the leader, the same patients and seeds drawn for both, {RESAMPLES} times, "
    "includes 0 (where too few patients allow no interval: it is at most the recipe's noise); "
    "target = the cheapest of the leader and those no different from it"
)
Verdict = Literal["target", "no difference", "worse", "undecided", "stopped"]
Judgement = tuple[Verdict, str]  # and the reason
Results = dict[str, dict[int, Scores]]  # candidate -> seed -> scores


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value and its 95 % interval, which is missing where there are too few patients."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, form: str = ".3f") -> str:
        """`0.812 [0.790 0.833]`."""
        span = "" if self.low is None or self.high is None else f" [{self.low:{form}} {self.high:{form}}]"
        return f"{self.value:{form}}{span}"

    def may_be_none(self, noise: float) -> bool:
        """Whether a difference may be none: the interval includes 0; without one, it is at most `noise`."""
        if self.low is None or self.high is None:
            return round(abs(self.value), 9) <= noise
        return round(self.low, 9) <= 0 <= round(self.high, 9)


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A score of every seed, and their mean."""

    mean: float
    seeds: dict[int, float]

    @classmethod
    def of(cls, seeds: dict[int, float]) -> "Spread":
        return cls(float(np.mean(list(seeds.values()))), seeds)

    def text(self) -> str:
        """`0.812 (seed 1 0.810, seed 2 0.814)`."""
        return f"{self.mean:.3f} ({', '.join(f'seed {seed} {value:.3f}' for seed, value in self.seeds.items())})"


class SourceScore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source: mean IoU over its layers, and IoU of every structure group that occurs."""

    vendor: str
    patients: int
    iou: Spread | None  # None where none of its layers count, as in a source of fluid alone
    structures: dict[str, Spread]

    @classmethod
    def of(cls, seeds: Mapping[int, SetScores]) -> "SourceScore":
        """The scores of one source, by seed."""
        first = next(iter(seeds.values()))
        groups = {seed: {group: iou for group, (iou, _) in own.by_group().items()} for seed, own in seeds.items()}
        structures = {group: {seed: own[group] for seed, own in groups.items() if group in own} for group in first.groups}
        iou = Spread.of({seed: own.iou for seed, own in seeds.items()}) if all(map(scored, seeds.values())) else None
        return cls(first.vendor, len(first.patients), iou, {group: Spread.of(own) for group, own in structures.items() if own})


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trained candidate: its size and cost, its scores after `steps` steps, and what became of it.

    The differences are (this one) - (other one) of the score, at the last comparison this one took part in.
    """

    name: str
    network: str
    parameters: int
    cost: float
    steps: int
    verdict: Verdict
    reason: str
    score: Estimate
    mean: Estimate
    worst: Estimate
    worst_vendor: str
    to_leader: Estimate
    to_target: Estimate
    vendors: dict[str, Spread]
    sources: dict[str, SourceScore]
    seeds: dict[int, Scores]

    @property
    def iou(self) -> float:
        """Mean IoU over the real sources, mean over the seeds."""
        return self.mean.value

    @property
    def best(self) -> int:
        """The seed with the highest score; its weights are what is exported."""
        return max(self.seeds, key=lambda seed: score_of(self.seeds[seed]))

    def details(self) -> list[str]:
        """Lines for people: every source with its structures."""
        lines = [f"{self.name}, {self.network}, {self.steps} steps: {self.verdict}, {self.reason}"]
        for name, each in self.sources.items():
            iou = "no layers" if each.iou is None else f"IoU {each.iou.text()}"
            lines.append(f"  {name} ({each.vendor}, patients: {each.patients}): {iou}")
            lines.append("    " + ", ".join(f"{group} {value.mean:.3f}" for group, value in each.structures.items()))
        return lines


class Round(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was trained up to the same point: after `steps` of the recipe's steps, which are `trained` of a candidate's own."""

    steps: int
    trained: dict[str, int]
    scores: Results
    stayed: tuple[str, ...] = ()  # who was chosen to go on


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One comparison: after how many of the recipe's steps, the score of everybody still in training, and who stayed."""

    steps: int
    scores: dict[str, Estimate]
    stayed: tuple[str, ...]


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All candidates, the target first; then those compared to the end, best first; then those stopped early."""

    schema: int = 1
    rule: str = RULE
    steps: int
    cost_unit: str
    notes: tuple[str, ...]
    rounds: tuple[Standing, ...]
    candidates: tuple[Candidate, ...]

    @property
    def target(self) -> Candidate:
        return self.candidates[0]

    def table(self) -> str:
        """The comparison as lines for people."""
        width = max(9, *(len(each.name) for each in self.candidates))
        heads = ("mean IoU [95 %]", "worst vendor [95 %]", "score to target [95 %]")
        rows = [f"{'candidate':<{width}} {'parameters':>10} {self.cost_unit:>8}  {heads[0]:<20} {heads[1]:<20} {heads[2]:<23} verdict"]
        for each in self.candidates:
            apart = "-" if each.verdict == "target" else each.to_target.text("+.3f")
            numbers = f"{each.mean.text():<20} {each.worst.text():<20} {apart:<23}"
            rows.append(f"{each.name:<{width}} {each.parameters:>10,} {each.cost:>8.3g}  {numbers} {each.verdict}: {each.reason}")
        return "\n".join([*rows, *(f"note: {note}" for note in self.notes), f"rule: {self.rule}"])


def by_vendor(scores: Scores) -> dict[str, float]:
    """Vendor -> mean IoU over its sources, of the sources that count in selection."""
    own: dict[str, list[float]] = {}
    for each in scores.real().values():
        if scored(each):
            own.setdefault(each.vendor, []).append(each.iou)
    return {vendor: float(np.mean(values)) for vendor, values in sorted(own.items())}


def vendor_spreads(seeds: Mapping[int, Scores]) -> dict[str, Spread]:
    """Vendor -> IoU, of the vendors that every seed has scores of."""
    found = {seed: by_vendor(own) for seed, own in seeds.items()}
    vendors = sorted(set.intersection(*(set(own) for own in found.values())))
    return {vendor: Spread.of({seed: own[vendor] for seed, own in found.items()}) for vendor in vendors}


def score_of(scores: Scores) -> float:
    """The score of one trial."""
    return (scores.mean + min(by_vendor(scores).values())) / 2


def scored(each: SetScores) -> bool:
    """Whether a source has layers that were scored."""
    return any(is_layer(group) for group in each.groups) and not np.isnan(each.iou)
