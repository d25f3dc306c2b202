"""Bytes from web servers, from a given place on. The only place that asks for files over HTTP."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from rtsx.cube.stac.documents import HostSession

__all__ = ["HttpError", "Stream", "open_http"]

_TIMEOUT_S = (10, 125)
"""Seconds to connect, and between two bytes."""
_CHUNK_BYTES = 1 << 16
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
    """The bytes."""


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
                chunks=response.iter_content(_CHUNK_BYTES),
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
