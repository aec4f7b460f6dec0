"""The choice of the target among trained candidates: from pixel counts to draws, from draws to verdicts.

The scores are defined in `selection.py`, where `RULE` is the rule in words; the intervals in `bootstrap.py`. They are not
corrected for the number of candidates, and the leader, picked for its score, is likely to be a little worse than it looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from octedge.errors import UsageError
from octedge.train.bootstrap import Draws, Source, interval, observed, resample, too_few, weakness
from octedge.train.networks import build, parameters
from octedge.train.recipe import Recipe
from octedge.train.selection import Candidate, Estimate, Judgement, Results, Round, Selection, SourceScore, Standing, scored, vendor_spreads
from octedge.train.validate import Scores, SetScores, is_layer

Measure = Literal["mean", "worst", "score"]
EQUAL = 4  # decimals, by which candidates are ranked


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates after the same part of their training: their scores as they are and in every draw, None with too few patients."""

    names: tuple[str, ...]
    found: Draws
    draws: Draws | None
    few: str
    weak: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> "Comparison":
        """Compare the results.

        Raises `UsageError` where nothing was scored, or candidates on different patients or seeds.
        """
        sources = counted(results)
        few = too_few(sources)
        return cls(tuple(results), observed(sources), None if few else resample(sources), few, weakness(sources))

    def estimate(self, measure: Measure, name: str, other: str | None = None) -> Estimate:
        """A measure of a candidate, or how much higher it is than that of another, with its interval."""
        found, draws = getattr(self.found, measure), None if self.draws is None else getattr(self.draws, measure)
        own = self.names.index(name)
        value = found[:, own] if other is None else found[:, own] - found[:, self.names.index(other)]
        if draws is None:
            return Estimate(float(value[0]))
        return Estimate(float(value[0]), *interval(draws[:, own] if other is None else draws[:, own] - draws[:, self.names.index(other)]))

    def scores(self) -> dict[str, Estimate]:
        """Candidate -> score."""
        return {name: self.estimate("score", name) for name in self.names}

    def ranked(self, costs: Mapping[str, float]) -> list[str]:
        """Highest score first; of equal ones the cheaper."""
        value = dict(zip(self.names, self.found.score[0].round(EQUAL).tolist(), strict=True))
        return sorted(self.names, key=lambda name: (-value[name], costs[name]))


def decide(comparison: Comparison, costs: Mapping[str, float], noise: float) -> dict[str, Judgement]:
    """The rule: the judgement on every candidate, the target first, then by score."""
    ranked = comparison.ranked(costs)
    leader = ranked[0]
    tied = [name for name in ranked if name == leader or comparison.estimate("score", name, leader).may_be_none(noise)]
    target = min(tied, key=lambda name: costs[name])  # of equally cheap ones the first, which has the highest score
    found: dict[str, Judgement] = {target: ("target", "highest score" if target == leader else f"no difference to {leader}, cheaper")}
    for name in ranked:
        if name == target:
            continue
        if name in tied:
            found[name] = ("no difference", f"{target} is cheaper" if costs[name] > costs[target] else f"as cheap as {target}")
        elif comparison.few:
            found[name] = ("undecided", f"lower score than {leader}, no interval ({comparison.few})")
        else:
            found[name] = ("worse", f"than {leader}")
    return found


def select(recipe: Recipe, rounds: Sequence[Round], costs: Mapping[str, float], unit: str) -> Selection:
    """The judgement on everybody: those of the last round by the rule, then those who stopped, the last ones first."""
    compared = [Comparison.of(each.scores) for each in rounds]
    final = decide(compared[-1], costs, recipe.noise)
    target = next(iter(final))
    found = []
    for this, comparison in reversed(list(zip(rounds, compared, strict=True))):
        ranked = comparison.ranked(costs)
        judgements = final if this is rounds[-1] else _stopped(this, ranked)
        for name, judgement in judgements.items():
            differences = comparison.estimate("score", name, ranked[0]), comparison.estimate("score", name, target)
            known = _Known(name, costs[name], judgement, differences)
            found.append(_candidate(known, recipe, this, comparison))
    standings = [Standing(each.steps, own.scores(), each.stayed) for each, own in zip(rounds, compared, strict=True)]
    basis = "multiply-adds (10^9, one B-scan of 512 x 512); no engine was timed" if unit != "ms" else "milliseconds on the target engine"
    notes = (*compared[-1].weak, f"cost: {basis}")
    return Selection(steps=rounds[-1].steps, cost_unit=unit, notes=notes, rounds=tuple(standings), candidates=tuple(found))


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a candidate beside its scores: name, cost, judgement, differences to the leader and to the target."""

    name: str
    cost: float
    judgement: Judgement
    differences: tuple[Estimate, Estimate]


def _stopped(this: Round, ranked: Sequence[str]) -> dict[str, Judgement]:
    places = {name: place for place, name in enumerate(ranked, 1) if name not in this.stayed}
    went = f"of {len(ranked)}, {len(this.stayed)} went on"
    return {name: ("stopped", f"after {this.trained[name]} steps, number {place} {went}") for name, place in places.items()}


def _candidate(known: _Known, recipe: Recipe, this: Round, comparison: Comparison) -> Candidate:
    shape, seeds = recipe.candidates[known.name], this.scores[known.name]
    vendors = vendor_spreads(seeds)
    return Candidate(
        name=known.name,
        network=str(shape),
        parameters=parameters(build(shape, len(recipe.structures))),
        cost=known.cost,
        steps=this.trained[known.name],
        verdict=known.judgement[0],
        reason=known.judgement[1],
        score=comparison.estimate("score", known.name),
        mean=comparison.estimate("mean", known.name),
        worst=comparison.estimate("worst", known.name),
        worst_vendor=min(vendors, key=lambda name: vendors[name].mean),
        to_leader=known.differences[0],
        to_target=known.differences[1],
        vendors=vendors,
        sources={name: SourceScore.of({seed: own.sets[name] for seed, own in seeds.items()}) for name in next(iter(seeds.values())).sets},
        seeds=seeds,
    )


def counted(results: Results) -> tuple[Source, ...]:
    """The pixel counts that selection goes by: layers of the real sources, of all candidates and seeds.

    Raises `UsageError` where there are none, or where candidates were scored on different patients or seeds.
    """
    rows = [list(seeds.values()) for seeds in results.values()]
    first = rows[0][0]
    if len({tuple(seeds) for seeds in results.values()}) > 1 or any(_shape(each) != _shape(first) for row in rows for each in row):
        raise UsageError("the candidates were scored on different patients or seeds; train them anew, in a new folder, on one split")
    sources = tuple(_source(name, rows) for name, each in first.real().items() if scored(each))
    if not sources:
        raise UsageError("no layer of any validation source was scored; hold back patients with annotated layers (validation_share)")
    return sources


def _shape(scores: Scores) -> list[tuple[str, str, tuple[str, ...], list[str]]]:
    return [(name, each.vendor, each.groups, sorted(each.patients)) for name, each in scores.sets.items()]


def _source(name: str, rows: Sequence[Sequence[Scores]]) -> Source:
    first = rows[0][0].sets[name]
    table = np.array([[_counts(each.sets[name]) for each in row] for row in rows], np.int64)
    table = table[..., [is_layer(group) for group in first.groups]]
    shared, predicted, reference = np.moveaxis(table, 3, 0)
    return Source(name, first.vendor, shared, predicted + reference - shared)


def _counts(each: SetScores) -> list[tuple[tuple[int, ...], ...]]:
    """Patients in the order of their names, each with pixels shared, predicted and in the reference."""
    return [(own.shared, own.predicted, own.reference) for _, own in sorted(each.patients.items())]
