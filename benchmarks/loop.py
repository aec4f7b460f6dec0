"""The training loop against a plain torch loop: windows per second of both, and how long the loop waits for its samples.

    python -m benchmarks.loop --steps 20 --rounds 5
    python -m benchmarks.loop --recipe recipes/reference.toml --data ../shared/data

The plain loop has its batches in memory and does nothing but forward, loss, backward and update, channels last, mixed
precision as the device has it. The training loop draws its samples, clips, averages and schedules as well. Both run in
turns, so that a busy machine is as hard on one as on the other.
"""

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import torch

from octedge.flow import side_by_side
from octedge.train.checkpoint import Training
from octedge.train.cohort import load
from octedge.train.fit import Trial, draw_from, start, train_step
from octedge.train.losses import marginal
from octedge.train.manifest import Phantoms
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.sampling import Batch, Sampler

WORKERS = (0, 1, 2)
OWN = Recipe(
    name="loop", source=(Phantoms(count=16, validation_count=1),), candidates={"wide": UNet(convs=3, kernels=16, downs=4, widest=72)}
)


@dataclass(frozen=True, slots=True)
class Timed:
    """A contender's turn: windows trained on, seconds in all and seconds spent waiting for samples."""

    windows: int
    seconds: float
    waited: float

    @property
    def pace(self) -> float:
        """Windows per second."""
        return self.windows / self.seconds


def timed(batches: Iterator[Batch], step: Callable[[Batch], object]) -> Timed:
    """One turn over the batches."""
    windows, waited, began = 0, 0.0, time.perf_counter()
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        step(batch)
        windows += len(batch.images)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timed(windows, time.perf_counter() - began, waited)


def plain_step(training: Training, batch: Batch) -> torch.Tensor:
    """What a step cannot do without."""
    device = training.fabric.device
    images, tables, reference = (torch.from_numpy(values).to(device) for values in (batch.images, batch.tables, batch.reference))
    training.graph.train()
    with training.fabric.autocast():
        logits = training.graph.logits(images.contiguous(memory_format=torch.channels_last))
    loss = marginal(logits, tables, reference, training.recipe.loss)
    training.optimiser.zero_grad(set_to_none=True)
    training.fabric.backward(loss)
    training.optimiser.step()
    return loss.detach()


def require_equal(recipe: Recipe, name: str, batch: Batch) -> None:
    """Both loops must learn the same from the same batch before their speed is compared."""
    losses = [float(step(start(recipe, Trial(name, 1)), batch)) for step in (plain_step, train_step)]
    if abs(losses[0] - losses[1]) > 1e-3:
        raise SystemExit(f"the loops differ: loss {losses[0]} and {losses[1]} on one batch")


def compare(recipe: Recipe, sampler: Sampler, steps: int, rounds: int) -> dict[str, list[Timed]]:
    """Every contender in turn, `rounds` times, over the same steps; a first turn of each warms up and does not count."""
    name = next(iter(recipe.candidates))
    in_memory = [sampler.batch(step) for step in range(steps)]
    require_equal(recipe, name, in_memory[0])
    found: dict[str, list[Timed]] = {contender: [] for contender in ("plain", *(f"{count} threads" for count in WORKERS))}
    states = {contender: start(recipe, Trial(name, 1)) for contender in found}
    for turn in range(rounds + 1):
        taken = {"plain": timed(iter(in_memory), lambda batch: plain_step(states["plain"], batch))}
        for count in WORKERS:
            state = states[f"{count} threads"]
            with closing(side_by_side(sampler.batch, range(steps), count)) as batches:
                taken[f"{count} threads"] = timed(batches, lambda batch, state=state: train_step(state, batch))  # type: ignore[misc]
        for contender, each in taken.items() if turn else ():
            found[contender].append(each)
    return found


@click.command()
@click.option("--recipe", "path", type=click.Path(path_type=Path), help="Another recipe than the built-in one of phantoms.")
@click.option("--data", default=".", type=click.Path(path_type=Path), help="Folder that the recipe's folders lie in.")
@click.option("--steps", default=20, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--json", "to", type=click.Path(path_type=Path), help="File for the numbers.")
def main(path: Path | None, data: Path, steps: int, rounds: int, to: Path | None) -> None:
    """Print windows per second, the ratio to the plain loop, and the share of time spent waiting for samples."""
    recipe = read_recipe(path) if path else OWN
    found = compare(recipe, draw_from(load(recipe, data).train, recipe, 1, 1), steps, rounds)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(f"{device}, torch {torch.__version__}, {steps} steps, {rounds} rounds, medians")
    print(f"{'loop':<12} {'windows/s':>10} {'of plain':>9} {'waiting':>8}")
    rows = {}
    for contender, turns in found.items():
        ratio = median(each.pace / plain.pace for each, plain in zip(turns, found["plain"], strict=True))
        waiting = median(each.waited / each.seconds for each in turns)
        rows[contender] = {"windows_per_s": median(each.pace for each in turns), "of_plain": ratio, "waiting": waiting}
        print(f"{contender:<12} {rows[contender]['windows_per_s']:>10.2f} {ratio:>9.3f} {waiting:>8.1%}")
    if to:
        to.write_text(json.dumps({"device": device, "steps": steps, "rounds": rounds, "loops": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
