"""Objects in a folder, on a local disk or a shared file system."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rtsx.campaign.objects import ObjectStore, StoredObject

__all__ = ["LocalObjects"]

_PART = ".part"
"""Suffix of a hidden file that is being written, or that a killed process has left."""


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
        target = self._path(key)
        part = self._written(target, content)
        try:
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _keep_names(target.parent)

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; one of many processes wins, on every machine that shares the folder."""
        target = self._path(key)
        if target.exists():  # not needed, but cheaper than writing a file for nothing
            return False
        part = self._written(target, content)
        try:
            target.hardlink_to(part)  # instead of a rename, which replaces, and of O_EXCL, which shows half a file
        except FileExistsError:
            # A server of files may have linked, lost its answer, and been asked again: then the file has both names.
            if part.stat().st_nlink != 2:
                return False
        finally:
            part.unlink(missing_ok=True)
        _keep_names(target.parent)
        return True

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with suppress(NotADirectoryError):
            self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a folder, in no order."""
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
                    if entry.is_dir():
                        folders.append(key)
                    elif not (entry.name.startswith(".") and entry.name.endswith(_PART)):
                        with suppress(FileNotFoundError):  # removed since
                            found = entry.stat()
                            yield StoredObject(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def settle(self, keys: Iterable[str]) -> None:
        """Bring files that others have written to the disk, before something says that they are there.

        Without it, a machine that loses power may keep the word and not the files. What is not there is passed over.
        """
        folders = set()
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError), path.open("rb") as file:
                os.fsync(file.fileno())
                folders.add(path.parent)
        for folder in folders:
            _keep_names(folder)

    def _path(self, key: str) -> Path:
        return Path(self.root, key)

    @staticmethod
    def _written(target: Path, content: bytes) -> Path:
        """A hidden file beside the target with all of the content, on the disk."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_PART}")
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                # Before the name, because a machine that loses power may otherwise keep the name and not the content.
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part


def _keep_names(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    with suppress(
        OSError
    ):  # some file systems cannot; then a name may be lost with the power, and its cell is run again
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_conforms: type[ObjectStore] = LocalObjects
