"""A progress bar of a training: steps done, loss, and the IoU of the last validation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress

from rtsx.cli.console import notice
from rtsx.cli.progress import counting_bar

if TYPE_CHECKING:
    from rtsx.training.progress import Progress as Moment
    from rtsx.training.progress import ShowProgress

__all__ = ["training_progress"]


@contextmanager
def training_progress() -> "Iterator[ShowProgress]":
    """Yield what a training calls after each step; without a terminal, a line for every epoch."""
    bar = counting_bar()
    with bar:
        yield _Shown(bar)


class _Shown:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("training", total=None)
        self._iou = ""

    def __call__(self, moment: "Moment") -> None:
        row = moment.row
        if row is not None:
            self._iou = "" if row.iou is None else f", validation IoU {row.iou:.3f}"
            if not self._bar.console.is_terminal:
                notice(f"epoch {moment.epoch} of {moment.epochs}: loss {moment.loss:.4f}{self._iou}")
        # A training that is resumed, or the next of several seeds, begins anywhere, so the bar is set rather than moved.
        text = f"epoch {moment.epoch}/{moment.epochs}, loss {moment.loss:.4f}{self._iou}"
        self._bar.update(self._task, completed=moment.step, total=moment.steps, description=text)
