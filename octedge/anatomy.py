"""The structures of the fundus, once, top to bottom, and the surfaces between them.

Every other part refers to structures by their `key`. A model knows *classes*: groups of one or more structures
written with a plus sign (`"gcl+ipl"`), in anatomical order. The chain of the ordered decode is made of all
ordered classes; `fluid` lies inside other structures and takes no place in it.

The optic disc closes the chain: in a column through the nerve head the nerve goes on to the bottom of the image
(no choroid, no sclera below it), so `disc` last is both the table's order and the anatomical one.
"""

from dataclasses import dataclass
from itertools import pairwise

from octedge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure: its key, English name, display colour (RGB), coded concept, and whether it has a place in the chain."""

    key: str
    name: str
    colour: tuple[int, int, int]
    code: tuple[str, str, str] | None  # coding scheme, value, meaning; None where no public code exists
    ordered: bool = True


# Colours: neighbours differ in lightness as well as hue, so that the order stays readable without colour vision.
STRUCTURES: tuple[Structure, ...] = (
    Structure("vitreous", "vitreous", (60, 60, 60), ("SCT", "26386000", "Vitreous")),
    Structure("nfl", "nerve fibre layer", (230, 159, 0), ("SCT", "45950005", "Retinal nerve fiber layer")),
    Structure("gcl", "ganglion cell layer", (0, 114, 178), ("UBERON", "0001792", "Ganglionic layer of retina")),
    Structure("ipl", "inner plexiform layer", (86, 180, 233), ("UBERON", "0001795", "Inner plexiform layer of retina")),
    Structure("inl", "inner nuclear layer", (0, 120, 85), ("UBERON", "0001791", "Inner nuclear layer of retina")),
    Structure("opl", "outer plexiform layer", (240, 228, 66), ("UBERON", "0001790", "Outer plexiform layer of retina")),
    Structure("onl", "outer nuclear layer", (148, 52, 110), ("UBERON", "0001789", "Outer nuclear layer of retina")),
    Structure("elm", "external limiting membrane", (255, 255, 255), ("SCT", "76710003", "External limiting membrane")),
    Structure("mz", "myoid zone", (110, 90, 160), None),
    Structure("ez", "ellipsoid zone", (213, 94, 0), None),
    Structure("os", "photoreceptor outer segments and interdigitation zone", (190, 170, 220), None),
    Structure("rpe", "retinal pigment epithelium", (170, 30, 30), ("UBERON", "0001782", "Pigmented layer of retina")),
    Structure("choroid", "choroid", (204, 121, 167), ("SCT", "68703001", "Choroid")),
    Structure("sclera", "sclera", (115, 115, 90), ("SCT", "18619003", "Sclera")),
    Structure("disc", "optic disc", (0, 200, 160), ("SCT", "81016008", "Optic nerve head")),
    Structure("fluid", "fluid", (20, 40, 255), None, ordered=False),
)

KEYS: tuple[str, ...] = tuple(s.key for s in STRUCTURES)
RETINA: tuple[str, ...] = KEYS[1:12]  # nfl .. rpe: the layers fluid may lie in
_INDEX = {key: index for index, key in enumerate(KEYS)}


def structure(key: str) -> Structure:
    """The structure named `key`.

    Raises `UsageError` for an unknown key.
    """
    if key not in _INDEX:
        raise UsageError(f"no structure is called {key!r}; known are {', '.join(KEYS)}")
    return STRUCTURES[_INDEX[key]]


def members(group: str) -> tuple[str, ...]:
    """The structures of one class: `"gcl+ipl"` -> `("gcl", "ipl")`.

    >>> members("gcl+ipl")
    ('gcl', 'ipl')
    """
    return tuple(structure(key).key for key in group.split("+"))


def is_ordered(group: str) -> bool:
    """Whether a class has a place in the chain of the ordered decode."""
    return all(structure(key).ordered for key in members(group))


def check_classes(classes: tuple[str, ...]) -> None:
    """Make sure `classes` can be a model's: known keys, none twice, in anatomical order, unordered ones last.

    Raises `UsageError` with the first offender.
    """
    keys = [key for group in classes for key in members(group)]
    positions = [_INDEX[key] for key in keys]
    for (left, right), (a, b) in zip(pairwise(keys), pairwise(positions), strict=True):
        if a >= b:
            order = ", ".join(KEYS)
            raise UsageError(f"classes {classes}: {right!r} stands after {left!r}; list each structure once, in the order {order}")
    for group in classes:
        if len({structure(key).ordered for key in members(group)}) != 1:
            raise UsageError(f"class {group!r} mixes ordered and unordered structures; keep 'fluid' on its own")


def surface_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The L surfaces between neighbouring ordered classes, each named by what it separates.

    >>> surface_names(("vitreous", "nfl", "gcl+ipl", "inl", "fluid"))
    ('vitreous|nfl', 'nfl|gcl', 'ipl|inl')
    """
    chain = [group for group in classes if is_ordered(group)]
    return tuple(f"{members(upper)[-1]}|{members(lower)[0]}" for upper, lower in pairwise(chain))
