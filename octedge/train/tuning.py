"""What `latency.json` and `tune.json` of a tuning's folder hold: what was measured, every trial, and the choice."""

import msgspec

from octedge.train.networks import Shape

SCHEMA = 1


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured before any training: `ms` of every shape by its name, `where`, and the steps every trial is given."""

    schema: int = SCHEMA
    where: str
    steps: int
    ms: dict[str, float]


class Tried(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One trial: its shape, its training windows in columns, its latency in ms, IoU by steps trained, and why it stopped ("": never)."""

    name: str
    shape: Shape
    window: int
    parameters: int
    ms: float
    iou: dict[int, float] = {}
    stopped: str = ""

    @property
    def last(self) -> float:
        """IoU after the last rung it reached; NaN where it was never trained."""
        return self.iou[max(self.iou)] if self.iou else float("nan")


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All trials of a run, fastest first, and which one was chosen by the rule and why."""

    schema: int = SCHEMA
    target: str
    where: str
    budget_ms: float
    steps: int
    rungs: tuple[int, ...]
    noise: float
    chosen: str
    reason: str
    trials: tuple[Tried, ...]

    @property
    def finished(self) -> tuple[Tried, ...]:
        """The trials that were trained to the end."""
        return tuple(each for each in self.trials if not each.stopped)

    def table(self) -> str:
        """The trials as lines for people."""
        rows = [f"{'trial':<22} {'ms':>8} {'parameters':>10} {'IoU after ' + ', '.join(map(str, self.rungs)):<28} stopped"]
        for each in self.trials:
            found = " ".join(f"{each.iou[rung]:.4f}" for rung in self.rungs if rung in each.iou)
            why = "chosen" if each.name == self.chosen else each.stopped
            rows.append(f"{each.name:<22} {each.ms:>8.1f} {each.parameters:>10,} {found:<28} {why}")
        return "\n".join(rows)
