"""Files from anywhere to a folder: complete, checked, and under their names only then."""

import errno
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import requests

from rtsx.cube.rasterio import require_raster
from rtsx.cube.stac.client import HostSession
from rtsx.errors import CubeError, OrderError
from rtsx.ordering.catalog import is_raster
from rtsx.ordering.provider import RemoteFile, checksum_of
from rtsx.storage import replace_settled

_TIMEOUT_S = (10, 125)
"""Seconds to connect, and between two bytes."""
_READ_BYTES = 1 << 16
"""Bytes that a broken connection loses at most; what came before is kept."""
_PASSING = {408, 416, 425, 429, 500, 502, 503, 504}
"""Statuses that pass by themselves, and that of a range beyond the end, which is not asked for a second time."""


class HttpError(OSError):
    """A transfer that a server refused or broke off."""

    def __init__(self, message: str, *, passing: bool, wait_s: float | None = None, beyond_end: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        """Whether trying again may help."""
        self.wait_s = wait_s
        """Seconds that the server asks to wait; None where it does not say."""
        self.beyond_end = beyond_end
        """Whether bytes were asked for that the file does not have, as of one that has become shorter."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The bytes of a file from `start` on."""

    start: int
    """Place of the first byte; 0 where the server began anew."""
    size: int | None
    """Bytes of the whole file; None where the server does not say."""
    version: str
    """What tells this content from a later one under the same address; empty where the server does not say."""
    chunks: Iterator[bytes]


@contextmanager
def open_http(href: str, *, headers: Mapping[str, str], start: int, version: str) -> Iterator[Stream]:
    """Ask for a file, from byte `start` on if it is still of that `version`, else from the beginning.

    The headers go to the host of `href` only, not to where it redirects.

    Raises
    ------
    HttpError
        The server refuses, or the connection breaks, now or while the block reads.
    """
    asked = {"Accept-Encoding": "identity"}  # because a compressed answer has no place to go on from
    if start and version:
        asked |= {"Range": f"bytes={start}-", "If-Range": version}
    shown = href.split("?")[0]  # what follows may be a token
    try:
        with (
            HostSession(headers, home=href) as session,
            session.get(href, headers=asked, stream=True, timeout=_TIMEOUT_S) as response,
        ):
            if response.status_code >= 400:
                raise HttpError(
                    f"{shown}: the server answers {response.status_code} {response.reason}",
                    passing=response.status_code in _PASSING,
                    wait_s=_seconds(response.headers.get("Retry-After")),
                    beyond_end=response.status_code == 416,
                )
            resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            )
            begin = start if resumed else 0
            length = response.headers.get("Content-Length")
            yield Stream(
                start=begin,
                size=begin + int(length) if length else None,
                version=_version(response.headers),
                chunks=response.iter_content(_READ_BYTES),
            )
    except requests.RequestException as error:
        # The type alone, because the text of these repeats the address with its token.
        raise HttpError(f"{shown}: {type(error).__name__}", passing=True) from error


def _version(headers: Mapping[str, str]) -> str:
    """A strong ETag, or the time of change; weak ones promise nothing about bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None


Advance = Callable[[RemoteFile, int], None]
"""Told of every piece of a file that has arrived, in bytes; from several threads."""

_ATTEMPTS = 5
_LONGEST_WAIT_S = 60.0
_CHUNK_BYTES = 1 << 20
_LARGEST_UNSTATED_BYTES = 20_000_000_000
"""Bytes of a file of which neither the item nor the server says how large it is; scenes of satellites have a few GB."""


def fetch_files(
    files: Iterable[RemoteFile],
    folder: Path,
    *,
    parallel: int = 4,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, OrderError]:
    """Fetch files into ``folder/<scene id>/<name>``, several at a time; what is there already is kept.

    Returns
    -------
    dict
        What went wrong, by ``<scene id>/<name>``; all other files are there, complete.
    """
    failures: dict[str, OrderError] = {}
    with ThreadPoolExecutor(parallel) as pool:
        waiting = {
            pool.submit(fetch_file, file, folder / file.scene_id / file.name, advance=advance, pause=pause): file
            for file in files
        }
        try:
            for done in as_completed(waiting):
                file, error = waiting[done], done.exception()
                if isinstance(error, OrderError):
                    failures[f"{file.scene_id}/{file.name}"] = error
                elif error is not None:
                    raise error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what runs ends with its file; the rest never starts
            raise
    return failures


def fetch_file(
    file: RemoteFile,
    target: Path,
    *,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch one file; it has its name when it is complete and adds up, and a raster opens. What is there and does not is fetched anew.

    Until then it is a hidden file beside it, which a later call goes on from if the server still has the same content.
    Failures that may pass are tried five times, with growing pauses or as long as the server asks for.

    Raises
    ------
    OrderError
        It cannot be had, or is not what the provider says it is.
    """
    target = target.resolve()  # a link to another disk is followed, never replaced
    if target.exists() and not _wrong(file, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, version = (target.with_name(f".{target.name}.{ending}") for ending in ("partial", "version"))
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _receive(file, draft, version, advance=advance)
            wrong = _wrong(file, draft)
        except (OSError, ImportError) as error:  # fsspec tells of a missing library so
            if attempt == _ATTEMPTS or not (isinstance(error, HttpError) and error.passing):
                raise OrderError(
                    f"{file.name} of scene {file.scene_id} cannot be fetched: {error} (attempt {attempt}). "
                    "What has arrived is kept; run fetch again."
                ) from error
            wait = error.wait_s if error.wait_s is not None else 2.0**attempt
            pause(min(wait, _LONGEST_WAIT_S))
            continue
        if not wrong:
            replace_settled(draft, target)
            version.unlink(missing_ok=True)
            return
        draft.unlink(missing_ok=True)  # from the beginning, because a wrong beginning never adds up
        version.unlink(missing_ok=True)
    raise OrderError(
        f"{file.name} of scene {file.scene_id} arrived {_ATTEMPTS} times, but {wrong}. The provider's file or its "
        "description is damaged; report it there."
    )


def _receive(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> None:
    """Bring the draft to its full length."""
    parts = urlsplit(file.href)
    if parts.scheme in ("http", "https"):
        _receive_http(file, draft, version, advance=advance)
        return
    if parts.scheme in ("", "file"):
        shutil.copyfile(url2pathname(parts.path) if parts.scheme else file.href, draft)
    else:
        with fsspec.open(file.href, "rb") as source, draft.open("wb") as sink:
            _write(file, sink, iter(lambda: source.read(_CHUNK_BYTES), b""), size=None, advance=advance)
        return
    advance(file, draft.stat().st_size)


def _receive_http(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> None:
    known, start = "", 0
    with suppress(FileNotFoundError):
        known = version.read_text()
        start = draft.stat().st_size
    if start and start == file.size:  # all there, but the process ended before it was checked
        return
    try:
        with open_http(file.href, headers=file.headers, start=start, version=known) as stream:
            _append(file, draft, version, stream=stream, advance=advance)
    except HttpError as error:
        if error.beyond_end:
            draft.unlink(missing_ok=True)
            version.unlink(missing_ok=True)
        raise


def _append(file: RemoteFile, draft: Path, version: Path, *, stream: Stream, advance: Advance) -> None:
    with draft.open("ab" if stream.start else "wb") as sink:
        # After the old content is gone, because a version must never stand beside content of another one.
        version.write_text(stream.version)
        advance(file, stream.start)
        _write(file, sink, stream.chunks, size=stream.size, advance=advance)
        arrived = sink.tell()
    if arrived < (stream.size or 0) and (file.size is None or arrived <= file.size):
        raise HttpError(f"{file.name} broke off after {arrived} of {stream.size} bytes", passing=True)


def _write(file: RemoteFile, sink: BinaryIO, chunks: Iterable[bytes], *, size: int | None, advance: Advance) -> None:
    """Append what arrives, and no more than what provider or server have stated."""
    stated = file.size if file.size is not None else size
    free = shutil.disk_usage(Path(sink.name).parent).free
    if stated is not None and stated - sink.tell() > free:
        raise OSError(errno.ENOSPC, f"it has {stated:,} bytes, and {free:,} are free in {Path(sink.name).parent}")
    for chunk in chunks:
        sink.write(chunk)
        advance(file, len(chunk))
        if stated is None and sink.tell() > _LARGEST_UNSTATED_BYTES:
            raise OSError(
                f"neither item nor server state its size, and it has more than {_LARGEST_UNSTATED_BYTES:,} bytes, which is "
                "the limit then; ask the provider for file:size"
            )
        if stated is not None and sink.tell() > stated:
            return  # what it has too much is found when it is checked


def _wrong(file: RemoteFile, draft: Path) -> str:
    """How a draft differs from what the provider says, or from a raster; empty where it does not."""
    size = draft.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size if size < file.size else 'more'} bytes instead of {file.size}"
    if file.checksum is not None and (found := checksum_of(draft, file.checksum.algorithm)) != file.checksum:
        return f"its {found.algorithm} is {found.digest} instead of {file.checksum.digest}"
    with draft.open("rb") as opened:
        beginning = opened.read(512).decode(errors="replace").strip()
    if beginning.lower().startswith(("<!doctype html", "<html")) and not _is_page(file):
        return (
            f"it is a web page that begins with {beginning[:80]!r}, as servers send it to those who have not logged in (give "
            "credentials in access: headers:)"
        )
    if is_raster(file.name):
        try:
            require_raster(draft)
        except CubeError as error:
            return f"it is no whole raster: {str(error.__cause__ or error).rstrip('.')}"
    return ""


def _is_page(file: RemoteFile) -> bool:
    """Whether a file is a web page, and not what a server sends instead of it."""
    return "html" in (file.media_type or "") or file.name.lower().endswith((".html", ".htm"))
