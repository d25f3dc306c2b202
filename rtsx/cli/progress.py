"""How far a command is: bars on a terminal, elsewhere the lines of `rtsx.progress`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rtsx.cli.console import notice, status
from rtsx.progress import Line, watched

if TYPE_CHECKING:
    from rtsx.campaign.flight_summary import FlightSummary
    from rtsx.training.progress import Progress as Moment

__all__ = ["Show", "campaign_progress", "counting", "progress", "training_progress"]


class Show(Protocol):
    """Shows how many of all are done, and anything else."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show it."""


@contextmanager
def counting(label: str, *, unit: str = "") -> Iterator[Show]:
    """Show how far something is, from its first second on.

    Parameters
    ----------
    label
        What the work is called.
    unit
        What is counted.
    """
    # Also around the bar, because who speaks is one at a time.
    with Line(label, unit=unit, silent=status().is_terminal) as line:
        if not status().is_terminal:
            yield line.update
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), *columns, console=status()) as bar:
            task = bar.add_task(label, total=None)

            def show(done: int, total: int, note: str = "") -> None:
                bar.update(task, completed=done, total=total, description=f"{label}{note}")

            yield show


@contextmanager
def progress(label: str, *, counts: str = "") -> Iterator[None]:
    """Show how far the dask work within the block is.

    Parameters
    ----------
    label
        What the work is called.
    counts
        Beginning of the names of the tasks that take the time, such as `"answer-"`.
    """
    with counting(label) as show, watched(show, counts=counts):
        yield


@contextmanager
def training_progress() -> "Iterator[Callable[[Moment], None]]":
    """Yield what a training calls after each step; without a terminal, a line for every epoch too."""
    with counting("training", unit="steps") as show:
        iou = ""

        def moved(moment: "Moment") -> None:
            nonlocal iou
            row = moment.row
            if row is not None:
                iou = "" if row.iou is None else f", validation IoU {row.iou:.3f}"
                if not status().is_terminal:
                    notice(f"epoch {moment.epoch} of {moment.epochs}: loss {moment.loss:.4f}{iou}")
            show(moment.step, moment.steps, f", epoch {moment.epoch}/{moment.epochs}, loss {moment.loss:.4f}{iou}")

        yield moved


@contextmanager
def campaign_progress(label: str) -> "Iterator[Callable[[FlightSummary], None]]":
    """Yield what a campaign calls now and then with how its run stands; without a terminal, a line at each tenth too.

    Parameters
    ----------
    label
        What the work is called.
    """
    with counting(label, unit="cells") as show:
        run, tenths = "", -1

        def moved(summary: "FlightSummary") -> None:
            nonlocal run, tenths
            if summary.run != run:  # an update has two: it looks at cells, and then runs some
                run, tenths = summary.run, -1
            over = summary.before + summary.done + summary.skipped + len(summary.set_aside)
            cells = summary.before + summary.cells
            notes = [f", {summary.workers} worker{'' if summary.workers == 1 else 's'}"]
            notes += [f", {summary.retried} tried again"] if summary.retried else []
            notes += [f", {len(summary.set_aside)} set aside"] if summary.set_aside else []
            show(over, cells, "".join(notes))
            reached = 10 * over // cells if cells else -1
            if reached > tenths and not status().is_terminal:
                notice(f"{label}: {over:,} of {cells:,} cells{''.join(notes)}")
            tenths = max(reached, tenths)

        yield moved
