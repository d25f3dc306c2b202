"""Two processes at once, in one: another does something to its end before some write of the first, or until it has to wait for it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rtsx.campaign import map as campaign_map
from rtsx.storage import lock, object_store

_WRITES = ((MemoryFileSystem, "pipe_file"), (object_store, "write_object"), (campaign_map, "write_object"))


class Meanwhile:
    """What another process does before the n-th object is written, below ``memory://`` or a folder.

    Parameters
    ----------
    n
        From 0.
    act
        What it does.
    look
        Called before each write, of whomever.
    """

    def __init__(self, n: int, act: Callable[[], object], *, look: Callable[[], object] = lambda: None) -> None:
        self._left, self._act, self._look = n, act, look
        self._other: Future[object] | None = None
        self._is_waiting = threading.Event()
        self._counting = threading.Lock()

    @property
    def has_happened(self) -> bool:
        """Whether there was an n-th write."""
        return self._other is not None

    @contextmanager
    def happening(self) -> Iterator[None]:
        """Let it happen within the block; the other has ended at the end of it."""
        with ThreadPoolExecutor(1) as self._pool, pytest.MonkeyPatch.context() as patched:
            patched.setattr(lock, "_pause", self._pause)
            for owner, name in _WRITES:
                patched.setattr(owner, name, self._counted(getattr(owner, name)))
            yield
            if self._other is not None:
                self._other.result()

    def _counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self._tick()
            return write(*given, **named)

        return counted

    def _tick(self) -> None:
        self._look()
        with self._counting:
            self._left -= 1
            is_now = self._left == -1
        if is_now:
            self._other = self._pool.submit(self._act)
            while not (self._other.done() or self._is_waiting.is_set()):
                self._is_waiting.wait(0.001)

    def _pause(self, _: float) -> None:
        self._is_waiting.set()
        time.sleep(0.001)
