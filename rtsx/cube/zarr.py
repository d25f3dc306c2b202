"""Zarr stores, local or behind fsspec: opening one, and telling what is wrong with one that does not open."""

import json
import re
import warnings
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError, ZarrUserWarning
from zarr.storage import FsspecStore, LocalStore, WrapperStore, ZipStore

from rtsx.cube.diagnosis import instead
from rtsx.errors import CubeError
from rtsx.storage import absolute, file_options, file_problem, is_url, local_path

__all__ = [
    "BUILD",
    "COMPLETE",
    "LAYERS",
    "consolidate",
    "file_system",
    "is_zipped",
    "open_group",
    "store_failure",
    "store_of",
]

COMPLETE = "rtsx:complete"
"""Root attribute of the stores that we write: False from the first byte, True with the last one."""
BUILD = "rtsx:build"
"""Root attribute of the stores that are built part by part: how far that is."""
LAYERS = "rtsx:layers"
"""Attribute of the groups that we write: names of the variables in their order."""

_ROOTS = ("zarr.json", ".zgroup")
"""What makes a folder a group of Zarr, v3 and v2."""

StorageOptions = Mapping[str, Any]
_LEVEL = re.compile(r"\d+x")
"""Names of the groups of overviews."""


def store_of(path: str, options: StorageOptions, *, read_only: bool) -> Store:
    """The Zarr store of a local path or URL; touches nothing."""
    if not is_url(path):
        local = local_path(path)
        return (
            ZipStore(local, read_only=True)
            if read_only and is_zipped(local)
            else LocalStore(local, read_only=read_only)
        )
    file_system(path, options)
    return FsspecStore.from_url(path, storage_options=file_options(path, options) or None, read_only=read_only)


def file_system(url: str, options: StorageOptions) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises
    ------
    CubeError
        fsspec does not know the protocol, or its package is not installed.
    """
    try:
        system, path = fsspec.core.url_to_fs(absolute(url), **file_options(url, options))
    except (ImportError, ValueError) as error:
        raise CubeError(
            f"{url} cannot be reached: {error}. Known protocols are those of fsspec; s3:// needs the extra rtsx[s3]."
        ) from error
    return system, path


def open_group(path: str, options: StorageOptions) -> zarr.Group:
    """The root group of a store, for reading.

    Raises
    ------
    CubeError
        There is no Zarr group, or it was never finished.
    """
    try:
        with _silent_about_consolidation():
            store = store_of(path, options, read_only=True)
            group = zarr.open_group(
                store, mode="r", path=_root_in_zip(store.path) if isinstance(store, ZipStore) else None
            )
    except ContainsArrayError as error:
        raise CubeError(
            f"{path} is a single Zarr array. A cube is a group with one array per layer: open its parent."
        ) from error
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
        raise CubeError(f"{path} cannot be opened: {_diagnosis(path, options)}") from error
    except CubeError:
        raise
    except Exception as error:  # of zarr, of fsspec's file systems, of JSON: whatever stands in other people's metadata
        raise store_failure(path, error) from error
    if group.attrs.get(COMPLETE) is False and BUILD in group.attrs:
        raise CubeError(
            f"{path} is not built to its end yet: run the same rtsx cube build, or build_cube, again, and it goes on where "
            "it stopped."
        )
    if group.attrs.get(COMPLETE) is False:
        raise CubeError(
            f"{path} was never finished: the run that wrote it stopped half way. Write it again with overwrite=True, or "
            "remove it."
        )
    return group


def store_failure(path: str, error: Exception, *, what: str = "metadata cannot be read") -> CubeError:
    """What a failure to read from a store becomes; it may come from any library that has to do with it.

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
        cure = "Give credentials: storage_options= or AWS_* variables, anon=True where it is public; or the right to read it."
    elif is_url(path) and isinstance(error, OSError | TimeoutError):
        cure = "Check address and network, and try again."
    elif isinstance(error, KeyError) and "dimension" in reason:
        cure = (
            "Its arrays do not name their dimensions, as xarray's do. Write it again with xarray, by ds.to_zarr(...)."
        )
    elif re.search(r"codec|data type|zarr_format", reason):
        cure = "It is of a kind that the zarr installed here does not know. Update zarr and numcodecs, or write the store again."
    else:
        bad = next(_damaged_metadata(path), None)
        cure = f"{bad or 'The store'} is truncated or damaged. Copy or write it again."
    return CubeError(f"{path}: {what}: {reason}. {cure}")


def is_zipped(path: Path) -> bool:
    """Whether a local file is a zip archive with a Zarr store in it."""
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
    """Path of the store in a zip archive: its root, or the folder that was packed; None where there is no store."""
    with zipfile.ZipFile(path) as archive:
        roots = [PurePosixPath(name).parent for name in archive.namelist() if PurePosixPath(name).name in _ROOTS]
    shallowest = min(roots, key=lambda root: len(root.parts), default=None)
    return None if shallowest is None else "/".join(shallowest.parts)


def _damaged_metadata(path: str) -> Iterator[Path]:
    """Files of metadata of a local store that hold no JSON object."""
    for file in [] if is_url(path) else sorted(local_path(path).rglob("*")):
        if file.name in (*_ROOTS, ".zarray", ".zattrs", ".zmetadata"):
            try:
                if isinstance(json.loads(file.read_bytes()), dict):
                    continue
            except (OSError, ValueError, RecursionError):
                pass
            yield file


def _diagnosis(path: str, options: StorageOptions) -> str:
    if is_url(path):
        system, root = file_system(path, options)
        if not system.exists(root):
            return "there is nothing. Check the address and the credentials."
        if system.isfile(root):
            return "it is a file. A cube is a Zarr folder, or a raster file such as .tif."
    local = local_path(path)
    if not is_url(path) and not local.exists():
        return "there is no such file or folder. Check the path."
    if not is_url(path):
        told = file_problem(local) if local.is_file() else None
        return (
            told
            or instead(str(local))
            or "it is a file, not a Zarr folder. Raster files are known by a suffix such as .tif or .vrt."
        )
    return "it is a folder, but no Zarr store (no zarr.json or .zgroup in it). Give the folder that holds one."
