"""STAC documents by path or URL: JSON, with time-outs, retries, and errors that say what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import requests
from pystac import Link
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from rtsx.errors import CubeError
from rtsx.parsing import json_value
from rtsx.storage import file_problem, is_url, local_path

__all__ = ["Access", "HostSession", "failure", "is_same_host", "read_document"]

_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

_LARGEST_DOCUMENT_BYTES = 1 << 29
"""Bytes of an answer that is held in memory; 10,000 items are about 300 MB."""

_LONGEST_WAIT_S = 120
"""Seconds after which a server that asks for patience is asked again all the same."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a server is asked."""

    headers: tuple[tuple[str, str], ...] = ()
    """Names and values that go with each request, such as an API key."""
    timeout_s: float = 60.0
    """Seconds without an answer after which a request has failed."""
    retries: int = 4
    """Times that a request is sent again after a lost connection, a time-out, an overload (429) or a fault (5xx)."""
    backoff_s: float = 1.0
    """Seconds before the second retry; doubled for each further one. The first comes at once."""

    @contextmanager
    def session(self, *, home: str) -> Iterator[StacApiIO]:
        """An HTTP session whose headers go to the host of `home` only, closed at the end; not to be shared between threads."""
        retry = Retry(
            total=self.retries,
            backoff_factor=self.backoff_s / 2,
            status_forcelist=_RETRIED_STATUS,
            allowed_methods=None,  # POST, too: a search changes nothing
            raise_on_status=False,
        )
        # Set afterwards, because urllib3 before 2.6 does not take it: a server may ask to be left alone for hours.
        retry.retry_after_max = _LONGEST_WAIT_S
        io = _SearchingIO(timeout=self.timeout_s)
        with HostSession(dict(self.headers), home=home) as io.session:
            for scheme in ("http://", "https://"):
                io.session.mount(scheme, HTTPAdapter(max_retries=retry))
            yield io


class HostSession(requests.Session):
    """A session that sends its headers to one host only, because they may hold a key.

    Every redirect counts as a request of its own; see `is_same_host`. An answer that is not streamed has a limit of bytes.

    Parameters
    ----------
    headers
        Names and values.
    home
        Address on the host.
    """

    def __init__(self, headers: Mapping[str, str], *, home: str) -> None:
        super().__init__()
        self._bound = dict(headers)
        self._home = home
        self.hooks["response"].append(_within_limit)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request, with the headers or without."""
        is_home = is_same_host(self._home, str(request.url))
        for name, value in self._bound.items():
            if is_home:
                request.headers[name] = value
            elif request.headers.get(name) == value:  # of a request that was redirected
                del request.headers[name]
        return super().send(request, **kwargs)


def is_same_host(home: str, href: str) -> bool:
    """Whether what may be sent to the one address may be sent to the other, by the rule that requests has for ``Authorization``.

    Examples
    --------
    >>> is_same_host("http://a.org/stac", "https://a.org/1.tif"), is_same_host("https://a.org", "https://a.org:8443")
    (True, False)
    """
    try:
        return not requests.sessions.SessionRedirectMixin().should_strip_auth(home, href)
    except ValueError:  # no address, such as one with port 99999
        return False


def _within_limit(response: requests.Response, *_: object, stream: bool = False, **__: object) -> None:
    """Read an answer up to the limit; a hook, because requests reads whole answers before it follows their redirects."""
    if stream and not response.is_redirect:
        return
    content = bytearray()
    for piece in response.iter_content(1 << 20):
        content += piece
        if len(content) > _LARGEST_DOCUMENT_BYTES:
            response.close()
            raise requests.exceptions.ContentDecodingError(
                f"the answer is longer than {_LARGEST_DOCUMENT_BYTES:,} bytes, which is the limit"
            )
    response._content = bytes(content)


class _SearchingIO(StacApiIO):
    """pystac-client's, but for one thing: there, an answer without items ends a search as if nothing had been found."""

    def read_json(self, source: str | Link, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        document = super().read_json(source, *args, **kwargs)
        is_search = isinstance(source, Link) or kwargs.get("method") == "POST"
        if is_search and not (isinstance(document, dict) and isinstance(document.get("features"), list)):
            raise CubeError(
                f"{source if isinstance(source, str) else source.href} answers a search with {str(document)[:200]!r}, and "
                "not with a list of items. Check that the address is that of a STAC API, and ask its operator."
            )
        return document


def read_document(href: str, access: Access, *, home: str) -> dict[str, Any]:
    """The JSON object at a path or URL; the headers of `access` go to the host of `home` only.

    Raises
    ------
    CubeError
        It cannot be reached or read, or is no JSON object.
    """
    try:
        document = json_value(_text(href, access, home), what=href, error=CubeError)
    except APIError as error:
        raise failure(href, error) from error
    except (OSError, ImportError, ValueError) as error:  # ValueError: no UTF-8, or no JSON
        problem = None if is_url(href) else file_problem(local_path(href))
        what = (
            "is no JSON"
            if isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError)
            else "cannot be read"
        )
        raise CubeError(
            f"The STAC document {href} {what}: {problem or f'{error}. Check the path, and the link that leads there.'}"
        ) from error
    if not isinstance(document, dict):
        raise CubeError(f"{href} holds a JSON {type(document).__name__}; a STAC document is an object.")
    return document


def _text(href: str, access: Access, home: str) -> str:
    if not is_url(href):
        return local_path(href).read_text(encoding="utf-8")
    if href.startswith(("http://", "https://")):
        with access.session(home=home) as session:
            return session.read_text(href)
    with fsspec.open(href, "rb") as file:
        content: bytes = file.read(_LARGEST_DOCUMENT_BYTES + 1)
    if len(content) > _LARGEST_DOCUMENT_BYTES:
        raise OSError(f"it is longer than {_LARGEST_DOCUMENT_BYTES:,} bytes, which is the limit")
    return content.decode()


def failure(url: str, error: Exception) -> CubeError:
    """What a failed request becomes: the address, what came, and what to do about it."""
    status = getattr(error, "status_code", None)
    answer = " ".join(str(error).split())[:300]
    if status in (401, 403):
        return CubeError(
            f"{url} refuses access (HTTP {status}): {answer or 'no reason given'}. Give credentials in headers=, such as "
            "(('Authorization', 'Bearer ...'),), and check that they have not expired."
        )
    if status is not None:
        advice = "Check the address." if status == 404 else "Check the request." if status < 500 else "Try again later."
        return CubeError(f"{url} answers HTTP {status}: {answer or 'no reason given'}. {advice}")
    return CubeError(
        f"{url} cannot be asked: {answer or type(error).__name__}. Check address and network; a slow server may need a "
        "longer timeout_s= or more retries=."
    )
