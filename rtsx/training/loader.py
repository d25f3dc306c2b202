"""Batches read ahead of the network; what is read, and in which order, never depends on it."""

import multiprocessing
import pickle
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cloudpickle
import torch

from rtsx.training.dataset import TileBatch, TileReader
from rtsx.training.sampler import TileAddress


@contextmanager
def to_shared(value: object) -> Iterator[str]:
    """Path of a file that holds a value for as long as the block runs.

    A file, instead of an argument of the process: multiprocessing writes arguments into a pipe and waits for ever where
    the new process ends before it has read them, because its main module cannot be imported, say.

    Examples
    --------
    >>> with to_shared({"seed": 1}) as parcel:
    ...     from_shared(parcel)
    {'seed': 1}
    """
    with tempfile.TemporaryDirectory(prefix="rtsx-") as folder:
        path = Path(folder) / "parcel"
        path.write_bytes(cloudpickle.dumps(value))
        yield str(path)


def from_shared(parcel: str) -> Any:
    """The value in a file of `to_shared`."""
    return cloudpickle.loads(Path(parcel).read_bytes())


class ReadAhead:
    """Reads batches in a thread of its own, or in processes of its own.

    Parameters
    ----------
    readers
        What reads, by name.
    num_workers
        0: one thread, which overlaps with the network because reading leaves Python's lock alone most of the time. More:
        so many processes, each with a copy of the readers and their caches.

    Examples
    --------
    >>> class Numbers:
    ...     def read(self, addresses):
    ...         return sum(addresses)
    >>> with ReadAhead({"sums": Numbers()}, num_workers=0) as ahead:
    ...     list(ahead.batches("sums", [[1, 2], [3], [4, 5]]))
    [3, 3, 9]
    """

    def __init__(self, readers: Mapping[str, TileReader], *, num_workers: int) -> None:
        self._readers = None if num_workers else dict(readers)
        self._depth = max(2, 2 * num_workers)
        self._executor: Executor
        self._open = ExitStack()
        if num_workers:
            self._executor = ProcessPoolExecutor(
                num_workers,
                # Not forked, because a copy of this process would have torch's threads locked in the midst of their work.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_take_readers,
                initargs=(self._open.enter_context(to_shared(dict(readers))),),
            )
        else:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="rtsx-read")

    def batches(self, name: str, addresses: Iterable[Sequence[TileAddress]]) -> Iterator[TileBatch]:
        """Read one batch after the other by a reader, some before they are asked for; errors come in their place."""
        waiting: deque[Future[TileBatch] | Future[bytes]] = deque()
        for each in addresses:
            waiting.append(self._submit(name, each))
            if len(waiting) > self._depth:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())

    def _submit(self, name: str, addresses: Sequence[TileAddress]) -> "Future[TileBatch] | Future[bytes]":
        if self._readers is None:
            return self._executor.submit(_read_there, name, addresses)
        return self._executor.submit(self._readers[name].read, addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._open.close()


def _result(future: "Future[TileBatch] | Future[bytes]") -> TileBatch:
    found = future.result()
    return pickle.loads(found) if isinstance(found, bytes) else found


_readers: dict[str, TileReader] = {}
"""The readers of a worker process; executors know no other place for them."""


def _take_readers(parcel: str) -> None:
    _readers.update(from_shared(parcel))
    torch.set_num_threads(1)


def _read_there(name: str, addresses: Sequence[TileAddress]) -> bytes:
    # As bytes, because torch would pass tensors on as open files, which run out.
    return pickle.dumps(_readers[name].read(addresses))
