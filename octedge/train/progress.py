"""What people see of a training: a line now and then, and curves in TensorBoard where they want them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from octedge.errors import UsageError
from octedge.train.checkpoint import Training, best
from octedge.train.validate import Scores

Say = Callable[[str], None]


def quiet(_: str) -> None:
    """Tells nobody."""


class Progress:
    """Lines with step, loss, pace and time left; IoU per structure after a validation; the same as curves in `board`, if given."""

    def __init__(self, name: str, say: Say, training: Training, end: int, board: Path | None) -> None:
        self.name, self.say, self.end = name, say, end
        self.began, self.first = time.monotonic(), training.step
        self.board = open_board(board, training.step) if board else None

    def tell(self, training: Training) -> None:
        """Say where the training is."""
        pace = (time.monotonic() - self.began) / max(1, training.step - self.first)
        left = pace * (self.end - training.step) / 60
        text = f"{self.name} step {training.step}/{self.end} loss {training.loss:.3f} {pace:.2f} s/step {left:.0f} min left"
        validated = bool(training.history) and training.history[-1].step == training.step
        if validated:
            top = best(training.history)
            text += f"; IoU {training.history[-1].scores.mean:.4f} (best {top.scores.mean:.4f} at {top.step}): "
            text += by_structure(training.history[-1].scores)
        self.say(text)
        if self.board:
            self.board.add_scalar("loss", training.loss, training.step)
            for group in training.optimiser.param_groups:
                self.board.add_scalar("rate", group["lr"], training.step)
            for name, value in curves(training.history[-1].scores).items() if validated else ():
                self.board.add_scalar(name, value, training.step)
            self.board.flush()

    def close(self) -> None:
        """End the curves."""
        if self.board:
            self.board.close()


def by_structure(scores: Scores) -> str:
    """IoU per structure of every source, in few letters."""
    parts = (" ".join(f"{group} {iou:.2f}" for group, (iou, _) in each.by_group().items()) for each in scores.sets.values())
    return "; ".join(f"{name} {part}" for name, part in zip(scores.sets, parts, strict=True))


def curves(scores: Scores) -> dict[str, float]:
    """Every IoU under the name of its curve."""
    found = {f"iou/{name}/{group}": iou for name, each in scores.sets.items() for group, (iou, _) in each.by_group().items()}
    return {"iou": scores.mean, **found}


def open_board(folder: Path, step: int) -> Any:
    """A TensorBoard writer that forgets what an earlier process drew after `step`.

    Raises `UsageError` where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the package tensorboard, which is not installed; install it or go without") from error
    return SummaryWriter(str(folder), purge_step=step + 1)
