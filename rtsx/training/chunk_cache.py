"""Chunks that were computed lately, in a bounded number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from rtsx.training.stored import StoredPixels

__all__ = ["ChunkCache"]


class ChunkCache:
    """Keeps what was used last and drops what was not used for longest.

    For one thread: each worker of a training has its own. A chunk that is larger than the whole cache is kept until another is
    asked for, because whoever reads it has to have the memory anyway, and a scene may be a single chunk.

    Examples
    --------
    >>> import numpy as np
    >>> cache = ChunkCache(0)
    >>> pixels = StoredPixels(stored={}, valid=np.ones((2, 2), bool), truth=np.zeros((2, 2), np.uint8))
    >>> cache.get("a", lambda: pixels) is pixels, cache.n_bytes
    (True, 8)
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self.n_computed = 0
        self._kept: OrderedDict[Hashable, StoredPixels] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], StoredPixels]) -> StoredPixels:
        """The chunk of a key, computed where it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        # Before the next is computed, so that never two are there that do not fit.
        self._drop(leave=0)
        chunk = compute()
        self.n_computed += 1
        self._kept[key] = chunk
        self.n_bytes += chunk.nbytes
        self._drop(leave=1)
        return chunk

    def _drop(self, *, leave: int) -> None:
        while self.n_bytes > self.limit_bytes and len(self._kept) > leave:
            _, dropped = self._kept.popitem(last=False)
            self.n_bytes -= dropped.nbytes

    def __getstate__(self) -> dict[str, object]:
        """A limit without chunks: what another process gets, which will fill its own."""
        return {"limit_bytes": self.limit_bytes, "n_bytes": 0, "n_computed": 0, "_kept": OrderedDict()}
