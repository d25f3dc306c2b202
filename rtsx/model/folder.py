"""Writes a folder of files whole or not at all."""

import errno
from collections.abc import Mapping
from functools import partial
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rtsx.errors import BundleError, OutputExistsError, OutputNotWritableError
from rtsx.model.item import ITEM_NAME
from rtsx.storage import MEDIUM_ERRORS, absolute, refuse_other_format, settle, staged

__all__ = ["write_folder"]

# EEXIST and ENOTDIR: a file stands where a folder is needed.
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}
_BUNDLE_FILES = {ITEM_NAME, "weights.safetensors", "model.onnx", "model.ts", "model.pt2"}
"""Names that bundles are made of; a folder that holds anything else is never replaced."""


def write_folder(path: str, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write files into a new folder, at a local path or any fsspec URL.

    A local folder is written beside its place and renamed. Object stores cannot rename: there the files are written in
    the order given, so the last one is the mark that all are there.

    Raises
    ------
    OutputExistsError
        Something is there, and `overwrite` is False or it is no bundle, or holds more than one.
    OutputNotWritableError
        The place cannot be written, or the disk is full.
    """
    refuse_other_format(path, what="the folder of a bundle")
    try:
        fs, inside = fsspec.core.url_to_fs(absolute(path))
    except (ValueError, ImportError) as error:
        raise BundleError(f"{path!r} cannot be written: {error}. Check the URL, or install its file system.") from error
    inside = inside.rstrip("/")
    if fs.exists(inside):
        if not overwrite:
            raise OutputExistsError(
                f"{path} exists already. Choose another path, or pass overwrite=True to replace it."
            )
        _refuse_what_is_no_bundle(fs, inside, path=path)
    try:
        if isinstance(fs, LocalFileSystem):
            replaceable = partial(_refuse_what_is_no_bundle, fs, path=path)
            with staged(inside, overwrite=overwrite, replaceable=lambda there: replaceable(str(there))) as draft:
                draft.mkdir()
                for name, content in files.items():
                    (draft / name).write_bytes(content)
                    settle(draft / name)
            return
        if fs.exists(inside):
            fs.rm(inside, recursive=True)
        fs.makedirs(inside, exist_ok=True)
        for name, content in files.items():
            fs.pipe_file(f"{inside}/{name}", content)
    except OSError as error:
        if error.errno in MEDIUM_ERRORS:
            raise OutputNotWritableError(
                f"{path} was not written: {error}. Free space or check the disk, then save again; what is there is no "
                "half-written bundle."
            ) from error
        if error.errno not in _FORBIDDEN:
            raise
        raise OutputNotWritableError(
            f"{path} cannot be written: {error}. Choose a folder that you may write to."
        ) from error


def _refuse_what_is_no_bundle(fs: Any, inside: str, *, path: str) -> None:
    if fs.isfile(inside):
        raise OutputExistsError(f"{path} is a file, not a bundle, so it is not overwritten. Choose another path.")
    names = {name.rstrip("/").rpartition("/")[2] for name in fs.ls(inside, detail=False) if name.rstrip("/") != inside}
    if ITEM_NAME not in names:
        raise OutputExistsError(
            f"{path} exists and is no bundle (it has no {ITEM_NAME}), so it is not overwritten. Choose another path, or "
            "remove it yourself."
        )
    if names - _BUNDLE_FILES:
        raise OutputExistsError(
            f"{path} holds more than a bundle: {sorted(names - _BUNDLE_FILES)[:8]}, so it is not overwritten. Choose "
            "another path, or move those files away."
        )
