"""How far a build is and how long it will take: the builder's phases, made into a word now and then."""

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY = 5.0  # seconds between two words
Tell = Callable[[str], None]


@dataclass(slots=True)
class _Phase:
    """An open phase: within which, of how many steps, how many are done, when it began in seconds."""

    parent: str | None
    steps: int
    began: float
    done: int = 0


class Progress:
    """Hears of phases within phases, and tells how much of the longest one is done and about how long it will still take.

    Steps are taken to last equally long; that holds for the outermost phase with several steps below the whole build, which
    also takes nearly all of the time. Ctrl-C is kept back while the library runs, stops the build, and comes out of `check`.
    """

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._open: dict[str, _Phase] = {}
        self._told = clock()
        self._stopped: BaseException | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._open[name] = _Phase(parent, max(steps, 1), self._clock())

    def finish(self, name: str) -> None:
        """A phase is over."""
        self._open.pop(name, None)

    def step(self, name: str, step: int) -> bool:
        """A step of a phase is done; False if the build shall stop."""
        try:
            if (phase := self._open.get(name)) is not None:
                phase.done = step + 1
            self._speak()
        except (KeyboardInterrupt, OSError) as error:
            self._stopped = error
        return self._stopped is None

    def check(self) -> None:
        """Raises what stopped the build, if something did."""
        if self._stopped is not None:
            raise self._stopped

    def _speak(self) -> None:
        now = self._clock()
        if now - self._told < EVERY:
            return
        for name, phase in list(self._open.items()):  # outermost first; a copy, for the library may have several threads
            share = self._share(name, phase)
            if phase.parent is not None and phase.steps > 1 and 0 < share < 1:
                self._told = now
                left = (now - phase.began) * (1 - share) / share
                self._tell(f"{name[:1].lower()}{name[1:]}: {share:.0%}, about {_duration(left)} left")
                return

    def _share(self, name: str, phase: _Phase) -> float:
        """How much of a phase is done, 0 to 1, with what is done of the phases within it."""
        inside = max((self._share(child, each) for child, each in list(self._open.items()) if each.parent == name), default=0.0)
        return min(1.0, (phase.done + inside) / phase.steps)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
