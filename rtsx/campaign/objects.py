"""Small objects by key below one root: what marks, leases and plans are kept in, on a disk or in an object store."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

__all__ = ["MemoryObjects", "ObjectStore", "StoredObject"]


@dataclass(frozen=True, order=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    """Key, relative to the root."""
    n_bytes: int
    """Size."""
    changed: datetime
    """When it was last written, by the store's own clock, UTC and aware."""


class ObjectStore(Protocol):
    """Keys to bytes. Every write is whole or not there at all, and seen by everybody once it returns.

    A value that pickles; several threads may use one.
    """

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; False, and nothing done, where there is one. One of many wins."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose key begins with ``prefix/``, in no order; none where there is no such folder."""


class MemoryObjects:
    """A store in memory, for tests; shared by what holds it, and not by processes."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[bytes, datetime]] = {}

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        held = self._held.get(key)
        return None if held is None else held[0]

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._held[key] = (content, datetime.now().astimezone())

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none."""
        mine = (content, datetime.now().astimezone())
        return self._held.setdefault(key, mine) is mine  # one step, so that one of many threads wins

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._held.pop(key, None)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix."""
        for key, (content, changed) in sorted(self._held.items()):
            if key.startswith(f"{prefix}/"):
                yield StoredObject(key, len(content), changed)


_conforms: type[ObjectStore] = MemoryObjects
