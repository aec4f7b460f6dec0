"""The grid around the target: which shapes and window widths are tried, and the recipe whose candidates they are."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from octedge.errors import UsageError
from octedge.train.networks import Shape
from octedge.train.recipe import Recipe

AXES = {"convs": "c", "kernels": "k", "downs": "d", "widest": "x"}  # fields that are varied, and their letter in a trial's name


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the grid: a shape, and the width in columns of the windows it is trained on."""

    shape: Shape
    window: int

    @property
    def of_shape(self) -> str:
        """A name of the shape alone: its latency does not depend on the windows it was trained on."""
        return "-".join(f"{letter}{getattr(self.shape, axis)}" for axis, letter in AXES.items() if hasattr(self.shape, axis))

    @property
    def name(self) -> str:
        return f"{self.of_shape}-w{self.window}"


def target_of(recipe: Recipe, selected: str | None = None) -> str:
    """The candidate that is varied: the one [tune] names, the one a run selected, or the only one.

    Raises `UsageError` where none of these says which.
    """
    name = recipe.tune.target or selected or (next(iter(recipe.candidates)) if len(recipe.candidates) == 1 else "")
    if name not in recipe.candidates:
        got = f"no candidate {name!r}" if name else "several candidates"
        what = f"the recipe has {got} to tune; set target in [tune] to one of {', '.join(recipe.candidates)}"
        raise UsageError(f"{what}, or give the recipe.json of a finished run")
    return name


def grid(recipe: Recipe, target: str) -> tuple[Point, ...]:
    """Every combination of the values in [tune], other fields as the target has them.

    Raises `UsageError` for an empty grid, a family that lacks one of the fields, or a window that is not on a shape's grid.
    """
    shape, wanted = recipe.candidates[target], recipe.tune
    axes = {axis: values for axis in AXES if (values := getattr(wanted, axis))}
    if not axes and not wanted.windows:
        raise UsageError("the recipe varies nothing; add to [tune] values of convs, kernels, downs, widest or windows: kernels = [8, 16]")
    lacking = [axis for axis in axes if axis not in shape.__struct_fields__]
    if lacking:
        has = [axis for axis in AXES if axis in shape.__struct_fields__]
        what = f"the target {target} is of the family {type(shape).__name__}, which has no {', '.join(lacking)} to tune"
        raise UsageError(f"{what}; vary {', '.join(has)} or windows, or name another target in [tune]")
    if any(value < 1 for values in (*axes.values(), wanted.windows) for value in values):
        raise UsageError("[tune] holds a value below 1; convs, kernels, downs, widest and windows are numbers from 1")
    shapes = [msgspec.structs.replace(shape, **dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    windows = wanted.windows or (recipe.windows.get(target, recipe.sampling.window),)
    points = tuple(dict.fromkeys(Point(each, window) for each in shapes for window in windows))
    varied(recipe, points)
    return points


def varied(recipe: Recipe, points: Sequence[Point]) -> Recipe:
    """The recipe whose candidates are points of the grid, with one seed and the rungs and noise of [tune].

    Raises `UsageError` where a window or a height is not on a shape's grid.
    """
    wanted = recipe.tune
    rungs = sorted({round(share * recipe.steps) for share in wanted.rungs} - {0, recipe.steps})
    candidates = {"candidates": {point.name: point.shape for point in points}, "windows": {point.name: point.window for point in points}}
    rule = {"seeds": recipe.seeds[:1], "rungs": tuple(rungs), "noise": wanted.noise, "tune": msgspec.structs.replace(wanted, target="")}
    try:
        return msgspec.structs.replace(recipe, **candidates, **rule)
    except UsageError as error:
        raise UsageError(f"[tune]: {error}") from error
