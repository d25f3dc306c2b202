"""The one thread in which this process opens, probes and runs networks for predictions on a CPU.

Every thread that calls torch gets a team of OpenMP threads of its own, which stays as long as the thread does. As soon as
the teams together have more threads than there are cores, GNU's OpenMP lets none of them wait actively between two
operators, and small tiles, whose operators are short, take a third longer: `python -m benchmarks teams`.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

__all__ = ["on_torch_thread"]

_T = TypeVar("_T")

_LOCK = threading.Lock()
_POOL: ThreadPoolExecutor | None = None
_HERE = threading.local()
"""Has `is_torch_thread` in that thread alone."""


def on_torch_thread(work: Callable[[], _T]) -> _T:
    """Call `work` in the torch thread, after what others asked of it; returns or raises what it does.

    What `work` calls may ask again. Never ask while holding a lock that work for this thread takes. What has begun is
    finished, even where its asker is interrupted. Operators take as many threads as `torch.set_num_threads` said before
    the first call.
    """
    if getattr(_HERE, "is_torch_thread", False):
        return work()
    future = _pool().submit(copy_context().run, work)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # an interrupt of whoever waits: what has not begun is not wanted any more
        raise
    finally:
        del future  # it would keep an error, and with it whatever `work` holds, alive in a circle


def _pool() -> ThreadPoolExecutor:
    global _POOL
    with _LOCK:
        if _POOL is None:
            _POOL = ThreadPoolExecutor(1, thread_name_prefix="rtsx-torch", initializer=_mark)
        return _POOL


def _mark() -> None:
    _HERE.is_torch_thread = True


def _forget() -> None:
    """In a forked child, where no thread of the parent is."""
    global _POOL, _LOCK
    _POOL, _LOCK = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
