"""A lock that several threads hold together, or one alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


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
