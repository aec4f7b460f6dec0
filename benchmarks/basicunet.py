"""Our training against MONAI's BasicUNet with DiceCE, trained as its tutorials train: the same scans, minutes and cores.

    python -m benchmarks.basicunet --data ../shared/data --run runs/basicunet --minutes 8

A network with one label set takes the finest labels that all sources share, and calls what is not graded background; ours
learns from each source's own labels. Neither gets phantoms. People are halved: each half is tested by networks that
were trained on the other one, so that every person is scored once. What counts is the mean Dice over the shared layers,
ours after the ordered decode, theirs by argmax of `sliding_window_inference`, which is what its users get; and of the same
network the ordered decode as well, to tell what training gives from what the decode does.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.facts import facts
from benchmarks.reference import RECIPE
from octedge.geometry import Windowing, labels_from_surfaces
from octedge.metrics import IGNORED
from octedge.ordered import Chain, decode
from octedge.scan import Frame
from octedge.segment import Plan, segment
from octedge.train.bootstrap import RESAMPLES, draw, interval
from octedge.train.cohort import Set, Split, load
from octedge.train.fit import Course, Trial, load_weights
from octedge.train.manifest import Phantoms
from octedge.train.networks import Family
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.select import train_all
from octedge.train.validate import Answer, Decoder, Scores, TorchEngine, score

HALVES = (
    {"duke-dme": ("sub01", "sub02"), "octlayers": ("Subject1", "Subject2", "Subject3")},
    {"duke-dme": ("sub03", "sub04", "sub05"), "octlayers": ("Subject4", "Subject5", "Subject6", "Subject7")},
)
SHARED = ("vitreous", "nfl", "gcl+ipl", "inl", "opl", "onl+elm+mz", "ez+os+rpe", "choroid+sclera", "fluid")
LAYERS = SHARED[1:7]
# What BasicUNet learns: the shared layers, fluid, and a background that is all the rest.
CLASSES = ("background", *LAYERS, "fluid")
SIDE, SAMPLES, SCANS = 256, 4, 2  # as many pixels in a batch as the recipe's
CONTENDERS = ("octedge", "BasicUNet, ordered decode", "BasicUNet")


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Folder for the runs; finished ones are not done again.")
@click.option("--minutes", default=8.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Of every training.")
@click.option("--candidate", help="Which candidate of the recipe [default: the first].")
def main(data: Path, run: Path, minutes: float, candidate: str | None) -> None:
    """Train what is missing of the four networks, then print the table as Markdown."""
    recipe = read_recipe(RECIPE)
    name = candidate or next(iter(recipe.candidates))
    sources = tuple(each for each in recipe.source if not isinstance(each, Phantoms))
    recipe = msgspec.structs.replace(
        recipe, source=sources, candidates={name: recipe.candidates[name]}, rungs=(), seeds=recipe.seeds[:1], minutes_per_trial=minutes
    )
    found: dict[str, list[Scores]] = {contender: [] for contender in CONTENDERS}
    for number, held in enumerate(HALVES, 1):
        half = msgspec.structs.replace(recipe, source=tuple(msgspec.structs.replace(each, validation=held[each.name]) for each in sources))
        split = load(half, data)
        tested = tuple(shared(each) for each in split.validation)
        ours = _ours(half, split, run / f"half{number}")
        theirs = _theirs(split, run / f"half{number}" / "basicunet.pt", minutes)
        ordered, raw = (_decoder(theirs, answer) for answer in (_ordered, _raw))
        for contender, decoder, classes in zip(CONTENDERS, (ours, ordered, raw), (recipe.structures, SHARED, SHARED), strict=True):
            found[contender].append(score(decoder, classes, tested))
    print(f"{name} {recipe.candidates[name]}; every training {minutes:g} min; {facts()}\n")
    show({contender: _people(scores) for contender, scores in found.items()})


def shared(data: Set) -> Set:
    """A set graded in the shared groups alone, without surfaces."""
    becomes = np.full(256, IGNORED, np.uint8)
    becomes[: len(data.groups)] = [SHARED.index(_holder(group)) for group in data.groups]
    none = [np.full((len(SHARED) - 2, each.image.shape[1]), np.nan) for each in data.examples]
    pairs = zip(data.examples, none, strict=True)
    return replace(
        data, groups=SHARED, examples=tuple(replace(each, reference=becomes[each.reference], surfaces=nan) for each, nan in pairs)
    )


def _holder(group: str) -> str:
    """The shared group that a source's group is part of."""
    return next(each for each in SHARED if set(group.split("+")) <= set(each.split("+")))


def _ours(recipe: Recipe, split: Split, run: Path) -> Decoder:
    name, shape = next(iter(recipe.candidates.items()))
    if not (run / "selection.json").exists():
        train_all(Course(recipe, split, _say), run)
    graph = load_weights(Trial(name, recipe.seeds[0]).folder(run), shape, len(recipe.structures))
    how, engine = _plan(recipe.structures, shape), TorchEngine(graph)
    return lambda frame: Answer.of(segment(frame, engine, how), how.chain)


def _plan(structures: tuple[str, ...], shape: Family) -> Plan:
    return Plan(Chain.of(structures), Windowing(1 << 14, 0, 1 << shape.downs))


def _theirs(split: Split, path: Path, minutes: float) -> nn.Module:
    """BasicUNet as it is, trained as MONAI's segmentation tutorials do: crops around the foreground, flips, shifts of the
    intensity, DiceCELoss, Adam."""
    from monai.losses.dice import DiceCELoss
    from monai.networks.nets.basic_unet import BasicUNet

    torch.manual_seed(1)
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=len(CLASSES))
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    began, step, losses = time.monotonic(), 0, []
    for step, batch in enumerate(_crops(split), 1):
        if (spent := time.monotonic() - began) > 60 * minutes:
            break
        optimiser.zero_grad()
        loss = loss_of(network(batch["image"]), batch["label"])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % 20 == 0:
            _say(f"BasicUNet step {step} loss {np.mean(losses[-20:]):.3f} {spent / step:.2f} s/step, {minutes - spent / 60:.0f} min left")
    _say(f"BasicUNet: {step} steps in {minutes:g} min")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network.eval()


def _crops(split: Split) -> Iterator[Mapping[str, torch.Tensor]]:
    """Batches without end, as long as the training takes."""
    from monai.data.dataloader import DataLoader
    from monai.data.dataset import Dataset
    from monai.transforms.compose import Compose
    from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld, SpatialPadd
    from monai.transforms.intensity.dictionary import RandScaleIntensityd, RandShiftIntensityd
    from monai.transforms.spatial.dictionary import RandFlipd
    from monai.transforms.utility.dictionary import EnsureTyped
    from monai.utils.misc import set_determinism

    set_determinism(1)
    both = ("image", "label")
    change = Compose([
        SpatialPadd(both, (SIDE, SIDE)),
        RandCropByPosNegLabeld(both, "label", (SIDE, SIDE), num_samples=SAMPLES),
        RandFlipd(both, prob=0.5, spatial_axis=1),
        RandScaleIntensityd("image", factors=0.1, prob=0.5),
        RandShiftIntensityd("image", offsets=0.1, prob=0.5),
        EnsureTyped(both),
    ])  # fmt: skip
    scans = [
        {"image": (each.image / np.float32(255))[None], "label": _background(each.reference)[None].astype(np.float32)}
        for data in map(shared, split.train)
        for each in data.examples
    ]
    loader = DataLoader(Dataset(scans, change), batch_size=SCANS, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True)
    while True:
        yield from loader


def _background(reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shared groups (H, W) as `CLASSES`: what is no layer and no fluid, or not graded, is background."""
    becomes = np.zeros(256, np.uint8)
    for index, group in enumerate(SHARED):
        becomes[index] = CLASSES.index(group) if group in CLASSES else 0
    return becomes[reference]


def _decoder(network: nn.Module, answer: Callable[[NDArray[np.float32]], Answer]) -> Decoder:
    from monai.inferers.utils import sliding_window_inference

    @torch.inference_mode()
    def decoder(frame: Frame) -> Answer:
        image: Any = torch.from_numpy(frame / np.float32(255))[None, None]
        logits = sliding_window_inference(image, (SIDE, SIDE), 4, network, overlap=0.5, mode="gaussian")
        return answer(logits.log_softmax(1)[0].numpy())  # type: ignore[union-attr]

    return decoder


def _raw(scores: NDArray[np.float32]) -> Answer:
    """Argmax; below what was called fluid lies the likeliest layer. Background counts as vitreous, which is not scored."""
    becomes = np.array([SHARED.index(each) if each in SHARED else 0 for each in CLASSES], np.uint8)
    return Answer(becomes[scores.argmax(0)], becomes[scores[:-1].argmax(0)], np.full((len(SHARED) - 2, scores.shape[2]), np.nan))


def _ordered(scores: NDArray[np.float32]) -> Answer:
    """The ordered decode of the same scores; the background's are those of vitreous and of choroid alike."""
    chain = Chain.of(SHARED)
    labels, surfaces = decode(np.concatenate([scores[:7], scores[:1], scores[7:]]), chain)
    order = np.array(chain.ordered, np.uint8)
    return Answer(labels, order[labels_from_surfaces(surfaces, len(labels))], surfaces)


People = dict[tuple[str, str], float]


def _people(scores: list[Scores]) -> People:
    """(source, person) -> mean Dice over the shared layers."""
    found: People = {}
    for each in scores:
        for source, own in each.sets.items():
            for person, counts in own.patients.items():
                found[source, person] = msgspec.structs.replace(own, patients={person: counts}).dice
    return found


def show(found: Mapping[str, People]) -> None:
    """A row per person, the means, and how much better ours is, with the interval of people drawn anew."""
    print(f"| source | person, held out | {' | '.join(found)} |\n|---|---|{'--:|' * len(found)}")
    people = sorted(next(iter(found.values())))
    for source, person in people:
        print(f"| {source} | {person} | {' | '.join(f'{own[source, person]:.3f}' for own in found.values())} |")
    for source in dict.fromkeys(source for source, _ in people):
        inside = [each for each in people if each[0] == source]
        means = " | ".join(f"**{np.mean([own[each] for each in inside]):.3f}**" for own in found.values())
        print(f"| {source} | **mean of {len(inside)}** | {means} |")
    print()
    ours = found[CONTENDERS[0]]
    for other in CONTENDERS[1:]:
        low, high, mean = margin(ours, found[other])
        verdict = "better" if low > 0 else "worse" if high < 0 else "no difference that the people here can show"
        print(f"octedge against {other}: {mean:+.3f} Dice, 95 % interval {low:+.3f} to {high:+.3f}: {verdict}")


def margin(ours: People, theirs: People) -> tuple[float, float, float]:
    """Low, high and mean of the paired difference, each source weighing the same, people drawn anew within sources."""
    rng = np.random.default_rng(0)
    means, draws = [], []
    for source in sorted({source for source, _ in ours}):
        gaps = np.array([ours[each] - theirs[each] for each in sorted(ours) if each[0] == source])
        taken = draw(len(gaps), RESAMPLES, rng)
        means.append(gaps.mean())
        draws.append(taken @ gaps / taken.sum(1))
    return (*interval(np.mean(draws, axis=0)), float(np.mean(means)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
