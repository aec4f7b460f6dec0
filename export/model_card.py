"""The model card in words, made from the card alone."""

from octedge.anatomy import members, structure
from octedge.card import ModelCard


def model_card(card: ModelCard) -> str:
    """MODEL_CARD.md of a bundle."""
    low, nominal, high = card.axial_um
    tiling = "tiled equals whole, label for label (shown on data)" if card.exact else "whole width only: tiling was not shown to be exact"
    lines = [
        f"# {card.id}",
        "",
        f"**{card.use}**",
        "",
        f"- {card.architecture}; {card.parameters:,} parameters",
        f"- a column's answer depends on {card.receptive_field} columns to each side; {tiling}",
        f"- rows of {low} to {high} um are taken as they are, others are scaled to {nominal} um",
        f"- made with {', '.join(f'{name} {number}' for name, number in card.software.items())}; licence: {card.licence}",
        "",
        "## Structures",
        "",
        ", ".join("+".join(structure(key).name for key in members(group)) for group in card.structures) + ".",
        "",
        "## Trained on",
        "",
        "| source | patients | B-scans | licence as stated | origin | labels |",
        "|---|--:|--:|---|---|---|",
    ]
    for each in card.sources:
        cells = [each.name, each.patients, each.bscans, each.licence, each.origin, " ".join(each.labels)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## Scores on held-out subjects", "", "| source | label | IoU | Dice | boundary above, px |", "|---|---|--:|--:|--:|"]
    for score in card.scores:
        px = "" if score.boundary_px is None else f"{score.boundary_px:.2f}"
        lines.append(f"| {score.source} | {score.label} | {score.iou:.3f} | {score.dice:.3f} | {px} |")
    lines += ["", "Fluid is left out of the layers' scores where the source marks it.", "", "## Where it is weak", ""]
    lines += [f"- {caveat}" for caveat in card.caveats]
    return "\n".join(lines) + "\n"
