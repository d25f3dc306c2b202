"""Objects in a folder, on a local disk or a shared file system."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rtsx.campaign.objects import ObjectStore, StoredObject
from rtsx.storage import remove_abandoned, write_object

__all__ = ["LocalObjects"]

_UNFINISHED = (".partial", ".part")
"""Suffixes of what is hidden while it is written, or was left by a killed process; the second is of earlier versions."""


@dataclass(frozen=True)
class LocalObjects:
    """One file per object; folders come with the first file in them.

    Errors are those of the operating system.
    """

    root: str
    """Folder that keys are relative to."""

    def __str__(self) -> str:
        return self.root

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        write_object(self._path(key), content, replace=True)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; one of many processes wins, on every machine that shares the folder."""
        return write_object(self._path(key), content, replace=False)

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with suppress(NotADirectoryError):
            self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a folder, in no order; what killed processes left there is removed."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            try:
                entries = os.scandir(self._path(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                for entry in entries:
                    key = f"{folder}/{entry.name}"
                    if entry.name.startswith(".") and entry.name.endswith(_UNFINISHED):
                        with suppress(OSError):  # gone, held by a living process, or not ours to remove
                            remove_abandoned(Path(entry.path))
                            Path(entry.path).rmdir()
                        continue
                    if entry.is_dir():
                        folders.append(key)
                    else:
                        with suppress(FileNotFoundError):  # removed since
                            found = entry.stat()
                            yield StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _path(self, key: str) -> Path:
        return Path(self.root, key)


_conforms: type[ObjectStore] = LocalObjects
