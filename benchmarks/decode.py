"""The ordered decode in milliseconds: by size and by the share of columns that need it, in one thread and in two.

    python -m benchmarks.decode
    python -m benchmarks.decode --rounds 30

15 ordered classes and fluid, scores float32, surfaces included. Columns out of order have one stray row, "noise" has a class
drawn for every pixel. Two threads take half the columns each. Contenders run in turns; a first turn warms up.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import click
import numpy as np
from numpy.typing import NDArray

from octedge.anatomy import KEYS
from octedge.ordered import Chain, decode

CHAIN = Chain.of(KEYS)
SIZES = (496, 512), (1024, 512), (1024, 1024)
SHARES = 0.0, 0.003, 0.07, 0.5, 1.0
START = """
import time
began = time.perf_counter()
import numpy
after_numpy = time.perf_counter()
from octedge.anatomy import KEYS
from octedge.ordered import Chain, decode
after_import = time.perf_counter()
scores = numpy.random.default_rng(0).random((16, 1024, 512), numpy.float32)
labels = scores.argmax(axis=0).astype(numpy.uint8)
before_first = time.perf_counter()
decode(scores, Chain.of(KEYS), labels)
print(after_numpy - began, after_import - after_numpy, time.perf_counter() - before_first)
"""

Answer = tuple[NDArray[np.uint8], NDArray[np.float32]]
Scores = tuple[NDArray[np.float32], NDArray[np.uint8]]


def layers(rows: int, columns: int, share: float) -> Scores:
    """Scores (C, H, W) of smooth layers and their argmax, a share of the columns with a row of the shallowest class near the bottom."""
    rng = np.random.default_rng(5)
    wave = 1 + 0.1 * np.sin(np.arange(columns) / 60)
    depth = np.linspace(0.2, 0.7, len(CHAIN.ordered) - 1)[:, None] * wave * rows
    place = (np.arange(rows)[:, None] >= depth[:, None]).sum(axis=0)
    place[rows - 9, rng.permutation(columns)[: round(share * columns)]] = 0
    logits = rng.gumbel(size=(len(KEYS), rows, columns)).astype(np.float32)
    logits += 40 * (np.arange(len(KEYS))[:, None, None] == place)
    return scored(logits)


def noise(rows: int, columns: int) -> Scores:
    """Scores (C, H, W) without any order, and their argmax."""
    return scored(np.random.default_rng(5).gumbel(size=(len(KEYS), rows, columns)).astype(np.float32))


def scored(logits: NDArray[np.float32]) -> Scores:
    """Log-probabilities and argmax."""
    logits -= np.log(np.exp(logits - logits.max(axis=0)).sum(axis=0)) + logits.max(axis=0)
    return logits, logits.argmax(axis=0).astype(np.uint8)


def in_two(pool: ThreadPoolExecutor, scores: NDArray[np.float32], labels: NDArray[np.uint8]) -> Answer:
    """The decode, each half of the columns in a thread."""
    half = labels.shape[1] // 2
    parts = pool.map(lambda at: decode(scores[:, :, at], CHAIN, labels[:, at]), (slice(half), slice(half, None)))
    one, other = zip(*parts, strict=True)
    return np.concatenate(one, axis=1), np.concatenate(other, axis=1)


def milliseconds(contenders: dict[str, Callable[[], Answer]], rounds: int) -> dict[str, list[float]]:
    """The times of every contender in turn; all must answer the same."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    expected = next(iter(contenders.values()))()
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            answer = run()
            taken = 1000 * (time.perf_counter() - began)
            if turn:
                found[name].append(taken)
            elif not (np.array_equal(answer[0], expected[0]) and np.array_equal(answer[1], expected[1])):
                raise SystemExit(f"{name} answers otherwise than the decode of all columns at once")
    return found


def start_up(rounds: int) -> str:
    """What a new process pays, each the least of several."""
    runs = [subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True) for _ in range(rounds)]
    numpy, module, first = np.array([run.stdout.split() for run in runs], float).min(axis=0) * 1000
    return f"New process: import of numpy {numpy:.0f} ms, of the decode {module:.0f} ms; first decode, 1024 x 512 noise, {first:.0f} ms."


@click.command()
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Print a table as Markdown, least and median milliseconds, and what starting costs."""
    print(f"{platform.machine()}, numpy {np.__version__}, Python {platform.python_version()}, {rounds} rounds, least / median ms\n")
    print("| rows x columns | columns that need it | one thread | two threads |\n|---|--:|--:|--:|")
    with ThreadPoolExecutor(2) as pool:
        for rows, columns in SIZES:
            cases = {f"{share:.1%}": layers(rows, columns, share) for share in SHARES} | {"noise, 100%": noise(rows, columns)}
            for name, (scores, labels) in cases.items():
                one, two = partial(decode, scores, CHAIN, labels), partial(in_two, pool, scores, labels)
                found = milliseconds({"one": one, "two": two}, rounds).values()
                print(f"| {rows} x {columns} | {name} | {' | '.join(f'{min(each):.1f} / {median(each):.1f}' for each in found)} |")
    print(f"\n{start_up(5)}")


if __name__ == "__main__":
    main()
