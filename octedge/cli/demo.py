"""`octedge demo`: synthetic scans through the same path as real ones, compared with their exact truth."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from octedge.anatomy import KEYS, members
from octedge.batch import STAGES, Job, Outcome, run_one
from octedge.cli.console import complain, progress_bar, say
from octedge.cli.segment import summary
from octedge.edge.model import open_model
from octedge.metrics import IGNORED, distance, overlap
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import Source
from octedge.results.files import make_folder, output_error, write_atomic, write_bytes

BANNER = "phantoms, not patients; research use only"


def _write_dicom(phantom: Phantom, path: Path, bits: int = 8) -> None:
    try:
        write_dicom(phantom, path, bits=bits)
    except OSError as error:
        raise output_error(path, error) from error


def _write_png(phantom: Phantom, path: Path) -> None:
    image = Image.fromarray(phantom.bscan(0).image)
    write_atomic(path, lambda file: image.save(file, "PNG"))


# A volume with fluid, fovea and disc in one wide B-scan, 16 bit at another row spacing, a picture without scale.
SCANS: tuple[tuple[str, Phantom, Callable[[Phantom, Path], None]], ...] = (
    ("macula.dcm", Phantom(replace(LOOKS["spectralis"], span_mm=0.96), 5, 11, fluid=True), _write_dicom),
    ("wide.dcm", Phantom(replace(LOOKS["maestro"], span_mm=0.1), 2, 12, "L", "wide", fluid=False), _write_dicom),
    ("deep.dcm", Phantom(replace(LOOKS["cirrus"], span_mm=0.1), 2, 13, fluid=False), partial(_write_dicom, bits=16)),
    ("picture.png", Phantom(LOOKS["spectralis"], 1, 14, field="disc", fluid=False), _write_png),
)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How a result compares with the truth: Dice and IoU by structure, boundary error in px by surface, and their means."""

    dice: dict[str, float]
    iou: dict[str, float]
    boundary_px: dict[str, float]
    mean_dice: float
    mean_iou: float
    mean_boundary_px: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """`summary.json` of a demo."""

    schema: int = 1
    note: str = BANNER
    scans: tuple[Outcome, ...]
    comparisons: dict[str, Comparison]


@click.command()
@click.option("--out", default="octedge-demo", show_default=True, type=click.Path(path_type=Path), help="Folder for inputs and results.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A model bundle's folder [default: the shipped reference].")
@click.pass_context
def demo(ctx: click.Context, out: Path, bundle: Path | None) -> None:
    """Make synthetic scans, segment them as `segment` does, and compare with the truth. Needs no network, no GPU, no data."""
    say(BANNER)
    model = open_model(bundle, tell=complain)
    inputs = out / "inputs"
    make_folder(inputs)
    job = Job(model, out / "results")
    outcomes, comparisons = [], {}
    for file, phantom, write in SCANS:
        write(phantom, inputs / file)
        name = Path(file).stem
        with progress_bar(name, True) as progress:
            outcome = run_one(Source((inputs / file,), name), job, progress)
        outcomes.append(outcome)
        say(summary(outcome))
        if outcome.status == "done":
            comparisons[name] = found = compare(out / "results" / f"{name}.npz", phantom)
            dice, iou, boundary = found.mean_dice, found.mean_iou, found.mean_boundary_px
            say(f"  against the truth: mean Dice {dice:.3f}, mean IoU {iou:.3f}, boundaries {boundary:.2f} px")
    _show_times(outcomes)
    report = Summary(scans=tuple(outcomes), comparisons=comparisons)
    write_bytes(out / "summary.json", msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    say(f"look at {job.out / 'macula'} and {out / 'summary.json'}; {BANNER}")
    ctx.exit(0 if all(outcome.status == "done" for outcome in outcomes) else 1)


def compare(result: Path, phantom: Phantom) -> Comparison:
    """Read a result NPZ back and compare it with the phantom: classes without the topmost, and surfaces, that both know."""
    with np.load(result, allow_pickle=False) as file:
        labels, surfaces = file["labels"], file["surfaces"]
        classes, names = [str(key) for key in file["structures"]], [str(name) for name in file["surface_names"]]
    table = np.full(256, IGNORED, np.uint8)
    for index, group in enumerate(classes):
        table[[KEYS.index(key) for key in members(group)]] = index
    truths = [phantom.bscan(index) for index in range(phantom.frames)]
    both = [overlap(answer, table[truth.labels], len(classes)) for answer, truth in zip(labels, truths, strict=True)]
    shared = sum(both[1:], both[0])
    known = [_reference(truth.surfaces, names, phantom.look.rows) for truth in truths]
    errors = [distance(answer, reference) for answer, reference in zip(surfaces, known, strict=True)]
    dice, iou = (_named(classes[1:], values[1:]) for values in (shared.dice, shared.iou))
    boundary = _named(names, sum(errors[1:], errors[0]).mean)
    means = [float(np.mean(list(values.values()))) if values else 0.0 for values in (dice, iou, boundary)]
    return Comparison(dice=dice, iou=iou, boundary_px=boundary, mean_dice=means[0], mean_iou=means[1], mean_boundary_px=means[2])


def _reference(truth: NDArray[np.float32], names: list[str], rows: int) -> NDArray[np.float64]:
    """True depths (L, W) of the surfaces called `names`; NaN in columns where nothing begins there."""
    ends = np.concatenate([truth[1:], np.full_like(truth[:1], rows)])
    begins = np.where((ends > truth) & (truth > 0), truth, np.nan)
    # A surface lies above the structure named second; in KEYS that has the place after its surface.
    return np.stack([begins[KEYS.index(name.partition("|")[2]) - 1] for name in names]).astype(np.float64)


def _named(names: list[str], values: NDArray[np.float64]) -> dict[str, float]:
    """By name, rounded, without what was nowhere to be found."""
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True) if np.isfinite(value)}


def _show_times(outcomes: list[Outcome]) -> None:
    """Milliseconds per B-scan by stage, and what one waits for: stages run at the same time."""
    say(f"{'ms per B-scan':<15}" + "".join(f"{stage:>9}" for stage in (*STAGES, "all")))
    for outcome in outcomes:
        if outcome.frames:
            each = [1000 * outcome.seconds[stage] / outcome.frames for stage in STAGES]
            say(f"{outcome.name:<15}" + "".join(f"{ms:>9.1f}" for ms in (*each, outcome.ms_per_bscan or 0.0)))
