"""A store that is built part by part: whether it was begun, from what, and how far it is."""

import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError

from rtsx.cube.description import difference
from rtsx.cube.destination import refuse_existing
from rtsx.cube.marks import create_marks
from rtsx.cube.parts import PartSource
from rtsx.cube.zarr import BUILD, COMPLETE, file_system, is_url, store_of
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError

__all__ = ["Begun", "alone", "begin", "begun_store", "failures_told", "remove_leavings", "remove_store", "say"]

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


def begun_store(target: str, options: Mapping[str, Any], described: Mapping[str, Any]) -> Begun | None:
    """The store that is there and was begun from this very recipe; None where nothing is.

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
        remove_store(target, options)
        return None
    details: Any = group["build"].attrs.asdict()
    found = difference(details["recipe"], described)
    if found is not None:
        raise CubeError(
            f"{target} was begun from another recipe: {found}. Build into another path, or start again with "
            "overwrite=True."
        )
    return Begun(group, group.attrs.get(COMPLETE) is True, details["images"])


def remove_store(target: str, options: Mapping[str, Any]) -> None:
    """Remove the Zarr store that is there, if any."""
    if not is_url(target):
        local = Path(target.removeprefix("file://"))
        if local.exists():
            refuse_existing(local, overwrite=True)
            # Renamed first, because a half-removed store would look like one that can be continued.
            old = local.with_name(f".{local.name}.{uuid.uuid4().hex[:8]}.old")
            local.rename(old)
            shutil.rmtree(old)
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
def alone(target: str) -> Iterator[None]:
    """Keep other processes of this machine from building the same local store; the lock ends with the process.

    On object stores, and from other machines, two builds at a time do the same work twice and no harm.
    """
    if is_url(target):
        yield
        return
    folder = os.open(Path(target.removeprefix("file://")), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise OutputExistsError(
            f"{target} is being built by another process of this machine. Wait for it, or stop it."
        ) from error
    except OSError:
        pass  # a file system that knows no locks
    try:
        yield
    finally:
        os.close(folder)


def remove_leavings(target: str) -> None:
    """Remove what a process that was killed while it wrote has left beside the file that it meant."""
    if not is_url(target):
        for file in Path(target.removeprefix("file://")).rglob("*.partial"):
            file.unlink(missing_ok=True)


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
