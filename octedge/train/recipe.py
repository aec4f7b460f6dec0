"""The recipe: everything that decides a training run, in one TOML file; a copy of it lies in the run's folder."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from octedge.anatomy import KEYS
from octedge.errors import UsageError
from octedge.results.files import write_json
from octedge.train.manifest import AnySource, check_sources, decode, read_cohort
from octedge.train.networks import Shape, UNet
from octedge.train.split import SplitRule, read_locked


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Windows of `window` columns every `stride` columns; P drawn from `heights`; augmentation on or off, with its `strength`
    (1 as written in `augment`), and the share of samples that stay `plain`, as their device made them but for the flip; the
    share that is drawn for holding something `rare` in its source; and of the samples that change, the share whose retina is
    `lowered` below more vitreous, for sets that are cut close to the retina.
    """

    window: int = 256
    stride: int = 128
    heights: tuple[int, ...] = (256, 256, 256, 512)
    pixels: int = 8 * 256 * 256  # per batch: fewer windows where they are higher
    augment: bool = True
    strength: float = 1.0
    plain: float = 0.0
    rare: float = 0.0
    lowered: float = 0.0


class Finish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last part of a training, closer to what devices deliver: from `after` (of all steps) on, `plain` takes the place
    of the one in `Sampling`, and sources are drawn by `shares` where it names them.
    """

    after: float = 1.0
    plain: float = 0.5
    shares: dict[str, float] = {}


class Tune(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `octedge tune` tries around the target: every combination of the values given; an axis left out keeps the target's value.

    `target` names a candidate (none: the one a finished run selected, or the only one); `windows` are widths of training
    windows in columns; `rungs` are shares of the steps, after which the worse stop; `noise` as in a recipe.
    """

    target: str = ""
    convs: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()
    downs: tuple[int, ...] = ()
    widest: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()
    rungs: tuple[float, ...] = (0.25, 0.5)
    noise: float = 0.002

    def __post_init__(self) -> None:
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < rung < 1 for rung in self.rungs):
            raise UsageError(f"tune.rungs {list(self.rungs)} given; needed are rising shares of the steps between 0 and 1, as [0.25, 0.5]")


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sources, classes, candidates and schedule of one training. Seeds and split salt are part of it."""

    schema: int = 1
    name: str
    cohort: str = ""  # a TOML file of sources, beside the recipe; those written here come after them
    source: tuple[AnySource, ...] = ()
    split: SplitRule = SplitRule()
    candidates: dict[str, Shape]
    windows: dict[str, int] = {}  # of candidates that are trained on windows of another width than the sampling's
    structures: tuple[str, ...] = KEYS
    sampling: Sampling = Sampling()
    finish: Finish = Finish()
    tune: Tune = Tune()
    axial_um: tuple[float, float, float] = (2.7, 3.87, 5.5)
    steps: int = 2000
    rungs: tuple[int, ...] = ()  # after so many steps candidates are ranked, and the best `keep` of them alone go on
    keep: float = 0.5
    noise: float = 0.0001  # differences in score that count as none where too few patients allow no interval
    minutes_per_trial: float = 0  # above 0: every candidate takes as many steps as its pace allows; rungs move along
    rate: float = 3e-3
    decay: float = 1e-4
    average: float = 0.998  # exponential moving average of the weights, per step
    loss: Literal["ce+dice", "ce", "dice"] = "ce+dice"
    validate_every: int = 500
    save_every: int = 200  # steps between checkpoints, beside those at validations
    patience: int = 0  # a training ends after so many validations without a gain in IoU; 0: never
    seeds: tuple[int, ...] = (1,)  # every candidate is trained once with each
    salt: str = "octedge"
    validation_share: float = 0.2  # of the patients, where a source names none
    precision: Literal["bf16", "fp32"] = "bf16"  # bf16 is mixed precision: fp16 on GPUs without bf16, fp32 on such CPUs

    def __post_init__(self) -> None:
        if self.schema != 1:
            raise UsageError(f"the recipe has schema {self.schema}, this octedge reads schema 1; use a matching octedge")
        if min(self.steps, self.validate_every, self.save_every) < 1:
            raise UsageError("needed are steps, validate_every and save_every of 1 or more")
        if not self.candidates:
            raise UsageError("the recipe has no candidates; add [candidates.NAME] with convs, kernels, downs")
        self._check_rungs()
        if not 0 < self.sampling.stride < self.sampling.window:
            raise UsageError(f"stride {self.sampling.stride} must be above 0 and below the window {self.sampling.window}")
        self._check_sizes()
        for height in self.sampling.heights:
            if height & (height - 1):
                raise UsageError(f"height {height} is not a power of two")
        strength, rare, lowered = self.sampling.strength, self.sampling.rare, self.sampling.lowered
        if not (0 < strength <= 2 and 0 <= rare <= 1 and 0 <= lowered <= 1):
            got = f"strength {strength:g}, rare {rare:g} and lowered {lowered:g}"
            raise UsageError(f"{got} given; needed are a strength above 0, at most 2 (none: augment = false), rare and lowered from 0 to 1")

    def _check_sizes(self) -> None:
        strange = self.windows.keys() - self.candidates.keys()
        if strange:
            raise UsageError(f"windows are given for {', '.join(sorted(strange))}; the candidates are {', '.join(self.candidates)}")
        for name, shape in self.candidates.items():
            for size in (self.windows.get(name, self.sampling.window), *self.sampling.heights):
                if size < 1 or size % (1 << shape.downs):
                    raise UsageError(f"candidate {name}: window and heights must be multiples of 2^downs = {1 << shape.downs}; got {size}")

    def _check_rungs(self) -> None:
        if list(self.rungs) != sorted({rung for rung in self.rungs if 0 < rung < self.steps}):
            raise UsageError(f"rungs {list(self.rungs)} given; needed are rising numbers of steps between 0 and steps = {self.steps}")
        if not (0 < self.keep < 1 and self.minutes_per_trial >= 0 and len(set(self.seeds)) == len(self.seeds) > 0):
            raise UsageError("needed are keep between 0 and 1, minutes_per_trial 0 or above, and one or more seeds, all different")
        if not 0 <= self.noise < 1:
            raise UsageError(f"noise {self.noise} given; needed is a difference of scores from 0 to below 1, as 0.002")

    def of(self, name: str) -> "Recipe":
        """The recipe of one candidate alone; its windows, where they have another width, overlap by the same share."""
        sampling = self.sampling
        window = self.windows.get(name, sampling.window)
        sampling = msgspec.structs.replace(sampling, window=window, stride=max(1, window * sampling.stride // sampling.window))
        return msgspec.structs.replace(self, candidates={name: self.candidates[name]}, sampling=sampling, windows={})


def read_recipe(path: Path) -> Recipe:
    """The recipe in a TOML file, or the `recipe.json` of a run; the files it names are read into it, so that it stands alone.

    Raises `UsageError` naming the file and the field that is wrong.
    """
    recipe = decode(path, Recipe, "a recipe, see recipes/")
    if recipe.cohort:
        sources = read_cohort(path.parent / recipe.cohort).source
        recipe = msgspec.structs.replace(recipe, cohort="", source=(*sources, *recipe.source))
    if isinstance(recipe.split.locked, str):
        locked = read_locked(path.parent / recipe.split.locked)
        recipe = msgspec.structs.replace(recipe, split=msgspec.structs.replace(recipe.split, locked=locked))
    if not recipe.source:
        raise UsageError(f'{path.name}: the recipe has no source; add [[source]], or cohort = "FILE.toml"')
    check_sources(recipe.source)
    return recipe


def read_sources(path: Path) -> Recipe:
    """The recipe, or for a cohort file the sources with the usual split and nothing to train: to look at data alone.

    Raises `UsageError`.
    """
    try:
        cohort = read_cohort(path)
    except UsageError:
        if not re.search(rb"""^\s*\[?"?candidates|"candidates":""", path.read_bytes() if path.is_file() else b"", re.MULTILINE):
            raise
        return read_recipe(path)
    return Recipe(name=cohort.name, source=cohort.source, candidates={"none": UNet()})


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write the recipe as JSON, which `read_recipe` reads back unchanged."""
    write_json(path, recipe)
