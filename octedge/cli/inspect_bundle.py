"""`octedge inspect`."""

from pathlib import Path

import click

from octedge.card import ModelCard, Score
from octedge.cli.console import say
from octedge.edge.bundle import SUMS, Bundle, open_bundle


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def inspect(bundle: Path | None) -> None:
    """Show what the model bundle in the folder BUNDLE is [default: the shipped reference]; its files are checked."""
    opened = open_bundle(bundle)
    _show_card(opened.card)
    say()
    _show_scores(opened.card.scores)
    _show_files(opened)


def _show_card(card: ModelCard) -> None:
    low, nominal, high = card.axial_um
    rule = "exact: any window width gives the same answer" if card.exact else "not exact: windows as trained"
    lines = {
        "model": card.id,
        "use": card.use,
        "licence": card.licence or "not stated",
        "network": f"{card.architecture or 'not stated'}, {card.parameters} parameters",
        "structures": f"{len(card.structures)}: {' '.join(card.structures)}",
        "surfaces": f"{len(card.surfaces)}: {' '.join(card.surfaces)}",
        "windows": f"{card.window} columns, overlap {card.overlap}, grid {card.windowing.grid}; {rule}",
        "sees": f"{card.receptive_field} columns to each side",
        "rows": f"{low:g} .. {high:g} um apart, most at {nominal:g}; others are scaled to that",
        "heights": " ".join(map(str, card.heights)),
        "made with": ", ".join(f"{name} {version}" for name, version in card.software.items()) or "not stated",
    }
    for title, text in lines.items():
        say(f"{title:<11}{text}")
    for source in card.sources:
        amount = f"{source.patients} patients, {source.bscans} B-scans"
        say(f"{'trained on':<11}{source.name} ({source.licence}): {amount}; labels {' '.join(source.labels)}")
    for caveat in card.caveats:
        say(f"{'caveat':<11}{caveat}")


def _show_scores(scores: tuple[Score, ...]) -> None:
    if not scores:
        return
    width = max(len(score.source) for score in scores) + 2
    say(f"{'source':<{width}}{'class':<16}{'IoU':>7}{'Dice':>7}{'boundary px':>13}")
    for score in scores:
        boundary = "-" if score.boundary_px is None else f"{score.boundary_px:.2f}"
        say(f"{score.source:<{width}}{score.label:<16}{score.iou:>7.3f}{score.dice:>7.3f}{boundary:>13}")
    say()


def _show_files(bundle: Bundle) -> None:
    """The listed files, which opening has compared with their sums."""
    for name, digest in bundle.sums.items():
        say(f"{(bundle.path / name).stat().st_size:>12} bytes  {digest}  {name}")
    say(f"{len(bundle.sums)} files as listed in {SUMS}; {len(bundle.golden())} golden frames")
