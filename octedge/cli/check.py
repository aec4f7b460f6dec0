"""`octedge check`."""

from pathlib import Path

import click
import msgspec

from octedge.batch import Scale
from octedge.cli.console import say, say_json
from octedge.cli.segment import INPUTS, JSON, bscans
from octedge.errors import ScanError
from octedge.readers import Source, find
from octedge.results.overlay import describe_spacing
from octedge.scan import Scan


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan is and whether it can be segmented: the JSON line of `check`."""

    name: str
    status: str  # "ok", "partial" (some B-scans cannot be decoded) or "refused"
    verdict: str
    device: str | None = None
    pattern: str | None = None
    frames: int | None = None
    rows: int | None = None
    columns: int | None = None
    spacing: Scale | None = None
    laterality: str | None = None
    order: str | None = None
    coding: str | None = None
    notes: tuple[str, ...] = ()


@click.command()
@INPUTS
@JSON
@click.pass_context
def check(ctx: click.Context, inputs: tuple[Path, ...], as_json: bool) -> None:
    """Say what the scans in INPUTS are, where their scale comes from, and whether every B-scan can be read.

    Ends with 0 if all can be segmented, 1 if some scans or B-scans cannot.
    """
    sound = True
    for source in find(inputs):
        verdict, lines = _look(source)
        sound &= verdict.status == "ok"
        if as_json:
            say_json(verdict)
            continue
        say(source.name)
        for title, text in (*lines, ("verdict", verdict.verdict)):
            say(f"  {title:<9}{text}")
    ctx.exit(0 if sound else 1)


def _look(source: Source) -> tuple[Verdict, list[tuple[str, str]]]:
    """The verdict on a scan, every B-scan decoded, and what people read above it."""
    try:
        scan = source.read()
        failed = _failed(scan)
    except ScanError as error:
        return Verdict(name=source.name, status="refused", verdict=f"refused: {error}"), []
    words = "can be segmented"
    if failed:
        words += f" but for {len(failed)} of {scan.frames} B-scans; the first: {failed[0]}"
    if scan.spacing.axial is None:
        words += ", results in pixels; give --axial-um if the distance between rows is known"
    verdict = Verdict(
        name=source.name,
        status="partial" if failed else "ok",
        verdict=words,
        device=scan.device,
        pattern=scan.pattern,
        frames=scan.frames,
        rows=scan.rows,
        columns=scan.columns,
        spacing=Scale.of(scan.spacing),
        laterality=scan.laterality,
        order=scan.order,
        coding=scan.coding,
        notes=scan.notes,
    )
    return verdict, _lines(scan)


def _failed(scan: Scan) -> list[str]:
    """Why B-scans cannot be decoded; raises `ScanError` if none can."""
    failed = []
    for index in range(scan.frames):
        try:
            scan.frame(index)
        except ScanError as error:
            failed.append(str(error))
    if len(failed) == scan.frames:
        raise ScanError(failed[0])
    return failed


def _lines(scan: Scan) -> list[tuple[str, str]]:
    eye = {"R": "right", "L": "left", None: "unknown"}[scan.laterality]
    lines = [
        ("device", scan.device),
        ("pattern", f"{scan.pattern}, {bscans(scan.frames, scan.rows, scan.columns)}"),
        ("spacing", describe_spacing(scan.spacing)),
        ("eye", eye),
        ("order", scan.order),
        ("stored", scan.coding),
    ]
    return lines + [("note", note) for note in scan.notes]
