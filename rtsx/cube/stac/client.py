"""Access to STAC: documents by path or URL, searches page by page, query conditions, and checks of items as they come: one that is odd is named and set aside, and the rest goes on."""

import json
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any
from warnings import catch_warnings, simplefilter

import requests
from annotated_types import Ge, Gt
from pystac import Link
from pystac.errors import STACError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from shapely import get_parts, orient_polygons
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry
from urllib3 import Retry

from rtsx.cube.images import Period
from rtsx.cube.stac.assets import located, self_href
from rtsx.cube.stac.item import ItemDict, buffered_area
from rtsx.errors import CubeError
from rtsx.parsing import STRICT, json_value
from rtsx.storage import file_problem, file_system, is_url, local_path

if TYPE_CHECKING:
    from rtsx.cube.stac.sources import StacSearch
import warnings
from collections.abc import Iterable, Sequence
from itertools import chain
from math import isfinite

from rtsx.cube.stac.item import item_footprint, item_name, time_of
from rtsx.errors import MissingCoverageWarning
from rtsx.redaction import redacted

_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)

_LARGEST_DOCUMENT_BYTES = 1 << 29
"""Bytes of an answer that is held in memory; 10,000 items are about 300 MB."""

_LONGEST_WAIT_S = 120
"""Seconds after which a server that asks for patience is asked again all the same."""


@dataclass(frozen=True, kw_only=True)
class HttpAccess:
    """How a server is asked."""

    __pydantic_config__ = STRICT

    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names and values that go with each request, such as an API key from ``${NAME}``; never stored beside an output."""
    timeout_s: Annotated[float, Gt(0)] = 60.0
    """Seconds without an answer after which a request has failed."""
    retries: Annotated[int, Ge(0)] = 4
    """Times that a request is sent again after a lost connection, a time-out, an overload (429) or a fault (5xx)."""
    backoff_s: Annotated[float, Ge(0)] = 1.0
    """Seconds before the second retry; doubled for each further one. The first comes at once."""

    def __post_init__(self) -> None:
        """Take pairs of names and values, too."""
        object.__setattr__(self, "headers", dict(self.headers))

    @contextmanager
    def session(self, *, home: str) -> Iterator[StacApiIO]:
        """Open an HTTP session whose headers go to the host of `home` only, closed at the end; not to be shared between threads."""
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
        with HostSession(self.headers, home=home) as io.session:
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
    """Test whether what may be sent to the one address may be sent to the other, by the rule that requests has for ``Authorization``.

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


def read_document(href: str, access: HttpAccess, *, home: str) -> dict[str, Any]:
    """Return the JSON object at a path or URL; the headers of `access` go to the host of `home` only.

    Raises
    ------
    CubeError
        It cannot be reached or read, or is no JSON object.
    """
    try:
        document = json_value(_text(href, access, home), what=href, error=CubeError)
    except APIError as error:
        raise http_error(href, error) from error
    except (OSError, ImportError, ValueError) as error:  # ValueError: no UTF-8, or no JSON
        problem = None if is_url(href) else file_problem(local_path(href))
        is_text = isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError)
        raise CubeError(
            f"The STAC document {href} {'is no JSON' if is_text else 'cannot be read'}: {problem or f'{error}. Check the path, and the link that leads there.'}"
        ) from error
    if not isinstance(document, dict):
        raise CubeError(f"{href} holds a JSON {type(document).__name__}; a STAC document is an object.")
    return document


def _text(href: str, access: HttpAccess, home: str) -> str:
    if not is_url(href):
        return local_path(href).read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    if href.startswith(("http://", "https://")):
        with access.session(home=home) as session:
            return session.read_text(href)
    system, path = file_system(href, {})
    with system.open(path, "rb") as file:
        content: bytes = file.read(_LARGEST_DOCUMENT_BYTES + 1)
    if len(content) > _LARGEST_DOCUMENT_BYTES:
        raise OSError(f"it is longer than {_LARGEST_DOCUMENT_BYTES:,} bytes, which is the limit")
    return content.decode("utf-8-sig")


def http_error(url: str, error: Exception) -> CubeError:
    """Return what a failed request becomes: the address, what came, and what to do about it."""
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


def searched_items(search: "StacSearch", *, area: BaseGeometry, period: Period | None) -> Iterator[object]:
    """Yield what a server gives for items, each once, as JSON has them.

    The answers are read one after the other. A server that gives an answer without a single new item while it promises
    more is going round in circles: that is an error, because the items it holds back would be silently missing.

    Raises
    ------
    CubeError
        The server cannot be asked, refuses, answers with something else than items, or pages for ever.
    """
    seen: set[str] = set()
    with search.access.session(home=search.url) as session:
        client = _client(search.url, session)
        for number, page in enumerate(_pages(search, client, area=area, period=period), start=1):
            fresh = {_key(item): _located(item, search.url) for item in page["features"] if _key(item) not in seen}
            if not fresh:
                raise CubeError(
                    f"{search.url} gives answer {number} with only items that it gave before, so that its paging never "
                    f"ends ({len(seen)} items so far). Ask its operator, or try another page= than {search.page}."
                )
            seen.update(fresh)
            yield from fresh.values()


def _pages(
    search: "StacSearch", client: Client, *, area: BaseGeometry, period: Period | None
) -> Iterator[Mapping[str, Any]]:
    parameters = _parameters(search, client, area=area, period=period)
    try:
        with catch_warnings():
            simplefilter("ignore")  # pystac-client warns of conformance, which has been looked at
            pages = client.search(method="POST", **parameters).pages_as_dicts()
        yield from pages
    except APIError as error:
        raise http_error(search.url, error) from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CubeError(
            f"{search.url} answers the search with something that is no list of STAC items: {error}. Check that this is "
            "the address of the API's landing page."
        ) from error


def _client(url: str, session: StacApiIO) -> Client:
    try:
        with catch_warnings():
            simplefilter("ignore")
            client: Client = Client.open(url, stac_io=session, timeout=session.timeout)
    except APIError as error:
        raise http_error(url, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, ClientTypeError, STACError) as error:
        raise CubeError(
            f"{url} is not the landing page of a STAC API: {error}. Give the address that ends before /search; a static "
            "catalog is read with StacCatalog."
        ) from error
    if client.get_search_link() is None:
        raise CubeError(f"{url} offers no search. Read it with StacCatalog, or give the address of a STAC API.")
    return client


def _parameters(search: "StacSearch", client: Client, *, area: BaseGeometry, period: Period | None) -> dict[str, Any]:
    query = {name: dict(conditions) for name, conditions in (search.query or {}).items()}
    if search.max_cloud_cover is not None:
        conditions = query.setdefault("eo:cloud_cover", {})
        conditions["lte"] = min(conditions.get("lte", 100), search.max_cloud_cover)
    if search.filter is not None and not client.conforms_to(ConformanceClasses.FILTER):
        raise CubeError(
            f"{search.url} does not say that it understands CQL2, so that filter={search.filter!r} might be ignored. Use "
            "query= or max_cloud_cover=, which are applied again to what it answers."
        )
    wide = buffered_area(area)
    parameters: dict[str, Any] = {
        # Outlines run counter-clockwise in GeoJSON, and NASA refuses others.
        "intersects": mapping(orient_polygons(wide)) if search.outline else None,
        "bbox": None if search.outline else _box_of(wide),
        "limit": search.page,
        "collections": list(search.collections) or None,
        "ids": list(search.ids) or None,
        "query": query if query and client.conforms_to(ConformanceClasses.QUERY) else None,
        "filter": _cql2_json(search.filter),
        "datetime": None if period is None else f"{period.start}T00:00:00Z/{period.end}T23:59:59.999999Z",
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _box_of(area: BaseGeometry) -> list[float]:
    """Return west, south, east, north; west is east of east where the area lies on both sides of the antimeridian."""
    west, south, east, north = area.bounds
    parts = [part.bounds for part in get_parts(area)]
    before, after = [one for one in parts if one[2] >= 180], [one for one in parts if one[0] <= -180]
    if before and after and len(before) + len(after) == len(parts):
        first, last = min(one[0] for one in before), max(one[2] for one in after)
        west, east = (first, last) if first > last else (west, east)
    return [west, south, east, north]


def _cql2_json(filter_: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    """Return a condition as the JSON that a POST takes."""
    if not isinstance(filter_, str):
        return None if filter_ is None else dict(filter_)
    try:
        import cql2  # here, because only conditions that are written as text need it
    except ImportError as error:
        raise CubeError(
            f"filter={filter_!r} is CQL2 text, and translating it needs the package cql2. Install it with "
            "pip install cql2, or give the condition as JSON."
        ) from error
    try:
        condition: Mapping[str, Any] = cql2.parse_text(filter_).to_json()
    except (ValueError, cql2.ParseError) as error:
        raise CubeError(f'filter={filter_!r} is no CQL2: {error}. Write it like "eo:cloud_cover < 20".') from error
    return condition


def _located(item: object, url: str) -> object:
    """Return an item with hrefs that need no base."""
    return located(item, self_href(item, url)) if isinstance(item, Mapping) and oddity_of(item) is None else item


def _key(item: object) -> str:
    return str((item.get("collection"), item.get("id"))) if isinstance(item, Mapping) and "id" in item else str(item)


OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
    "startsWith": lambda value, wanted: value.startswith(wanted),
    "endsWith": lambda value, wanted: value.endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
    "in": lambda value, wanted: value in wanted,
}
"""The operators of the extension; each asks a property's value."""


def check_query(query: Mapping[str, Any]) -> None:
    """Refuse a query with an unknown operator.

    Raises
    ------
    CubeError
        It has one, or is not ``{property: {operator: value}}``.
    """
    for name, conditions in query.items():
        if not isinstance(conditions, Mapping) or not set(conditions) <= set(OPERATORS):
            raise CubeError(
                f"A query is {{property: {{operator: value}}}} with the operators {sorted(OPERATORS)}; got "
                f"{name!r}: {conditions!r}."
            )


def meets_query(item: ItemDict, query: Mapping[str, Any]) -> bool:
    """Test whether an item's properties meet all conditions; a property that it does not state, or of another type, meets none.

    Examples
    --------
    >>> meets_query({"properties": {"gsd": 3.0}}, {"gsd": {"lte": 3}, "platform": {"eq": "2442"}})
    False
    """
    properties = item.get("properties") or {}
    for name, conditions in query.items():
        value = item.get("id") if name == "id" else properties.get(name.removeprefix("properties."))
        try:
            if value is None or not all(OPERATORS[sign](value, wanted) for sign, wanted in conditions.items()):
                return False
        except (TypeError, AttributeError):
            return False
    return True


_TEXT = str | None
_LIST: Any = list | tuple | None
_KINDS: Mapping[str, tuple[Any, str]] = {
    "href": (str, "text"),
    "type": (_TEXT, "text"),
    "title": (_TEXT, "text"),
    "roles": (_LIST, "a list"),
    "bands": (_LIST, "a list"),
    "eo:bands": (_LIST, "a list"),
    "raster:bands": (_LIST, "a list"),
}
"""What the fields of an asset are, where they are read."""
_NUMBERS = ("nodata", "scale", "offset", "raster:scale", "raster:offset")


def sound_items(items: Iterable[object], where: str) -> Iterator[ItemDict]:
    """Yield items as they come, without those that are odd, of each of which a warning says what is.

    Parameters
    ----------
    items
        What a catalog gives for items.
    where
        Which catalog, for messages.

    Raises
    ------
    CubeError
        All of them are odd.

    Examples
    --------
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     [item["id"] for item in sound_items([{"id": "a", "assets": []}, {"id": "b", "assets": {}}], "here")]
    ['b']
    """
    any_sound, odd = False, list[str]()
    for item in items:
        oddity = oddity_of(item)
        if oddity is not None:
            odd.append(oddity)
            continue
        any_sound = True
        yield item  # type: ignore[misc]  # a mapping, or it would be odd
    if odd and not any_sound:
        raise CubeError(f"{where} has no item that can be used. {odd[0]} Correct it, or ask whoever keeps the catalog.")
    for oddity in odd:
        warnings.warn(redacted(f"{where}: {oddity} It is left out."), MissingCoverageWarning, stacklevel=2)


def oddity_of(item: object) -> str | None:
    """Return what is wrong with an item; None where it can be read.

    Examples
    --------
    >>> oddity_of({"id": "a", "assets": {"red": {"href": "a.tif", "raster:bands": [{"scale": "x"}]}}})
    "Item a: asset 'red' has the scale 'x', and that is no number."
    """
    if not isinstance(item, Mapping):
        return f"{str(item)[:80]!r} is no STAC item."
    name = f"Item {item_name(item)}"
    assets, properties = item.get("assets"), item.get("properties") or {}
    if not isinstance(item.get("id"), str | int) or not isinstance(item.get("collection"), _TEXT):
        return f"{name} has no id, or an id or a collection that is no text."
    if not (isinstance(properties, Mapping) and isinstance(properties.get("eo:bands"), _LIST)):
        return f"{name} has properties that are no names and values."
    if not isinstance(assets, Mapping) or not all(isinstance(asset, Mapping) for asset in assets.values()):
        return f"{name} has assets that are no names and values."
    links = item.get("links") or ()
    if not isinstance(links, list | tuple) or not all(isinstance(link, Mapping) for link in links):
        return f"{name} has links that are none."
    for key, asset in assets.items():
        fault = _asset_fault(asset, properties.get("eo:bands") or ())
        if fault is not None:
            return f"{name}: asset {key!r} has {fault}."
    try:
        time_of(item)
        item_footprint(item)
    except CubeError as error:
        return str(error)
    return None


def _asset_fault(asset: Mapping[str, Any], known: Sequence[Any]) -> str | None:
    for name, (kind, word) in _KINDS.items():
        if not isinstance(asset.get(name), kind) or (name == "href" and not asset["href"]):
            return f"the {name} {str(asset.get(name))[:60]!r}, and that is no {word.removeprefix('a ')}"
    named = [*(asset.get("eo:bands") or ()), *known, *(asset.get("bands") or ())]
    stored = [asset, *(asset.get("raster:bands") or ()), *(asset.get("bands") or ())]
    are_roles = all(isinstance(role, str) for role in asset.get("roles") or ())
    if not are_roles or not all(isinstance(band, Mapping | str | int) for band in named):
        return "bands or roles that are none"
    if not all(isinstance(band, Mapping) for band in asset.get("bands") or ()):
        return "bands that are no names and values"
    for band in chain(named, stored):
        if not isinstance(band, Mapping):
            continue
        for name in ("name", "common_name", "eo:common_name"):
            if not isinstance(band.get(name), _TEXT):
                return f"a band with the {name} {str(band[name])[:60]!r}, and that is no text"
        for name in _NUMBERS:
            if not _is_number(band.get(name), finite=name != "nodata"):
                return f"the {name} {str(band[name])[:60]!r}, and that is no number"
    return None


def _is_number(value: object, *, finite: bool) -> bool:
    """Test whether a value is a number, or text for one as STAC has it of NaN; nothing is one, too."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return isfinite(float(value)) or not finite
    except (ValueError, OverflowError):
        return False
