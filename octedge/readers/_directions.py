"""Where columns and B-scans run on the fundus as an examiner sees it: head up, the patient's right on the left."""

from math import hypot

from octedge.scan import Direction

Line = tuple[float, float, float, float]  # from x, y to x, y on the fundus, x rightwards, y upwards; only directions matter

_OBLIQUE = 0.364  # tan 20 deg: beyond, a line is neither horizontal nor vertical


def directions(first: Line, last: Line) -> tuple[Direction | None, Direction | None]:
    """Where the columns of the first B-scan run, and where one gets from it to the last; None where that is oblique or not to be told.

    >>> directions((0, 0, 6, 0.2), (0, -5, 6, -4.8))
    ('right', 'down')
    """
    across = first[2] - first[0], first[3] - first[1]
    along = (last[0] + last[2] - first[0] - first[2]) / 2, (last[1] + last[3] - first[1] - first[3]) / 2
    length = hypot(*across)
    if length > 0:  # the distance between lines, not how far one begins beside the other
        sideways = (along[1] * across[0] - along[0] * across[1]) / length
        along = -sideways * across[1] / length, sideways * across[0] / length
    return word(*across), word(*along)


def word(x: float, y: float) -> Direction | None:
    """The direction of a vector, None if it is oblique or has no length.

    >>> word(-3, 0.5)
    'left'
    """
    if abs(y) <= _OBLIQUE * abs(x) and x != 0:
        return "right" if x > 0 else "left"
    if abs(x) <= _OBLIQUE * abs(y) and y != 0:
        return "up" if y > 0 else "down"
    return None
