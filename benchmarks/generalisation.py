"""How well what is learnt carries over: to people never seen, to another source, from merged labels to full ones.

    python -m benchmarks.generalisation folds   --data ../shared/data --run runs/folds     every eye and subject held out once
    python -m benchmarks.generalisation crossed --data ../shared/data --run runs/crossed   train on one source, test on the other
    python -m benchmarks.generalisation merged  --data ../shared/data --run runs/merged    merged labels against full ones

Each is several trainings of a candidate of the reference recipe, hours on two cores; a stopped one goes on where it was. Whoever is
tested is looked at once, when the training has ended: nothing is chosen by them.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click
import msgspec
import numpy as np

from benchmarks.reference import RECIPE
from octedge.metrics import IGNORED
from octedge.train.cohort import Set, Split, load
from octedge.train.fit import Course, Trial, fit
from octedge.train.labelmaps import merge_table, ordered_groups
from octedge.train.manifest import AnySource, Phantoms
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.validate import Counts, Scores, SetScores

# Who is held out together: one Duke eye and one or two octlayers subjects; each once.
FOLDS = tuple(
    {"duke-dme": (f"sub{eye:02d}",), "octlayers": subjects}
    for eye, subjects in enumerate((("Subject1", "Subject6"), ("Subject2", "Subject7"), ("Subject3",), ("Subject4",), ("Subject5",)), 1)
)
# Two ways of merging neighbours that no pair of sets here has; together they still tell all regions apart.
MERGES = (("nfl+gcl+ipl", "inl+opl", "ez+os+rpe"), ("gcl+ipl+inl", "opl+onl+elm+mz"))


@click.command()
@click.argument("what", type=click.Choice(["folds", "crossed", "merged"]))
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with duke-dme and octlayers.")
@click.option("--run", required=True, type=click.Path(path_type=Path), help="Folder for the runs.")
@click.option("--steps", type=click.IntRange(1), help="Steps of every training [default: the recipe's].")
@click.option("--candidate", help="Which candidate of the recipe [default: the first].")
@click.option("--lowered", type=click.FloatRange(0, 1), help="Share of changed samples with more vitreous [default: the recipe's].")
@click.option("--only", help="One training alone, by the name of its folder.")
def main(  # noqa: PLR0913 - one per option
    what: str, data: Path, run: Path, steps: int | None, candidate: str | None, lowered: float | None, only: str | None
) -> None:
    """Train what is missing of the runs, then print the table as Markdown."""
    recipe = read_recipe(RECIPE)
    name = candidate or next(iter(recipe.candidates))
    steps = steps or recipe.steps
    recipe = msgspec.structs.replace(
        recipe,
        candidates={name: recipe.candidates[name]},
        source=tuple(msgspec.structs.replace(each, validation_count=0) if isinstance(each, Phantoms) else each for each in recipe.source),
        rungs=(),
        seeds=recipe.seeds[:1],
        steps=steps,
        validate_every=steps,
    )
    if lowered is not None:
        recipe = msgspec.structs.replace(recipe, sampling=msgspec.structs.replace(recipe.sampling, lowered=lowered))
    variants = {"folds": folds, "crossed": crossed, "merged": merged}[what](recipe, data)
    found = {variant: _train(changed, split, run / variant) for variant, changed, split in variants if only in (None, variant)}
    if not found:
        raise click.BadParameter(f"{only!r} is no training of {what}; leave it out, and the folders of the run show their names")
    print(f"{name} {recipe.candidates[name]}, {recipe.steps} steps each\n")
    (show_folds if what == "folds" else show)(found)


Variant = tuple[str, Recipe, Split]


def folds(recipe: Recipe, data: Path) -> Iterator[Variant]:
    """One model for all sources per fold, tested on people it has not seen."""
    for index, held in enumerate(FOLDS, 1):
        sources = tuple(msgspec.structs.replace(each, validation=held[each.name]) if each.name in held else each for each in recipe.source)
        changed = msgspec.structs.replace(recipe, source=sources)
        yield f"fold{index}", changed, load(changed, data)


def crossed(recipe: Recipe, data: Path) -> Iterator[Variant]:
    """Trained on one real source alone, tested on all of the other: with and without phantoms and augmentation."""
    for own in [each.name for each in recipe.source if not isinstance(each, Phantoms)]:
        for phantoms in (False, True):
            for augment in (False, True):
                changed = _alone(recipe, own, phantoms, augment)
                yield f"{own}{'-phantoms' * phantoms}{'-augmented' * augment}", changed, load(changed, data)


def _alone(recipe: Recipe, own: str, phantoms: bool, augment: bool) -> Recipe:
    sources: list[AnySource] = []
    for each in recipe.source:
        if isinstance(each, Phantoms):
            sources.append(msgspec.structs.replace(each, share=each.share * phantoms))
        else:
            sources.append(msgspec.structs.replace(each, part="train" if each.name == own else "validation", validation=()))
    plain = {"sampling": msgspec.structs.replace(recipe.sampling, augment=augment)}
    shares = {name: share for name, share in recipe.finish.shares.items() if phantoms or name != "phantoms"}
    finish = msgspec.structs.replace(recipe.finish, shares=shares)
    return msgspec.structs.replace(recipe, source=tuple(sources), finish=finish, **plain)


def merged(recipe: Recipe, data: Path) -> Iterator[Variant]:
    """octlayers alone: full labels; the same with half of the people merged in one way and half in another; scored on full labels."""
    sources = tuple(each for each in recipe.source if each.name == "octlayers")
    changed = msgspec.structs.replace(recipe, source=sources, finish=type(recipe.finish)())
    split = load(changed, data)
    (full,) = split.train
    yield "full", changed, split
    yield "merged", changed, replace(split, train=tuple(_merge(full, merges, index) for index, merges in enumerate(MERGES)))


def _merge(data: Set, merges: tuple[str, ...], part: int) -> Set:
    """Every second patient of a set, its groups merged where `merges` holds them."""
    inside = {group: merge for merge in merges for group in data.groups if set(group.split("+")) <= set(merge.split("+"))}
    groups = ordered_groups({inside.get(group, group) for group in data.groups})
    table = merge_table(data.groups, groups)
    becomes = np.full(256, IGNORED, np.uint8)
    becomes[: len(data.groups)] = table.argmax(axis=0)
    patients = data.patients[part :: len(MERGES)]
    examples = tuple(replace(each, reference=becomes[each.reference]) for each in data.examples if each.patient in patients)
    return replace(data, name=f"{data.name}-{part + 1}", groups=groups, examples=examples, share=data.share / len(MERGES))


def _train(recipe: Recipe, split: Split, run: Path) -> Scores:
    trial = Trial(next(iter(recipe.candidates)), recipe.seeds[0])
    return fit(trial, Course(recipe, split, _say, resume=True), trial.folder(run))


def show(found: Mapping[str, Scores]) -> None:
    """A row per variant and tested source."""
    print("| trained on | tested on | Dice | IoU | boundary error, px |\n|---|---|--:|--:|--:|")
    for variant, scores in found.items():
        for source, each in scores.real().items():
            print(f"| {variant} | {source} | {each.dice:.3f} | {each.iou:.3f} | {each.boundary:.2f} |")


def show_folds(found: Mapping[str, Scores]) -> None:
    """A row per person held out, and the mean over people."""
    print("| source | held out | Dice | IoU | boundary error, px |\n|---|---|--:|--:|--:|")
    for source in FOLDS[0]:
        people: dict[str, SetScores] = {}
        for scores in found.values():
            each = scores.sets[source]
            people |= {patient: _one(each, patient, counts) for patient, counts in each.patients.items()}
        for patient, each in sorted(people.items()):
            print(f"| {source} | {patient} | {each.dice:.3f} | {each.iou:.3f} | {each.boundary:.2f} |")
        dice, iou, boundary = (np.mean([getattr(each, name) for each in people.values()]) for name in ("dice", "iou", "boundary"))
        print(f"| {source} | **mean of {len(people)}** | **{dice:.3f}** | **{iou:.3f}** | **{boundary:.2f}** |")


def _one(scores: SetScores, patient: str, counts: Counts) -> SetScores:
    return msgspec.structs.replace(scores, patients={patient: counts})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
