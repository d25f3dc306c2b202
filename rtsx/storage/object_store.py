"""Objects in a store: get, put, put if absent, delete and list; on a local disk, on S3 and on whatever fsspec opens."""

import errno
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rtsx.storage.atomic import remove_abandoned, write_object
from rtsx.storage.paths import file_system, is_url, local_path
from rtsx.storage.retry import PAUSES_S, backoff_with_jitter, classify_error, service_code


@dataclass(frozen=True, order=True)
class StoredObject:
    """What a listing says of an object."""

    key: str
    """Key, relative to the root."""
    n_bytes: int
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
        """Objects whose key begins with ``prefix/``, all where it is empty, in no order; none where there is no such folder."""


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
            if not prefix or key.startswith(f"{prefix}/"):
                yield StoredObject(key, len(content), changed)


_objects_conforms: type[ObjectStore] = MemoryObjects


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
                    key = f"{folder}/{entry.name}" if folder else entry.name
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
        if key.startswith("/") or ".." in key.split("/"):  # of a document that is not ours
            raise PermissionError(errno.EACCES, "This key leads out of the folder of the objects", key)
        return Path(self.root, key)


_local_objects_conforms: type[ObjectStore] = LocalObjects


@dataclass(frozen=True)
class FsspecObjects:
    """One object per key below a URL. Whether `create` keeps its word is up to the service: `check_object_store` asks it."""

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
        system, path = self._folder(prefix)
        system.invalidate_cache(path)
        for name, entry in system.find(path, detail=True).items():
            when = next((entry[word] for word in _TIMES if entry.get(word) is not None), None)
            yield StoredObject(f"{prefix}{name.removeprefix(path)}".lstrip("/"), entry["size"], _instant(when))

    def _folder(self, prefix: str) -> tuple[Any, str]:
        """The same of a folder, which has no slash at its end; the root where its key is empty."""
        system, path = self._place(prefix)
        return system, path.rstrip("/")

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


_fsspec_conforms: type[ObjectStore] = FsspecObjects


_PAGE = 1000
"""Objects of one answer to a listing; S3 gives no more."""
_WRITER = "rtsx-writer"
"""Metadata of an object: a word that only its writer knows."""


def is_s3(url: str) -> bool:
    """Whether a URL is read by s3fs."""
    return url.startswith(("s3://", "s3a://"))


def single_attempts(options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options by which botocore tries once, unless they say how often.

    Its own attempts would multiply with those of the caller, and hide for half a minute that nobody answers.

    Examples
    --------
    >>> single_attempts({"anon": True})
    {'anon': True, 'config_kwargs': {'retries': {'max_attempts': 0}}}
    """
    return {**options, "config_kwargs": {"retries": {"max_attempts": 0}, **options.get("config_kwargs", {})}}


@dataclass(frozen=True)
class S3Objects(FsspecObjects):
    """One object per key below ``s3://bucket/prefix``; through s3fs, and one client for all threads of a process.

    Credentials that are not in its options come from the environment, as boto3 finds them. Errors are those of s3fs: built-in
    ones, with that of the service as their cause.
    """

    def __reduce__(self) -> tuple[type["S3Objects"], tuple[str, dict[str, Any]]]:
        return type(self), (self.url, dict(self.options))  # without the client, which belongs to this process

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        system, path = self._place(key)
        try:
            # One request, because otherwise s3fs asks for the size first.
            content: bytes = system.cat_file(path, max_concurrency=1)
        except FileNotFoundError as error:
            if service_code(error) == "NoSuchBucket":
                raise
            return None
        return content

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; one of many wins.

        A request that was cut may have been carried out and then be refused when it is sent again, by whichever of the
        libraries on the way. So the object is marked, and who is refused looks whose it is.
        """
        system, path = self._place(key)
        writer = uuid.uuid4().hex
        try:
            system.pipe_file(path, content, mode="create", Metadata={_WRITER: writer})
        except OSError as error:
            if not isinstance(error, FileExistsError) and service_code(error) not in ("PreconditionFailed", "412"):
                raise
            return self._writer(key) == writer
        return True

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix; one page of them is held at a time."""
        system, path = self._folder(prefix)
        bucket, _, base = path.partition("/")
        below = f"{base}/" if base else ""
        token: dict[str, str] = {}
        while True:
            page = system.call_s3("list_objects_v2", Bucket=bucket, Prefix=below, MaxKeys=_PAGE, **token)
            for entry in page.get("Contents", ()):
                changed = entry["LastModified"].astimezone(UTC)
                key = f"{prefix}{entry['Key'].removeprefix(base)}".lstrip("/")
                yield StoredObject(key, entry["Size"], changed)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _writer(self, key: str) -> str | None:
        """The word of whoever wrote an object; None where there is none, or one that was not created."""
        system, path = self._place(key)
        bucket, _, name = path.partition("/")
        try:
            found: str | None = system.call_s3("head_object", Bucket=bucket, Key=name)["Metadata"].get(_WRITER)
        except FileNotFoundError:
            return None
        return found

    @cached_property
    def _root(self) -> tuple[Any, str]:
        return file_system(self.url, {"use_listings_cache": False, **single_attempts(self.options)})

    def _place(self, key: str) -> tuple[Any, str]:
        system, root = self._root
        return system, f"{root}/{key}"


_s3fs_conforms: type[ObjectStore] = S3Objects


T = TypeVar("T")


@dataclass(frozen=True)
class RetryingObjects:
    """The same objects; a call that fails by what can pass is repeated, and its last error raised as it is.

    A `create` whose answer was lost may be refused when it is sent again. Then it has won if its own content is there.
    """

    store: ObjectStore
    pauses_s: tuple[float, ...] = field(default=PAUSES_S, repr=False)
    """Seconds before each further attempt."""

    def __str__(self) -> str:
        return str(self.store)

    def get(self, key: str) -> bytes | None:
        """Content of an object; None where there is none."""
        return self._tried(lambda: self.store.get(key))

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._tried(lambda: self.store.put(key, content))

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none."""
        attempts = 0

        def created() -> bool:
            nonlocal attempts
            attempts += 1
            return self.store.create(key, content)

        return self._tried(created) or (attempts > 1 and self.get(key) == content)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._tried(lambda: self.store.delete(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects below a prefix."""
        given: set[str] = set()
        pauses = backoff_with_jitter(self.pauses_s)
        while True:
            try:
                for found in self.store.list(prefix):
                    if found.key not in given:  # those before the error have been given
                        given.add(found.key)
                        yield found
            except Exception as error:
                pause = next(pauses, None) if classify_error(error) == "passing" else None
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _tried(self, call: Callable[[], T]) -> T:
        for pause in backoff_with_jitter(self.pauses_s):
            try:
                return call()
            except Exception as error:
                if classify_error(error) != "passing":
                    raise
            time.sleep(pause)
        return call()


_retrying_objects_conforms: type[ObjectStore] = RetryingObjects


class _Document(Protocol):
    def to_json(self) -> str: ...


D = TypeVar("D", bound=_Document)

_PAUSE_S = 0.05
"""Seconds before an object that has just been removed is created again; a server of files may go on saying it is there."""


def create_generation(
    objects: ObjectStore, key: Callable[[int], str], *, document: Callable[[int], D], is_taken: Callable[[bytes], bool]
) -> tuple[D, bytes | None]:
    """Create the first generation of an object after those that are over; of many that try, one wins.

    Generations are asked one by one instead of listed, because there is hardly ever more than one.

    Parameters
    ----------
    objects
        Where.
    key
        Key of a generation, from 1.
    document
        What is written there.
    is_taken
        Whether what another wrote there still counts.

    Returns
    -------
    tuple
        What was written, and None; or what would have been, and the content of another's that still counts.
    """
    generation = 1
    while True:
        mine = document(generation)
        if objects.create(key(generation), mine.to_json().encode()):
            return mine, None
        content = objects.get(key(generation))
        if content is None:  # removed since, so this one is free again
            time.sleep(_PAUSE_S)
            continue
        if is_taken(content):
            return mine, content
        generation += 1


def open_object_store(output: str, options: Mapping[str, Any]) -> ObjectStore:
    """The objects below a folder or URL; every call is tried again with growing pauses while its errors can pass.

    Touches nothing.

    Parameters
    ----------
    output
        Folder, or URL such as ``s3://bucket/prefix``.
    options
        Storage options of fsspec, where it is a URL.

    Examples
    --------
    >>> open_object_store("/maps/2024", {})
    RetryingObjects(store=LocalObjects(root='/maps/2024'))
    """
    if not is_url(output):
        return RetryingObjects(LocalObjects(str(local_path(output))))
    if is_s3(output):
        return RetryingObjects(S3Objects(output.rstrip("/"), dict(options)))
    return RetryingObjects(FsspecObjects(output.rstrip("/"), dict(options)))
