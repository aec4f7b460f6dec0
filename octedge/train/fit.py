"""The training loop, visible from top to bottom, and the run folder it leaves.

A run folder holds the recipe, and for each candidate its checkpoint, its history and its scores:
`recipe.json`, and in `CANDIDATE/seed1`: `weights.pt`, `state.pt` (to resume), `history.jsonl`, `scores.json`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from octedge.errors import UsageError
from octedge.train.cohort import Split
from octedge.train.losses import marginal
from octedge.train.networks import Family, Graph, build
from octedge.train.recipe import Recipe
from octedge.train.sampling import Batch, Sampler
from octedge.train.validate import Scores, validate

Say = Callable[[str], None]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 5 % of the steps, then half a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


@dataclass(slots=True)
class Training:
    """What a resumed run needs: network, averaged network, optimiser, and the next step."""

    graph: Graph
    average: Graph
    optimiser: torch.optim.Optimizer
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the state so that a kill at any time leaves the old or the new file, never half of one."""
        partial = path.with_suffix(".partial")
        state = {name: getattr(self, name).state_dict() for name in ("graph", "average", "optimiser")}
        torch.save({**state, "step": self.step}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a saved state."""
        state = torch.load(path, weights_only=True)
        for name in ("graph", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def start(shape: Family, recipe: Recipe, seed: int) -> Training:
    """A fresh training."""
    torch.manual_seed(seed)
    graph, average = build(shape, len(recipe.structures)), build(shape, len(recipe.structures))
    average.load_state_dict(graph.state_dict())
    average.eval()
    graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Training(graph, average, torch.optim.AdamW(graph.parameters(), lr=recipe.rate, weight_decay=recipe.decay))


@dataclass(frozen=True, slots=True)
class Trial:
    """One training: a candidate of the recipe, and the seed of its weights and samples."""

    name: str
    seed: int

    def folder(self, run: Path) -> Path:
        """Where its files lie in a run."""
        return run / self.name / f"seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Course:
    """What candidates are trained by: recipe, split, who hears of progress, and whether stopped ones go on."""

    recipe: Recipe
    split: Split
    say: Say
    resume: bool = False


def fit(trial: Trial, course: Course, folder: Path, until: int | None = None) -> Scores:
    """Train one candidate and leave its files in `folder`; returns the scores of its averaged weights.

    With `until` it stops after that many of the recipe's steps, to be gone on with by a course that resumes.
    """
    recipe, split, say = course.recipe, course.split, course.say
    end = min(until or recipe.steps, recipe.steps)
    folder.mkdir(parents=True, exist_ok=True)
    shape = recipe.candidates[trial.name]
    training = start(shape, recipe, trial.seed)
    state = folder / "state.pt"
    if course.resume and state.exists():
        training.load(state)
        if training.step >= end and (folder / "scores.json").exists():
            return msgspec.json.decode((folder / "scores.json").read_bytes(), type=Scores)
    sampler = Sampler(split.train, recipe, trial.seed)
    if not sampler.sets:
        raise UsageError("no source has B-scans left to train on; hold fewer patients back")
    began, first, recent = time.monotonic(), training.step, []
    scores = None
    with (folder / "history.jsonl").open("ab" if course.resume else "wb") as history:
        for batch in _ahead(sampler, training.step, end):
            recent.append(train_step(training, batch, recipe))
            if training.step % 50 == 0:
                pace = (time.monotonic() - began) / (training.step - first)
                say(f"{trial} {_progress(training.step, end, float(np.mean(recent[-50:])), pace)}")
            if training.step % recipe.validate_every == 0 or training.step == end:
                scores = validate(training.average, shape, recipe.structures, split.validation)
                line = {"step": training.step, "loss": float(np.mean(recent[-50:])), "iou": scores.mean}
                history.write(msgspec.json.encode(line) + b"\n")
                history.flush()
                training.save(state)
                say(f"{trial} step {training.step}: {scores.line()}")
    if scores is None:
        scores = validate(training.average, shape, recipe.structures, split.validation)
    torch.save(training.average.state_dict(), folder / "weights.pt")
    (folder / "scores.json").write_bytes(msgspec.json.format(msgspec.json.encode(scores), indent=1))
    return scores


def _ahead(sampler: Sampler, step: int, steps: int) -> Iterator[Batch]:
    """The batches from `step` on, each made in a second thread while the one before it is trained on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(sampler.batch, step)
        for following in range(step + 1, steps + 1):
            batch = coming.result()
            if following < steps:
                coming = pool.submit(sampler.batch, following)
            yield batch


def train_step(training: Training, batch: Batch, recipe: Recipe) -> float:
    """One step: forward, marginal loss, backward, update, moving average. Returns the loss."""
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(training.step, recipe.steps, recipe.rate)
    training.graph.train()
    images = torch.from_numpy(batch.images).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
        logits = training.graph.logits(images)
    loss = marginal(logits, torch.from_numpy(batch.tables), torch.from_numpy(batch.reference))
    training.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(training.graph.parameters(), 1.0)
    training.optimiser.step()
    training.step += 1
    _update_average(training.average, training.graph, min(recipe.average, training.step / (training.step + 10)))
    return float(loss.detach())


@torch.no_grad()
def _update_average(average: Graph, graph: Graph, keep: float) -> None:
    new: dict[str, Tensor] = graph.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name].to(value.dtype), 1 - keep)
        else:
            value.copy_(new[name])


def _progress(step: int, steps: int, loss: float, pace: float) -> str:
    return f"step {step}/{steps} loss {loss:.3f} {pace:.2f} s/step {pace * (steps - step) / 60:.0f} min left"


def load_weights(folder: Path, shape: Family, classes: int) -> Graph:
    """The trained network of a run, ready to evaluate.

    Raises `UsageError` where the run has not finished.
    """
    path = folder / "weights.pt"
    if not path.exists():
        raise UsageError(f"{folder.name}: no weights.pt; the candidate has not finished training (use --resume)")
    graph = build(shape, classes)
    graph.load_state_dict(torch.load(path, weights_only=True))
    return graph.eval()
