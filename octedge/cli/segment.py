"""`octedge segment`."""

import math
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import click

from octedge.batch import DEFAULT, FORMATS, Options, Outcome, run_one
from octedge.cli.console import complain, progress_bar, say_json
from octedge.edge.engine import BACKENDS
from octedge.errors import UsageError
from octedge.readers import find
from octedge.results.files import make_folder
from octedge.workers import RECORD, Batch, segment_on


def _formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """A list separated by commas -> the formats, each once, in the order given."""
    wanted = tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))
    available = f"available are {', '.join(sorted(FORMATS))}"
    for word in wanted:
        if word not in FORMATS:
            raise click.BadParameter(f"{word!r} is no format; {available}", ctx, param)
    if not wanted:
        raise click.BadParameter(f"no format given; {available}", ctx, param)
    return wanted


def _number(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse NaN, which lies in every range."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number of um", ctx, param)
    return value


def _fovea(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, float] | None:
    """FRAME,COLUMN -> two numbers."""
    if value is None:
        return None
    try:
        frame, column = map(float, value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: needed are B-scan and column, counted from 0, as 12,384", ctx, param) from None
    return frame, column


INPUTS = click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="One machine-readable line per scan on stdout.")


@click.command()
@INPUTS
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results; made if need be.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A model bundle's folder [default: the shipped reference].")
@click.option(
    "--engine",
    metavar="NAME",
    default="auto",
    show_default=True,
    help=f"What runs the network: auto, {', '.join(BACKENDS)}, or one of these with a precision, as rtx-fp16.",
)
@click.option("--allow-fallback", is_flag=True, help="Where that engine cannot be used: ONNX Runtime on the CPU, and say so.")
@click.option(
    "--format", "formats", callback=_formats, metavar="LIST", default=",".join(DEFAULT), show_default=True, help="What is written per scan."
)
@click.option("--axial-um", type=click.FloatRange(0.2, 50), callback=_number, help="Distance between rows, if the file does not say.")
@click.option("--lateral-um", type=click.FloatRange(0.2, 500), callback=_number, help="Distance between columns, if the file does not say.")
@click.option("--fovea", metavar="FRAME,COLUMN", callback=_fovea, help="Where the fovea is, for thickness and sr [default: found].")
@click.option("--ledger", is_flag=True, help="Also write when each stage had each B-scan: NAME.ledger.json.")
@click.option(
    "--cluster",
    "address",
    metavar="ADDRESS|local",
    help=f"Share the scans out to a Ray cluster, or to one started here; go on where a stopped run was (NAME{RECORD} says what is done).",
)
@JSON
@click.pass_context
def segment(  # noqa: PLR0913 - one per option
    ctx: click.Context,
    inputs: tuple[Path, ...],
    out: Path,
    bundle: Path | None,
    engine: str,
    allow_fallback: bool,
    formats: tuple[str, ...],
    axial_um: float | None,
    lateral_um: float | None,
    fovea: tuple[float, float] | None,
    ledger: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Segment the scans in INPUTS (files and folders: DICOM, PNG/TIFF, NPZ, .vol) into the folder --out.

    With --cluster every CPU of the cluster (every GPU, where it has any) is a worker with an engine of its own, certified on its
    machine; all see the same folders. A worker that dies costs no scan. A scan whose record, results, settings and files are as
    they were is not done again; delete its record to have it done again.

    Ends with 0 if all are done, 1 if some scans or B-scans were refused, 2 on a wrong call, 3 if the model or its engine cannot be used.
    """
    sources = tuple(find(inputs))
    if fovea is not None and len(sources) > 1:
        raise UsageError(f"--fovea is a place in one scan, but {len(sources)} scans are given; give them one by one")
    options = Options(formats, axial_um, lateral_um, fovea, ledger)
    batch = Batch(bundle, engine, allow_fallback, out, options, sources)
    ends: Counter[str] = Counter()
    with closing(_here(batch, not as_json) if address is None else _there(batch, address)) as outcomes:
        for outcome in outcomes:
            ends[outcome.status] += 1
            if as_json:
                say_json(outcome)
            complain(summary(outcome))
    partial = f"{ends['partial']} in part, " if ends["partial"] else ""
    complain(f"scans: {ends['done']} done, {partial}{ends['refused']} refused; research use only")
    ctx.exit(0 if ends["done"] == len(sources) else 1)


def _here(batch: Batch, watched: bool) -> Generator[Outcome, None, None]:
    """One scan after the other, in this process."""
    job = batch.job(complain)
    make_folder(batch.out)
    for source in batch.sources:
        with progress_bar(source.name, watched) as progress:
            outcome = run_one(source, job, progress)
        yield outcome


def _there(batch: Batch, address: str) -> Generator[Outcome, None, None]:
    """Many scans at once, on a cluster."""
    make_folder(batch.out)
    said: set[str] = set()
    for answered in segment_on(address, batch):
        for words in answered.told:
            if words not in said:
                complain(words)
        said.update(answered.told)
        yield answered.outcome


def bscans(frames: int, rows: int, columns: int) -> str:
    """How many of what size.

    >>> bscans(1, 496, 768)
    '1 B-scan of 496 x 768'
    """
    return f"{frames} B-scan{'' if frames == 1 else 's'} of {rows} x {columns}"


def summary(outcome: Outcome) -> str:
    """An outcome in one line."""
    if outcome.status == "refused":
        return f"refused: {outcome.name}: {(outcome.error or '').removeprefix(f'{outcome.name}: ')}"
    scale = outcome.spacing
    known = scale is not None and scale.axial_um is not None
    words = [
        bscans(outcome.frames or 0, outcome.rows or 0, outcome.columns or 0),
        f"{scale.axial_um:.2f} um per row" if scale is not None and known else "scale unknown",
        f"{outcome.ms_per_bscan:.0f} ms per B-scan",
    ]
    notes = [note for note in outcome.notes if known or not note.startswith("scale unknown")]
    flags = [flag.name + f" ({len(flag.frames)} of {outcome.frames})" * (outcome.frames != 1) for flag in outcome.flags]
    parts = (("; flags: " + ", ".join(flags)) * bool(flags), ("; note: " + "; ".join(notes)) * bool(notes))
    return f"{outcome.name}: {', '.join(words)}{''.join(parts)}"
