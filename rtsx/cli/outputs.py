"""Checks on output paths, made before any work starts."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rtsx.errors import OutputExistsError, OutputNotWritableError
from rtsx.storage import absolute, file_system

if TYPE_CHECKING:
    import fsspec


def require_absent(outputs: Iterable[str], *, overwrite: bool) -> None:
    """Refuse unless every output can be written; the folders that are missing are made when it is.

    Raises
    ------
    OutputExistsError
        Something is there, and `overwrite` is False.
    OutputNotWritableError
        A local folder cannot be written, or fsspec does not know the URL's protocol.
    """
    paths = [absolute(path) for path in outputs]
    for path in paths:
        filesystem, inner = _located(path)
        if not overwrite and filesystem.exists(inner):
            raise OutputExistsError(f"{path} exists already. Choose another path, or pass --overwrite to replace it.")
    for path in paths:
        filesystem, inner = _located(path)
        if "file" in filesystem.protocol:
            _require_writable(Path(inner), asked=path)


def require_local(output: str, *, option: str) -> None:
    """Refuse a URL for what only goes to a local disk.

    Raises
    ------
    OutputNotWritableError
        It is a URL.
    """
    if "://" in output:
        raise OutputNotWritableError(f"{option} takes a local path; got {output}. Write it here, then copy it there.")


def require_suffix(output: str, suffixes: Iterable[str], *, option: str) -> None:
    """Refuse a file whose ending names no format that we write, or that is not local.

    Raises
    ------
    OutputNotWritableError
        It is a URL, or has another ending; the message lists them.
    """
    require_local(output, option=option)
    known = list(suffixes)
    if not output.endswith(tuple(known)):
        raise OutputNotWritableError(
            f"{option} takes its format from the ending, one of {', '.join(known)}; got {output}. Rename it."
        )


def _located(path: str) -> tuple["fsspec.AbstractFileSystem", str]:
    return file_system(path, {}, error=OutputNotWritableError)


def _require_writable(path: Path, *, asked: str) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        # Tried instead of asked for, because permission bits say nothing of read-only mounts or of root.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputNotWritableError(
            f"Cannot write {asked}: {folder} is not writable ({error.strerror}). Choose another folder."
        ) from error
