"""A store that its owner can close against late writers."""

import threading
import time
from collections.abc import Iterable
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

__all__ = ["RevocableStore"]

_PATIENCE_S = 30.0
"""Seconds that `revoke` waits for writes that have begun."""


class RevocableStore(WrapperStore[Store]):
    """A Zarr store that takes no more writes after `revoke`.

    When a task of a dask graph fails, dask raises at once and lets the tasks that are running in its threads finish. What
    they write then would appear again after the clean-up; with this store it fails instead.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._is_revoked = False
        self._writing = 0

    def __reduce__(self) -> tuple[type["RevocableStore"], tuple[Store]]:
        return type(self), (self._store,)  # a worker's copy: locks do not travel

    def revoke(self) -> None:
        """Refuse all writes from now on, and return when those that had begun are over."""
        with self._lock:
            self._is_revoked = True
        limit = time.monotonic() + _PATIENCE_S
        while self._writing and time.monotonic() < limit:
            time.sleep(0.01)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value, unless revoked."""
        with self._lock:
            if self._is_revoked:
                raise PermissionError("This output was given up after an error; it takes no more writes.")
            self._writing += 1
        try:
            await super().set(key, value)
        finally:
            with self._lock:
                self._writing -= 1

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a value where there is none, unless revoked."""
        if not await self.exists(key):
            await self.set(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        for key, value in values:  # instead of the wrapped store's own, which would go past `set`
            await self.set(key, value)
