"""STAC documents by path or URL: JSON, with time-outs, retries, and errors that say what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from pystac import Link
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3 import Retry

from rtsx.errors import CubeError
from rtsx.storage import is_url, local_path

__all__ = ["Access", "failure", "read_document"]

_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

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
    def session(self) -> Iterator[StacApiIO]:
        """An HTTP session, closed at the end; not to be shared between threads."""
        retry = Retry(
            total=self.retries,
            backoff_factor=self.backoff_s / 2,
            status_forcelist=_RETRIED_STATUS,
            allowed_methods=None,  # POST, too: a search changes nothing
            raise_on_status=False,
        )
        # Set afterwards, because urllib3 before 2.6 does not take it: a server may ask to be left alone for hours.
        retry.retry_after_max = _LONGEST_WAIT_S
        io = _SearchingIO(headers=dict(self.headers), timeout=self.timeout_s, max_retries=retry)
        with io.session:
            yield io


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


def read_document(href: str, access: Access) -> dict[str, Any]:
    """The JSON object at a path or URL.

    Raises
    ------
    CubeError
        It cannot be reached or read, or is no JSON object.
    """
    try:
        document = json.loads(_text(href, access))
    except APIError as error:
        raise failure(href, error) from error
    except (OSError, ImportError, UnicodeDecodeError) as error:
        raise CubeError(
            f"The STAC document {href} cannot be read: {error}. Check the path, and the link that leads there."
        ) from error
    except json.JSONDecodeError as error:
        raise CubeError(f"{href} is no JSON: {error}. A STAC document is expected there; check the address.") from error
    if not isinstance(document, dict):
        raise CubeError(f"{href} holds a JSON {type(document).__name__}; a STAC document is an object.")
    return document


def _text(href: str, access: Access) -> str:
    if not is_url(href):
        return local_path(href).read_text(encoding="utf-8")
    if href.startswith(("http://", "https://")):
        with access.session() as session:
            return session.read_text(href)
    with fsspec.open(href, "rt", encoding="utf-8") as file:
        return str(file.read())


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
