"""Many small jobs at a time in threads of this process."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["in_threads"]

T = TypeVar("T")
U = TypeVar("U")

_MOST = 8
"""Threads at most: each holds the tables of a partition."""


def in_threads(work: Callable[[T], U], wanted: Iterable[T]) -> list[U]:
    """Results in the order of what is wanted; the first error ends it, after the jobs that are running."""
    count = min(os.cpu_count() or 1, _MOST)
    left = iter(wanted)
    results: list[U] = []
    with ThreadPoolExecutor(count, "rtsx-collect") as pool:
        # In batches, so that after an error no long queue of jobs is still worked off.
        while batch := list(islice(left, 4 * count)):
            results += pool.map(work, batch)
    return results
