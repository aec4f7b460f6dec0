"""The training loop, visible from top to bottom, and the run folder it leaves.

A run folder holds the recipe, and for each candidate its checkpoint, its history and its scores:
`recipe.json`, and in `CANDIDATE/seed1`: `state.pt` (to resume), `history.jsonl`, and of a finished training `weights.pt`
and `scores.json`: those of the validation with the highest IoU, which need not be the last.

Several processes: `torchrun --nproc-per-node GPUS -m octedge train ...`. Each takes its share of every batch, the first
one validates and writes. Batch norm looks at the whole batch on GPUs, at each process's own part on CPUs.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from octedge.errors import UsageError
from octedge.flow import side_by_side
from octedge.results.files import make_folder
from octedge.train.checkpoint import Training, best, exhausted, sweep
from octedge.train.cohort import Set, Split
from octedge.train.losses import marginal
from octedge.train.machine import launch, memory_errors
from octedge.train.networks import Family, Graph, build
from octedge.train.progress import Progress, Say, quiet
from octedge.train.recipe import Recipe
from octedge.train.sampling import Batch, Sampler
from octedge.train.validate import Scores, validate

TELL_EVERY = 50  # steps; losses are looked at as often


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
    """What candidates are trained by: recipe, split, who hears of progress, and whether stopped ones go on.

    `workers` threads make batches (0: the loop itself); `tensorboard` draws curves. Neither changes the result.
    """

    recipe: Recipe
    split: Split
    say: Say
    resume: bool = False
    workers: int = 1
    tensorboard: bool = False


def fit(trial: Trial, course: Course, folder: Path, until: int | None = None) -> Scores:
    """Train one candidate and leave its files in `folder`; returns the best scores of its averaged weights.

    With `until` it stops after that many of the recipe's steps, with a validation, to be gone on with by a course that
    resumes; returned are the best scores up to there. Killed at any time and resumed, it ends with the same weights.
    """
    recipe, split = course.recipe.of(trial.name), course.split
    end = min(until or recipe.steps, recipe.steps)
    make_folder(folder)
    training = start(recipe, trial)
    first_process = training.fabric.is_global_zero
    if course.resume and (folder / "state.pt").exists():
        training.load(folder / "state.pt")
    if first_process:
        sweep(folder)
    progress = Progress(
        str(trial),
        course.say if first_process else quiet,
        training,
        end,
        folder / "tensorboard" if course.tensorboard and first_process else None,
    )
    sampler = draw_from(split.train, recipe, trial.seed, training.fabric.world_size)
    batches = side_by_side(sampler.batch, range(training.step, end), course.workers)
    with memory_errors(f"{trial}, {_batch_size(recipe)}"), closing(progress), closing(batches):
        for batch in batches:
            if exhausted(training.history, recipe.patience):
                break
            training.losses.append(train_step(training, batch))
            validating = training.step % recipe.validate_every == 0 or training.step == end
            saving = validating or training.step % recipe.save_every == 0
            if saving or training.step % TELL_EVERY == 0:
                training.settle()
                if validating:
                    examine(training, trial, split.validation)
                if saving and first_process:
                    training.save(folder)
                progress.tell(training)
        if not training.history:  # resumed from beyond the end, before the first validation
            examine(training, trial, split.validation)
    if first_process:
        training.leave(folder)
    training.fabric.barrier()
    return best([each for each in training.history if each.step <= end] or training.history).scores


def start(recipe: Recipe, trial: Trial) -> Training:
    """A fresh training, on the device that is there."""
    fabric = launch(recipe.precision)
    shape, classes = recipe.candidates[trial.name], len(recipe.structures)
    torch.manual_seed(trial.seed)
    graph, average = build(shape, classes), build(shape, classes)
    average.load_state_dict(graph.state_dict())
    graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        graph = nn.SyncBatchNorm.convert_sync_batchnorm(graph)  # type: ignore[no-untyped-call]
    optimiser = torch.optim.AdamW(graph.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    graph, optimiser = fabric.setup(graph, optimiser)
    graph.mark_forward_method("logits")
    fabric.to_device(average)
    return Training(fabric, recipe, graph, average.eval(), optimiser)


def draw_from(sets: tuple[Set, ...], recipe: Recipe, seed: int, processes: int) -> Sampler:
    """Who draws the batches.

    Raises `UsageError` where there is nothing to draw, or less in a batch than processes.
    """
    if not any(each.examples and each.share > 0 for each in sets):
        raise UsageError("no source has B-scans left to train on; hold fewer patients back")
    fewest = max(1, recipe.sampling.pixels // (max(recipe.sampling.heights) * recipe.sampling.window))
    if fewest < processes:
        raise UsageError(f"a batch has as few as {fewest} windows for {processes} processes; raise sampling.pixels or start fewer")
    return Sampler(sets, recipe, seed)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 5 % of the steps, then half a cosine down to zero."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def train_step(training: Training, batch: Batch) -> Tensor:
    """One step: forward, marginal loss, backward, update, moving average. Returns the loss, on its device.

    Of the batch, process r of n takes the samples r, r + n, ... and its loss weighs as they are many, so that the mean of
    all gradients is that of the batch.
    """
    fabric, recipe, graph = training.fabric, training.recipe, training.graph
    images, tables, reference = (_own(fabric, values) for values in (batch.images, batch.tables, batch.reference))
    for group in training.optimiser.param_groups:
        group["lr"] = learning_rate(training.step, recipe.steps, recipe.rate)
    graph.train()
    with fabric.autocast():  # Fabric's own calls of a marked method leave it out where nothing wraps the network
        logits = graph.logits(images.contiguous(memory_format=torch.channels_last))
    loss = marginal(logits, tables, reference, recipe.loss) * (len(images) * fabric.world_size / len(batch.images))
    training.optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    fabric.clip_gradients(graph, training.optimiser, max_norm=1.0, error_if_nonfinite=False)
    training.optimiser.step()
    training.step += 1
    _update_average(training.average, graph, min(recipe.average, training.step / (training.step + 10)))
    return loss.detach()


def _own(fabric: Fabric, values: np.ndarray) -> Tensor:
    """This process's samples of the batch, on its device."""
    return fabric.to_device(torch.from_numpy(values[fabric.global_rank :: fabric.world_size]))


@torch.no_grad()
def _update_average(average: Graph, graph: Graph, keep: float) -> None:
    new: dict[str, Tensor] = graph.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name].to(value.dtype), 1 - keep)
        else:
            value.copy_(new[name])


class _OnHost(Graph):
    """A network on any device that takes and gives the host's arrays, as validation does."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores, labels = super().forward(image.to(next(self.parameters()).device))
        return scores.cpu(), labels.cpu()


def examine(training: Training, trial: Trial, sets: tuple[Set, ...]) -> None:
    """Validate the averaged network: the first process does, the others wait for the scores."""
    recipe, fabric, scores = training.recipe, training.fabric, None
    if fabric.is_global_zero:
        scores = validate(_OnHost(training.average.network), recipe.candidates[trial.name], recipe.structures, sets)
    scores = fabric.broadcast(scores)
    assert scores is not None
    training.judge(scores)


def _batch_size(recipe: Recipe) -> str:
    sampling = recipe.sampling
    count = max(1, sampling.pixels // (min(sampling.heights) * sampling.window))
    size = f"{count} windows of {min(sampling.heights)} x {sampling.window}"
    return f"batches of {sampling.pixels} pixels ({size}); lower sampling.pixels, or the candidate's kernels"


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
