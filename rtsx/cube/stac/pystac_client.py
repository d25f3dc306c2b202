"""One search of a STAC API, page by page. The only place that talks to one."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

from pystac.errors import STACError
from pystac_client import Client
from pystac_client.conformance import ConformanceClasses
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from rtsx.cube.source import Period
from rtsx.cube.stac.checking import oddity_of
from rtsx.cube.stac.documents import Access, failure
from rtsx.cube.stac.hrefs import base_of, located
from rtsx.cube.stac.selection import search_area
from rtsx.errors import CubeError

__all__ = ["SearchRequest", "searched_items"]


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What a server is asked for, apart from area and period."""

    url: str
    """Address of the API's landing page."""
    collections: tuple[str, ...]
    """Ids; empty for all."""
    ids: tuple[str, ...]
    """Ids of items; empty for all."""
    query: Mapping[str, Any] | None
    """Conditions of the query extension."""
    filter: Mapping[str, Any] | str | None
    """CQL2, as JSON or text."""
    max_cloud_cover: float | None
    """Percent, at most."""
    page: int
    """Items in one answer, at most."""


def searched_items(
    request: SearchRequest, access: Access, *, area: BaseGeometry, period: Period | None
) -> Iterator[object]:
    """What a server gives for items, each once, as JSON has them.

    The answers are read one after the other. A server that gives an answer without a single new item while it promises
    more is going round in circles: that is an error, because the items it holds back would be silently missing.

    Raises
    ------
    CubeError
        The server cannot be asked, refuses, answers with something else than items, or pages for ever.
    """
    seen: set[str] = set()
    with access.session(home=request.url) as session:
        client = _client(request.url, session)
        for number, page in enumerate(_pages(request, client, area=area, period=period), start=1):
            fresh = {_key(item): _located(item, request.url) for item in page["features"] if _key(item) not in seen}
            if not fresh:
                raise CubeError(
                    f"{request.url} gives answer {number} with only items that it gave before, so that its paging never "
                    f"ends ({len(seen)} items so far). Ask its operator, or try another page= than {request.page}."
                )
            seen.update(fresh)
            yield from fresh.values()


def _pages(
    request: SearchRequest, client: Client, *, area: BaseGeometry, period: Period | None
) -> Iterator[Mapping[str, Any]]:
    parameters = _parameters(request, client, area=area, period=period)
    try:
        with catch_warnings():
            simplefilter("ignore")  # pystac-client warns of conformance, which has been looked at
            pages = client.search(method="POST", **parameters).pages_as_dicts()
        yield from pages
    except APIError as error:
        raise failure(request.url, error) from error
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CubeError(
            f"{request.url} answers the search with something that is no list of STAC items: {error}. Check that this is "
            "the address of the API's landing page."
        ) from error


def _client(url: str, session: StacApiIO) -> Client:
    try:
        with catch_warnings():
            simplefilter("ignore")
            client: Client = Client.open(url, stac_io=session, timeout=session.timeout)
    except APIError as error:
        raise failure(url, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, ClientTypeError, STACError) as error:
        raise CubeError(
            f"{url} is not the landing page of a STAC API: {error}. Give the address that ends before /search; a static "
            "catalog is read with StacCatalog."
        ) from error
    if client.get_search_link() is None:
        raise CubeError(f"{url} offers no search. Read it with StacCatalog, or give the address of a STAC API.")
    return client


def _parameters(request: SearchRequest, client: Client, *, area: BaseGeometry, period: Period | None) -> dict[str, Any]:
    query = {name: dict(conditions) for name, conditions in (request.query or {}).items()}
    if request.max_cloud_cover is not None:
        conditions = query.setdefault("eo:cloud_cover", {})
        conditions["lte"] = min(conditions.get("lte", 100), request.max_cloud_cover)
    if request.filter is not None and not client.conforms_to(ConformanceClasses.FILTER):
        raise CubeError(
            f"{request.url} does not say that it understands CQL2, so that filter={request.filter!r} might be ignored. Use "
            "query= or max_cloud_cover=, which are applied again to what it answers."
        )
    parameters: dict[str, Any] = {
        "intersects": mapping(search_area(area)),
        "limit": request.page,
        "collections": list(request.collections) or None,
        "ids": list(request.ids) or None,
        "query": query if query and client.conforms_to(ConformanceClasses.QUERY) else None,
        "filter": _cql2_json(request.filter),
        "datetime": None if period is None else f"{period.start}T00:00:00Z/{period.end}T23:59:59.999999Z",
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _cql2_json(filter_: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    """A condition as the JSON that a POST takes."""
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
    """An item with hrefs that need no base."""
    return located(item, base_of(item, url)) if isinstance(item, Mapping) and oddity_of(item) is None else item


def _key(item: object) -> str:
    return str((item.get("collection"), item.get("id"))) if isinstance(item, Mapping) and "id" in item else str(item)
