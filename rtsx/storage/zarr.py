"""Zarr stores: opened, written whole or not at all, fenced from a writer that lost its lease, and retried.

A local store is made in a hidden sibling and renamed when it is complete. An object store cannot rename, so there a
store says of itself whether it is complete (`COMPLETE`), and only an overwrite is made beside the old one first.
"""

import asyncio
import json
import logging
import re
import threading
import time
import uuid
import warnings
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import ContainsArrayError, GroupNotFoundError, ZarrUserWarning
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore

from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.storage.atomic import MEDIUM_ERRORS, not_written, refuse_other_format, staged
from rtsx.storage.diagnosis import file_problem, instead, write_failures
from rtsx.storage.object_store import remove_tree
from rtsx.storage.paths import cloud_of, file_options, file_system, is_url, local_path
from rtsx.storage.retry import PAUSES_S, backoff_with_jitter, classify_error

COMPLETE = "rtsx:complete"
"""Root attribute of the stores that we write: False from the first byte, True with the last one."""
BUILD = "rtsx:build"
"""Root attribute of the stores that are built part by part: how far that is."""
LAYERS = "rtsx:layers"
"""Attribute of the groups that we write: names of the variables in their order."""
MAP_IDENTITY = "rtsx:map"
"""Attribute of a campaign's map: what all years have in common."""
YEARS = "rtsx:years"
"""Attribute of a campaign's map: what each year was made with."""

_log = logging.getLogger(__name__)
_ROOTS = ("zarr.json", ".zgroup")
"""What makes a folder a group of Zarr, v3 and v2."""
_METADATA = (*_ROOTS, ".zarray", ".zattrs", ".zmetadata")
"""Keys that hold no pixels."""

StorageOptions = Mapping[str, Any]
_LEVEL = re.compile(r"\d+x")
"""Names of the groups of overviews."""


def store_of(path: str, options: StorageOptions, *, read_only: bool) -> Store:
    """Return the Zarr store of a local path or URL; touches nothing."""
    if not is_url(path):
        local = local_path(path)
        is_archive = read_only and is_zipped(local)
        return ZipStore(local, read_only=True) if is_archive else LocalStore(local, read_only=read_only)
    system, root = file_system(path, options)
    cloud = cloud_of(path)
    if cloud is not None and cloud.name != "s3":
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # here, because a local disk needs none

        # In threads, because adlfs and gcsfs that were made asynchronous end a process with a traceback.
        return _RemoteStore(AsyncFileSystemWrapper(system, asynchronous=True), path=root, read_only=read_only)
    return _RemoteStore.from_url(path, storage_options=file_options(path, options) or None, read_only=read_only)


class _RemoteStore(FsspecStore):
    """A store that says what is refused for good."""

    @property
    def _url(self) -> str:
        return str(getattr(self.fs, "sync_fs", self.fs).unstrip_protocol(self.path))

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a value."""
        with write_failures(self._url, halting=True):
            await super().set(key, value, byte_range)

    async def delete(self, key: str) -> None:
        """Remove a value; nothing happens where there is none."""
        with write_failures(self._url, halting=True), suppress(FileNotFoundError):
            # By a request of its own, because s3fs says nothing of what was refused among many.
            await self.fs._rm_file(f"{self.path}/{key}")

    async def delete_dir(self, prefix: str) -> None:
        """Remove all values below a prefix."""
        with write_failures(self._url, halting=True):
            await super().delete_dir(prefix)
            async for key in self.list_prefix(f"{prefix.rstrip('/')}/".lstrip("/")):
                raise PermissionError(f"{key} may not be removed")


def open_group(path: str, options: StorageOptions) -> zarr.Group:
    """Return the root group of a store, for reading; see `require_chunks`.

    Raises
    ------
    CubeError
        There is no Zarr group, or it was never finished.
    """
    with store_failures(path), _silent_about_consolidation():
        try:
            store = store_of(path, options, read_only=True)
            root = _root_in_zip(store.path) if isinstance(store, ZipStore) else None
            group = zarr.open_group(WholeStore(store, path), mode="r", path=root)
        except ContainsArrayError as error:
            raise CubeError(
                f"{path} is a single Zarr array. A cube is a group with one array per layer: open its parent."
            ) from error
        except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
            raise CubeError(f"{path} cannot be opened: {_diagnosis(path, options)}") from error
    if group.attrs.get(COMPLETE) is False and BUILD in group.attrs:
        raise CubeError(
            f"{path} is not built to its end yet: run the same rtsx cube build again, and it goes on where it stopped; in "
            "Python, build_cube does so."
        )
    if group.attrs.get(COMPLETE) is False:
        raise CubeError(
            f"{path} was never finished: the run that wrote it stopped half way. Write it again with overwrite=True, or "
            "remove it."
        )
    return group


def metadata_stamp(path: str, names: Sequence[str]) -> tuple[object, ...] | None:
    """Return what changes where the metadata of a group in a local folder, or of arrays in it, are written again; None for other stores."""
    if is_url(path) or not (folder := local_path(path)).is_dir():
        return None
    found: list[object] = []
    for place in (folder, *(folder / name for name in names)):
        for key in _METADATA:
            with suppress(OSError):
                status = (place / key).stat()
                found.append((status.st_ctime_ns, status.st_size, status.st_ino))  # which nobody can set
    return tuple(found)


def require_chunks(group: zarr.Group, name: str) -> None:
    """From now on, refuse to read chunks of an array that are not there, instead of reading them as its fill value.

    For arrays in which that is a value like others: whether a writer left out what holds nothing else, as zarr does by
    default, or a copy is not complete, nobody can tell.

    Parameters
    ----------
    group
        As `open_group` gives it.
    name
        Of the array in it.
    """
    assert isinstance(group.store, WholeStore)
    group.store.whole.add(f"{group.path}/{name}/".lstrip("/"))


def refuse_absent_chunks(
    path: str,
    arrays: Mapping[str, Sequence[int]],
    *,
    y: NDArray[Any],
    x: NDArray[Any],
    axis_names: Sequence[tuple[str, str]],
) -> None:
    """Refuse arrays of a local store that another library opened, in which a chunk is not there; see `require_chunks`.

    Parameters
    ----------
    path
        Of the store; of what is none, and of arrays of another shape, nothing is known.
    arrays
        Lengths of the other axes by the names of arrays in which no chunk may be left out.
    y, x
        Coordinates that are read.
    axis_names
        What the store may call y and x.
    """
    if is_url(path) or not any((local_path(path) / root).is_file() for root in _ROOTS):
        return
    group = zarr.open_group(local_path(path), mode="r")
    axes = {}
    for names in axis_names:
        for name, values in zip(names, (y, x), strict=True):
            stored = group.get(name)
            if not isinstance(stored, zarr.Array) or stored.ndim != 1:
                continue  # such as latitudes of every pixel, which are not read for this
            places = np.flatnonzero(np.isin(stored[:], values))
            if 0 < len(places) == len(values):
                axes[name] = (int(places.min()), int(places.max()))
    for name, others in arrays.items():
        array = group.get(name)
        if not isinstance(array, zarr.Array):
            continue
        dims = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
        sizes = dict(zip(map(str, dims), array.shape, strict=False))  # type: ignore[arg-type]  # JSON
        if (
            not axes
            or len(sizes) != array.ndim
            or [size for dim, size in sizes.items() if dim not in axes] != list(others)
        ):
            continue
        spans = [axes.get(dim, (0, size - 1)) for dim, size in sizes.items()]
        unit = array.shards or array.chunks
        for place in product(*(range(a // size, b // size + 1) for (a, b), size in zip(spans, unit, strict=True))):
            key = f"{name}/{array.metadata.encode_chunk_key(place)}"
            if not (local_path(path) / key).exists():
                raise _absent(path, key, name)


def _absent(path: str, key: str, array: str) -> CubeError:
    return CubeError(
        f"{path} has no chunk {key}. If it was copied, the copy is not complete: copy it again. If its writer left out chunks "
        f"without data, say what marks a missing pixel: set the attribute _FillValue of array {array!r} to the value that they "
        "are filled with. If that is a value like others, write the store again, all chunks included, with "
        "ds.to_zarr(path, write_empty_chunks=True)."
    )


class WholeStore(WrapperStore[Store]):
    """A store of which the metadata and some arrays have to be whole."""

    def __init__(self, store: Store, path: str, *, cure: str = "Copy or write the store again.") -> None:
        super().__init__(store)
        self.path = path
        self.cure = cure
        """What to do about metadata that is damaged."""
        self.whole: set[str] = set()

    def _with_store(self, store: Store) -> Self:
        made = type(self)(store, self.path, cure=self.cure)
        made.whole = self.whole
        return made

    @property
    def wrapped(self) -> Store:
        """The store itself."""
        return self._store

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return value of a key; None where there is none, and it may be missing."""
        found = await super().get(key, prototype, byte_range)
        if found is None:
            self._refuse(key)
        elif (name := PurePosixPath(key).name) in _METADATA and not _is_metadata(name, found.to_bytes()):
            raise CubeError(f"{self.path}/{key} is truncated or damaged. {self.cure}")
        return found

    def require(self, key: str) -> None:
        """Refuse a chunk of a local store that is not there, for readers that do not come by `get`."""
        assert isinstance(self.wrapped, LocalStore)
        if self.whole and not (self.wrapped.root / key).exists():
            self._refuse(key)

    def _refuse(self, key: str) -> None:
        name = next((name for name in self.whole if key.startswith(name)), None)
        if name is not None and PurePosixPath(key).name not in _METADATA:
            raise _absent(self.path, key, PurePosixPath(name).name)


def store_failure(path: str, error: Exception, *, what: str = "metadata cannot be read") -> CubeError:
    """Return what a failure to read from a store becomes; it may come from any library that has to do with it.

    Parameters
    ----------
    path
        Of the store.
    error
        The failure.
    what
        Cannot be read.
    """
    reason = f"{type(error).__name__}: {error}".rstrip(".")
    if isinstance(error, PermissionError) or re.search(r"[Cc]redential|AccessDenied|Forbidden|\b40[13]\b", reason):
        cloud = cloud_of(path)
        variables = "AWS_* variables" if cloud is None or cloud.name == "s3" else f"set {cloud.credentials}"
        cure = (
            f"Give credentials: storage_options= or {variables}, anon=True where it is public; or the right to read it."
        )
    elif is_url(path) and (isinstance(error, OSError) or classify_error(error) == "passing"):
        # botocore's are no OSError
        cure = "Check address and network, and try again."
    elif isinstance(error, KeyError) and "dimension" in reason:
        cure = (
            "Its arrays do not name their dimensions, as xarray's do. Write it again with xarray, by ds.to_zarr(...)."
        )
    elif re.search(r"codec|data type|zarr_format", reason):
        cure = "It is of a kind that the zarr installed here does not know. Update zarr and numcodecs, or write the store again."
    else:
        cure = "The store is truncated or damaged. Copy or write it again."
    return CubeError(f"{path}: {what}: {reason}. {cure}")


@contextmanager
def store_failures(path: str, *, what: Callable[[], str] = lambda: "metadata cannot be read") -> Iterator[None]:
    """Turn what fails within a block into what `store_failure` makes of it, in words that are found only then; errors of ours pass."""
    try:
        yield
    except RtsxError:
        raise
    except Exception as error:  # of zarr, of fsspec's file systems, of JSON: whatever stands in other people's metadata
        raise store_failure(path, error, what=what()) from error


def is_zipped(path: Path) -> bool:
    """Test whether a local file is a zip archive with a Zarr store in it."""
    return zipfile.is_zipfile(path) and _root_in_zip(path) is not None


def consolidate(store: Store) -> None:
    """Write the metadata of every node into the root, so that opening is one request, and those of overviews into theirs.

    Overviews are named by the attribute `multiscales`, and not part of what is written into the root: `xarray.open_datatree`
    follows that, and takes no group whose `y` and `x` have other lengths than those of the group above.
    """
    with _silent_about_consolidation():
        for name, _ in zarr.open_group(store, mode="r", use_consolidated=False).groups():
            if _LEVEL.fullmatch(name):
                zarr.consolidate_metadata(store, path=name)
        zarr.consolidate_metadata(_WithoutLevels(store))


class _WithoutLevels(WrapperStore[Store]):
    """A store that lists no overviews."""

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for name in super().list_dir(prefix):
            if prefix or not _LEVEL.fullmatch(name):
                yield name


@contextmanager
def _silent_about_consolidation() -> Iterator[None]:
    with warnings.catch_warnings():
        # The Zarr v3 specification does not have consolidated metadata yet; readers that do not know it ignore it, and
        # for an object store it is the difference between one request and dozens.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently", category=ZarrUserWarning)
        yield


def _root_in_zip(path: Path) -> str | None:
    """Return the path of the store in a zip archive: its root, or the folder that was packed; None where there is no store."""
    with zipfile.ZipFile(path) as archive:
        roots = [PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name in _ROOTS]
    shallowest = min(roots, key=lambda root: len(root.parts), default=None)
    return None if shallowest is None else "/".join(shallowest.parts)


def _is_metadata(name: str, content: bytes) -> bool:
    """Test whether bytes are a JSON object, and in Zarr v3 one that says what it describes."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and (name != "zarr.json" or document.get("node_type") in ("array", "group"))


def _diagnosis(path: str, options: StorageOptions) -> str:
    if is_url(path):
        system, root = file_system(path, options)
        if not system.exists(root):
            return "there is nothing. Check the address and the credentials."
        if system.isfile(root):
            return "it is a file. A cube is a Zarr folder, or a raster file such as .tif."
    else:
        local = local_path(path)
        if not local.exists():
            return "there is no such file or folder. Check the path."
        other = "it is a file, not a Zarr folder. Raster files are known by a suffix such as .tif or .vrt."
        return (file_problem(local) if local.is_file() else None) or instead(str(local)) or other
    return "it is a folder, but no Zarr store (no zarr.json or .zgroup in it). Give the folder that holds one."


_PATIENCE_S = 30.0
"""Seconds that `revoke` waits for writes that have begun."""


class FencedStore(WrapperStore[Store]):
    """A Zarr store that takes no more writes after `revoke`.

    When a task of a dask graph fails, dask raises at once and lets the tasks that are running in its threads finish. What
    they write then would appear again after the clean-up; with this store it fails instead.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self._is_revoked = False
        self._writing = 0

    def __reduce__(self) -> tuple[type["FencedStore"], tuple[Store]]:
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


_ROOT_NAMES = ("zarr.json", ".zgroup", ".zarray")
"""Files of which one lies in the root of every Zarr store."""


@contextmanager
def atomic_store(path: str, *, overwrite: bool, options: Mapping[str, Any]) -> Iterator[Store]:
    """Yield a store to write a group into; at `path`, complete, after the block, and gone if the block raises.

    Raises
    ------
    OutputExistsError
        Something is there, or appears during the block, and `overwrite` is False or it is no Zarr store.
    OutputNotWritableError
        Nothing can be written there, or its ending is that of another format; found out before the block runs. Or the
        disk was full during the block.
    """
    refuse_other_format(path, what="a Zarr store", suffixes=(".zarr",))
    if is_url(path):
        with _staged_remote(path, overwrite=overwrite, options=options) as store:
            yield store
        return
    with staged(path, overwrite=overwrite, replaceable=refuse_what_is_no_store) as draft:
        store = FencedStore(store_of(str(draft), options, read_only=False))
        zarr.create_group(store, attributes={COMPLETE: False}, zarr_format=3)
        try:
            yield store
            finish_store(store)
        except BaseException:
            store.revoke()
            raise


def refuse_what_is_no_store(target: Path) -> None:
    """Raise unless what is there is a Zarr store, which may be replaced."""
    if not any((target / name).is_file() for name in _ROOT_NAMES):
        raise OutputExistsError(f"{target} exists and is no Zarr store, so it is not overwritten. Choose another path.")


_PROBE = "probe"


@contextmanager
def _staged_remote(url: str, *, overwrite: bool, options: Mapping[str, Any]) -> Iterator[Store]:
    root_url = url.rstrip("/")
    system, root = file_system(root_url, options)
    with write_failures(url):
        exists = system.exists(root)
    if exists and not overwrite:
        raise OutputExistsError(f"{url} exists. Choose another address, or pass overwrite=True to replace it.")
    if exists and not any(system.isfile(f"{root}/{name}") for name in _ROOT_NAMES):
        raise OutputExistsError(
            f"{url} exists and is no Zarr store, so it is not overwritten. Choose another address, or remove it yourself."
        )
    suffix = f".{uuid.uuid4().hex[:8]}.partial" if exists else ""
    store = FencedStore(store_of(root_url + suffix, options, read_only=False))
    with write_failures(url):
        zarr.create_group(store, attributes={COMPLETE: False}, zarr_format=3)
        if exists:  # and will be removed in the end, for which one may lack the rights
            system.pipe_file(f"{root}{suffix}/{_PROBE}", b"")
            system.rm_file(f"{root}{suffix}/{_PROBE}")
    try:
        yield store
        finish_store(store)
    except BaseException as error:
        store.revoke()
        with suppress(Exception):  # the mark says that it is not complete, whatever is left of it
            system.rm(root + suffix, recursive=True)
        if isinstance(error, OSError) and error.errno in MEDIUM_ERRORS:
            raise not_written(url, error) from error
        raise
    if exists:
        with write_failures(url):
            _move_remote(system, root + suffix, root)


def _move_remote(system: Any, source: str, target: str) -> None:
    """Replace one prefix by another, the root metadata with its mark last."""
    names = sorted(system.find(source), key=lambda name: name.removeprefix(source) == "/zarr.json")
    remove_tree(system, target)
    for name in names:  # copied by the service itself; nothing passes through here
        system.copy(name, target + name.removeprefix(source))
    remove_tree(system, source)


def finish_store(store: Store) -> None:
    """Say that the store is complete, last of all, and gather its metadata in the root.

    Raises
    ------
    OutputNotWritableError
        The root is not the one that was begun: somebody has removed from the store while it was written.
    """
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    if root.attrs.get(COMPLETE) is not False:
        raise OutputNotWritableError(
            f"{store} was not written, because files in it were removed meanwhile, perhaps by a program that cleans up. Run again."
        )
    root.attrs[COMPLETE] = True
    consolidate(store)


T = TypeVar("T")


def _repeated(name: str) -> Any:
    """Return an operation of a `RetryingStore` by that of its store."""

    async def operation(self: "RetryingStore", *args: Any, **kwargs: Any) -> Any:
        return await self._tried(lambda: getattr(self._store, name)(*args, **kwargs))

    return operation


def _repeated_listing(name: str) -> Any:
    """Yield a listing of a `RetryingStore` by that of its store; all of it at once, because half of one cannot be repeated."""

    async def listing(self: "RetryingStore", *args: str, **kwargs: str) -> AsyncIterator[str]:
        async def gathered() -> list[str]:
            return [found async for found in getattr(self._store, name)(*args, **kwargs)]

        for found in await self._tried(gathered):
            yield found

    return listing


class RetryingStore(WrapperStore[Store]):
    """The same store; what fails by what can pass is repeated with growing pauses, and its last error raised as it is.

    Every operation of a Zarr store can be repeated: a key is written whole, and deleting what is gone is nothing.
    """

    def __init__(self, store: Store, *, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        super().__init__(store)
        self.pauses_s = pauses_s

    def __reduce__(self) -> tuple[Callable[[Store], "RetryingStore"], tuple[Store]]:
        return partial(type(self), pauses_s=self.pauses_s), (self._store,)

    def _with_store(self, store: Store) -> "RetryingStore":
        return type(self)(store, pauses_s=self.pauses_s)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of values."""
        ranges = list(key_ranges)
        return await self._tried(lambda: self._store.get_partial_values(prototype, ranges))

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:  # instead of the wrapped store's own, which would go past `get`
            yield key, await self.get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value."""
        await self._tried(lambda: self._store.set(key, value), n_bytes=len(value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a value where there is none."""
        await self._tried(lambda: self._store.set_if_not_exists(key, value), n_bytes=len(value))

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        for key, value in values:  # instead of the wrapped store's own, which would go past `set`
            await self.set(key, value)

    get, exists, is_empty, getsize = (_repeated(name) for name in ("get", "exists", "is_empty", "getsize"))
    delete, delete_dir = _repeated("delete"), _repeated("delete_dir")
    list, list_prefix, list_dir = (_repeated_listing(name) for name in ("list", "list_prefix", "list_dir"))

    async def _tried(self, call: Callable[[], Awaitable[T]], *, n_bytes: int = 0) -> T:
        for pause in backoff_with_jitter(self.pauses_s, n_bytes=n_bytes):
            try:
                return await call()
            except Exception as error:
                if classify_error(error) != "passing":
                    raise
            await asyncio.sleep(pause)
        return await call()
