"""A store that is built part by part: whether it was begun, from what, and how far it is."""

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError

from rtsx.cube.description import difference
from rtsx.cube.destination import refuse_what_is_no_store
from rtsx.cube.marks import create_marks
from rtsx.cube.parts import PartSource
from rtsx.cube.zarr import BUILD, COMPLETE, file_system, store_of
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError
from rtsx.storage import is_url, local_path, remove

__all__ = ["Begun", "alone", "begin", "begun_store", "failures_told", "remove_leavings", "remove_store", "say"]

_LOCK_S = 60
"""Seconds after its last sign of life at which a build on an object store counts as dead."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True)
class Begun:
    """A store that was begun."""

    group: zarr.Group
    """Its root."""
    is_complete: bool
    """Whether all of it is there."""
    images: dict[str, list[str]]
    """Ids of the images by source."""
    stamps: dict[str, dict[str, list[str]]]
    """What told then that they are the same, as `image_stamps` gives it; empty in stores of earlier versions."""


def begun_store(target: str, options: Mapping[str, Any], described: Mapping[str, Any]) -> Begun | None:
    """The store that is there and was begun from this very recipe; None where nothing is, or no part could be built yet.

    Raises
    ------
    OutputExistsError
        Something else is there.
    CubeError
        It was begun from another recipe.
    """
    system, root = file_system(target, options)
    if not system.exists(root):
        return None
    try:
        group = zarr.open_group(store_of(target, options, read_only=True), mode="r", use_consolidated=False)
        record = group.attrs.get(BUILD)
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError, ContainsArrayError) as error:
        raise OutputExistsError(f"{target} exists and is no cube that was built. Choose another path.") from error
    if record is None:
        raise OutputExistsError(
            f"{target} exists, and was not made by building. Choose another path, or pass overwrite=True to replace it."
        )
    assert isinstance(record, Mapping)  # we wrote it
    if record["state"] == "preparing":  # stopped before there was a place for any part
        return None
    details: Any = group["build"].attrs.asdict()
    found = difference(details["recipe"], described)
    if found is not None:
        raise CubeError(
            f"{target} was begun from another recipe: {found}. Build into another path, or start again with "
            "overwrite=True."
        )
    return Begun(group, group.attrs.get(COMPLETE) is True, details["images"], details.get("stamps", {}))


def remove_store(target: str, options: Mapping[str, Any]) -> None:
    """Remove the Zarr store that is there, if any."""
    if not is_url(target):
        local = local_path(target)
        if local.exists():
            refuse_what_is_no_store(local)
            remove(local)  # not piece by piece: a half-removed store would look like one that can be continued
        return
    system, root = file_system(target, options)
    if system.exists(root):
        if not system.isfile(f"{root}/zarr.json"):
            raise OutputExistsError(f"{target} exists and is no Zarr store, so it is not overwritten.")
        system.rm(f"{root}/zarr.json")  # first, likewise
        system.rm(root, recursive=True)


def begin(
    target: str, options: Mapping[str, Any], parts: PartSource, *, record: Mapping[str, Any], config: str
) -> None:
    """Create everything but pixels; that it is there is said last.

    Raises
    ------
    OutputNotWritableError
        Nothing can be written there.
    """
    store = store_of(target, options, read_only=False)
    try:
        root = zarr.create_group(store, attributes={COMPLETE: False, BUILD: {"state": "preparing"}}, zarr_format=3)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written: {error}. Choose a place that you may write to."
        ) from error
    with failures_told(target):
        parts.prepare(root)
        root.create_group("build", attributes={**record, "config": config})
        create_marks(root, parts.count)
        say(store, {"state": "begun"})


def say(store: Store, state: Mapping[str, Any]) -> None:
    """Write down how far a build is; through a fresh group, because an older one would restore its own attributes."""
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs[BUILD] = state


@contextmanager
def alone(target: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Keep others from building or replacing the same store: look at it, and change it, only within.

    A local store has a lock beside it that ends with its process; one behind a URL has objects beside it that are renewed,
    and count for nothing once they were not for a while.

    Raises
    ------
    OutputExistsError
        Somebody else is at it.
    """
    if is_url(target):
        with _alone_remote(target, options):
            yield
        return
    folder = local_path(target)
    lock = folder.with_name(f".{folder.name}.lock")
    made = [parent for parent in folder.parents if not parent.exists()]
    handle = _locked(lock, folder, target=target)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                lock.unlink()  # before it is let go, so that whoever waits for the name gets a new one
            os.close(handle)
        for parent in made:
            with suppress(OSError):  # not empty, as it should be
                parent.rmdir()


def _locked(lock: Path, folder: Path, *, target: str) -> int | None:
    """Handle of a locked file; None where there can be no lock."""
    while True:
        name = lock
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError:  # nothing can be begun or removed here, so the store itself will do, if it is there
            name = folder
            try:
                handle = os.open(folder, os.O_RDONLY)
            except OSError:
                return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise OutputExistsError(f"{target} is being built by another process. Wait for it, or stop it.") from error
        except OSError:
            return handle  # a file system that knows no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), name.stat()):
                return handle
        os.close(handle)  # removed by whoever held it, between opening and locking


@contextmanager
def _alone_remote(target: str, options: Mapping[str, Any]) -> Iterator[None]:
    system, root = file_system(target.rstrip("/"), options)
    generation = 1
    while True:
        key = f"{root}.lock/{generation:06d}"
        try:
            system.pipe_file(key, str(time.time()).encode(), mode="create")
            break
        except FileExistsError:
            try:
                age = time.time() - float(system.cat_file(key))
            except FileNotFoundError:
                continue  # given back since
            if age < _LOCK_S:
                raise OutputExistsError(
                    f"{target} is being built by another process, which said so {age:.0f} s ago. Wait for it, or stop it; one "
                    f"that was killed counts no more after {_LOCK_S} s."
                ) from None
            generation += 1
        except OSError as error:
            raise OutputNotWritableError(
                f"{target} cannot be written: {error}. Choose a place that you may write to."
            ) from error
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_LOCK_S / 4):
            with suppress(Exception):  # the next may do better
                system.pipe_file(key, str(time.time()).encode())

    thread = threading.Thread(target=renew, name="rtsx-build-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LOCK_S / 4)
        for number in range(1, generation + 1):
            with suppress(Exception):  # it ends by itself
                system.rm_file(f"{root}.lock/{number:06d}")


def remove_leavings(target: str) -> None:
    """Remove what a process that was killed while it wrote has left beside the file that it meant."""
    if not is_url(target):
        for file in local_path(target).rglob("*.partial"):
            file.unlink(missing_ok=True)  # of zarr-python


@contextmanager
def failures_told(target: str) -> Iterator[None]:
    """Turn a full disk into `OutputNotWritableError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutputNotWritableError(
            f"{target} could not be written on: {error}. Free space and run again; what is done stays done."
        ) from error
