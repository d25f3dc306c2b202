"""Where a store goes: all of it or nothing.

A local store is made in a hidden sibling and renamed when it is complete. An object store cannot rename, so there a
store says of itself whether it is complete (`COMPLETE`), and only an overwrite is made beside the old one first.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store

from rtsx.cube.revocable import RevocableStore
from rtsx.cube.zarr import COMPLETE, consolidate, file_system, store_of
from rtsx.errors import OutputExistsError, OutputNotWritableError
from rtsx.storage import MEDIUM_ERRORS, is_url, refuse_other_format, staged

__all__ = ["finish_store", "refuse_what_is_no_store", "staged_store"]

_ROOT_NAMES = ("zarr.json", ".zgroup", ".zarray")
"""Files of which one lies in the root of every Zarr store."""


@contextmanager
def staged_store(path: str, *, overwrite: bool, options: Mapping[str, Any]) -> Iterator[Store]:
    """A store to write a group into; at `path`, complete, after the block, and gone if the block raises.

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
        store = RevocableStore(store_of(str(draft), options, read_only=False))
        zarr.create_group(store, attributes={COMPLETE: False}, zarr_format=3)
        try:
            yield store
            finish_store(store)
        except BaseException:
            store.revoke()
            raise


@contextmanager
def _failures_told(target: str) -> Iterator[None]:
    """Turn failures of the disk or the service into `OutputNotWritableError`; outside of it is the clean-up."""
    try:
        yield
    except OSError as error:
        if error.errno not in MEDIUM_ERRORS:
            raise
        raise OutputNotWritableError(
            f"{target} was not written: {error}. Free space or check the disk, then run again; nothing is left "
            "half-written."
        ) from error


def refuse_what_is_no_store(target: Path) -> None:
    """Raise unless what is there is a Zarr store, which may be replaced."""
    if not any((target / name).is_file() for name in _ROOT_NAMES):
        raise OutputExistsError(f"{target} exists and is no Zarr store, so it is not overwritten. Choose another path.")


@contextmanager
def _staged_remote(url: str, *, overwrite: bool, options: Mapping[str, Any]) -> Iterator[Store]:
    root_url = url.rstrip("/")
    system, root = file_system(root_url, options)
    exists = system.exists(root)
    if exists and not overwrite:
        raise OutputExistsError(f"{url} exists. Choose another address, or pass overwrite=True to replace it.")
    if exists and not any(system.isfile(f"{root}/{name}") for name in _ROOT_NAMES):
        raise OutputExistsError(
            f"{url} exists and is no Zarr store, so it is not overwritten. Choose another address, or remove it yourself."
        )
    suffix = f".{uuid.uuid4().hex[:8]}.partial" if exists else ""
    store = RevocableStore(store_of(root_url + suffix, options, read_only=False))
    try:
        zarr.create_group(store, attributes={COMPLETE: False}, zarr_format=3)
    except OSError as error:  # fsspec turns the refusals of every service into one of these
        raise OutputNotWritableError(
            f"{url} cannot be written: {error}. Check that the bucket exists and the credentials allow it."
        ) from error
    try:
        with _failures_told(url):
            yield store
            finish_store(store)
    except BaseException:
        store.revoke()
        with suppress(OSError):  # the mark says that it is not complete, whatever is left of it
            system.rm(root + suffix, recursive=True)
        raise
    if exists:
        _move_remote(system, root + suffix, root)


def _move_remote(system: Any, source: str, target: str) -> None:
    """Replace one prefix by another, the root metadata with its mark last."""
    names = sorted(system.find(source), key=lambda name: name.removeprefix(source) == "/zarr.json")
    system.rm(target, recursive=True)
    for name in names:  # copied by the service itself; nothing passes through here
        system.copy(name, target + name.removeprefix(source))
    system.rm(source, recursive=True)


def finish_store(store: Store) -> None:
    """Say that the store is complete, last of all, and gather its metadata in the root."""
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs[COMPLETE] = True
    consolidate(store)
