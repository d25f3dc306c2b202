"""Objects behind any file system of fsspec. S3 has a room of its own, because fsspec hides what it needs."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rtsx.campaign.objects import ObjectStore, StoredObject
from rtsx.cube.zarr import file_system

__all__ = ["FsspecObjects"]


@dataclass(frozen=True)
class FsspecObjects:
    """One object per key below a URL. Whether `create` keeps its word is up to the service: `probe_store` asks it."""

    url: str
    """Address that keys are relative to, without a slash at its end."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Storage options of fsspec."""

    def __str__(self) -> str:
        return self.url

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        system, path = self._place(key)
        try:
            content: bytes = system.cat_file(path)
        except (FileNotFoundError, IsADirectoryError):
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        system, path = self._place(key)
        system.pipe_file(path, content)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none."""
        system, path = self._place(key)
        try:
            system.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        system, path = self._place(key)
        with suppress(FileNotFoundError):
            system.rm_file(path)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix, in no order."""
        system, path = self._place(prefix)
        system.invalidate_cache(path)
        for name, entry in system.find(path, detail=True).items():
            when = next((entry[word] for word in _TIMES if entry.get(word) is not None), None)
            yield StoredObject(prefix + name.removeprefix(path), entry["size"], _instant(when))

    def _place(self, key: str) -> tuple[Any, str]:
        """The file system, which fsspec keeps for each thread, and the path in it."""
        return file_system(f"{self.url}/{key}", self.options)


_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What file systems of fsspec call the time of the last change."""


def _instant(when: Any) -> datetime:
    """A time in UTC; the beginning of time where a service tells none, which no check of clocks will pass."""
    if isinstance(when, datetime):
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    if isinstance(when, str):
        return _instant(datetime.fromisoformat(when))
    return datetime.fromtimestamp(when or 0, UTC)


_conforms: type[ObjectStore] = FsspecObjects
