"""What a training is at one step, and the one file that holds it: replaced whole, so that a kill at any time loses little.

Everything that decides how a run goes on is in `state.pt`: weights, averaged weights, optimiser, the validations so far
and the weights of the best one. The run's other files are made from it.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning_fabric import Fabric
from torch import Tensor

from octedge.errors import OutputError, UsageError
from octedge.results.files import write_bytes, write_json
from octedge.train.networks import Graph
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.validate import Scores

RECENT = 50  # steps whose losses are averaged for people and for the history


class Validation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The scores of the averaged network after `step` steps, and the mean loss of the steps before."""

    step: int
    loss: float
    scores: Scores

    def line(self) -> bytes:
        """What the history says of it."""
        return msgspec.json.encode({"step": self.step, "loss": self.loss, "iou": self.scores.mean}) + b"\n"


def best(history: list[Validation]) -> Validation:
    """The validation with the highest mean IoU, of equal ones the first; the last one where there is no IoU."""
    found = history[0]
    for each in history[1:]:
        if not each.scores.mean <= found.scores.mean:  # True also where the IoU is not a number: nothing was there to score
            found = each
    return found


def exhausted(history: list[Validation], patience: int) -> bool:
    """Whether the last `patience` validations brought no gain."""
    return 0 < patience <= len(history) - 1 - history.index(best(history)) if history else False


@dataclass(slots=True)
class Training:
    """A training at one step: the network, its averaged twin, the optimiser, and what has been seen so far."""

    fabric: Fabric
    recipe: Recipe
    graph: Graph
    average: Graph
    optimiser: torch.optim.Optimizer
    step: int = 0
    saved: int = 0
    losses: list[Tensor] = field(default_factory=list)  # since the last `settle`, still on the device
    recent: list[float] = field(default_factory=list)
    history: list[Validation] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)  # averaged weights of the best validation

    @property
    def loss(self) -> float:
        """Mean loss of the last steps."""
        return math.fsum(self.recent) / max(1, len(self.recent))

    def settle(self) -> None:
        """Bring the losses of the last steps from the device, meant over all processes.

        Raises `UsageError` where the training has run away: nothing of it has been saved.
        """
        if self.losses:
            means = self.fabric.all_reduce(torch.stack(self.losses), reduce_op="mean")
            assert isinstance(means, Tensor)
            values: list[float] = means.tolist()
            for step, value in enumerate(values, self.step - len(values) + 1):
                self._require(math.isfinite(value), f"the loss is {value} at step {step}")
            self.recent = [*self.recent, *values][-RECENT:]
            self.losses.clear()
        finite = torch.stack([value.isfinite().all() for value in self.graph.parameters()]).all()
        self._require(bool(finite), f"weights are not finite at step {self.step}")

    def _require(self, fine: bool, what: str) -> None:
        if not fine:
            kept = f"the checkpoint of step {self.saved} stays" if self.saved else "there is no checkpoint yet"
            raise UsageError(f'{what}; train anew with a lower rate (now {self.recipe.rate:g}) or precision = "fp32"; {kept}')

    def judge(self, scores: Scores) -> None:
        """Note a validation; keep the weights if they are the best so far."""
        self.history.append(Validation(self.step, self.loss, scores))
        if best(self.history).step == self.step:
            self.kept = {name: value.clone() for name, value in self.average.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write state and history so that a kill at any time leaves the old or the new file, never half of one."""
        state = {name: getattr(self, name).state_dict() for name in ("graph", "average", "optimiser")}
        state |= {"scaler": self.fabric.strategy.precision.state_dict(), "step": self.step, "recent": self.recent, "kept": self.kept}
        state |= {"history": msgspec.json.encode(self.history).decode(), "recipe": msgspec.json.encode(self.recipe).decode()}
        kept = f"the checkpoint of step {self.saved} stays, --resume goes on from it" if self.saved else "there is no checkpoint yet"
        try:
            write_bytes(folder / "state.pt", _packed(state))
            self.saved = self.step
            write_bytes(folder / "history.jsonl", b"".join(each.line() for each in self.history))
        except OutputError as error:
            raise OutputError(f"{error}; {kept}") from error

    def leave(self, folder: Path) -> None:
        """Write what a finished training leaves: the weights of the best validation, its scores, the history."""
        write_bytes(folder / "history.jsonl", b"".join(each.line() for each in self.history))
        write_json(folder / "scores.json", best(self.history).scores)
        write_bytes(folder / "weights.pt", _packed({name: value.cpu() for name, value in self.kept.items()}))

    def load(self, path: Path) -> None:
        """Go on from a saved state.

        Raises `UsageError` where it cannot be read or was made by another recipe.
        """
        try:
            if not zipfile.is_zipfile(path):
                raise EOFError
            state = torch.load(path, map_location="cpu", weights_only=True)
            made_by = msgspec.json.decode(state["recipe"], type=Recipe)
            self.history = msgspec.json.decode(state["history"], type=list[Validation])
        except (OSError, RuntimeError, EOFError, KeyError, msgspec.DecodeError) as error:
            what = f"{path}: not a checkpoint of this octedge ({type(error).__name__})"
            raise UsageError(f"{what}; put a copy of it back, or train without --resume") from error
        other = difference(made_by, self.recipe)
        if other:
            raise UsageError(f"{path}: another recipe made it: {other}; give the run's own recipe, or another --out")
        for name in ("graph", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.step, self.saved, self.recent, self.kept = state["step"], state["step"], state["recent"], state["kept"]


def _packed(state: dict[str, object]) -> bytes:
    """As torch writes it; in memory first, because torch's own writer ends the process on a full disk."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def difference(first: Recipe, second: Recipe) -> str:
    """The first field in which two recipes differ, with both values; empty where they are the same."""
    before, now = (msgspec.json.decode(msgspec.json.encode(recipe)) for recipe in (first, second))
    return next(_differences("", before, now), "")


def _differences(path: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            yield from _differences(f"{path}.{key}" if path else key, before.get(key), now.get(key))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{path}[{index}]", *pair)
    elif before != now:
        yield f"{path} was {before!r}, is {now!r}"


def refuse_another(recipe: Recipe, run: Path) -> None:
    """Raise `UsageError` where the run in a folder was made by another recipe than the one it shall go on with."""
    path = run / "recipe.json"
    other = difference(read_recipe(path), recipe) if path.exists() else ""
    if other:
        raise UsageError(f"{path}: the run was begun with another recipe: {other}; go on with {path}, or train to another --out")


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a killed process has left."""
    for left in folder.glob(".octedge-*.tmp"):
        left.unlink(missing_ok=True)
