"""The smallest training there is, and a program that runs it: `python -m tests.train.tiny FOLDER [HANG_AT]`."""

import os
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np

from octedge.train.cohort import Example, Set, Split
from octedge.train.fit import Course, Trial, fit
from octedge.train.manifest import Phantoms
from octedge.train.networks import UNet
from octedge.train.recipe import Recipe, Sampling
from octedge.train.sampling import Sampler

RECIPE = Recipe(
    name="tiny",
    source=(Phantoms(),),
    candidates={"a": UNet(convs=1, kernels=6, downs=2), "b": UNet(convs=1, kernels=4, downs=2)},
    sampling=Sampling(window=32, stride=16, heights=(64,), pixels=4 * 64 * 32, augment=False),
    steps=60, rate=1e-2, validate_every=20, save_every=15, average=0.9, precision="fp32",
)  # fmt: skip
GROUPS = ("vitreous", "nfl+gcl+ipl+inl+opl+onl+elm+mz+ez+os+rpe", "choroid+sclera")
SHORT = msgspec.structs.replace(RECIPE, steps=12, validate_every=4, save_every=3)


def bands(seed):
    """Dark above, bright band, grey below: learnt in a few steps."""
    rng = np.random.default_rng(seed)
    top = 20 + np.rint(5 * np.sin(np.arange(64) / 9 + seed)).astype(int)
    depth = np.arange(60)[:, None]
    reference = (depth >= top).astype(np.uint8) + (depth >= top + 12)
    image = np.array([10, 220, 110])[reference] * rng.gamma(8, 1 / 8, reference.shape)
    return Example(f"{seed}", f"{seed}", np.clip(image, 0, 255).astype(np.uint8), reference, np.stack([top, top + 12]) - 0.5)


SPLIT = Split(
    (Set("bands", GROUPS, tuple(bands(seed) for seed in range(4)), 1.0),),
    (Set("bands", GROUPS, tuple(bands(seed) for seed in range(10, 12)), 1.0),),
)


def quiet(_: str) -> None:
    """Tells nobody."""


def main(folder: str, hang_at: int = -1) -> None:
    """Train in a process that hangs when the samples of a step are asked for."""
    draw = Sampler.batch

    def batch(self, step):
        if step == hang_at:
            threading.Event().wait()
        return draw(self, step)

    Sampler.batch = batch  # type: ignore[method-assign]
    scores = fit(Trial("a", 1), Course(RECIPE, SPLIT, lambda line: print(line, flush=True)), Path(folder))  # noqa: T201
    # Not printed: processes that share a console may speak in one line.
    Path(folder, f"iou-{os.environ.get('RANK', 0)}").write_text(f"{scores.mean:.6f}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
