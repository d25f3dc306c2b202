"""What commands print: results to standard output; messages, warnings and progress to standard error."""

import inspect
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from rtsx.errors import OutputNotWritableError
from rtsx.progress import Line, watched
from rtsx.redaction import redacted

if TYPE_CHECKING:
    from rtsx.campaign.records import RunSummary
    from rtsx.training.run_log import Progress as Moment

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Commands(typer.Typer):
    """Commands of one file; their help is the docstring, and ends with its section of examples."""

    def command(self, name: str | None = None, **stated: Any) -> Callable[[_Command], _Command]:
        """Register a function as a command; see `typer.Typer.command`."""

        def registered(function: _Command) -> _Command:
            text, _, lines = (inspect.getdoc(function) or "").partition("\n\nExamples\n--------\n")
            head = "Examples" if "\n\n" in lines else "Example"
            epilog = f"{head}:\n\n{lines}" if lines else None
            return super(Commands, self).command(name, help=text, epilog=epilog, **stated)(function)

        return registered


_ERR = Console(stderr=True, highlight=False)
_UNFOLDED = 240
"""Width of a table that no terminal limits, in characters."""


class ConsoleStream:
    """Standard output or error whose reader may leave and whose disk may be full: that costs words, never the work.

    Parameters
    ----------
    stream
        What is written to until it fails.
    """

    failure: Exception | None = None
    """Why words were lost; None if none were."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what was written."""
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except (OSError, ValueError) as error:  # ValueError: closed in this process
            self.failure = self.failure or error
            if isinstance(self._stream, TextIOWrapper) and not self._stream.closed:
                # Because what stands in the buffer is written once more when the interpreter ends, which would fail again.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def streams() -> Iterator[ConsoleStream]:
    """Make the process's standard streams such that printing never fails, and yield that of the output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the caller, as with >&-: the next file that is opened would take all that is printed.
            os.open(os.devnull, os.O_RDWR)
    with ExitStack() as stack:
        out, err = (
            ConsoleStream(one or stack.enter_context(pathlib.Path(os.devnull).open("w")))
            for one in (sys.stdout, sys.stderr)
        )
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        yield out


def show(title: str, *rows: tuple[str, object], asked: bool = False, since: float | None = None) -> None:
    """Print a table of names and values to standard output; empty values are left out.

    Parameters
    ----------
    title
        What stands above the table.
    rows
        The names and values.
    asked
        Whether this is what the command was asked for, and not a summary of what is on disk.
    since
        What `time.perf_counter` gave when the work began, for a last row with the time it took; None for no such row.

    Raises
    ------
    OutputNotWritableError
        What was asked for cannot be printed.
    """
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    took = [] if since is None else [("time", f"{perf_counter() - since:.1f} s")]
    for name, value in (*rows, *took):
        if value not in (None, ""):
            table.add_row(name, Text(redacted(str(value))))
    _out().print(table)
    _require_printed(asked)


def show_line(line: str, *, asked: bool = False) -> None:
    """Print one line to standard output, unwrapped; `asked` as for `show`."""
    _out().print(Text(redacted(line)), soft_wrap=True)
    _require_printed(asked)


def _require_printed(asked: bool) -> None:
    failure = getattr(sys.stdout, "failure", None)
    if asked and failure is not None and not isinstance(failure, BrokenPipeError):  # whose reader has seen enough
        raise OutputNotWritableError(f"Standard output cannot be written: {failure}. Print to another place.")


def print_info(message: str) -> None:
    """Print one line to standard error: what a command has decided for the user."""
    _ERR.print(Text(redacted(message), style="dim"), soft_wrap=True)


def print_error(message: str) -> None:
    """Print why a command failed to standard error, unwrapped, so that it can be copied and searched for."""
    _ERR.print(Text.assemble(("Error: ", "bold red"), redacted(message)), soft_wrap=True)


def warn(message: str) -> None:
    """Print to standard error what went on in spite of a doubt."""
    _ERR.print(Text.assemble(("Warning: ", "bold yellow"), redacted(message)), soft_wrap=True)


def status_console() -> Console:
    """Return the console of progress bars: standard error, so that output can be piped."""
    return _ERR


def _out() -> Console:
    # Into a file or pipe unfolded, because there a folded path is a broken one.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)


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
    with Line(label, unit=unit, silent=status_console().is_terminal) as line:
        if not status_console().is_terminal:
            yield line.update
            return
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), *columns, console=status_console()) as bar:
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
        Beginning of the names of the tasks that take the time, such as `"tiles-"`.
    """
    with counting(label) as show, watched(show, counts=counts):
        yield


@contextmanager
def serving() -> Iterator[None]:
    """Say nothing of a server while it runs; Ctrl-C and SIGTERM are its end, and no error."""
    with Line("", silent=True), suppress(KeyboardInterrupt):
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
                if not status_console().is_terminal:
                    print_info(f"epoch {moment.epoch} of {moment.epochs}: loss {moment.loss:.4f}{iou}")
            show(moment.step, moment.steps, f", epoch {moment.epoch}/{moment.epochs}, loss {moment.loss:.4f}{iou}")

        yield moved


@contextmanager
def campaign_progress(label: str) -> "Iterator[Callable[[RunSummary], None]]":
    """Yield what a campaign calls now and then with how its run stands; without a terminal, a line at each tenth too.

    Parameters
    ----------
    label
        What the work is called.
    """
    with counting(label, unit="cells") as show:
        run, tenths = "", -1

        def moved(summary: "RunSummary") -> None:
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
            if reached > tenths and not status_console().is_terminal:
                print_info(f"{label}: {over:,} of {cells:,} cells{''.join(notes)}")
            tenths = max(reached, tenths)

        yield moved
