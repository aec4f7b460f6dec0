"""The model card in words, made from the card alone."""

from octedge.anatomy import members, structure
from octedge.card import ModelCard

FLUID = (
    "Layers are scored as their surfaces bound them: a pixel called fluid counts for the layer it lies in, and pixels that the source"
    " marks as fluid are left out of the layers' scores. Fluid is scored apart."
)


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
        *([f"- standard deviations of surfaces fit its errors at temperature {card.temperature:g}"] if card.temperature else []),
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
    lines += ["", FLUID, ""]
    lines += _precisions(card)
    lines += ["## Where it is weak", ""]
    lines += [f"- {caveat}" for caveat in card.caveats]
    return "\n".join(lines) + "\n"


def _precisions(card: ModelCard) -> list[str]:
    """What computing less precisely changed when the bundle was made, on ONNX Runtime's CPU engine."""
    if not card.precisions:
        return []
    titles = ("precision", "golden labels as torch's", "surfaces, 99 % within, px", "mean IoU lost", "convolutions in float")
    lines = ["## Precisions", "", f"| {' | '.join(titles)} |", "|---|--:|--:|--:|--:|"]
    for each in card.precisions:
        loss = "not measured" if each.iou_loss is None else f"{each.iou_loss:.4f}"
        lines.append(f"| {each.name} | {each.equal:.3%} | {each.p99_px:.2f} | {loss} | {len(each.in_float)} |")
    return [*lines, "", "Measured when the bundle was made; every machine measures its own engines (octedge prepare).", ""]
