"""What the commands print: results to standard output, everything else to standard error."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["complain", "notice", "show", "show_line", "status", "warn"]

_ERR = Console(stderr=True, highlight=False)
_UNFOLDED = 240
"""Width of a table that no terminal limits, in characters."""


def show(title: str, rows: Sequence[tuple[str, object]]) -> None:
    """Print a table of names and values to standard output; empty values are left out."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, ""):
            table.add_row(name, Text(str(value)))
    _out().print(table)


def show_line(line: str) -> None:
    """Print one line to standard output, unwrapped."""
    _out().print(Text(line), soft_wrap=True)


def notice(message: str) -> None:
    """Print one line to standard error: what a command has decided for the user."""
    _ERR.print(Text(message, style="dim"), soft_wrap=True)


def complain(message: str) -> None:
    """Print why a command failed to standard error, unwrapped, so that it can be copied and searched for."""
    _ERR.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def warn(message: str) -> None:
    """Print to standard error what went on in spite of a doubt."""
    _ERR.print(Text.assemble(("Warning: ", "bold yellow"), message), soft_wrap=True)


def status() -> Console:
    """The console of progress bars: standard error, so that output can be piped."""
    return _ERR


def _out() -> Console:
    # Into a file or pipe unfolded, because there a folded path is a broken one.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNFOLDED)
