"""A run folder to a bundle: ONNX in every precision that stays true, card, golden answers, model card in words, checksums."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import onnx

from export.card import make_card
from export.fp16 import to_fp16
from export.golden import answered, encode_golden, held_out_frames, phantom_frames
from export.int8 import to_int8
from export.model_card import model_card
from export.to_onnx import to_graph, write_onnx
from octedge.card import ModelCard, Precision, encode_card
from octedge.edge.bundle import SUMS, Golden, write_sums
from octedge.edge.certificate import compare, shortfall
from octedge.edge.ort import OrtEngine
from octedge.edge.variant import FILES
from octedge.errors import ModelError, UsageError
from octedge.results.files import make_folder, write_bytes
from octedge.scan import Frame
from octedge.segment import Engine, plan, segment
from octedge.train.calibrate import fitted, observe
from octedge.train.cohort import Set, Split
from octedge.train.fit import Trial, load_weights
from octedge.train.labelmaps import same_surfaces
from octedge.train.recipe import read_recipe
from octedge.train.select import read_selection
from octedge.train.validate import Answer, TorchEngine, score

CALIBRATION = 12  # B-scans of every source
FITTED = 6  # to fit the temperature on
CHECKED = 6  # of these, to measure what int8 changes
SEED = 9000  # of the phantoms to measure that on
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scans:
    """A run's annotated B-scans: those trained on calibrate int8, the held-out ones score the precisions.

    If they `travel`, some held-out ones become golden frames of the bundle; else phantoms alone do.
    """

    split: Split
    travel: bool


def export(run: Path, bundle: Path, candidate: str | None, scans: Scans | None, say: Say) -> ModelCard:
    """Export a run's target (or the named candidate) to the folder `bundle`; without scans, no int8.

    Raises `UsageError` for an unfinished run, `ModelError` where ONNX Runtime's labels differ from torch's.
    """
    recipe = read_recipe(run / "recipe.json")
    trial = _trial(run, candidate)
    shape = recipe.candidates[trial.name]
    graph = load_weights(trial.folder(run), shape, len(recipe.structures))
    card = make_card(recipe, trial, graph, run)
    tiling = "exact" if card.exact else "whole only"
    say(f"{card.id}: {card.parameters:,} parameters, sees {card.receptive_field} columns to each side, {tiling}")
    frames = phantom_frames()
    if scans is not None and scans.travel:
        real = held_out_frames(scans.split.validation)
        say(f"{len(real)} held-out B-scans travel in the bundle as golden frames: it goes where those may go")
        frames += real
    engine = TorchEngine(graph)
    if scans is not None:
        card = msgspec.structs.replace(card, temperature=_temperature(engine, card, scans.split.train))
        say(f"standard deviations of surfaces fit the errors at temperature {card.temperature:g}")
    golden = answered(frames, engine, card)
    return write_bundle(bundle, to_graph(graph, shape.downs), card, golden, scans, say)


def _temperature(engine: Engine, card: ModelCard, sets: tuple[Set, ...]) -> float:
    """The temperature that fits the errors on the real sources' training B-scans, or on phantoms', where there is no other; 0 for none."""
    graded = [each for each in sets if each.examples and same_surfaces(card.structures, each.groups)[0]]
    real = [each for each in graded if each.name != "phantoms"] or graded
    return fitted({each.name: observe(each, FITTED, engine, partial(plan, card), card.structures) for each in real}) if real else 0.0


def _trial(run: Path, candidate: str | None) -> Trial:
    """The target, or the named candidate, by its best seed."""
    selection = read_selection(run)
    found = {each.name: each for each in selection.candidates}
    name = candidate or selection.target.name
    if name not in found:
        raise UsageError(f"the run has no candidate {name!r}; it has {', '.join(found)}")
    return Trial(name, found[name].best)


def write_bundle(  # noqa: PLR0913 - what a bundle is made of
    folder: Path, fp32: onnx.ModelProto, card: ModelCard, golden: list[Golden], scans: Scans | None, say: Say
) -> ModelCard:
    """Write all files of a bundle: fp32, and of fp16 and int8 what passes its gate; older files of a bundle there are replaced.

    Raises `ModelError` where ONNX Runtime's fp32 labels differ from the reference ones; the folder is then as it was.
    """
    packed = encode_golden(golden)
    card = msgspec.structs.replace(card, golden=hashlib.sha256(packed).hexdigest(), precisions=())
    graphs = {"fp32": fp32, "fp16": to_fp16(fp32)}
    in_float: dict[str, tuple[str, ...]] = {}
    if scans is not None:
        frames = calibration_frames(scans.split.train)
        say(f"calibrating int8 on {len(frames)} B-scans of the training set, and measuring which convolutions need floating point")
        try:
            graphs["int8"], in_float["int8"] = to_int8(fp32, card, frames, _checked(frames))
        except ModelError as error:
            say(f"int8 is left out: {error}")
    measured = _measured(graphs, card, golden, scans)
    kept: list[Precision] = []
    for name, (equal, p99_px, iou_loss) in measured.items():
        fault = shortfall(name, equal, p99_px, iou_loss)
        loss = "" if iou_loss is None else f", mean IoU on held-out scans {-iou_loss:+.5f}"
        say(f"{name}: {equal:.4%} of the golden labels as torch, surfaces within {p99_px:.2f} px (99th percentile){loss}")
        if fault and name == "fp32":
            raise ModelError(f"{fault}; do not ship this bundle, look for an operator that {card.architecture} uses and the runtime rounds")
        if fault:
            say(f"{name} is left out: {fault}")
        elif name != "fp32":
            kept.append(Precision(name=name, equal=equal, p99_px=p99_px, iou_loss=iou_loss, in_float=in_float.get(name, ())))
    card = msgspec.structs.replace(card, precisions=tuple(kept))
    _write(folder, {name: graphs[name] for name in ("fp32", *(each.name for each in kept))}, card, packed)
    return card


def _measured(
    graphs: dict[str, onnx.ModelProto], card: ModelCard, golden: list[Golden], scans: Scans | None
) -> dict[str, tuple[float, float, float | None]]:
    """Precision -> share of golden labels as the reference, 99th percentile of surface differences in px, loss of mean IoU against fp32."""
    found: dict[str, tuple[float, float, float | None]] = {}
    iou = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            path = Path(folder) / FILES[name]
            write_onnx(graph, card, path, name)
            engine = OrtEngine(path, card, precision=name)
            difference = compare(golden, engine, card)
            loss = None
            if scans is not None:
                iou[name] = _iou(engine, card, scans.split.validation)
                loss = round(iou["fp32"] - iou[name], 5)
            found[name] = (difference.equal, difference.p99_px, loss)
    return found


def _iou(engine: Engine, card: ModelCard, sets: tuple[Set, ...]) -> float:
    """The mean IoU over the real sources' held-out B-scans, as selection counts it."""

    def decode(frame: Frame) -> Answer:
        return Answer.of(segment(frame, engine, plan(card, len(frame))), card.chain)

    return score(decode, card.structures, sets).mean


def calibration_frames(sets: tuple[Set, ...]) -> list[Frame]:
    """B-scans of every source trained on, spread over its people; never a held-out one."""
    frames = []
    for each in sets:
        ranked = sorted(each.examples, key=lambda example: (example.patient, example.name))
        count = min(CALIBRATION, len(ranked))
        frames += [ranked[index * len(ranked) // count].image for index in range(count)]
    return frames


def _checked(frames: list[Frame]) -> list[Frame]:
    """Some of the B-scans, and narrow phantoms of every look that are not the golden ones: what moves surfaces far is rare, and
    on one kind of scan may not be seen at all."""
    few = min(CHECKED, len(frames))
    phantoms = [each for fields in (("macula", "disc"), ("disc", "macula")) for each in phantom_frames(SEED, fields)]
    return [*phantoms, *(frames[index * len(frames) // few] for index in range(few))]


def _write(folder: Path, graphs: dict[str, onnx.ModelProto], card: ModelCard, golden: bytes) -> None:
    """The files; SHA256SUMS goes first and comes last, so that a bundle half written is no bundle."""
    make_folder(folder)
    for name in {SUMS, *FILES.values()} - {FILES[precision] for precision in graphs}:
        (folder / name).unlink(missing_ok=True)
    for name, graph in graphs.items():
        write_onnx(graph, card, folder / FILES[name], name)
    write_bytes(folder / "golden.npz", golden)
    write_bytes(folder / "card.json", encode_card(card))
    write_bytes(folder / "MODEL_CARD.md", model_card(card).encode())
    write_sums(folder)
