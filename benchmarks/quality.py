"""What the quality measures are on real scans and phantoms, which flags they raise, and which planted faults they find.

    python -m benchmarks.quality --data ../shared/data

The B-scans of a person are taken as a scan. Faults are planted into every fifth B-scan, one at a time; one is found if the B-scan
raises a flag that it did not raise before.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.facts import facts, head, row
from benchmarks.reference import RECIPE
from octedge.edge.ledger import PERCENTILES
from octedge.edge.model import Model, open_model
from octedge.edge.pipeline import Answer
from octedge.phantom import LOOKS, Phantom
from octedge.quality import MEASURES, FrameQuality, Gauge, certainty, flags, frame_quality, measures
from octedge.readers import find
from octedge.scan import Frame, Scan
from octedge.train.cohort import load_whole
from octedge.train.manifest import Phantoms
from octedge.train.recipe import read_recipe

VOLUMES = "spectralis-vol"
SHARES = (0, 5, 50, 95, 100)  # percentiles
SIZE, ROUNDS = (1024, 512), 200
SHIFT = 30  # rows that an eye moves within a B-scan


@dataclass(frozen=True, slots=True)
class Place:
    """Where to plant a fault: the B-scan (H, W), the borders of its retina (W,), and a random stream."""

    frame: Frame
    inner: NDArray[np.float32]
    outer: NDArray[np.float32]
    rng: np.random.Generator

    def noise(self) -> Frame:
        """A B-scan of what is seen where there is no tissue: pixels from above the retina in random order."""
        above = self.frame[np.arange(len(self.frame))[:, None] < self.inner - 5]
        return np.asarray(self.rng.choice(above if len(above) else self.frame.ravel(), self.frame.shape), np.uint8)

    def moved(self, down: int) -> Frame:
        """The B-scan `down` rows further down (or up), noise for what comes in."""
        out, rows = self.noise(), len(self.frame)
        down = max(1 - rows, min(rows - 1, down))
        out[max(down, 0) : rows + min(down, 0)] = self.frame[max(-down, 0) : rows - max(down, 0)]
        return out


def _bright(at: Place) -> Frame:
    return np.minimum(at.frame.astype(np.uint16) * 4, 255).astype(np.uint8)


def _drowned(at: Place) -> Frame:
    drowned: Frame = np.clip(0.25 * at.frame + np.abs(at.rng.normal(0, 60, at.frame.shape)), 0, 255).astype(np.uint8)
    return drowned


def _halfway(at: Place, right: Frame) -> Frame:
    """`right` from the middle column on."""
    return np.where(np.arange(at.frame.shape[1]) < at.frame.shape[1] // 2, at.frame, right)


# What is planted; a repeated B-scan needs no network and comes last.
FAULTS: dict[str, Callable[[Place], Frame]] = {
    "blink: noise alone": Place.noise,
    "blink from the middle on": lambda at: _halfway(at, at.noise()),
    "lost: all black": lambda at: np.zeros_like(at.frame),
    "four times as bright": _bright,
    "an eighth as bright": lambda at: at.frame // 8,
    "drowned in noise": _drowned,
    "half of it out at the top": lambda at: at.moved(-int(np.median(at.inner)) - 5),
    "half of it out at the bottom": lambda at: at.moved(len(at.frame) - int(np.median(at.outer)) + 5),
    f"the eye moves by {SHIFT} rows": lambda at: _halfway(at, at.moved(SHIFT)),
    "upside down": lambda at: at.frame[::-1].copy(),
}


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder with the real scans.")
@click.option("--model", "bundle", type=click.Path(path_type=Path), help="A bundle [default: the shipped reference].")
@click.option("--every", default=5, show_default=True, type=click.IntRange(1), help="Plant faults into one of so many B-scans.")
def main(data: Path, bundle: Path | None, every: int) -> None:
    """Print the tables as Markdown."""
    model = open_model(bundle)
    sources: dict[str, list[tuple[Scan, list[Answer]]]] = {}
    for source, scan in scans(data):
        sources.setdefault(source, []).append((scan, answers(model, scan)))
    print(f"{facts()}; {model.bundle.card.id}, {model.engine.name}\n")
    show_measures({name: [each.quality for _, found in pairs for each in found] for name, pairs in sources.items()})
    show_flags({name: [[each.quality for each in found] for _, found in pairs] for name, pairs in sources.items()})
    show_faults([pair for pairs in sources.values() for pair in pairs], model, every)
    show_cost(model)


def scans(data: Path) -> Iterator[tuple[str, Scan]]:
    """Every source's scans."""
    for source in read_recipe(RECIPE).source:
        if isinstance(source, Phantoms):
            continue
        whole = load_whole(source, data)
        for patient in whole.patients:
            yield whole.name, _scan(patient, [each.image for each in whole.examples if each.patient == patient])
    for file in find([data / VOLUMES]):
        yield VOLUMES, file.read()
    for number, look in enumerate(LOOKS.values()):
        for fluid in (False, True):
            yield "phantoms, macula", Phantom(look, 5, number, fluid=fluid).scan(f"{look.device} {fluid}")
        yield "phantoms, disc", Phantom(look, 3, number, field="disc").scan(look.device)


def _scan(name: str, images: Sequence[Frame], like: Scan | None = None) -> Scan:
    rows, columns = images[0].shape
    scan = Scan(name, len(images), rows, columns, images.__getitem__)
    return scan if like is None else replace(scan, spacing=like.spacing)


def answers(model: Model, scan: Scan) -> list[Answer]:
    """The answers to all B-scans."""
    with closing(model.run(scan).answers()) as found:
        return list(found)


def show_measures(sources: dict[str, list[FrameQuality]]) -> None:
    """Percentiles of every measure but the checksum, by source."""
    for source, frames in sources.items():
        print(head(f"{source}, {len(frames)} B-scans", *(f"p{share}" for share in SHARES)))
        for name, values in zip(MEASURES[:-1], measures(frames).T, strict=False):
            known = values[~np.isnan(values)]
            print(row(name, *(f"{value:.3g}" for value in np.percentile(known, SHARES))))
        print()


def show_flags(sources: dict[str, list[list[FrameQuality]]]) -> None:
    """B-scans of each source that raise a flag, as they are."""
    print(head("as they are", "B-scans", "with any flag", "which"))
    for source, found in sources.items():
        raised = [flag for frames in found for flag in flags(frames)]
        count = Counter({flag.name: 0 for flag in raised})
        for flag in raised:
            count[flag.name] += len(flag.frames)
        flagged = sum(len({index for flag in flags(frames) for index in flag.frames}) for frames in found)
        print(row(source, sum(map(len, found)), flagged, _listed(count)))
    print()


def show_faults(found: list[tuple[Scan, list[Answer]]], model: Model, every: int) -> None:
    """How many planted faults raise a flag, and which."""
    print(head("planted", "B-scans", "found", "by"))
    for name, plant in FAULTS.items():
        raised = [new for scan, clean in found for new in _planted(scan, clean, model, (plant, every))]
        _show_fault(name, raised)
    volumes = [[each.quality for each in clean] for _, clean in found]
    _show_fault("the B-scan before again", [_new(each, index, each[index - 1]) for each in volumes for index in range(1, len(each))])
    print()


def _show_fault(name: str, raised: list[set[str]]) -> None:
    print(row(name, len(raised), sum(map(bool, raised)), _listed(Counter(flag for new in raised for flag in new))))


def _planted(scan: Scan, clean: list[Answer], model: Model, how: tuple[Callable[[Place], Frame], int]) -> list[set[str]]:
    """The new flags of every B-scan that a fault was planted in."""
    plant, every = how
    gauge = Gauge.of(model.bundle.card.structures, scan.spacing)
    assert gauge.inner is not None
    assert gauge.outer is not None
    chosen = range(0, scan.frames, every)
    images = []
    for index in chosen:
        surfaces = clean[index].layers.surfaces
        place = Place(scan.frame(index), surfaces[gauge.inner], surfaces[gauge.outer], np.random.default_rng(index))
        images.append(plant(place))
    again = answers(model, _scan(scan.name, images, scan))
    before = [each.quality for each in clean]
    return [_new(before, index, answer.quality) for index, answer in zip(chosen, again, strict=True)]


def _new(before: list[FrameQuality], index: int, quality: FrameQuality) -> set[str]:
    """The flags that B-scan `index` raises with these measures and did not before."""
    after = [*before[:index], quality, *before[index + 1 :]]
    had, has = ({flag.name for flag in flags(frames) if index in flag.frames} for frames in (before, after))
    return has - had


def _listed(count: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in count.most_common()) or "none"


def show_cost(model: Model) -> None:
    """ms per B-scan for the measures alone."""
    rows, columns = SIZE
    scan = Phantom(replace(LOOKS["cirrus"], rows=rows, columns=columns), 1, 1).scan()
    answer = answers(model, scan)[0]
    gauge = Gauge.of(model.bundle.card.structures, scan.spacing)
    scores = np.zeros((len(model.bundle.card.structures), *SIZE), np.float32)
    labels, surfaces, frame = answer.layers.labels, answer.layers.surfaces, scan.frame(0)
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        frame_quality(frame, labels, surfaces, certainty(scores, labels, gauge), gauge)
        taken.append(1000 * (time.perf_counter() - began))
    print(head(f"ms per B-scan of {rows} x {columns}", *PERCENTILES))
    print(row("all measures", *(f"{value:.2f}" for value in np.percentile(taken, list(PERCENTILES.values())))))


if __name__ == "__main__":
    main()
