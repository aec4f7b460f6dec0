"""A run folder to a bundle: ONNX, card, golden answers, model card in words, checksums; nothing is written before it agrees with torch."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

import octedge
from export.model_card import model_card
from export.to_onnx import to_graph, write_onnx
from octedge.card import ModelCard, Score, Source, encode_card
from octedge.edge.bundle import write_sums
from octedge.edge.ort import OrtEngine
from octedge.errors import ModelError, UsageError
from octedge.phantom import LOOKS, Phantom
from octedge.scan import Frame
from octedge.segment import Engine, Layers, Plan, plan, segment
from octedge.train.fit import Trial, load_weights
from octedge.train.manifest import Phantoms
from octedge.train.networks import Graph, parameters, receptive_field
from octedge.train.recipe import Recipe, read_recipe
from octedge.train.select import read_selection, read_split
from octedge.train.validate import Scores, TorchEngine

AGREEMENT = 0.9999
WEAK = 0.7  # a Dice below this is named in the card
Say = Callable[[str], None]


def export(run: Path, bundle: Path, candidate: str | None, say: Say) -> ModelCard:
    """Export a run's target (or the named candidate) to the folder `bundle`.

    Raises `UsageError` for an unfinished run, `ModelError` where ONNX Runtime's labels differ from torch's.
    """
    recipe = read_recipe(run / "recipe.json")
    trial = _trial(run, candidate)
    shape = recipe.candidates[trial.name]
    graph = load_weights(trial.folder(run), shape, len(recipe.structures))
    card = _card(recipe, trial, graph, run)
    tiling = "exact" if card.exact else "whole only"
    say(f"{card.id}: {card.parameters:,} parameters, sees {card.receptive_field} columns to each side, {tiling}")
    frames = golden_frames()
    answers = [segment(frame, TorchEngine(graph), plan(card, len(frame))) for frame in frames]
    golden = _golden(frames, answers)
    card = msgspec.structs.replace(card, golden=hashlib.sha256(golden).hexdigest())
    bundle.mkdir(parents=True, exist_ok=True)
    write_onnx(to_graph(graph, shape.downs), card, bundle / "model.onnx")
    equal = _compare(OrtEngine(bundle / "model.onnx", card), card, frames, [answer.labels for answer in answers])
    say(f"labels equal to torch's on {equal:.4%} of the pixels of {len(frames)} golden frames")
    if equal < AGREEMENT:
        what = f"ONNX Runtime gives torch's label for {equal:.4%} of the golden pixels; needed are {AGREEMENT:.2%}"
        raise ModelError(f"{what}; do not ship this bundle, look for an operator that {card.architecture} uses and the runtime rounds")
    (bundle / "golden.npz").write_bytes(golden)
    (bundle / "card.json").write_bytes(encode_card(card))
    (bundle / "MODEL_CARD.md").write_text(model_card(card), encoding="utf-8", newline="\n")
    write_sums(bundle)
    return card


def _trial(run: Path, candidate: str | None) -> Trial:
    """The target, or the named candidate, by its best seed."""
    selection = read_selection(run)
    found = {each.name: each for each in selection.candidates}
    name = candidate or selection.target.name
    if name not in found:
        raise UsageError(f"the run has no candidate {name!r}; it has {', '.join(found)}")
    return Trial(name, found[name].best)


def golden_frames() -> list[Frame]:
    """Narrow phantom B-scans in every look, macula and disc, one with fluid, of widths on and off the grid."""
    frames = []
    for index, look in enumerate(sorted(LOOKS)):
        narrow = replace(LOOKS[look], columns=(128, 147, 96)[index % 3])
        phantom = Phantom(narrow, 1, 7000 + index, "R", "disc" if index % 2 else "macula", index == 0)
        frames.append(phantom.bscan(0).image)
    return frames


def _golden(frames: list[Frame], answers: list[Layers]) -> bytes:
    """`golden.npz`: the frames with their reference answers."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, (frame, answer) in enumerate(zip(frames, answers, strict=True)):
        arrays |= {f"frame_{index}": frame, f"labels_{index}": answer.labels, f"surfaces_{index}": answer.surfaces}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _compare(engine: Engine, card: ModelCard, frames: list[Frame], labels: list[Frame]) -> float:
    """The share of pixels with the given labels, all frames together."""
    found = [segment(frame, engine, plan(card, len(frame))).labels for frame in frames]
    return sum(int((a == b).sum()) for a, b in zip(found, labels, strict=True)) / sum(each.size for each in labels)


def _card(recipe: Recipe, trial: Trial, graph: Graph, run: Path) -> ModelCard:
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
        heights=tuple(sorted(set(recipe.sampling.heights))),
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
