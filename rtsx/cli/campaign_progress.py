"""A progress bar of a campaign: cells done, failed and left; without a terminal, a line at the beginning and at each tenth."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress

from rtsx.cli.console import notice
from rtsx.cli.progress import counting_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtsx.campaign.flight_summary import FlightSummary

__all__ = ["campaign_progress"]


@contextmanager
def campaign_progress(label: str) -> "Iterator[Callable[[FlightSummary], None]]":
    """Yield what a campaign calls now and then with how its run stands.

    Parameters
    ----------
    label
        What the work is called.
    """
    bar = counting_bar()
    with bar:
        yield _Shown(bar, label)


class _Shown:
    def __init__(self, bar: Progress, label: str) -> None:
        self._bar = bar
        self._label = label
        self._task = bar.add_task(label, total=None)
        self._run = ""
        self._tenths = -1

    def __call__(self, summary: "FlightSummary") -> None:
        if summary.run != self._run:  # an update has two: it looks at cells, and then runs some
            self._run, self._tenths = summary.run, -1
        over = summary.before + summary.done + summary.skipped + len(summary.set_aside)
        cells = summary.before + summary.cells
        told = [f", {summary.workers} worker{'' if summary.workers == 1 else 's'}"]
        told += [f", {summary.retried} tried again"] if summary.retried else []
        told += [f", {len(summary.set_aside)} set aside"] if summary.set_aside else []
        state = "".join(told)
        self._bar.update(self._task, completed=over, total=cells, description=f"{self._label}{state}")
        tenths = 10 * over // cells if cells else -1
        if tenths > self._tenths and not self._bar.console.is_terminal:
            notice(f"{self._label}: {over:,} of {cells:,} cells{state}")
        self._tenths = max(tenths, self._tenths)
