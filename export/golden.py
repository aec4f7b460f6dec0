"""Golden frames: the B-scans whose reference answers travel in a bundle, so that any machine can check its engine."""

from dataclasses import replace

from octedge.phantom import LOOKS, Phantom
from octedge.scan import Frame
from octedge.train.cohort import Set

PER_SOURCE = 3  # of a source's held-out B-scans


def phantom_frames() -> list[Frame]:
    """Narrow phantom B-scans in every look, macula and disc, one with fluid, of widths on and off the grid."""
    frames = []
    for index, look in enumerate(sorted(LOOKS)):
        narrow = replace(LOOKS[look], columns=(128, 147, 96)[index % 3])
        phantom = Phantom(narrow, 1, 7000 + index, "R", "disc" if index % 2 else "macula", index == 0)
        frames.append(phantom.bscan(0).image)
    return frames


def held_out_frames(sets: tuple[Set, ...]) -> list[Frame]:
    """Some whole B-scans of every real source's validation set, spread over its people; phantoms have frames of their own."""
    frames = []
    for each in sets:
        if each.name != "phantoms" and each.examples:
            ranked = sorted(each.examples, key=lambda example: (example.patient, example.name))
            frames += [ranked[index * len(ranked) // PER_SOURCE].image for index in range(min(PER_SOURCE, len(ranked)))]
    return frames
