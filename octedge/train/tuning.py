"""What `tune.json` in a tuning's folder holds: what was measured before any training. All else is in the files of any run."""

import msgspec

SCHEMA = 1


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The target that was varied, the budget, and what every shape of the grid costs: `ms` by its name, measured `where`."""

    schema: int = SCHEMA
    target: str
    where: str
    budget_ms: float
    ms: dict[str, float]

    @property
    def over(self) -> dict[str, float]:
        """The shapes that cost more than the budget, fastest first: none of them is trained."""
        return {name: ms for name, ms in sorted(self.ms.items(), key=lambda each: each[1]) if ms > self.budget_ms}
