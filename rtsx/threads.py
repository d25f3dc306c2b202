"""Threads: a lock that several hold together, or one alone; what is done now and then; and dask's, which the child of a fork lacks."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Condition, Event, Thread


class ReadWriteLock:
    """Lets any number of threads in together, or one alone; who wants to be alone waits only for those that are in.

    Examples
    --------
    >>> turn = ReadWriteLock()
    >>> with turn.taken(alone=False), turn.taken(alone=False):
    ...     "together"
    'together'
    """

    def __init__(self) -> None:
        self._free = Condition()
        self._inside = 0
        self._alone = False
        self._wanting = 0

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Wait for the turn, and hold it."""
        with self._free:
            if alone:
                self._wanting += 1
                self._free.wait_for(lambda: not self._inside)
                self._wanting -= 1
            else:
                self._free.wait_for(lambda: not (self._alone or self._wanting))
            self._inside += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._free:
                self._inside -= 1
                self._alone = False
                self._free.notify_all()


@contextmanager
def repeated(
    call: Callable[[], object], *, every_s: float, name: str, patience_s: float | None = None
) -> Iterator[None]:
    """Call something every so many seconds during the block, in another thread; whatever it raises, the next may do better.

    Parameters
    ----------
    call
        What is called, for the first time after `every_s`.
    every_s
        Seconds between two calls.
    name
        Of the thread.
    patience_s
        Seconds that the end of the block waits for a call that is under way; None for as long as it takes.
    """
    over = Event()

    def repeat() -> None:
        while not over.wait(every_s):
            with suppress(Exception):
                call()

    thread = Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience_s)


def restart_dask_after_forks() -> None:
    """Let the child of a fork start a pool of its own: dask would wait for ever for the parent's threads, which it has not."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_dask_threads)


def _forget_dask_threads() -> None:
    if (threaded := sys.modules.get("dask.threaded")) is not None:
        threaded.default_pool = None  # type: ignore[attr-defined]
        threaded.pools.clear()
