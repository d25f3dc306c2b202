"""Objects in a store: get, put, put if absent, delete and list; on a local disk, in a cloud and on whatever fsspec opens."""

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
from typing import Any, Protocol, Self, TypeVar

from rtsx.storage.atomic import refusals, remove_abandoned, write_object
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.paths import cloud_of, file_system, is_url, local_path
from rtsx.storage.retry import NO_BUCKET, PAUSES_S, backoff_with_jitter, classify_error, service_code


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
        """Return the content of an object; None where there is none."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; False, and nothing done, where there is one. One of many wins."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Return objects whose key begins with ``prefix/``, all where it is empty, in no order; none where there is no such folder."""


class MemoryObjects:
    """A store in memory, for tests; shared by what holds it, and not by processes."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[bytes, datetime]] = {}

    def get(self, key: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
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
        """Yield objects below a prefix."""
        for key, (content, changed) in sorted(self._held.items()):
            if not prefix or key.startswith(f"{prefix}/"):
                yield StoredObject(key, len(content), changed)


_objects_conforms: type[ObjectStore] = MemoryObjects


_UNFINISHED = (".partial", ".part")
"""Suffixes of what is hidden while it is written, or was left by a killed process; the second is of earlier versions."""


@dataclass(frozen=True)
class LocalObjects:
    """One file per object; folders come with the first file in them.

    Errors are those of the operating system; `OutputNotWritableError` where it is full, read-only or closed to us.
    """

    root: str
    """Folder that keys are relative to."""

    def __str__(self) -> str:
        return self.root

    def get(self, key: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
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
        path = self._path(key)
        with suppress(NotADirectoryError), refusals(path):
            path.unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield objects below a folder, in no order; what killed processes left there is removed."""
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


_WRITER = "rtsxwriter"
"""Metadata of an object: a word that only its writer knows."""
_PAGE = 1000
"""Objects of one answer to a listing; S3 gives no more."""


def single_attempts(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return storage options by which botocore tries once, unless they say how often; those of other clouds cannot say so.

    Its own attempts would multiply with those of the caller, and hide for half a minute that nobody answers.

    Examples
    --------
    >>> single_attempts("s3://maps", {"anon": True}), single_attempts("gs://maps", {})
    ({'anon': True, 'config_kwargs': {'retries': {'max_attempts': 0}}}, {})
    """
    cloud = cloud_of(url)
    if cloud is None or cloud.name != "s3":
        return dict(options)
    return {**options, "config_kwargs": {"retries": {"max_attempts": 0}, **options.get("config_kwargs", {})}}


@dataclass(frozen=True)
class FsspecObjects:
    """One object per key below a URL; of a cloud, one client for all threads of a process.

    Whether `create` keeps its word is up to the service: `check_object_store` asks it. Credentials that are not in its options come
    from the environment, where the library of the cloud looks for them. Errors are built-in ones, with that of the service as their
    cause.
    """

    url: str
    """Address that keys are relative to, without a slash at its end."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Storage options of the file system behind a URL, such as `endpoint_url` or `anon`; never shown, because credentials may be among them."""

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type[Self], tuple[str, dict[str, Any]]]:
        return type(self), (self.url, dict(self.options))  # without the client, which belongs to this process

    def get(self, key: str) -> bytes | None:
        """Return the content of an object; None where there is none."""
        # One request of S3, because otherwise s3fs asks for the size first.
        at_once = {"max_concurrency": 1} if self._cloud == "s3" else {}
        try:
            content: bytes = self._asked(key, lambda system, path: system.cat_file(path, **at_once))
        except (FileNotFoundError, IsADirectoryError) as error:
            if service_code(error) in NO_BUCKET:
                raise
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        with write_failures(self.url, halting=True):
            self._asked(key, lambda system, path: system.pipe_file(path, content))

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none; one of many wins.

        A request that was cut may have been carried out and then be refused when it is sent again, by whichever of the
        libraries on the way. So the object is marked, and who is refused looks whose it is.
        """
        mark = {_WRITER: uuid.uuid4().hex}
        marked = {"s3": {"Metadata": mark}, "gs": {"metadata": mark}}.get(self._cloud, {})

        def create(system: Any, path: str) -> None:
            if self._cloud == "az":
                _create_in_azure(system, path, content=content, mark=mark)
            else:
                system.pipe_file(path, content, mode="create", **marked)

        with write_failures(self.url, halting=True):
            try:
                self._asked(key, create)
            except OSError as error:
                if not isinstance(error, FileExistsError) and service_code(error) not in ("PreconditionFailed", "412"):
                    raise
            else:
                return True
        return bool(self._cloud) and self._writer(key) == mark[_WRITER]

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""
        with write_failures(self.url, halting=True), suppress(FileNotFoundError):
            self._asked(key, lambda system, path: system.rm_file(path))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield objects below a prefix, in no order."""
        if self._cloud == "s3":
            yield from self._pages(prefix)
            return
        system, root = self._root
        system.invalidate_cache()
        base = f"{root}/{prefix}".rstrip("/")
        found = self._asked(prefix, lambda system, path: system.find(path, detail=True))
        for name, entry in found.items() if isinstance(found, dict) else ():  # adlfs gives a list where it is an object
            if name.startswith(f"{base}/"):
                when = next((entry[word] for word in _TIMES if entry.get(word) is not None), None)
                yield StoredObject(name.removeprefix(f"{root}/"), entry["size"], _instant(when))

    def _pages(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the same of S3; one page of them is held at a time."""
        bucket, _, base = self._root[1].partition("/")
        base = f"{base}/".lstrip("/")
        below = f"{base}{prefix}/" if prefix else base
        token: dict[str, str] = {}
        while True:
            asked = {"Bucket": bucket, "Prefix": below, "MaxKeys": _PAGE, **token}
            page = self._asked(prefix, lambda system, _, asked=asked: system.call_s3("list_objects_v2", **asked))  # type: ignore[misc]
            for entry in page.get("Contents", ()):
                changed = entry["LastModified"].astimezone(UTC)
                yield StoredObject(entry["Key"].removeprefix(base), entry["Size"], changed)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _writer(self, key: str) -> str | None:
        """Return the word of whoever wrote an object; None where there is none, or one that was not created."""
        try:
            if self._cloud == "az":
                found: str | None = self._asked(key, lambda system, path: system.info(path)["metadata"][_WRITER])
            else:
                found = self._asked(key, lambda system, path: system.getxattr(path, _WRITER))
        except (FileNotFoundError, KeyError):
            return None
        return found

    def _asked(self, key: str, call: Callable[[Any, str], Any]) -> Any:
        """Return what a call with the file system and a path in it gives; errors of the service's own kinds become built-in ones."""
        system, root = self._root
        try:
            return call(system, f"{root}/{key}".rstrip("/"))
        except (OSError, KeyError):
            raise
        except Exception as error:
            code = service_code(error)
            missing = FileNotFoundError if code in NO_BUCKET else OSError
            kind = FileExistsError if code == "BlobAlreadyExists" else missing
            raise kind(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error

    @cached_property
    def _cloud(self) -> str:
        cloud = cloud_of(self.url)
        return "" if cloud is None else cloud.name

    @property
    def _root(self) -> tuple[Any, str]:
        """The file system, and the path in it that keys are relative to."""
        # Others may not bear several threads; fsspec has one for each.
        return self._client if self._cloud else self._opened()

    @cached_property
    def _client(self) -> tuple[Any, str]:
        return self._opened()

    def _opened(self) -> tuple[Any, str]:
        system, path = file_system(self.url, single_attempts(self.url, self.options))
        return system, path.rstrip("/")


def _create_in_azure(system: Any, path: str, *, content: bytes, mark: Mapping[str, str]) -> None:
    """Create an object by the client below adlfs, which itself lets nobody mark what it creates."""
    from fsspec.asyn import sync  # here, because a local disk needs none

    container, name, _ = system.split_path(path)

    async def upload() -> None:
        async with system.service_client.get_blob_client(container=container, blob=name) as blob:
            await blob.upload_blob(content, overwrite=False, metadata=mark)

    sync(system.loop, upload)


_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
"""What file systems of fsspec call the time of the last change."""


def _instant(when: Any) -> datetime:
    """Return a time in UTC; the beginning of time where a service tells none, which no check of clocks will pass."""
    if isinstance(when, datetime):
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    if isinstance(when, str):
        return _instant(datetime.fromisoformat(when))
    return datetime.fromtimestamp(when or 0, UTC)


_fsspec_conforms: type[ObjectStore] = FsspecObjects


def remove_tree(system: Any, root: str) -> None:
    """Remove all objects below a path of an fsspec file system.

    Raises
    ------
    PermissionError
        Some are still there: s3fs says nothing of what was refused among many.
    """
    system.rm(root, recursive=True)
    system.invalidate_cache()
    if left := system.find(root):
        raise PermissionError(f"{len(left)} objects may not be removed, such as {min(left)}")


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
        """Return the content of an object; None where there is none."""
        return self._tried(lambda: self.store.get(key))

    def put(self, key: str, content: bytes) -> None:
        """Write an object, or replace it."""
        self._tried(lambda: self.store.put(key, content), n_bytes=len(content))

    def create(self, key: str, content: bytes) -> bool:
        """Write an object where there is none."""
        attempts = 0

        def created() -> bool:
            nonlocal attempts
            attempts += 1
            return self.store.create(key, content)

        return self._tried(created, n_bytes=len(content)) or (attempts > 1 and self.get(key) == content)

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._tried(lambda: self.store.delete(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield objects below a prefix."""
        given: set[str] = set()
        pauses = backoff_with_jitter(self.pauses_s)
        while True:
            before = len(given)
            try:
                for found in self.store.list(prefix):
                    if found.key not in given:  # those before the error have been given
                        given.add(found.key)
                        yield found
            except Exception as error:
                if len(given) > before:  # it got on, and long listings may meet more than one error
                    pauses = backoff_with_jitter(self.pauses_s)
                pause = next(pauses, None) if classify_error(error) == "passing" else None
                if pause is None:
                    raise
                time.sleep(pause)
            else:
                return

    def _tried(self, call: Callable[[], T], *, n_bytes: int = 0) -> T:
        for pause in backoff_with_jitter(self.pauses_s, n_bytes=n_bytes):
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
    """Return the objects below a folder or URL; every call is tried again with growing pauses while its errors can pass.

    Touches nothing.

    Parameters
    ----------
    output
        Folder, or URL such as ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.
    options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Examples
    --------
    >>> open_object_store("/maps/2024", {})
    RetryingObjects(store=LocalObjects(root='/maps/2024'))
    """
    if not is_url(output):
        return RetryingObjects(LocalObjects(str(local_path(output))))
    return RetryingObjects(FsspecObjects(output.rstrip("/"), dict(options)))
