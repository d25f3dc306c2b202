"""Files from anywhere to a folder: requests as patient as the server asks, complete and checked, and under their names only then."""

import errno
import re
import shutil
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests

from rtsx.cube.stac.client import HostSession
from rtsx.errors import CubeError, OrderError
from rtsx.ordering.provider import Checksum, RemoteFile, checksum_of
from rtsx.storage import file_system, replace_settled
from rtsx.storage.lock import turn

MOST_ATTEMPTS = 5
"""Times that one thing is tried."""
_LONGEST_WAIT_S = 60.0
_LONGEST_STATED_WAIT_S = 1800.0
"""Seconds that a server may ask to wait for one file, all together."""
_WORDS_BYTES = 2000
"""Bytes that are read of an answer that refuses."""
_TIMEOUT_S = (10, 125)
"""Seconds to connect, and between two bytes."""
_READ_BYTES = 1 << 16
"""Bytes that a broken connection loses at most; what came before is kept."""
_PASSING = {408, 416, 425, 429, 500, 502, 503, 504}
"""Statuses that pass by themselves, and that of a range beyond the end, which is not asked for a second time."""


class HttpError(OSError):
    """A transfer that a server refused or broke off."""

    def __init__(
        self,
        message: str,
        *,
        passing: bool,
        status: int | None = None,
        wait_s: float | None = None,
        is_quota: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        """Status of the answer; None where there was none."""
        self.is_quota = is_quota
        """Whether what may be downloaded is used up, so that asking for anything else is of no use either."""
        self.passing = passing
        """Whether trying again may help."""
        self.wait_s = wait_s
        """Seconds that the server asks to wait; None where it does not say."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The bytes of a file from `start` on."""

    start: int
    """Place of the first byte; 0 where the server began anew."""
    size: int | None
    """Bytes of the whole file; None where the server does not say."""
    version: str
    """What tells this content from a later one under the same address; empty where the server does not say."""
    checksum: Checksum | None
    """What the bytes of the whole file add up to; None where the server does not say."""
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
                raise _refusal(response, shown)
            resumed = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
                f"bytes {start}-"
            )
            begin = start if resumed else 0
            length = response.headers.get("Content-Length")
            yield Stream(
                start=begin,
                size=begin + int(length) if length else None,
                version=_version(response.headers),
                checksum=_checksum(response.headers, is_part=resumed),
                chunks=response.iter_content(_READ_BYTES),
            )
    except requests.RequestException as error:
        # The type alone, because the text of these repeats the address with its token.
        raise HttpError(f"{shown}: {type(error).__name__}", passing=True) from error


def _version(headers: Mapping[str, str]) -> str:
    """Return a strong ETag, or the time of change; weak ones promise nothing about bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _refusal(response: requests.Response, shown: str) -> HttpError:
    """Return the error of an answer, with the beginning of the server's own words."""
    words = next(response.iter_content(_WORDS_BYTES), b"").decode(errors="replace")
    words = "" if words.lstrip().startswith("<") else " ".join(words.split())[:300]
    status = response.status_code
    is_quota = status in (402, 403, 429) and "quota" in words.lower()
    # Where a request was redirected to, its address may have expired meanwhile; asking again gives a fresh one.
    has_expired = bool(response.history) and status in (400, 403)
    return HttpError(
        f"{shown}: the server answers {status} {response.reason}{f', {words}' if words else ''}",
        passing=(status in _PASSING or has_expired) and not is_quota,
        status=status,
        wait_s=_wait_s(response.headers),
        is_quota=is_quota,
    )


def _wait_s(headers: Mapping[str, str]) -> float | None:
    """Return seconds of a ``Retry-After``, which is their number or a time on the server's clock, which may not be ours."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    until, now = _time(text), _time(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds()) if until else None


def _time(text: str) -> datetime | None:
    with suppress(ValueError):
        time = parsedate_to_datetime(text)
        return time if time.tzinfo else None
    return None


def _checksum(headers: Mapping[str, str], *, is_part: bool) -> Checksum | None:
    """Return the MD5 that Google's storage states of a whole file, where Planet's are, or ``Content-MD5``, which is of the part."""
    hashes = re.findall(r"md5=([^,\s]+)", headers.get("x-goog-hash", ""))
    hashes.append("" if is_part else headers.get("Content-MD5", ""))
    try:
        digest = b64decode(hashes[0], validate=True).hex()
    except ValueError:
        return None
    return Checksum("md5", digest) if len(digest) == 32 else None


class Patience:
    """How long one thing is asked for: five attempts, and beside them as long as the server itself asks to wait.

    Parameters
    ----------
    pause
        Waits between attempts.
    """

    def __init__(self, pause: Callable[[float], None]) -> None:
        self.attempts = 1
        """The one that runs."""
        self._pause = pause
        self._waited_s = 0.0

    def try_again(self) -> bool:
        """Count one more attempt; False where none is left."""
        is_left = self.attempts < MOST_ATTEMPTS
        self.attempts += is_left
        return is_left

    def retry_after(self, error: Exception) -> bool:
        """Wait and return True where an error may pass; False where it is to be raised."""
        if not (isinstance(error, HttpError) and error.passing):
            return False
        if error.wait_s is None:
            wait = min(2.0**self.attempts, _LONGEST_WAIT_S)
            if not self.try_again():
                return False
        else:
            wait = max(error.wait_s, 1.0)
            self._waited_s += wait
            if self._waited_s > _LONGEST_STATED_WAIT_S:
                return False
        self._pause(wait)
        return True


def pauses_until(over: Event) -> Callable[[float], None]:
    """Return what waits so many seconds, and raises an `OrderError` at once where the download is over, as after Ctrl-C."""

    def pause(seconds: float) -> None:
        if over.wait(seconds):
            raise OrderError("The download was stopped.")

    return pause


Advance = Callable[[RemoteFile, int], None]
"""Told of every piece of a file that has arrived, in bytes; from several threads."""

_CHUNK_BYTES = 1 << 20
_LARGEST_UNSTATED_BYTES = 20_000_000_000
"""Bytes of a file of which neither the item nor the server says how large it is; scenes of satellites have a few GB."""


def fetch_files(
    files: Iterable[RemoteFile],
    folder: Path,
    *,
    parallel: int = 4,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] | None = None,
) -> dict[str, OrderError]:
    """Fetch files into ``folder/<scene id>/<name>``, several at a time; what is there already is kept.

    Returns
    -------
    dict
        What went wrong, by ``<scene id>/<name>``; all other files are there, complete.
    """
    failures: dict[str, OrderError] = {}
    with download_threads(parallel, pause) as (pool, pause):
        waiting = {
            pool.submit(fetch_file, file, folder / file.scene_id / file.name, advance=advance, pause=pause): file
            for file in files
        }
        for done in as_completed(waiting):
            file, error = waiting[done], done.exception()
            if isinstance(error, OrderError):
                failures[f"{file.scene_id}/{file.name}"] = error
            elif error is not None:
                raise error
    return failures


@contextmanager
def download_threads(
    count: int, pause: Callable[[float], None] | None
) -> Iterator[tuple[ThreadPoolExecutor, Callable[[float], None]]]:
    """So many threads for the block, and how they wait, if no `pause` is given: where the block raises, what runs ends with its file, and the rest never starts."""
    over = Event()
    with ThreadPoolExecutor(count) as pool:
        try:
            yield pool, pause or pauses_until(over)
        except BaseException:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def fetch_file(
    file: RemoteFile,
    target: Path,
    *,
    once: bool = False,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch one file; it has its name when it is complete and adds up, and a raster opens. What is there and does not is fetched anew.

    Until then it is a hidden file beside it, which a later call goes on from if the server still has the same content.
    Failures that may pass are tried five times, with growing pauses or as long as the server asks for, and so is what arrives damaged,
    unless it is to arrive `once`, as where it came damaged before.

    Raises
    ------
    OrderError
        It cannot be had, or is not what the provider says it is.
    """
    target = target.resolve()  # a link to another disk is followed, never replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    # Alone, because another order may bring the same scene into the same folder.
    with turn(str(target), {}, what=f"fetches {target}", pause=pause):
        if not target.exists() or _wrong(file, target):
            _fetch(file, target, once=once, advance=advance, pause=pause)


def _fetch(file: RemoteFile, target: Path, *, once: bool, advance: Advance, pause: Callable[[float], None]) -> None:
    draft, version = (target.with_name(f".{target.name}.{ending}") for ending in ("partial", "version"))
    patience = Patience(pause)
    while True:
        try:
            arrived = _receive(file, draft, version, advance=advance)
            wrong = _wrong(arrived, draft)
        except (OSError, ImportError) as error:  # fsspec tells of a missing library so
            if patience.retry_after(error):
                continue
            raise OrderError(
                f"{file.name} of scene {file.scene_id} cannot be fetched: {error} (attempt {patience.attempts}). "
                "What has arrived is kept; run fetch again."
            ) from error
        if not wrong:
            replace_settled(draft, target)
            version.unlink(missing_ok=True)
            return
        draft.unlink(missing_ok=True)  # from the beginning, because a wrong beginning never adds up
        version.unlink(missing_ok=True)
        if once or not patience.try_again():
            raise OrderError(
                f"{file.name} of scene {file.scene_id} arrived {'again' if once else f'{MOST_ATTEMPTS} times'}, but {wrong}. The "
                "provider's file or its description is damaged; report it there."
            )


def _receive(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> RemoteFile:
    """Bring the draft to its full length; returns the file with what the server says of it."""
    parts = urlsplit(file.href)
    if parts.scheme in ("http", "https"):
        return _receive_http(file, draft, version, advance=advance)
    if parts.scheme in ("", "file"):
        shutil.copyfile(url2pathname(parts.path) if parts.scheme else file.href, draft)
    else:
        system, path = file_system(file.href, {}, error=OrderError)
        with system.open(path, "rb") as source, draft.open("wb") as sink:
            _write(file, sink, iter(lambda: source.read(_CHUNK_BYTES), b""), size=None, advance=advance)
        return file
    advance(file, draft.stat().st_size)
    return file


def _receive_http(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> RemoteFile:
    known, start = "", 0
    with suppress(FileNotFoundError):
        known = version.read_text()
        start = draft.stat().st_size
    if start and start == file.size:  # all there, but the process ended before it was checked
        return file
    try:
        with open_http(file.href, headers=file.headers, start=start, version=known) as stream:
            _append(file, draft, version, stream=stream, advance=advance)
            return replace(file, checksum=file.checksum or stream.checksum)
    except HttpError as error:
        if error.status == 416:  # bytes that the file does not have, as of one that has become shorter
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
    """Return how a draft differs from what the provider says, or from a raster; empty where it does not."""
    size = draft.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size if size < file.size else 'more'} bytes instead of {file.size}"
    if file.checksum is not None and (found := checksum_of(draft, file.checksum.algorithm)) != file.checksum:
        return f"its {found.algorithm} is {found.digest} instead of {file.checksum.digest}"
    with draft.open("rb") as opened:
        beginning = opened.read(512).decode(errors="replace").strip()
    is_page = "html" in (file.media_type or "") or file.name.lower().endswith((".html", ".htm"))
    if not is_page and beginning.lower().startswith(("<!doctype html", "<html")):
        return (
            f"it is a web page that begins with {beginning[:80]!r}, as servers send it to those who have not logged in (give "
            "credentials in access: headers:)"
        )
    if file.is_raster:
        from rtsx.cube.rasterio import require_raster  # here, because it loads xarray and dask

        try:
            require_raster(draft)
        except CubeError as error:
            return f"it is no whole raster: {str(error.__cause__ or error).rstrip('.')}"
    return ""
