"""What is wrong with a local file, as far as its name and its first bytes tell: for readers that only say that it is not theirs."""

import os
import re
from difflib import get_close_matches
from pathlib import Path

__all__ = ["file_problem", "file_start", "start_problem"]

_START = 512
"""Bytes that tell what a file is."""
_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml[^>]*\?>\s*<(!doctype html|html|error))", re.IGNORECASE
)
_ERROR = re.compile(rb"^\s*\{\s*\"(code|detail|error|errors|message|status|title)\"\s*:")
"""An answer of a server that was saved instead of the file."""
_POINTER = b"version https://git-lfs.github.com/spec/"


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """Why no reader could read a local file, and what to do, in sentences; None where nothing of the kind is wrong.

    Parameters
    ----------
    path
        Of a file on this machine.

    Examples
    --------
    >>> file_problem("no-such-folder/a.tif")
    'There is no such file: the folder no-such-folder does not exist. Check the path.'
    """
    file = Path(path)
    try:
        if not file.exists():
            return _missing(file)
        if file.is_dir():
            return "It is a folder. Give the file."
        if not file.is_file():
            return None  # a pipe, which can be read once
        start = file_start(file)
    except PermissionError:
        return "This user may not read it. Ask its owner for access, or change its mode with chmod."
    except OSError as error:
        return f"It cannot be read: {error.strerror or error}. Check the path and the disk."
    return start_problem(start)


def start_problem(start: bytes) -> str | None:
    """`file_problem` of what is in memory: a file, or its first bytes.

    Examples
    --------
    >>> start_problem(b"version https://git-lfs.github.com/spec/v1")
    'It is a pointer of Git LFS, without the file itself. Fetch that with: git lfs pull'
    """
    if not start:
        return "It is empty: the copy or download ended at once. Fetch it again."
    if _PAGE.match(start) or _ERROR.match(start):
        return (
            "It holds a web page or an answer of a server, saved in place of the file: a login, a licence or an error. Read it as "
            "text, and fetch the file again with what the page asks for."
        )
    if start.startswith(_POINTER):
        return "It is a pointer of Git LFS, without the file itself. Fetch that with: git lfs pull"
    if not start[:_START].strip(b"\0"):
        return "It begins with zeros only: the copy or download was broken off. Fetch it again."
    return None


def file_start(path: str | os.PathLike[str]) -> bytes:
    """First bytes of a local file; raises `OSError` where it cannot be read."""
    with Path(path).open("rb") as file:
        return file.read(_START)


def _missing(file: Path) -> str:
    if file.is_symlink():
        return f"It is a link to {Path(file).readlink()}, and there is nothing. Make the link again."
    if not file.parent.exists():
        return f"There is no such file: the folder {file.parent} does not exist. Check the path."
    near = get_close_matches(file.name, (one.name for one in file.parent.iterdir()), n=1, cutoff=0.8)
    hint = f" Did you mean {file.with_name(near[0])}?" if near else ""
    return f"There is no such file.{hint} Check the path."
