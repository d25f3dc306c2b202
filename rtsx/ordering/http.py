"""Requests of files: from the byte that one goes on from, as patiently as the server asks, with errors that say what may pass."""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event

import requests

from rtsx.cube.stac.client import HostSession
from rtsx.errors import OrderError
from rtsx.ordering.provider import Checksum

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
    """A strong ETag, or the time of change; weak ones promise nothing about bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _refusal(response: requests.Response, shown: str) -> HttpError:
    """The error of an answer, with the beginning of the server's own words."""
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
    """Seconds of a ``Retry-After``, which is their number or a time on the server's clock, which may not be ours."""
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
    """The MD5 that Google's storage states of a whole file, where Planet's are, or ``Content-MD5``, which is of the part."""
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

    @property
    def is_left(self) -> bool:
        """Whether one attempt more may be made; it counts."""
        self.attempts += 1
        return self.attempts <= MOST_ATTEMPTS

    def bears(self, error: Exception) -> bool:
        """Wait and return True where an error may pass; False where it is to be raised."""
        if not (isinstance(error, HttpError) and error.passing):
            return False
        if error.wait_s is None:
            wait = min(2.0**self.attempts, _LONGEST_WAIT_S)
            if not self.is_left:
                self.attempts -= 1
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
