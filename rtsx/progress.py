"""How far work is: reported by dask, on this machine or on a cluster, and shown in a terminal, a notebook or a log."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self, TextIO

from rtsx.threads import repeated

Update = Callable[[int, int], None]
"""What is called with the number of things that are done, and of all of them."""

FIRST_S = 1.0
"""Seconds after which something is said; work that takes less is not worth a word."""
_LONGEST_S = 600.0
_REDRAW_S = 0.5

_speaking: list[object] = []
"""Who shows something now; the last one speaks, and the others are silent as long."""


@contextmanager
def show_progress(label: str = "computing", *, counts: str = "") -> Iterator[None]:
    """Show on standard error how far dask is with what is computed within the block, from its first second on.

    In a terminal and in a notebook as one line that changes; in a log as lines at growing pauses. It hears dask's schedulers
    on this machine and the cluster of the `distributed.Client` in force alike.

    Parameters
    ----------
    label
        What the work is called.
    counts
        Beginning of the names of tasks that count; ``""``, or one that no task has, counts all.

    Examples
    --------
    >>> import dask.array as da
    >>> with show_progress("adding"):
    ...     total = da.ones((4, 4), chunks=2).sum().compute()
    """
    with Line(label) as line, watched(line.update, counts=counts):
        yield


@contextmanager
def watched(update: Update, *, counts: str) -> Iterator[None]:
    """Call a function, in any thread, as the tasks end that dask runs within the block; counts anew with each graph."""
    with _here(update, counts=counts), _cluster(update, counts=counts):
        yield


class Line:
    """How far something is, in one line of text; to be entered.

    Parameters
    ----------
    label
        What the work is called.
    unit
        What is counted.
    in_place
        Change one line instead of adding lines; None: where standard error is a terminal or a notebook.
    silent
        Say nothing, and keep those around silent too, because something else shows it.
    """

    def __init__(self, label: str, *, unit: str = "", in_place: bool | None = None, silent: bool = False) -> None:
        self.label = label
        self._unit = f" {unit}" if unit else ""
        self._in_place = in_place
        self._silent = silent
        self._done, self._total, self._note = 0, 0, ""
        self._ended = Event()
        self._said = False

    def update(self, done: int, total: int, note: str = "") -> None:
        """Say how many of all are done, and anything else."""
        self._done, self._total, self._note = done, total, note

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._in_place is None:
            self._in_place = _is_terminal(sys.stderr) or type(sys.stderr).__module__.startswith("ipykernel")
        _speaking.append(self)
        self._thread = Thread(target=self._speak, name="rtsx-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._said and ((kind is None and self._total) or self._in_place):
            self._say(last=True)
        _speaking.remove(self)

    def _speak(self) -> None:
        pause = FIRST_S
        while not self._ended.wait(pause):
            # Growing, because a log of a week is not to be full of it.
            pause = _REDRAW_S if self._in_place else min(max(10.0, 2 * pause), _LONGEST_S)
            if _speaking[-1] is self and not self._silent:
                self._say(last=False)

    def _say(self, *, last: bool) -> None:
        stream: TextIO | None = sys.stderr
        start, end = ("\r", "\x1b[K" if _is_terminal(stream) else "  ") if self._in_place else ("", "\n")
        with suppress(OSError, ValueError):  # a log that is full or closed costs no work
            if stream is not None:
                stream.write(f"{start}{self}{end}" + ("\n" if last and self._in_place else ""))
                stream.flush()
        self._said = True

    def __str__(self) -> str:
        """State the work, how much of it is done, and for how long it has been going on."""
        seconds = time.monotonic() - self._started
        taken = f", {clock(seconds)}" if seconds >= 2 * FIRST_S else ""
        if not self._total:
            return f"{self.label} ...{taken}{self._note}"
        left = f", {clock(seconds * (self._total / self._done - 1))} left" if 0 < self._done < self._total else ""
        return f"{self.label}: {self._done:,} of {self._total:,}{self._unit}{self._note}{taken}{left}"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def clock(seconds: float) -> str:
    """Write a time as one reads it.

    Examples
    --------
    >>> clock(7.4), clock(200), clock(7300)
    ('7 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def _here(update: Update, *, counts: str) -> Iterator[None]:
    """Hear dask's own schedulers."""
    from dask.callbacks import add_callbacks  # loads for a second, which the first word of a command does not wait for

    counted: set[Any] = set()
    done = 0
    lock = Lock()

    def begun(graph: Mapping[Any, Any], state: Mapping[str, Any]) -> None:
        nonlocal counted, done
        tasks = {*state["ready"], *state["waiting"], *state["running"]}
        named = {key for key in tasks if str(key[0] if isinstance(key, tuple) else key).startswith(counts)}
        counted, done = named or tasks, 0
        update(0, len(counted))

    def ended(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:  # noqa: PLR0917 - dask's
        nonlocal done
        if key in counted:
            with lock:
                done += 1
                update(done, len(counted))

    with add_callbacks((None, begun, None, ended, None)):
        yield


@contextmanager
def _cluster(update: Update, *, counts: str) -> Iterator[None]:
    """Ask the scheduler of the client in force, because callbacks hear nothing of a cluster."""
    client = None
    if "distributed" in sys.modules:  # which takes a second to load; without it there is no client
        from distributed.client import _get_global_client

        client = _get_global_client()
    if client is None or client.asynchronous:
        yield
        return

    def groups(dask_scheduler: Any) -> dict[str, tuple[int, int]]:
        """Return tasks done and all tasks, by the name of their group; defined here, so that it is sent by value."""
        unfinished = ("waiting", "processing", "queued", "no-worker")
        sizes = {name: sum(group.states.values()) for name, group in dask_scheduler.task_groups.items()}
        return {
            name: (size - sum(dask_scheduler.task_groups[name].states.get(each, 0) for each in unfinished), size)
            for name, size in sizes.items()
        }

    before = set(client.run_on_scheduler(groups))
    seen: dict[str, tuple[int, int]] = {}

    def report() -> None:
        named = [numbers for name, numbers in seen.items() if name.startswith(counts)] or list(seen.values())
        if named:
            update(sum(done for done, _ in named), sum(size for _, size in named))

    def ask() -> None:
        now = client.run_on_scheduler(groups)
        # Groups whose tasks are all forgotten are done.
        seen.update({name: (size, size) for name, (_, size) in seen.items() if name not in now})
        seen.update({name: numbers for name, numbers in now.items() if name not in before})
        report()

    try:
        with repeated(ask, every_s=_REDRAW_S, name="rtsx-cluster-progress"):
            yield
        seen.update({name: (size, size) for name, (_, size) in seen.items()})
    finally:
        report()
