"""The README's accuracy tables: the shipped bundle, through the runtime users have, on the subjects held out of its training.

python -m benchmarks.scores --data ../shared/data
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.reference import RECIPE
from octedge.edge.bundle import open_bundle
from octedge.edge.engine import open_engine
from octedge.geometry import resample_rows, scaled_rows, split, stitch
from octedge.scan import Frame
from octedge.segment import Engine, Plan, plan, segment
from octedge.train.cohort import Example, Set, Split, load
from octedge.train.recipe import read_recipe
from octedge.train.validate import Answer, Decoder, SetScores, score


@dataclass(frozen=True, slots=True)
class Change:
    """A way in which another device would show the same scan; `rows` scales the reference with the image."""

    name: str
    apply: Callable[[Frame, np.random.Generator], Frame]
    rows: float = 1.0


def _gamma(power: float) -> Callable[[Frame, np.random.Generator], Frame]:
    return lambda image, _: (255 * (image / 255) ** power).astype(np.uint8)


def _noise(looks: float, floor: float) -> Callable[[Frame, np.random.Generator], Frame]:
    def apply(image: Frame, rng: np.random.Generator) -> Frame:
        speckled = (image / 255 + floor) * rng.gamma(looks, 1 / looks, image.shape)
        return (255 * np.clip(speckled, 0, 1)).astype(np.uint8)

    return apply


def _as_it_is(image: Frame, _: np.random.Generator) -> Frame:
    return image


CHANGES = (
    Change("as they are", _as_it_is),
    Change("rows half as deep (x 2)", _as_it_is, 2.0),
    Change("rows a third less deep (x 1.5)", _as_it_is, 1.5),
    Change("rows deeper (x 0.6)", _as_it_is, 0.6),
    Change("darker (gamma 2)", _gamma(2.0)),
    Change("brighter (gamma 0.5)", _gamma(0.5)),
    Change("speckle of 4 looks", _noise(4, 0.0)),
    Change("speckle of 2 looks on a floor of 0.15", _noise(2, 0.15)),
    Change("rows x 1.5, gamma 0.6, 4 looks", lambda image, rng: _noise(4, 0.05)(_gamma(0.6)(image, rng), rng), 1.5),
)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A bundle [default: the shipped reference].")
def main(data: Path, bundle: Path | None) -> None:
    """Print the tables as Markdown."""
    opened = open_bundle(bundle)
    card = opened.card
    engine = open_engine(opened)
    split = load(read_recipe(RECIPE), data)
    sets = split.validation
    print(f"{card.id}, {engine.name}, {platform.machine()} {platform.system()}, {date.today().isoformat()}\n")
    found = score(lambda frame: _ordered(frame, engine, plan(card, len(frame))), card.structures, sets)
    for each in sets:
        _show_set(each, found.sets[each.name])
    _show_people(split, lambda frame: _ordered(frame, engine, plan(card, len(frame))), card.structures)
    _show_changes([each for each in sets if each.name != "phantoms"], engine, plan(card, 512), card.structures)


def _show_set(data: Set, scores: SetScores) -> None:
    who = ", ".join(data.patients) if len(data.patients) < 9 else "other seeds"
    print(f"**{data.name}**, {len(data.examples)} B-scans of {who}: ", end="")
    print(f"mean over layers Dice {scores.dice:.3f}, IoU {scores.iou:.3f}, boundary error {scores.boundary:.2f} px\n")
    print("| label | IoU | Dice | boundary above, px |\n|---|--:|--:|--:|")
    above = {name.split("|")[1]: value for name, value in scores.by_boundary().items()}
    for group, (iou, dice) in scores.by_group().items():
        px = above.get(group.split("+")[0])
        print(f"| {group} | {iou:.3f} | {dice:.3f} | {'' if px is None else f'{px:.2f}'} |")
    print()


def _show_people(split: Split, decoder: Decoder, structures: tuple[str, ...]) -> None:
    """Each person's scores, those trained on as well: how far a network that has seen the labels can follow the graders."""
    print("| person | trained on | Dice | boundary error, px |\n|---|---|--:|--:|")
    for part, words in ((split.train, "yes"), (split.validation, "no")):
        real = tuple(each for each in part if each.name != "phantoms")
        for name, scores in score(decoder, structures, real).sets.items():
            for person, counts in scores.patients.items():
                own = msgspec.structs.replace(scores, patients={person: counts})
                print(f"| {name} {person} | {words} | {own.dice:.3f} | {own.boundary:.2f} |")
    print()


def _show_changes(sets: list[Set], engine: Engine, how: Plan, structures: tuple[str, ...]) -> None:
    """Argmax beside the ordered decode, mean Dice over layers, and the share of columns whose argmax is out of order."""
    names = " | ".join(f"{each.name}: argmax | ordered | columns out of order" for each in sets)
    print(f"| the same scans | {names} |\n|---|{'--:|' * 3 * len(sets)}")
    for change in CHANGES:
        cells = []
        for each in (_changed(each, change) for each in sets):
            wrong = _OutOfOrder(engine, how)
            raw = score(wrong, structures, (each,)).sets[each.name].dice
            ordered = score(lambda frame: _ordered(frame, engine, how), structures, (each,)).sets[each.name].dice
            cells += [f"{raw:.3f}", f"**{ordered:.3f}**", f"{wrong.share:.1%}"]
        print(f"| {change.name} | {' | '.join(cells)} |", flush=True)


def _ordered(frame: Frame, engine: Engine, how: Plan) -> Answer:
    return Answer.of(segment(frame, engine, how), how.chain)


def _changed(data: Set, change: Change) -> Set:
    rng = np.random.default_rng(0)
    return replace(data, examples=tuple(_changed_example(each, change, rng) for each in data.examples))


def _changed_example(example: Example, change: Change, rng: np.random.Generator) -> Example:
    rows = scaled_rows(len(example.image), change.rows)
    nearest = ((np.arange(rows) + 0.5) * len(example.image) / rows).astype(int)
    surfaces = (example.surfaces + 0.5) * (rows / len(example.image)) - 0.5
    image = change.apply(resample_rows(example.image, rows), rng)
    return replace(example, image=image, reference=example.reference[nearest], surfaces=surfaces)


class _OutOfOrder:
    """Argmax as others would use it: the labels of the graph, the likeliest layer of every pixel, and per surface the rows above it."""

    def __init__(self, engine: Engine, how: Plan) -> None:
        self.engine, self.how = engine, how
        self.columns = self.wrong = 0

    @property
    def share(self) -> float:
        """Of the columns seen, how many hold a structure out of its anatomical order."""
        return self.wrong / max(1, self.columns)

    def __call__(self, frame: Frame) -> Answer:
        tiling = self.how.windowing.tiling(*frame.shape)
        order = np.array(self.how.chain.ordered, np.uint8)
        answers = [self.engine(window[None, None]) for window in split(frame, tiling)]
        labels = stitch([labels[0] for _, labels in answers], tiling)
        place = stitch([scores[0, order].argmax(axis=0).astype(np.uint8) for scores, _ in answers], tiling)
        known = np.maximum.accumulate(place, axis=0)
        self.columns += labels.shape[1]
        self.wrong += int((place < known).any(axis=0).sum())
        surfaces = np.stack([(known <= index).sum(axis=0) for index in range(len(order) - 1)])
        return Answer(labels, order[place], surfaces.astype(np.float32) - 0.5)


if __name__ == "__main__":
    main()
