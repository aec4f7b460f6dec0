"""The report of a run: one HTML page with everything in it, to be opened anywhere, offline.

Scores come from the run's `scores.json`; the validation set is segmented once more with the target's weights for what the
scores do not keep, and the page says whether both agree. Of patients it shows running numbers alone.
"""

import platform
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import jinja2
import msgspec
import numpy as np
from numpy.typing import NDArray

from octedge.errors import UsageError
from octedge.geometry import Windowing
from octedge.ordered import Chain
from octedge.segment import Plan, segment
from octedge.train.cohort import Set, load
from octedge.train.evidence import WHISKERS, Agreement, Box, Evidence, gather
from octedge.train.fit import Trial, load_weights
from octedge.train.manifest import Phantoms
from octedge.train.progress import Say
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.report_gallery import gallery, legend
from octedge.train.report_plots import Points, bland_altman, boxes, curves, data_uri, forest
from octedge.train.report_tables import BLUE, ORANGE, boundary_rows, confusion_rows, heat_map, number, shade, words
from octedge.train.select import SplitRecord, read_selection, read_split
from octedge.train.selection import Selection
from octedge.train.validate import Answer, Decoder, Scores, TorchEngine

SAME = 5e-4  # IoU; scores that differ by more when segmented once more are pointed out


class Point(msgspec.Struct, frozen=True):
    """A line of `history.jsonl`; a NaN was written as null."""

    step: int
    loss: float | None
    iou: float | None


@dataclass(frozen=True, slots=True)
class Study:
    """What a page is made of: the run's own files, and what its target makes of the validation set.

    `axial_um`: source -> depth of its rows in um, for the sources of which it is known.
    """

    name: str
    recipe: Recipe
    split: dict[str, tuple[SplitRecord, ...]]
    selection: Selection
    scores: Scores
    histories: dict[str, dict[int, tuple[Point, ...]]]
    evidence: tuple[Evidence, ...]
    decoder: Decoder
    axial_um: dict[str, float]

    @property
    def real(self) -> tuple[Evidence, ...]:
        """The sources that count in selection."""
        return tuple(each for each in self.evidence if each.data.name in self.scores.real())


def study(run: Path, data: Path, say: Say, axial_um: dict[str, float]) -> Study:
    """Read a run and segment its validation set, which lies below `data`, with the weights of its target.

    Raises `UsageError` where the run has not finished, `data` holds other scans, or a depth of rows is of no source.
    """
    recipe, split, selection = read_recipe(run / "recipe.json"), read_split(run), read_selection(run)
    names = [source.name for source in recipe.source]
    for name, um in axial_um.items():
        if name not in names or not um > 0:
            raise UsageError(f"axial_um of {name} is {um:g} um; needed is one of the sources {', '.join(names)} and a depth above 0")
    target = Trial(selection.target.name, selection.target.best)
    scores, decoder = _scores(target.folder(run)), target_decoder(run, recipe, target)
    histories = {each.name: {seed: _history(Trial(each.name, seed).folder(run)) for seed in each.seeds} for each in selection.candidates}
    evidence = []
    for each in _validation(recipe, data, split["validation"]):
        say(f"{each.name}: segmenting {len(each.examples)} B-scans")
        evidence.append(gather(decoder, recipe.structures, each))
    return Study(run.resolve().name, recipe, split, selection, scores, histories, tuple(evidence), decoder, axial_um)


def target_decoder(run: Path, recipe: Recipe, target: Trial) -> Decoder:
    """The target behind the `segment` of the runtime, whole width, as validation scores it."""
    shape = recipe.candidates[target.name]
    how = Plan(Chain.of(recipe.structures), Windowing(1 << 14, 0, 1 << shape.downs))
    engine = TorchEngine(load_weights(target.folder(run), shape, len(recipe.structures)))
    return lambda frame: Answer.of(segment(frame, engine, how), how.chain)


def _validation(recipe: Recipe, data: Path, records: tuple[SplitRecord, ...]) -> list[Set]:
    sources = tuple(msgspec.structs.replace(each, count=0) if isinstance(each, Phantoms) else each for each in recipe.source)
    found = load(msgspec.structs.replace(recipe, source=sources), data).validation
    for each, record in zip(found, records, strict=True):
        if (each.patients, len(each.examples)) != (record.patients, record.bscans):
            got = f"{record.source}: {len(each.examples)} B-scans of {len(each.patients)} patients to validate on"
            raise UsageError(f"{got}, the run had {record.bscans} of {len(record.patients)}; give --data as when it was trained")
    return [each for each in found if each.examples]


def _scores(folder: Path) -> Scores:
    try:
        return msgspec.json.decode((folder / "scores.json").read_bytes(), type=Scores)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{folder.name}: no readable scores.json ({error}); let `octedge train` finish (--resume)") from error


def _history(folder: Path) -> tuple[Point, ...]:
    try:
        return tuple(msgspec.json.decode(line, type=Point) for line in (folder / "history.jsonl").read_bytes().splitlines())
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(f"{folder.parent.name}/{folder.name}: no readable history.jsonl ({error}); train the run anew") from error


def page(found: Study) -> str:
    """The HTML of a study."""
    template = files("octedge.train").joinpath("report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": number, "blue": lambda value: shade(value, BLUE), "orange": lambda value: shade(value, ORANGE)}
    environment.globals |= {"words": words}
    target = found.selection.target
    return environment.from_string(template).render(
        run=found, scores=found.scores, target=target, shape=found.recipe.candidates[target.name],
        versions=versions(), held=held_out(found), difference=difference(found), same=SAME, whiskers=WHISKERS,
        forest=_forest(found.selection), curves=_curves(found), heat=heat_map(found.scores),
        sources=[_source(found, each) for each in found.evidence],
        gallery=gallery(found.decoder, found.recipe.structures, found.real),
        legends=[(each.data.name, legend(each.data)) for each in found.real], ranked=sum(len(each.worst()) for each in found.real),
    )  # fmt: skip


def versions() -> dict[str, str]:
    """What the page was made with."""
    return {"Python": platform.python_version(), **{name: version(name) for name in ("octedge", "torch", "numpy", "matplotlib")}}


def held_out(found: Study) -> list[dict[str, object]]:
    """Per source: where it comes from, and how many patients and B-scans were trained on and held back."""
    rows = zip(found.recipe.source, found.split["train"], found.split["validation"], strict=True)
    return [
        {
            "source": source, "train": train, "held": held, "um": found.axial_um.get(source.name),
            "vendor": source.name if isinstance(source, Phantoms) else source.vendor,
            "licence": "synthetic" if isinstance(source, Phantoms) else source.licence,
        }
        for source, train, held in rows
    ]  # fmt: skip


def difference(found: Study) -> float:
    """The largest difference in IoU between `scores.json` and the validation set segmented once more."""
    pairs = [(found.scores.sets[each.data.name].overlaps().iou, each.overlaps.iou) for each in found.evidence]
    apart = [abs(float(old) - float(new)) for before, after in pairs for old, new in zip(before, after, strict=True) if old == old]
    return max((value if value == value else 1.0 for value in apart), default=0.0)


def _forest(selection: Selection) -> dict[str, str]:
    scores = {each.name: (each.score.value, each.score.low, each.score.high) for each in selection.candidates}
    words = "; ".join(f"{each.name} {each.score.text()}" for each in selection.candidates)
    return {"uri": data_uri(forest(scores)), "alt": f"Selection score of every candidate with its 95 % interval: {words}"}


def _curves(found: Study) -> list[dict[str, str]]:
    compared = tuple(each.steps for each in found.selection.rounds if each.steps < found.recipe.steps)
    out = []
    for field, label in (("loss", "training loss (no unit)"), ("iou", "validation IoU (0 to 1)")):
        lines: dict[str, Points] = {
            name: {seed: _values(points, field) for seed, points in seeds.items()} for name, seeds in found.histories.items()
        }
        lines = {name: seeds for name, seeds in lines.items() if any(seeds.values())}
        ends = "; ".join(f"{name} ends at {_end(seeds):.3f}" for name, seeds in lines.items())
        out.append({"uri": data_uri(curves(lines, label, compared)), "alt": f"{label} over training steps: {ends}"})
    return out


def _values(points: tuple[Point, ...], field: str) -> dict[int, float]:
    return {each.step: value for each in points if (value := getattr(each, field)) is not None}


def _end(seeds: Points) -> float:
    """The mean of the seeds' last values."""
    last = [points[max(points)] for points in seeds.values() if points]
    return sum(last) / len(last)


def _source(found: Study, evidence: Evidence) -> dict[str, object]:
    """One source's sections: boundary errors, confusion, thickness."""
    name, um = evidence.data.name, found.axial_um.get(evidence.data.name)
    scores = found.scores.sets[name]
    spread = {boundary: Box.of(errors) for boundary, errors in evidence.errors.items()}
    ends = "; ".join(f"{each} median {box.median:+.2f}, middle half {box.first:+.2f} to {box.third:+.2f}" for each, box in spread.items())
    return {
        "name": name, "vendor": scores.vendor, "um": um, "bscans": len(evidence.dice), "boundaries": boundary_rows(scores),
        "boxes": {"uri": data_uri(boxes(spread, um)), "alt": f"Signed boundary errors in {name} in px: {ends}"} if spread else None,
        "groups": evidence.data.groups, "confusion": confusion_rows(evidence.data.groups, evidence.confusion),
        "thickness": [_thickness(name, group, pairs, um) for group, pairs in evidence.thickness.items()],
    }  # fmt: skip


def _thickness(name: str, group: str, pairs: NDArray[np.float64], um: float | None) -> dict[str, object]:
    found = Agreement.of(pairs)
    limits = f"bias {found.bias:+.2f} px, limits of agreement {found.low:+.2f} to {found.high:+.2f} px, {found.n} B-scans"
    alt = f"Bland-Altman plot of the thickness of {group} in {name}: {limits}"
    return {"group": group, "uri": data_uri(bland_altman(pairs, words(group), um)), "alt": alt}
