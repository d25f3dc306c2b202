"""Batches read while the network works on those before them; what is read, and in which order, never depends on it."""

import multiprocessing
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import cloudpickle
import torch

from rtsx.training.batch import Batch
from rtsx.training.draws import TileAddress

__all__ = ["BatchReader", "ReadAhead"]


class BatchReader(Protocol):
    """What `TileReader` is here: it turns addresses into a batch, and the batch depends on the addresses alone.

    Threads: one at a time. cloudpickle can carry it to other processes.
    """

    def read(self, addresses: Sequence[TileAddress]) -> Batch:
        """Read tiles."""
        ...


class ReadAhead:
    """Reads batches in a thread of its own, or in processes of its own.

    Parameters
    ----------
    reader
        What reads.
    num_workers
        0: one thread, which overlaps with the network because reading leaves Python's lock alone most of the time. More:
        so many processes, each with a copy of the reader and a cache of its own.

    Examples
    --------
    >>> class Numbers:
    ...     def read(self, addresses):
    ...         return sum(addresses)
    >>> with ReadAhead(Numbers(), num_workers=0) as ahead:
    ...     list(ahead.batches([[1, 2], [3], [4, 5]]))
    [3, 3, 9]
    """

    def __init__(self, reader: BatchReader, *, num_workers: int) -> None:
        self._reader = None if num_workers else reader
        self._depth = max(2, 2 * num_workers)
        self._executor: Executor
        if num_workers:
            self._executor = ProcessPoolExecutor(
                num_workers,
                # Not forked, because a copy of this process would have torch's threads locked in the midst of their work.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_take_reader,
                initargs=(cloudpickle.dumps(reader),),
            )
        else:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="rtsx-read")

    def batches(self, addresses: Iterable[Sequence[TileAddress]]) -> Iterator[Batch]:
        """Read one batch after the other, some of them before they are asked for; errors come in their place."""
        waiting: deque[Future[Batch] | Future[bytes]] = deque()
        for each in addresses:
            waiting.append(self._submit(each))
            if len(waiting) > self._depth:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())

    def _submit(self, addresses: Sequence[TileAddress]) -> "Future[Batch] | Future[bytes]":
        if self._reader is None:
            return self._executor.submit(_read_there, addresses)
        return self._executor.submit(self._reader.read, addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)


def _result(future: "Future[Batch] | Future[bytes]") -> Batch:
    found = future.result()
    return pickle.loads(found) if isinstance(found, bytes) else found


_reader: BatchReader | None = None
"""The reader of a worker process."""


def _take_reader(pickled: bytes) -> None:
    global _reader  # a worker process has one, and executors know no other place
    _reader = cloudpickle.loads(pickled)
    torch.set_num_threads(1)


def _read_there(addresses: Sequence[TileAddress]) -> bytes:
    assert _reader is not None, "the initializer has run"
    # As bytes, because torch would pass tensors on as open files, which run out.
    return pickle.dumps(_reader.read(addresses))
