"""Golden frames: the B-scans whose reference answers travel in a bundle, so that any machine can check its engine."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from octedge.card import ModelCard
from octedge.edge.bundle import Golden
from octedge.phantom import LOOKS, Field, Phantom
from octedge.scan import Frame
from octedge.segment import Engine, plan, segment
from octedge.train.cohort import Set

PER_SOURCE = 3  # of a source's held-out B-scans


def phantom_frames(seed: int = 7000, fields: tuple[Field, Field] = ("macula", "disc")) -> list[Frame]:
    """Narrow phantom B-scans in every look, the fields by turns, one with fluid, of widths on and off the grid."""
    frames = []
    for index, look in enumerate(sorted(LOOKS)):
        narrow = replace(LOOKS[look], columns=(128, 147, 96)[index % 3])
        phantom = Phantom(narrow, 1, seed + index, "R", fields[index % 2], index == 0)
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


def answered(frames: Sequence[Frame], engine: Engine, card: ModelCard) -> list[Golden]:
    """The frames with the answers of `engine`, the reference, after the ordered decode."""
    found = [segment(frame, engine, plan(card, len(frame))) for frame in frames]
    return [Golden(frame, answer.labels, answer.surfaces) for frame, answer in zip(frames, found, strict=True)]


def encode_golden(golden: list[Golden]) -> bytes:
    """`golden.npz`."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, known in enumerate(golden):
        arrays |= {f"frame_{index}": known.frame, f"labels_{index}": known.labels, f"surfaces_{index}": known.surfaces}
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()
