"""The model card of a trained network: what the run says of it, and what is measured on the network itself."""

import hashlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

import octedge
from octedge.card import ModelCard, Score, Source
from octedge.phantom import LOOKS, Phantom
from octedge.segment import Plan, segment
from octedge.train.fit import Trial
from octedge.train.manifest import Phantoms
from octedge.train.networks import Graph, parameters, receptive_field
from octedge.train.recipe import Recipe
from octedge.train.select import read_split
from octedge.train.validate import Scores, TorchEngine

HEIGHTS = (256, 512, 1024, 2048)  # what B-scans of today's devices are padded to: 200 to 2048 rows
WEAK = 0.7  # a Dice below this is named in the card


def make_card(recipe: Recipe, trial: Trial, graph: Graph, run: Path) -> ModelCard:
    """The card of a trained network, but for what is found out when its files are made: golden answers and precisions."""
    shape = recipe.candidates[trial.name]
    grid = 1 << shape.downs
    scores = _scores(msgspec.json.decode((trial.folder(run) / "scores.json").read_bytes(), type=Scores))
    reach = receptive_field(graph, grid)
    overlap = -(-(2 * reach + 1) // grid) * grid
    card = ModelCard(
        id=f"{recipe.name}-{trial.name}-{_digest(graph)}",
        structures=recipe.structures,
        window=1 << (2 * overlap - 1).bit_length(),
        overlap=overlap,
        downs=shape.downs,
        exact=False,
        receptive_field=reach,
        axial_um=recipe.axial_um,
        heights=tuple(height for height in HEIGHTS if height >= grid),
        architecture=str(shape),
        parameters=parameters(graph),
        software={"octedge": octedge.__version__, "torch": version("torch")},
        sources=_sources(recipe, run),
        scores=scores,
        caveats=_caveats(recipe, run, scores),
        licence="Apache-2.0 for the weights; the sources' own terms apply to the scans they were trained on",
    )
    return msgspec.structs.replace(card, exact=tiles_exactly(graph, card))


def _digest(graph: Graph) -> str:
    digest = hashlib.sha256()
    for value in graph.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:8]


def tiles_exactly(graph: Graph, card: ModelCard) -> bool:
    """Whether the card's windows give the labels of the whole width, label for label, on wide phantoms and on noise."""
    engine = TorchEngine(graph)
    look = replace(LOOKS["spectralis"], columns=2 * card.window + 52)
    noise = np.random.default_rng(1).integers(0, 256, (256, 2 * card.window + 37), np.uint8)
    for frame in (Phantom(look, 1, 7100, "R", "wide", True).bscan(0).image, noise):
        whole = segment(frame, engine, Plan(card.chain, replace(card.windowing, window=1 << 14)))
        tiled = segment(frame, engine, Plan(card.chain, card.windowing))
        if not np.array_equal(whole.labels, tiled.labels):
            return False
    return True


def _sources(recipe: Recipe, run: Path) -> tuple[Source, ...]:
    records = {each.source: each for each in read_split(run)["train"]}
    found = []
    for source in recipe.source:
        record = records[source.name]
        licence, origin = ("Apache-2.0", "made by octedge") if isinstance(source, Phantoms) else (source.licence, source.origin)
        counts = {"patients": len(record.patients), "bscans": record.bscans}
        found.append(Source(name=source.name, licence=licence, labels=record.groups, origin=origin, **counts))
    return tuple(found)


def _scores(scores: Scores) -> tuple[Score, ...]:
    found = []
    for source, each in scores.sets.items():
        above = {name.split("|")[1]: value for name, value in each.by_boundary().items()}
        for group, (iou, dice) in each.by_group().items():
            px = above.get(group.split("+")[0])
            px = None if px is None else round(px, 3)
            found.append(Score(source=source, label=group, iou=round(iou, 4), dice=round(dice, 4), boundary_px=px))
    return tuple(found)


def _caveats(recipe: Recipe, run: Path, scores: tuple[Score, ...]) -> tuple[str, ...]:
    """What no real scan has taught it, what it finds badly, and who was held back."""
    split = read_split(run)
    real = {group for each in split["train"] if each.source != "phantoms" for group in each.groups}
    unseen = [key for key in recipe.structures if key not in real and not _separated(key, real)]
    held = "; ".join(f"{each.source}: {', '.join(each.patients)}" for each in split["validation"] if each.source != "phantoms")
    basis = f"No real label separates {', '.join(unseen)} from their neighbours: these rest on phantoms."
    weak = ", ".join(f"{each.label} ({each.source}, {each.dice:.2f})" for each in scores if each.dice < WEAK)
    return (
        basis if unseen else "Every structure has real labels.",
        f"Found badly, Dice below {WEAK}: {weak}." if weak else f"Every class is found with a Dice of at least {WEAK}.",
        f"Scores are of the held-out {held}; phantoms of other seeds."
        " The candidates were compared, and the schedule settled, on the same scans.",
        "All real scans are from one vendor's device (Spectralis), of few subjects; other devices were not scored here.",
        "A mean over scans says nothing about one scan: look at the overlay.",
    )


def _separated(key: str, groups: set[str]) -> bool:
    """Whether real groups together set a structure apart: alone in one, or the only one that two groups share or differ by."""
    sets = [frozenset(group.split("+")) for group in groups]
    alone = frozenset([key])
    return any(a & b == alone or a - b == alone for a in sets for b in sets)
