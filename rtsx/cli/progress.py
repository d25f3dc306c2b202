"""Progress bars on lazy work: dask tells which task ended, rich draws."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

from dask.callbacks import Callback
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rtsx.cli.console import status

__all__ = ["TaskProgress", "counting_bar", "progress"]


class TaskProgress(Callback):
    """Advances a bar as the tasks of a graph end.

    Parameters
    ----------
    bar
        The bar's home.
    label
        What the work is called.
    counts
        Beginning of the keys that count; where no task's key begins so, every task counts.
    """

    def __init__(self, bar: Progress, *, label: str, counts: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # dask's is not typed
        self._bar = bar
        self._label = label
        self._counts = counts
        self._counted: set[Any] = set()
        self._lock = Lock()

    def _start_state(self, graph: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
        """Count what is to be done; a graph may run in several rounds, each with a bar of its own."""
        tasks = {*state["ready"], *state["waiting"], *state["running"]}
        self._counted = {key for key in tasks if _name(key).startswith(self._counts)} or tasks
        self._task = self._bar.add_task(self._label, total=len(self._counted))

    def _posttask(self, key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:  # noqa: PLR0917 - dask's
        if key in self._counted:
            with self._lock:
                self._bar.advance(self._task)

    def _finish(self, graph: Any, state: Any, failed: bool) -> None:
        self._bar.stop_task(self._task)


def _name(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


def counting_bar() -> Progress:
    """A bar of things done out of so many, silent where there is no terminal."""
    console = status()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def progress(label: str, *, counts: str = "") -> Iterator[None]:
    """Show how far the dask work within the block is; nothing where standard error is no terminal.

    Parameters
    ----------
    label
        What the work is called.
    counts
        Beginning of the names of the tasks that take the time, such as `"answer-"`.
    """
    bar = counting_bar()
    with bar, TaskProgress(bar, label=label, counts=counts):
        yield
