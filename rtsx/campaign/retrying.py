"""A Zarr store whose reads and writes are tried again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from rtsx.campaign.kinds import kind_of
from rtsx.campaign.pauses import PAUSES_S, spread

__all__ = ["RetryingStore"]

T = TypeVar("T")


class RetryingStore(WrapperStore[Store]):
    """The same store; what fails by what can pass is repeated with growing pauses, and its last error raised as it is.

    Every operation of a Zarr store can be repeated: a key is written whole, and deleting what is gone is nothing.
    """

    def __init__(self, store: Store, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        super().__init__(store)
        self.pauses_s = pauses_s

    def __reduce__(self) -> tuple[Callable[..., "RetryingStore"], tuple[Store, tuple[float, ...]]]:
        return _rebuilt, (self._store, self.pauses_s)

    def _with_store(self, store: Store) -> "RetryingStore":
        return type(self)(store, pauses_s=self.pauses_s)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Value of a key; None where there is none."""
        return await self._tried(lambda: self._store.get(key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of values."""
        ranges = list(key_ranges)
        return await self._tried(lambda: self._store.get_partial_values(prototype, ranges))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:  # instead of the wrapped store's own, which would go past `get`
            yield key, await self.get(key, prototype, byte_range)

    async def is_empty(self, prefix: str) -> bool:
        """Whether there is nothing below a prefix."""
        return await self._tried(lambda: self._store.is_empty(prefix))

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return await self._tried(lambda: self._store.exists(key))

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value."""
        await self._tried(lambda: self._store.set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a value where there is none."""
        await self._tried(lambda: self._store.set_if_not_exists(key, value))

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        for key, value in values:  # instead of the wrapped store's own, which would go past `set`
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Remove a value."""
        await self._tried(lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        """Remove all values below a prefix."""
        await self._tried(lambda: self._store.delete_dir(prefix))

    async def getsize(self, key: str) -> int:
        """Bytes of a value."""
        return await self._tried(lambda: self._store.getsize(key))

    async def list(self) -> AsyncIterator[str]:
        """All keys."""
        for key in await self._tried(lambda: _gathered(self._store.list)):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with a prefix."""
        for key in await self._tried(lambda: _gathered(lambda: self._store.list_prefix(prefix))):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a prefix."""
        for name in await self._tried(lambda: _gathered(lambda: self._store.list_dir(prefix))):
            yield name

    async def _tried(self, call: Callable[[], Awaitable[T]]) -> T:
        for pause in spread(self.pauses_s):
            try:
                return await call()
            except Exception as error:
                if kind_of(error) != "passing":
                    raise
            await asyncio.sleep(pause)
        return await call()


async def _gathered(listing: Callable[[], AsyncIterator[str]]) -> "list[str]":
    """All of a listing, because half of one cannot be repeated."""
    return [name async for name in listing()]


def _rebuilt(store: Store, pauses_s: tuple[float, ...]) -> RetryingStore:
    return RetryingStore(store, pauses_s=pauses_s)
