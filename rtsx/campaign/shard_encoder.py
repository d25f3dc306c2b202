"""Shards as bytes before they go anywhere, so that each is put in its place by one write and nothing is read for it.

Zarr reads a shard that is there before it replaces it: a request more, and an error where that one is damaged.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

__all__ = ["ShardEncoder"]


class ShardEncoder:
    """Arrays like those of a store, in memory; one thread at a time uses it.

    Examples
    --------
    >>> import numpy as np
    >>> group = zarr.create_group(MemoryStore())
    >>> _ = group.create_array("valid", shape=(4, 8), chunks=(2, 2), shards=(4, 4), dtype=bool, fill_value=False)
    >>> encoder = ShardEncoder(group.store, ["valid"])
    >>> encoded = encoder.encoded("valid", np.eye(4, dtype=bool), at=(slice(0, 4), slice(4, 8)), keys=["valid/c/0/1"])
    >>> encoded["valid/c/0/1"] is None
    False
    """

    def __init__(self, store: Store, names: Iterable[str]) -> None:
        self._memory = MemoryStore()
        self.arrays: dict[str, zarr.Array[Any]] = {}
        """The arrays by name, without their pixels."""
        for name in names:
            metadata = sync(store.get(f"{name}/zarr.json", default_buffer_prototype()))
            if metadata is None:
                raise FileNotFoundError(f"There is no array {name} in {store}.")
            sync(self._memory.set(f"{name}/zarr.json", metadata))
            self.arrays[name] = zarr.open_array(self._memory, path=name, mode="r+")

    def encoded(
        self, name: str, pixels: NDArray[Any], *, at: tuple[Any, ...], keys: Iterable[str]
    ) -> Mapping[str, Buffer | None]:
        """Bytes of whole shards by key; None for one of nothing but the fill value, which is not stored.

        Parameters
        ----------
        name
            Of the array.
        pixels
            Of the shards.
        at
            Where in the array, whole shards.
        keys
            Keys of the shards there.
        """
        self.arrays[name][at] = pixels
        encoded: dict[str, Buffer | None] = {}
        for key in keys:
            encoded[key] = sync(self._memory.get(key, default_buffer_prototype()))
            sync(self._memory.delete(key))
        return encoded
