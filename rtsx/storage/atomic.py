"""Local outputs that are there whole or not at all: made in a hidden folder beside their place, then renamed once.

The hidden folder of `map.zarr` is `.map.zarr.partial`, with one folder in it for each process, which locks it. What a
killed process leaves is removed by the next one that makes the same output.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from rtsx.errors import OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.storage.paths import local_path

MEDIUM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
"""The disk or the service failed, or is full."""

OUTPUT_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        ".zarr": "a Zarr store",
        **dict.fromkeys((".tif", ".tiff", ".vrt", ".jp2"), "a GeoTIFF or another raster file"),
        **dict.fromkeys((".parquet", ".geoparquet", ".gpkg", ".fgb", ".geojson", ".shp"), "a table of outlines"),
        **dict.fromkeys((".nc", ".nc4", ".h5", ".hdf5"), "NetCDF or HDF5"),
        **dict.fromkeys((".json", ".yaml", ".yml", ".csv", ".txt"), "text"),
        **dict.fromkeys((".png", ".jpg", ".jpeg", ".pdf", ".html", ".svg"), "a picture or page"),
        **dict.fromkeys((".ckpt", ".pt", ".pth", ".pt2", ".onnx", ".safetensors"), "a network's file"),
        **dict.fromkeys((".zip", ".tar", ".gz"), "an archive"),
    }
)
"""What a reader expects behind an ending."""

_RENAME_EXCHANGE = 2
"""Of Linux's renameat2: both names change places at once."""
_AT_FDCWD = -100
"""Of Linux's renameat2: relative names count from the working folder."""
_LONGEST_NAME = 200
"""Bytes of an output's name that are repeated in its hidden folder's, because file systems end at 255."""
_ATTEMPTS = 100
"""How often a hidden folder may be taken away by others while it is made."""
_ABANDONED_S = 86400
"""Seconds without a change after which a hidden folder of another machine, whose locks may be invisible here, is nobody's."""


def refuse_other_format(path: str | os.PathLike[str], *, what: str, suffixes: tuple[str, ...] = ()) -> None:
    """Refuse an output whose ending promises another format than it gets.

    Parameters
    ----------
    path
        Of the output.
    what
        Is written there, for the message.
    suffixes
        Endings of its own, none for a folder; any other ending of `OUTPUT_SUFFIXES` is refused.

    Raises
    ------
    OutputNotWritableError
        It ends in that of another format.
    """
    name = os.fspath(path).rstrip("/")
    suffix = Path(name).suffix.lower()
    if suffix in OUTPUT_SUFFIXES and suffix not in suffixes:
        cure = f"{name[: -len(suffix)]}{suffixes[0] if suffixes else ''}"
        raise OutputNotWritableError(
            f"{path} would hold {what}, but {suffix} names {OUTPUT_SUFFIXES[suffix]}. Name it {cure}."
        )


@contextmanager
def staged(
    path: str | os.PathLike[str], *, overwrite: bool, replaceable: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """Yield a path to make a file or a folder at; it is at `path` after the block, whole, and gone if the block raises.

    A link is followed: what it leads to is made or replaced. The draft has a plain name with the ending of `path`,
    because some drivers read brackets, percent and question marks in a name as something else.

    Parameters
    ----------
    path
        Where it goes; folders that are missing are made.
    overwrite
        Replace what is there. Until the new one is complete the old one stays, and there is no moment without either.
    replaceable
        Raises `OutputExistsError` for something that may not be replaced even then; asked before the block and after
        it. None allows regular files only.

    Raises
    ------
    OutputExistsError
        Something is there, or appears during the block, and is not to be replaced.
    OutputNotWritableError
        Nothing can be written there; found out before the block runs. Or the disk was full during the block.
    """
    target = Path(os.path.realpath(local_path(path)))
    allowed = replaceable or _refuse_what_is_no_file
    if _is_there(target):
        if not overwrite:
            raise OutputExistsError(
                f"{target} exists already. Choose another path, or pass overwrite=True to replace it."
            )
        allowed(target)
    created = [folder for folder in target.parents if not folder.exists()]
    try:
        folder, lock = _locked_stage(target)
    except OSError as error:
        raise _not_writable(target, error) from error
    draft = folder / f"draft{target.suffix}"
    is_made = False
    try:
        try:
            yield draft
            is_made = True
            if not os.fstat(lock).st_nlink:
                raise _removed(path, folder)
            if draft.is_file():
                settle(draft)
            if overwrite and target.exists():
                allowed(target)
                _exchange(draft, target)
            else:
                _move(draft, target)
            settle(target.parent)
        except RtsxError:
            raise
        except Exception as error:
            if not os.fstat(lock).st_nlink:
                raise _removed(path, folder) from error
            if not isinstance(error, OSError) or not (is_made or error.errno in MEDIUM_ERRORS):
                raise
            raise not_written(path, error) from error
    except BaseException:
        _release(folder, lock)
        for parent in created:
            with suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise
    _release(folder, lock)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file at once; it replaces the file that is there."""
    with staged(path, overwrite=True) as draft:
        draft.write_bytes(data)


def write_object(target: Path, content: bytes, *, replace: bool) -> bool:
    """Write a whole file to the disk, and return whether it was written; errors are as those of `refusals`.

    Parameters
    ----------
    target
        The file; folders that are missing are made.
    content
        All of it.
    replace
        Take the place of what is there. Else one of many processes wins, on every machine that shares the folder; the
        file system has to have hard links.
    """
    if not replace and target.exists():  # not needed, but cheaper than writing a file for nothing
        return False
    with refusals(target), stage(target) as folder:
        draft = folder / "draft"
        draft.write_bytes(content)
        if replace:
            replace_settled(draft, target)
            return True
        settle(draft)
        if not _linked(draft, target):
            return False
        settle(target.parent)
    return True


@contextmanager
def refusals(target: Path) -> Iterator[None]:
    """Say in words that a disk is full, read-only or closed to us; other errors are those of the operating system."""
    try:
        yield
    except OutputNotWritableError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _not_writable(target, error) from error
        if error.errno in MEDIUM_ERRORS:
            raise not_written(target, error) from error
        raise


def replace_settled(draft: Path, target: Path) -> None:
    """Give a complete file its name, on which both are on the disk; what is there under that name is replaced."""
    settle(draft)
    draft.replace(target)
    settle(target.parent)


@contextmanager
def stage(target: Path) -> Iterator[Path]:
    """Yield a hidden, locked folder for what becomes `target`, gone after the block; what killed processes left there is removed."""
    folder, lock = _locked_stage(target)
    try:
        yield folder
    finally:
        _release(folder, lock)


def settle(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: a machine that loses power may otherwise keep one without the other."""
    with suppress(*(() if path.is_file() else (OSError,))):  # some file systems cannot sync a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(target: Path) -> None:
    """Remove a folder, at once as seen by others: a half-removed one would look like one that is there."""
    try:
        with stage(target) as folder:
            target.rename(folder / "old")
    except OSError as error:
        raise _not_writable(target, error) from error


def _is_there(target: Path) -> bool:
    """Test whether there is anything, a link that leads nowhere included."""
    try:
        target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # such as a name that is too long
        raise _not_writable(target, error) from error
    return True


def _not_writable(target: Path, error: OSError) -> OutputNotWritableError:
    return OutputNotWritableError(
        f"{target} cannot be written: {error.strerror or error} ({error.filename}). Choose a folder that you may write to, "
        "and a name that it takes."
    )


def not_written(path: str | os.PathLike[str], error: OSError) -> OutputNotWritableError:
    """Return what to raise where the medium failed while an output was written."""
    return OutputNotWritableError(
        f"{path} was not written: {error}. Free space or check the disk, then run again; nothing is left half-written."
    )


def _removed(path: str | os.PathLike[str], folder: Path) -> OutputNotWritableError:
    return OutputNotWritableError(
        f"{path} was not written, because its hidden folder {folder} was removed meanwhile, perhaps by a program that cleans "
        "up. Run again."
    )


def _refuse_what_is_no_file(target: Path) -> None:
    if not target.is_file():
        kind = "a folder" if target.is_dir() else "no regular file"
        raise OutputExistsError(f"{target} exists and is {kind}, so it is not overwritten. Choose another path.")


def _locked_stage(target: Path) -> tuple[Path, int]:
    name = os.fsencode(target.name)
    if len(name) > _LONGEST_NAME:
        name = name[:_LONGEST_NAME] + b"-%08x" % zlib.crc32(name)
    stages = target.with_name(f".{os.fsdecode(name)}.partial")
    for _ in range(_ATTEMPTS):
        # Removed by another process, when it was empty or not yet locked; mkdir says that it exists if that falls between
        # its two looks.
        with suppress(FileNotFoundError, *(() if stages.is_file() else (FileExistsError,))):
            stages.mkdir(parents=True, exist_ok=True)
            remove_abandoned(stages)
            own = stages / f"{_machine()}-{uuid.uuid4().hex}"
            own.mkdir()
            handle = os.open(own, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks; then nobody else finds it unlocked, either
                fcntl.flock(handle, fcntl.LOCK_SH)
            if own.exists():
                return own, handle
            os.close(handle)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(stages))


def _release(own: Path, lock: int) -> None:
    shutil.rmtree(own, ignore_errors=True)
    with suppress(OSError):  # another process is at the same output
        own.parent.rmdir()
    os.close(lock)


def _machine() -> str:
    return f"{zlib.crc32(os.uname().nodename.encode()):08x}"


def remove_abandoned(stages: Path) -> None:
    """Remove from the hidden folder of an output the drafts that no living process holds."""
    for folder in list(stages.iterdir()):
        with suppress(OSError):  # held, or gone
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if folder.name.startswith(_machine()) or _last_change(folder) < time.time() - _ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _last_change(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _move(draft: Path, target: Path) -> None:
    """Rename to a name that is free; exact, where a file system has links: what appears meanwhile is kept."""
    try:
        if draft.is_dir():
            draft.rename(target)  # raises where there is anything but an empty folder
            return
        try:
            is_ours = _linked(draft, target)
        except OSError:  # a file system without links
            is_ours = not target.exists()
            if is_ours:
                draft.rename(target)
        if not is_ours:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise OutputExistsError(
            f"{target} appeared while it was being made, so it is kept and the new one is dropped. Choose another path, "
            "or pass overwrite=True to replace it."
        ) from error


def _linked(draft: Path, target: Path) -> bool:
    """Give a file its name, and return False where the name is taken."""
    try:
        target.hardlink_to(draft)  # instead of a rename, which replaces, and of O_EXCL, which shows half a file
    except FileExistsError:
        # A server of files may have linked, lost its answer, and been asked again: then the file has both names.
        return draft.stat().st_nlink == 2
    return True


def _exchange(draft: Path, target: Path) -> None:
    """Put the draft in the place of what is there, which is then the draft's; it goes with the stage."""
    if draft.is_file() and target.is_file():
        draft.replace(target)
        return
    with suppress(AttributeError, OSError):  # another libc or file system: the second way below
        names = os.fsencode(draft), os.fsencode(target)
        renamed = ctypes.CDLL(None, use_errno=True).renameat2
        if not renamed(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
            return
    old = draft.with_name("old")
    target.rename(old)
    try:
        draft.rename(target)
    except BaseException:
        old.rename(target)
        raise
