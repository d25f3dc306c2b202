"""Searches: against a real server, and against one that misbehaves."""

import json
import pickle
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from shapely import MultiPolygon, box
from urllib3 import HTTPResponse
from urllib3.exceptions import ReadTimeoutError

from rtsx.cube.images import Period, Wanted
from rtsx.cube.stac import Access, StacItems, StacSearch
from rtsx.errors import CubeError
from tests.servers import ScriptedServer

Make = Callable[..., dict[str, Any]]
RED = [Wanted(name="red")]
AREA = box(10.2, 60.2, 10.4, 60.4)
ALL = box(-180, -89, 180, 89)
ONCE = Access(retries=0, timeout_s=10)


def ids(search: StacSearch, area: Any = AREA, period: Period | None = None) -> list[str]:
    return [image.id for image in search.find(area, period, RED)]


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    """Thirty items, of which some cross the antimeridian."""
    found = []
    for number in range(30):
        west = 170.5 + number
        parts = [box(west, 60, min(west + 1, 180), 61)] if west < 180 else []
        parts += [box(max(west, 180) - 360, 60, west + 1 - 360, 61)] if west + 1 > 180 else []
        outline = MultiPolygon([part for part in parts if part.area > 0])
        asset = {
            "href": f"https://example.org/{number}.tif",
            "proj:transform": [2.5e5, 0, -5e6, 0, -2.5e5, 5e6],
            "proj:shape": [40, 40],
            "eo:bands": [{"name": "red"}],
            "raster:bands": [{"data_type": "uint16"}],
        }
        west_most, south, east_most, north = outline.bounds
        crosses = len(outline.geoms) == 2
        found.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "id": f"{number:02d}",
                "collection": "odd" if number % 2 else "even",
                "geometry": outline.__geo_interface__,
                "bbox": [west, 60, west + 1 - 360, 61] if crosses else [west_most, south, east_most, north],
                "properties": {
                    "datetime": f"2023-{1 + number // 3:02d}-15T00:00:00Z",
                    "proj:epsg": 3413,
                    "eo:cloud_cover": number,
                    "gsd": number % 3,
                },
                "links": [],
                "assets": {"red": asset},
            }
        )
    return found


@pytest.fixture(scope="module")
def url(stac_server: Callable[..., str], items: list[dict[str, Any]]) -> str:
    """Address of a server that holds them."""
    return stac_server(items, ("even", "odd"))


@pytest.mark.parametrize("page", [1, 4, 100])
def test_every_page_is_read(url: str, page: int) -> None:
    search = StacSearch(url, ("even", "odd"), page=page)
    assert ids(search, ALL) == [f"{number:02d}" for number in range(30)]


def test_it_finds_what_the_items_themselves_find(url: str, items: list[dict[str, Any]]) -> None:
    plain = StacItems(items)
    year = Period(date(2023, 1, 1), date(2023, 12, 31), months=(3, 4, 5))
    across = MultiPolygon([box(178, 60.1, 180, 60.2), box(-180, 60.1, -178, 60.2)])
    for area in (across, box(-180, 60.1, -179.9, 60.2), box(179.2, 60.1, 179.3, 60.2), box(0, 0, 1, 1)):
        for period in (None, year, Period(date(2023, 4, 15), date(2023, 4, 15))):
            search = StacSearch(url, ("even", "odd"), page=3)
            assert search.find(area, period, RED) == plain.find(area, period, RED)
    assert ids(search, across) == ["07", "08", "09", "10", "11"]
    assert ids(search, across, year) == ["07", "08", "09", "10", "11"]


def test_collections_and_ids(url: str) -> None:
    assert ids(StacSearch(url, ("odd",)), ALL) == [f"{number:02d}" for number in range(1, 30, 2)]
    assert ids(StacSearch(url, ("odd",), ids=("03", "04")), ALL) == ["03"]
    assert ids(StacSearch(url, ("nothing",)), ALL) == []
    assert len(ids(StacSearch(url, ()), ALL)) == 30


def test_conditions_hold_although_the_server_ignores_them(url: str) -> None:
    assert ids(StacSearch(url, ("even", "odd"), max_cloud_cover=2), ALL) == ["00", "01", "02"]
    search = StacSearch(url, ("even", "odd"), query={"gsd": {"eq": 1}}, max_cloud_cover=5)
    assert ids(search, ALL) == ["01", "04"]


def test_a_filter_that_would_be_ignored_is_refused(url: str) -> None:
    with pytest.raises(CubeError, match=r"does not say that it understands CQL2.*Use query= or max_cloud_cover="):
        ids(StacSearch(url, (), filter="gsd = 1"))


def test_values() -> None:
    search = StacSearch("https://stac.example.org", ("a",), query={"gsd": {"lt": 5}}, access=ONCE)
    assert pickle.loads(pickle.dumps(search)) == search
    with pytest.raises(CubeError, match=r"collections is a list of ids; got the text 'a'"):
        StacSearch("https://stac.example.org", "a")  # type: ignore[arg-type]
    with pytest.raises(CubeError, match=r"asks a server at http.*Files: StacCatalog"):
        StacSearch("catalog.json", ())
    with pytest.raises(CubeError, match=r"max_cloud_cover is in percent"):
        StacSearch("https://stac.example.org", (), max_cloud_cover=120)
    with pytest.raises(CubeError, match=r"page is a number of items"):
        StacSearch("https://stac.example.org", (), page=0)
    with pytest.raises(CubeError, match=r"A query is"):
        StacSearch("https://stac.example.org", (), query={"gsd": 3})


def page_of(*items: dict[str, Any], following: str | None = None) -> dict[str, Any]:
    """An answer to a search; `following` is the address of the next."""
    link = {"rel": "next", "href": following, "method": "POST", "body": {"token": "2"}, "merge": True}
    return {"type": "FeatureCollection", "features": list(items), "links": [link] if following else []}


def test_what_is_sent(scripted: ScriptedServer, make_item: Make) -> None:
    scripted.landing_page("query", "filter")
    scripted.searches(page_of(make_item(properties={"eo:cloud_cover": 5, "gsd": 3})))
    condition = {"op": "<", "args": [{"property": "gsd"}, 4]}
    search = StacSearch(
        scripted.url,
        ("scenes",),
        query={"gsd": {"eq": 3}},
        filter=condition,
        max_cloud_cover=20,
        page=7,
        access=Access(headers=(("Authorization", "Bearer x"),)),
    )
    assert ids(search, period=Period(date(2023, 7, 1), date(2023, 7, 31))) == ["a"]
    method, path, headers, body = scripted.asked[-1]
    assert (method, path, headers["Authorization"]) == ("POST", "/search", "Bearer x")
    assert body["collections"] == ["scenes"]
    assert body["limit"] == 7
    assert body["query"] == {"gsd": {"eq": 3}, "eo:cloud_cover": {"lte": 20}}
    assert (body["filter"], body["filter-lang"]) == (condition, "cql2-json")
    assert body["datetime"] == "2023-07-01T00:00:00Z/2023-07-31T23:59:59.999999Z"
    assert body["intersects"]["type"] == "Polygon"


def test_filters_as_text_are_translated(scripted: ScriptedServer, make_item: Make) -> None:
    pytest.importorskip("cql2")
    scripted.landing_page("filter")
    scripted.searches(page_of(make_item()))
    assert ids(StacSearch(scripted.url, (), filter="gsd < 4")) == ["a"]
    assert scripted.asked[-1][3]["filter"] == {"op": "<", "args": [{"property": "gsd"}, 4]}
    with pytest.raises(CubeError, match=r"filter='gsd <' is no CQL2"):
        ids(StacSearch(scripted.url, (), filter="gsd <"))


def test_the_same_answer_again_and_again_is_an_error(scripted: ScriptedServer, make_item: Make) -> None:
    scripted.landing_page()
    scripted.searches(page_of(make_item("a"), make_item("b"), following=f"{scripted.url}/search"))
    with pytest.raises(CubeError, match=r"gives answer 2 with only items that it gave before.*\(2 items so far\)"):
        ids(StacSearch(scripted.url, (), access=ONCE))


def test_an_item_that_moves_to_the_next_answer_counts_once(scripted: ScriptedServer, make_item: Make) -> None:
    scripted.landing_page()
    scripted.searches(
        page_of(make_item("a"), make_item("b"), following=f"{scripted.url}/search"),
        page_of(make_item("b"), make_item("c")),
    )
    assert ids(StacSearch(scripted.url, (), access=ONCE)) == ["a", "b", "c"]
    assert scripted.asked[-1][3]["token"] == "2"


@pytest.mark.parametrize("fault", [500, 502, 503, 429])
def test_a_passing_fault_is_retried(scripted: ScriptedServer, make_item: Make, fault: int) -> None:
    scripted.landing_page()
    scripted.searches((fault, b"busy"), page_of(make_item()))
    assert ids(StacSearch(scripted.url, (), access=Access(retries=1))) == ["a"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((500, b"out of order"), r"answers HTTP 500: out of order\. Try again later"),
        ((400, b'{"detail": "bad datetime"}'), r"answers HTTP 400: .*bad datetime.*Check the request"),
        ((401, b""), r"refuses access \(HTTP 401\): no reason given\. Give credentials in headers="),
        ((403, b"expired"), r"refuses access \(HTTP 403\): expired\..*have not expired"),
        ((200, b"<html>log in</html>"), r"no list of STAC items"),
        ((200, b'{"message": "over quota"}'), r"answers a search with .*over quota.*and not with a list of items"),
        ((200, b"[1, 2]"), r"answers a search with '\[1, 2\]'"),
        ((200, b'{"features": [{"id": "a"}]}'), r"no item that can be used\. Item a has assets that are no names"),
        ((200, b'{"features": ["a"]}'), r"no item that can be used\. 'a' is no STAC item"),
    ],
)
def test_answers_that_are_none(scripted: ScriptedServer, answer: tuple[int, bytes], text: str) -> None:
    scripted.landing_page()
    scripted.searches(answer)
    with pytest.raises(CubeError, match=text) as caught:
        ids(StacSearch(scripted.url, (), access=ONCE))
    assert scripted.url in str(caught.value)


def test_a_server_that_never_answers(scripted: ScriptedServer) -> None:
    scripted.landing_page()
    scripted.searches(None)
    with pytest.raises(CubeError, match=r"cannot be asked: .*[Tt]imed? ?out.*longer timeout_s="):
        ids(StacSearch(scripted.url, (), access=Access(retries=0, timeout_s=0.2)))


def test_nobody_there() -> None:
    with pytest.raises(CubeError, match=r"http://127\.0\.0\.1:9 cannot be asked: .*Check address and network"):
        ids(StacSearch("http://127.0.0.1:9", (), access=ONCE))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (b"<html>", r"is not the landing page of a STAC API"),
        (b"[]", r"is not the landing page of a STAC API"),
        (b'{"a": 1}', r"is not the landing page of a STAC API"),
        (
            json.dumps(
                {"type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "d", "links": []}
            ).encode(),
            r"offers no search\. Read it with StacCatalog",
        ),
    ],
)
def test_addresses_of_something_else(scripted: ScriptedServer, page: bytes, text: str) -> None:
    scripted.answers["/"] = [(200, page)]
    with pytest.raises(CubeError, match=text):
        ids(StacSearch(scripted.url, (), access=ONCE))


def test_a_server_that_asks_for_an_hour_gets_two_minutes() -> None:
    with Access().session(home="https://e.org") as session:
        retry = session.session.get_adapter("https://stac.example.org").max_retries
        assert retry.get_retry_after(HTTPResponse(headers={"Retry-After": "3600"})) == 120
        assert retry.increment("POST", "/search", error=ReadTimeoutError(None, "", "")).total == 3  # type: ignore[arg-type]
