"""RLE of label maps (PS3.5 annex G): runs of equal bytes, at most 128 long, none beyond the end of a row.

A run of n bytes is written as 1 - n (two's complement) and the byte; for n = 1 that is the annex's literal run of one byte. So every
run takes two bytes, and both ways are a few calls of numpy. Labels of layers are nothing but runs: 1 % of their size.
"""

import struct

import numpy as np
from numpy.typing import NDArray

_LONGEST = 128


def encode(labels: NDArray[np.uint8]) -> bytes:
    """One frame uint8 (H, W) as a fragment: the header of one segment, and the segment."""
    begins = np.empty(labels.shape, bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    begins[:, ::_LONGEST] = True
    starts = np.flatnonzero(begins)
    runs = np.empty((len(starts), 2), np.uint8)
    runs[:, 0] = 1 - np.diff(starts, append=labels.size) & 255
    runs[:, 1] = labels.reshape(-1)[starts]
    return struct.pack("<16I", 1, 64, *[0] * 14) + runs.tobytes()


def decode(fragment: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """The frame uint8 (H, W) of a fragment made by `encode`."""
    runs = np.frombuffer(fragment, np.uint8, offset=64).reshape(-1, 2)
    return np.repeat(runs[:, 1], 1 - runs[:, 0].view(np.int8).astype(np.intp)).reshape(rows, columns)
