"""What each precision costs and gives on each engine of this machine: the certificates of a bundle as a table.

python -m benchmarks.precisions            the shipped bundle
python -m benchmarks.precisions BUNDLE
"""

import sys
from pathlib import Path

import click
import numpy as np

from octedge.edge.bundle import Bundle, open_bundle
from octedge.edge.certificate import certificate_file, read_certificate
from octedge.edge.engine import variant_named
from octedge.edge.machine import cores, describe
from octedge.edge.places import engines_folder
from octedge.edge.prepare import prepare


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
def main(bundle: Path | None) -> None:
    """Prepare BUNDLE on this machine and print what was found, as Markdown; progress goes to stderr."""
    opened = open_bundle(bundle)
    found = prepare(opened, (), lambda words: print(words, file=sys.stderr, flush=True))
    print(f"{opened.card.id} on {describe()}, {cores()} cores; chosen: {found.chosen}\n")
    titles = ("engine", "file, MB", "ms for 1024 x 512", "labels equal", "surfaces, 99 % within, px", "IoU against torch")
    print(f"| {' | '.join(titles)} | IoU lost | certificate |\n|---{'|--:' * 6}|---|")
    for name in (*sorted(found.ms, key=found.ms.__getitem__), *found.refused):
        print(f"| {' | '.join(_row(opened, name, found.ms.get(name), found.refused.get(name, '')))} |")


def _row(bundle: Bundle, name: str, ms: float | None, fault: str) -> list[str]:
    variant = variant_named(name)
    kept = read_certificate(certificate_file(engines_folder(bundle), variant))
    size = f"{(bundle.path / variant.file).stat().st_size / 1e6:.1f}"
    if kept is None:
        return [name, size, "-", "-", "-", "-", "-", fault]
    loss = "0" if variant.precision == "fp32" else "-" if kept.iou_loss is None else f"{kept.iou_loss:.4f}"
    iou = f"{np.mean(list(kept.iou.values())):.4f}"
    return [name, size, f"{ms or kept.ms:.0f}", f"{kept.equal:.3%}", f"{kept.p99_px:.2f}", iou, loss, fault or "passes"]


if __name__ == "__main__":
    main()
