"""What the values of a data set mean. No set labels every structure; most merge some.

A set annotates G *groups*, each one or more structures ("gcl+ipl"), in anatomical order; its reference is uint8 (H, W)
of group indices, `IGNORED` where nobody annotated. Groups are all that loss and scores ever see of a set.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import KEYS, check_classes, is_ordered, members, surface_names
from octedge.errors import ScanError, UsageError
from octedge.metrics import IGNORED


class LabelMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Mask values to groups. `values` maps each value to its group; every other value is refused.

    `outside` is a value that stands for what lies above the annotated layers and below them alike, `above` and `below`
    the groups it then means; a column that holds no layer at all is not graded. `ignored` values count nowhere.
    """

    values: dict[int, str]
    outside: int | None = None
    above: str = "vitreous"
    below: str = "choroid+sclera"
    ignored: tuple[int, ...] = ()

    def groups(self) -> tuple[str, ...]:
        """The groups in anatomical order."""
        found = set(self.values.values()) | ({self.above, self.below} if self.outside is not None else set())
        return ordered_groups(found)

    def reference(self, mask: NDArray[np.integer], name: str) -> NDArray[np.uint8]:
        """Group indices uint8 (H, W) of a mask.

        Raises `ScanError` naming values the map does not know.
        """
        groups = self.groups()
        known = set(self.values) | set(self.ignored) | ({self.outside} if self.outside is not None else set())
        strange = sorted(set(np.unique(mask).tolist()) - known)
        if strange:
            what = f"{name}: mask holds the values {strange[:8]}, the label map knows {sorted(known)}"
            raise ScanError(f"{what}; add them to the map or mend the mask")
        out = np.full(mask.shape, IGNORED, np.uint8)
        for value, group in self.values.items():
            out[mask == value] = groups.index(group)
        if self.outside is not None:
            self._fill_outside(out, mask == self.outside, groups)
        return out

    def _fill_outside(self, out: NDArray[np.uint8], outside: NDArray[np.bool_], groups: tuple[str, ...]) -> None:
        layer = ~outside & (out != IGNORED)
        graded = layer.any(axis=0)
        first = np.where(graded, layer.argmax(axis=0), 0)
        last = np.where(graded, len(layer) - 1 - layer[::-1].argmax(axis=0), -1)
        row = np.arange(len(layer))[:, None]
        out[outside & graded & (row < first)] = groups.index(self.above)
        out[outside & graded & (row > last)] = groups.index(self.below)


def ordered_groups(groups: set[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Groups sorted top to bottom, unordered ones last.

    Raises `UsageError` if a structure occurs in two of them.
    """
    result = tuple(sorted(groups, key=lambda group: KEYS.index(members(group)[0])))
    check_classes(result)
    return result


def merge_table(structures: tuple[str, ...], groups: tuple[str, ...]) -> NDArray[np.float32]:
    """Which of the model's C classes each of G groups sums over: 0/1 (G, C).

    Raises `UsageError` for a group that cannot be made of whole classes (the set separates what the model merges).
    """
    table = np.zeros((len(groups), len(structures)), np.float32)
    for row, group in enumerate(groups):
        wanted = set(members(group))
        for column, own in enumerate(structures):
            if wanted.issuperset(members(own)):
                table[row, column] = 1
        covered = {key for column, own in enumerate(structures) if table[row, column] for key in members(own)}
        if covered != wanted:
            what = f"group {group!r} is not made of whole model classes {structures}"
            raise UsageError(f"{what}; let the model separate {sorted(wanted - covered)}")
    return table


def to_groups(labels: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Model labels (H, W) -> group indices; a class that belongs to no group becomes G."""
    lookup = np.where(table.any(axis=0), table.argmax(axis=0), len(table)).astype(np.uint8)
    return lookup[labels]


def same_surfaces(structures: tuple[str, ...], groups: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """The surfaces of a model and the boundaries of a set that are the same, by their places in both.

    A set that skips structures marks borders no model has.
    """
    own, marked = surface_names(structures), surface_names(groups)
    both = [name for name in marked if name in own]
    return [own.index(name) for name in both], [marked.index(name) for name in both]


def group_surfaces(reference: NDArray[np.uint8], groups: tuple[str, ...]) -> NDArray[np.float64]:
    """The boundaries between ordered neighbours of G groups from a reference (H, W): depths (K, W), NaN where not graded.

    A boundary lies half a row above its lower group. Where fluid or ignored pixels lie between the two groups nobody
    graded at which depth inside them the boundary runs.
    """
    order = [index for index, group in enumerate(groups) if is_ordered(group)]
    place = np.full(256, -1, np.int16)
    place[order] = np.arange(len(order))
    places = place[reference]
    deepest = np.maximum.accumulate(places, axis=0)
    columns = np.arange(reference.shape[1])
    surfaces = np.full((len(order) - 1, reference.shape[1]), np.nan)
    for index in range(len(order) - 1):
        below = (deepest <= index).sum(axis=0)
        inside = (below > 0) & (below < len(reference))
        shown = inside & (places[np.maximum(below, 1) - 1, columns] >= 0)
        surfaces[index, shown] = below[shown] - 0.5
    return surfaces


def boundary_reference(surfaces: NDArray[np.floating], rows: int) -> NDArray[np.uint8]:
    """Group indices uint8 (H, W) from boundaries (K, W), crossings mended downwards; columns with a missing one are ignored."""
    depth = np.arange(rows)[:, None]
    out = np.zeros((rows, surfaces.shape[1]), np.uint8)
    for surface in np.maximum.accumulate(surfaces, axis=0):
        out += surface <= depth
    out[:, ~np.isfinite(surfaces).all(axis=0)] = IGNORED
    return out
