"""What goes to servers, and what their answers may do: each server here but the first is a stranger's."""

import json
import pickle
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest
import zarr
from shapely import MultiPolygon, box

from rtsx.cube.images import BandRequest, Period
from rtsx.cube.stac import HttpAccess, StacCatalog, StacSearch, client
from rtsx.cube.stac.client import (
    HostSession,
    check_query,
    is_same_host,
    meets_query,
    read_document,
    searched_items,
)
from rtsx.errors import CubeError
from rtsx.ordering import StaticCatalog
from rtsx.ordering.download import open_http
from rtsx.storage import file_system
from rtsx.storage.zarr import store_of
from tests.servers import ScriptedServer, pgstac_server

Make = Callable[..., dict[str, Any]]
WORLD = box(-180, -90, 180, 90)
RED = [BandRequest(name="red")]
KEYS = (("X-Api-Key", "secret"), ("Authorization", "Bearer secret"), ("Cookie", "session=secret"))
ACCESS = HttpAccess(headers=KEYS, retries=0)


@pytest.fixture
def stranger() -> Iterator[ScriptedServer]:
    """A server at another address."""
    server = ScriptedServer()
    yield server
    server.close()


def keys(server: ScriptedServer) -> list[int]:
    """How many of the keys each request brought."""
    return [sum(headers.get(name) == value for name, value in KEYS) for _, _, headers, _ in server.asked]


def answer(document: Any) -> tuple[int, bytes]:
    return 200, json.dumps(document).encode()


def catalog_of(*hrefs: str) -> dict[str, Any]:
    links = [{"rel": "item", "href": href} for href in hrefs]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c", "links": links}


def find(source: StacCatalog | StacSearch) -> list[str]:
    return [image.bands["red"].href for image in source.find(WORLD, None, RED)]


DOORS: dict[str, Callable[[str], Any]] = {
    "document": lambda url: read_document(f"{url}/a.json", ACCESS, home=url),
    "catalog of a cube": lambda url: find(StacCatalog(f"{url}/a.json", access=ACCESS)),
    "catalog of an order": lambda url: list(StaticCatalog(f"{url}/a.json", access=ACCESS).items(["a"])),
    "file of an order": lambda url: _whole(f"{url}/a.json"),
}


def _whole(href: str) -> bytes:
    with open_http(href, headers=dict(KEYS), start=0, version="") as stream:
        return b"".join(stream.chunks)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("door", DOORS)
def test_keys_stay_at_home_when_a_server_redirects(
    scripted: ScriptedServer, stranger: ScriptedServer, make_item: Make, door: str, status: int
) -> None:
    scripted.answers["/a.json"] = [(status, f"{stranger.url}/b.json".encode())]
    stranger.answers["/b.json"] = [(status, f"{scripted.url}/c.json".encode())]
    scripted.answers["/c.json"] = [answer(make_item("a"))]
    assert DOORS[door](scripted.url)
    assert (keys(scripted), keys(stranger)) == ([3, 3], [0])


@pytest.mark.parametrize("options", [{"headers": dict(KEYS)}, {"client_kwargs": {"headers": dict(KEYS)}}])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_keys_of_a_store_stay_at_home_when_a_server_redirects(
    scripted: ScriptedServer, stranger: ScriptedServer, options: dict[str, Any], status: int
) -> None:
    scripted.answers["/a/zarr.json"] = [(status, b"/b/zarr.json")]  # at home
    scripted.answers["/b/zarr.json"] = [(status, f"{stranger.url}/zarr.json".encode())]
    stranger.answers["/zarr.json"] = [answer({"zarr_format": 3, "node_type": "group"})]
    system, path = file_system(f"{scripted.url}/a", options)
    assert b"zarr_format" in system.cat_file(f"{path}/zarr.json")
    store = pickle.loads(pickle.dumps(store_of(f"{scripted.url}/a", options, read_only=True)))  # as a worker gets it
    assert zarr.open_group(store, mode="r", zarr_format=3).metadata.node_type == "group"
    assert (set(keys(scripted)), set(keys(stranger))) == ({3}, {0})


@pytest.mark.parametrize("door", ["catalog of a cube", "catalog of an order"])
def test_keys_stay_at_home_when_a_catalog_links_away(
    scripted: ScriptedServer, stranger: ScriptedServer, make_item: Make, door: str
) -> None:
    scripted.answers["/a.json"] = [answer(catalog_of(f"{stranger.url}/b.json"))]
    stranger.answers["/b.json"] = [answer(make_item("a"))]
    assert DOORS[door](scripted.url)
    assert (keys(scripted), keys(stranger)) == ([3], [0])


def test_keys_stay_at_home_when_a_search_goes_on_elsewhere(
    scripted: ScriptedServer, stranger: ScriptedServer, make_item: Make
) -> None:
    scripted.landing_page()
    link = {"rel": "next", "href": f"{stranger.url}/search", "method": "POST", "body": {}}
    scripted.searches({"type": "FeatureCollection", "features": [make_item("a")], "links": [link]})
    stranger.searches({"type": "FeatureCollection", "features": [make_item("b")], "links": []})
    assert len(find(StacSearch(scripted.url, (), access=ACCESS))) == 2
    assert (set(keys(scripted)), keys(stranger)) == ({3}, [0])


def test_a_key_of_the_stranger_is_left_to_it(scripted: ScriptedServer, stranger: ScriptedServer) -> None:
    stranger.answers["/"] = [answer({})]
    with HostSession({"Authorization": "Bearer secret"}, home=scripted.url) as session:
        session.get(f"{stranger.url}/", auth=("me", "mine"))
    assert stranger.asked[0][2]["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("home", "href", "same"),
    [
        ("https://e.org/stac", "https://E.org:443/x", True),
        ("http://e.org", "https://e.org/x", True),  # what servers answer to http
        ("https://e.org", "http://e.org/x", False),
        ("https://e.org", "https://e.org.evil.org/x", False),
        ("https://e.org", "https://e.org@evil.org/x", False),
        ("https://e.org", "https://api.e.org/x", False),
        ("https://e.org", "https://e.org:99999/x", False),
        ("/data/catalog.json", "https://e.org/x", False),
    ],
)
def test_what_counts_as_the_same_host(home: str, href: str, same: bool) -> None:
    assert is_same_host(home, href) is same


@pytest.mark.parametrize("door", DOORS)
def test_a_redirect_to_a_file_is_not_followed(scripted: ScriptedServer, door: str) -> None:
    scripted.answers["/a.json"] = [(302, b"file:///etc/hostname")]
    with pytest.raises((CubeError, OSError), match=r"file:///etc/hostname|InvalidSchema"):
        DOORS[door](scripted.url)


LOCAL = ("file:///etc/hostname", "/vsizip//etc/a.zip/red.tif", 'NETCDF:"/etc/x":red', "zip+file:///etc/a.zip!red.tif")


@pytest.mark.parametrize("href", LOCAL)
@pytest.mark.parametrize("self_link", [None, "file:///etc/a.json", "/etc/a.json"])
def test_an_item_of_a_server_names_no_file_of_this_machine(
    scripted: ScriptedServer, make_item: Make, href: str, self_link: str | None
) -> None:
    item = make_item("a")
    item["assets"]["red"]["href"] = href
    item["links"] = [{"rel": "self", "href": self_link}] if self_link else []
    scripted.answers["/a.json"] = [answer(item)]
    scripted.landing_page()
    scripted.searches({"type": "FeatureCollection", "features": [item], "links": []})
    for source in (StacCatalog(f"{scripted.url}/a.json"), StacSearch(scripted.url, ())):
        with pytest.raises(CubeError, match="is no address on a server") as told:
            find(source)
        assert "of item a" in str(told.value)
    item["assets"]["red"]["href"] = "https://e.org/red.tif"
    item["assets"]["notes"] = {"href": href, "type": "text/plain"}  # nobody asks for it
    scripted.answers["/a.json"] = [answer(item)]
    assert find(StacCatalog(f"{scripted.url}/a.json")) == ["https://e.org/red.tif"]


@pytest.mark.parametrize("href", [*LOCAL, "file:///etc/"])
@pytest.mark.parametrize("door", ["catalog of a cube", "catalog of an order"])
def test_a_catalog_of_a_server_links_to_no_file_of_this_machine(scripted: ScriptedServer, door: str, href: str) -> None:
    scripted.answers["/a.json"] = [answer(catalog_of(href))]
    with pytest.raises(CubeError, match="is no address on a server"):
        DOORS[door](scripted.url)


@pytest.mark.parametrize("href", ["file:///etc/hostname", "/etc/hostname"])
def test_a_search_goes_on_at_no_file_of_this_machine(scripted: ScriptedServer, make_item: Make, href: str) -> None:
    scripted.landing_page()
    link = {"rel": "next", "href": href}
    scripted.searches({"type": "FeatureCollection", "features": [make_item("a")], "links": [link]})
    with pytest.raises(CubeError):
        find(StacSearch(scripted.url, (), access=ACCESS))


@pytest.mark.parametrize("status", [200, 302])
def test_an_answer_has_a_limit(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(client, "_LARGEST_DOCUMENT_BYTES", 1000)
    scripted.answers["/a.json"] = [(status, b"/b.json?" + b"b" * 2000)]
    with pytest.raises(CubeError, match="longer than 1,000 bytes, which is the limit"):
        read_document(f"{scripted.url}/a.json", ACCESS, home=scripted.url)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Address of an API with twelve items, some on either side of the antimeridian."""
    items = []
    for number in range(12):
        west = 174.0 + number
        west = west - 360 if west >= 180 else west
        outline = box(west, 60, west + 0.9, 61)
        asset = {
            "href": f"https://example.org/{number}.tif",
            "proj:transform": [0.009, 0, west, 0, -0.01, 61],
            "proj:shape": [100, 100],
            "eo:bands": [{"name": "red"}],
            "raster:bands": [{"data_type": "uint16"}],
        }
        items.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "stac_extensions": [],
                "id": f"{number:02d}",
                "collection": "scenes",
                "geometry": outline.__geo_interface__,
                "bbox": list(outline.bounds),
                "properties": {
                    "datetime": f"2023-07-{number + 1:02d}T00:00:00Z",
                    "proj:epsg": 4326,
                    "eo:cloud_cover": 10 * number,
                    "platform": "new" if number % 2 else "old",
                },
                "links": [],
                "assets": {"red": asset},
            }
        )
    with pgstac_server(items, ["scenes"]) as address:
        yield address


def ids(search: StacSearch, area: Any, period: Period | None = None) -> list[str]:
    return [image.id for image in search.find(area, period, RED)]


def test_the_server_applies_every_condition(url: str) -> None:
    across = MultiPolygon([box(178, 60.1, 180, 60.2), box(-180, 60.1, -178.5, 60.2)])
    assert ids(StacSearch(url, ("scenes",), page=1), across) == ["04", "05", "06", "07"]
    everything = box(-180, 50, 180, 70)
    july = Period(date(2023, 7, 3), date(2023, 7, 6))
    assert ids(StacSearch(url, ("scenes",), page=5), everything) == [f"{number:02d}" for number in range(12)]
    assert ids(StacSearch(url, ("scenes",)), everything, july) == ["02", "03", "04", "05"]
    assert ids(StacSearch(url, ("scenes",), max_cloud_cover=20), everything) == ["00", "01", "02"]
    assert ids(StacSearch(url, (), ids=("03", "07")), everything) == ["03", "07"]
    search = StacSearch(url, ("scenes",), query={"platform": {"eq": "new"}, "eo:cloud_cover": {"gt": 60}})
    assert ids(search, everything) == ["07", "09", "11"]


@pytest.mark.parametrize(
    "condition",
    [
        "platform = 'old' AND \"eo:cloud_cover\" < 50",
        {
            "op": "and",
            "args": [
                {"op": "=", "args": [{"property": "platform"}, "old"]},
                {"op": "<", "args": [{"property": "eo:cloud_cover"}, 50]},
            ],
        },
    ],
)
def test_cql2_as_text_and_as_json(url: str, condition: Any) -> None:
    if isinstance(condition, str):
        pytest.importorskip("cql2")
    assert ids(StacSearch(url, ("scenes",), filter=condition), box(-180, 50, 180, 70)) == ["00", "02", "04"]


def test_it_is_the_server_that_applies_them(url: str) -> None:
    """Conditions hold with a server that ignores them, too, because they are applied again; here they are not."""
    search = StacSearch(url, ("scenes",), query={"platform": {"eq": "old"}}, max_cloud_cover=40, page=2)
    items = searched_items(search, area=box(-180, 50, 180, 70), period=None)
    assert sorted(item["id"] for item in items) == ["00", "02", "04"]


ITEM = {"id": "a", "properties": {"gsd": 3.0, "platform": "sentinel-2a", "instruments": ["msi"]}}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, True),
        ({"gsd": {"eq": 3}}, True),
        ({"gsd": {"neq": 3}}, False),
        ({"gsd": {"gt": 2, "lt": 3}}, False),
        ({"gsd": {"gte": 3, "lte": 3}}, True),
        ({"platform": {"startsWith": "sentinel"}, "gsd": {"lt": 3}}, False),
        ({"platform": {"endsWith": "2b"}}, False),
        ({"platform": {"contains": "nel-2"}}, True),
        ({"instruments": {"contains": "msi"}}, True),
        ({"platform": {"in": ["sentinel-2b", "sentinel-2a"]}}, True),
        ({"nothing": {"neq": 1}}, False),
        ({"platform": {"lt": 3}}, False),
        ({"gsd": {"startsWith": "3"}}, False),
        ({"properties.gsd": {"eq": 3}, "id": {"eq": "a"}}, True),
    ],
)
def test_operators(query: dict[str, dict[str, object]], expected: bool) -> None:
    check_query(query)
    assert meets_query(ITEM, query) is expected


@pytest.mark.parametrize("query", [{"gsd": 3}, {"gsd": {"<": 3}}])
def test_unknown_operators_are_refused(query: dict[str, object]) -> None:
    with pytest.raises(CubeError, match=r"A query is \{property: \{operator: value\}\} with the operators .*'gsd'"):
        check_query(query)
