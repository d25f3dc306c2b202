"""Searches: against a real server, and against one that misbehaves."""

import asyncio
import json
import pickle
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shapely import MultiPolygon, Polygon, box
from urllib3 import HTTPResponse
from urllib3.exceptions import ReadTimeoutError

from rtsx.cube.images import BandRequest, Period
from rtsx.cube.stac import HttpAccess, ItemTable, StacCatalog, StacItems, StacSearch
from rtsx.cube.stac.sources import table_items
from rtsx.errors import CubeError
from tests.servers import ScriptedServer, collection_of

Make = Callable[..., dict[str, Any]]
RED = [BandRequest(name="red")]
AREA = box(10.2, 60.2, 10.4, 60.4)
ALL = box(-180, -89, 180, 89)
ONCE = HttpAccess(retries=0, timeout_s=10)


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
    assert StacSearch("https://stac.example.org", (), max_cloud_cover=0.5).max_cloud_cover == 0.5
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
        access=HttpAccess(headers=(("Authorization", "Bearer x"),)),
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


def test_outlines_run_as_geojson_asks_and_a_server_that_takes_none_is_sent_a_box(scripted: ScriptedServer) -> None:
    scripted.landing_page()
    scripted.searches({"type": "FeatureCollection", "features": [], "links": []})
    across = MultiPolygon([box(179, 66, 180, 67), box(-180, 66, -178, 67)])
    for area, outline in ((across, False), (box(-139, 69, -138, 70), False), (across, True)):
        assert not StacSearch(scripted.url, ("a",), outline=outline).find(area, None, RED)
    bent, plain, outlined = [body for _, path, _, body in scripted.asked if path == "/search"]
    assert "intersects" not in bent
    np.testing.assert_allclose(bent["bbox"], [178.98, 65.98, -177.98, 67.02])
    np.testing.assert_allclose(plain["bbox"], [-139.02, 68.98, -137.98, 70.02])
    assert "bbox" not in outlined
    assert all(Polygon(rings[0]).exterior.is_ccw for rings in outlined["intersects"]["coordinates"])


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
    assert ids(StacSearch(scripted.url, (), access=HttpAccess(retries=1))) == ["a"]


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
        ids(StacSearch(scripted.url, (), access=HttpAccess(retries=0, timeout_s=0.2)))


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
    with HttpAccess().session(home="https://e.org") as session:
        retry = session.session.get_adapter("https://stac.example.org").max_retries
        assert retry.get_retry_after(HTTPResponse(headers={"Retry-After": "3600"})) == 120
        assert retry.increment("POST", "/search", error=ReadTimeoutError(None, "", "")).total == 3  # type: ignore[arg-type]


SUMMER = Period(date(2023, 6, 1), date(2023, 8, 31))


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def catalog_of(*links: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": "1.0.0",
        "id": "root",
        "description": "d",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }


def collection(name: str, *items: str, bbox: Any = None, interval: Any = None) -> dict[str, Any]:
    found = collection_of(name, links=[{"rel": "item", "href": href} for href in items])
    found["extent"]["spatial"]["bbox"] = bbox or [[-180, -90, 180, 90]]
    found["extent"]["temporal"]["interval"] = interval or [[None, None]]
    return found


@pytest.fixture
def tree(tmp_path: Path, make_item: Make) -> Path:
    """A catalog of two collections with two items, one of them with a relative href."""
    relative = make_item("a", collection="one")
    relative["assets"]["red"]["href"] = "../files/red.tif"
    relative["links"] = [{"rel": "self", "href": "https://published.example.org/one/a.json"}]
    write(tmp_path / "one" / "a.json", relative)
    write(tmp_path / "two" / "b.json", make_item("b", collection="two"))
    write(tmp_path / "one" / "collection.json", collection("one", "a.json"))
    write(tmp_path / "two" / "collection.json", collection("two", "./b.json"))
    return write(
        tmp_path / "catalog.json", catalog_of(("child", "one/collection.json"), ("child", "two/collection.json"))
    )


def found(path: Path | str, period: Period | None = None, **options: Any) -> list[str]:
    return [image.id for image in StacCatalog(str(path), **options).find(AREA, period, RED)]


def test_a_tree_is_walked_from_any_of_its_documents(tree: Path) -> None:
    assert found(tree) == found(tree.parent) == ["a", "b"]
    assert found(tree.parent / "one") == found(tree.parent / "one" / "collection.json") == ["a"]
    assert found(tree.parent / "one" / "a.json") == ["a"]
    assert found(f"file://{tree}") == ["a", "b"]


def test_hrefs_count_from_where_the_item_was_found(tree: Path) -> None:
    (image,) = StacCatalog(str(tree), collections=("one",)).find(AREA, None, RED)
    assert image.bands["red"].href == str(tree.parent / "files" / "red.tif")


def test_only_the_named_collections_count_also_inside_others(tree: Path) -> None:
    assert found(tree, collections=("two",)) == ["b"]
    outer = collection("outer")
    outer["links"] += [{"rel": "child", "href": "one/collection.json"}, {"rel": "item", "href": "missing.json"}]
    assert found(write(tree.parent / "outer.json", outer), collections=("one",)) == ["a"]


@pytest.mark.parametrize(
    ("extent", "is_read"),
    [
        ({"bbox": [[20, 60, 30, 70]]}, False),
        ({"bbox": [[0, 50, 30, 70], [10.3, 60, 11, 61]]}, True),
        ({"bbox": [[170, 60, -170, 61]]}, False),
        ({"bbox": [[5, 60, 0, 20, 61, 9]]}, True),
        ({"interval": [["2020-01-01T00:00:00Z", "2022-12-31T00:00:00Z"]]}, False),
        ({"interval": [["2023-08-31T23:00:00Z", None]]}, True),
        ({"interval": [[None, "2023-06-01T00:00:00Z"]]}, True),
        ({"interval": [["not a date", None]]}, True),
    ],
)
def test_a_collection_elsewhere_is_not_read(tmp_path: Path, extent: dict[str, Any], is_read: bool) -> None:
    path = write(tmp_path / "collection.json", collection("far", "missing.json", **extent))
    if is_read:
        with pytest.raises(CubeError, match=r"The STAC document .*missing\.json cannot be read"):
            found(path, SUMMER)
    else:
        assert found(path, SUMMER) == []


def test_a_list_of_items_and_a_folder_of_items(tmp_path: Path, make_item: Make) -> None:
    features = [make_item("a"), make_item("far", at=(50, 0))]
    assert found(write(tmp_path / "items.json", {"type": "FeatureCollection", "features": features})) == ["a"]
    write(tmp_path / "deep" / "b.json", make_item("b"))
    write(tmp_path / "deep" / "scene_metadata.json", {"cloud": 1})
    (tmp_path / "deep" / "broken.json").write_text("{")
    assert found(tmp_path) == ["a", "b"]
    marked = tmp_path / "deep" / "b.json"
    marked.write_bytes(b"\xef\xbb\xbf" + marked.read_bytes())  # as editors of Windows write it
    assert found(tmp_path) == ["a", "b"]
    assert found(marked) == ["b"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CubeError, match=r"empty holds no STAC item"):
        found(empty)


def test_circles_of_links_end(tmp_path: Path, make_item: Make) -> None:
    write(tmp_path / "a.json", make_item("a"))
    inner = catalog_of(("child", "catalog.json"), ("item", "a.json"), ("item", "./a.json"))
    write(tmp_path / "inner.json", inner)
    assert found(write(tmp_path / "catalog.json", catalog_of(("child", "inner.json")))) == ["a"]


def test_files_beside_their_items(tmp_path: Path, make_item: Make) -> None:
    path = write(tmp_path / "a.json", make_item("a"))
    (tmp_path / "red.tif").touch()

    def href(**options: Any) -> str:
        (image,) = StacCatalog(str(path), **options).find(AREA, None, RED)
        return image.bands["red"].href

    assert href(prefer_local=True) == str(tmp_path / "red.tif")
    assert href() == "https://example.org/a/red.tif"


def test_what_is_no_catalog_is_named(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"nowhere\.json cannot be read"):
        found(tmp_path / "nowhere.json")
    with pytest.raises(CubeError, match=r"no STAC document: its type is None"):
        found(write(tmp_path / "x.json", {"a": 1}))
    with pytest.raises(CubeError, match=r"holds a JSON list"):
        found(write(tmp_path / "y.json", [1]))
    (tmp_path / "z.json").write_text("<html>")
    with pytest.raises(CubeError, match=r"z\.json is no JSON"):
        found(tmp_path / "z.json")
    api = catalog_of(("search", "search")) | {"conformsTo": []}
    with pytest.raises(CubeError, match=r"is a STAC API, not a static catalog\. Use StacSearch"):
        found(write(tmp_path / "api.json", api))


def test_over_http_with_a_key_for_the_own_host_only(scripted: ScriptedServer, make_item: Make, tmp_path: Path) -> None:
    other = scripted.url.replace("127.0.0.1", "localhost")
    item = make_item("a")
    item["assets"]["red"]["href"] = "red.tif"
    scripted.answers["/catalog.json"] = [
        (200, json.dumps(catalog_of(("item", "a.json"), ("item", f"{other}/b.json"))).encode())
    ]
    scripted.answers["/a.json"] = [(500, b"busy"), (200, json.dumps(item).encode())]
    scripted.answers["/b.json"] = [(200, json.dumps(make_item("b")).encode())]
    source = StacCatalog(f"{scripted.url}/catalog.json", access=HttpAccess(headers=(("X-Key", "secret"),)))
    first, second = source.find(AREA, None, RED)
    assert first.bands["red"].href == f"{scripted.url}/red.tif"
    assert second.id == "b"
    keys = {path: headers.get("X-Key") for _, path, headers, _ in scripted.asked}
    assert keys == {"/catalog.json": "secret", "/a.json": "secret", "/b.json": None}
    assert pickle.loads(pickle.dumps(source)) == source


def test_http_failures(scripted: ScriptedServer) -> None:
    scripted.answers["/c.json"] = [(403, b"no key")]
    with pytest.raises(CubeError, match=r"/c\.json refuses access \(HTTP 403\): no key\. Give credentials in headers="):
        found(f"{scripted.url}/c.json")
    with pytest.raises(CubeError, match=r"/d\.json answers HTTP 404: no such page\. Check the address"):
        found(f"{scripted.url}/d.json")


ALL_TABLE = box(-180, -90, 180, 90)


@pytest.fixture(params=["stac-geoparquet", "rustac"])
def write_table(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Write items as GeoParquet."""

    def write(items_of_table: list[dict[str, Any]]) -> Path:
        path = tmp_path / "items.parquet"
        if request.param == "rustac":
            rustac = pytest.importorskip("rustac")

            async def written() -> None:
                await rustac.write(str(path), items_of_table)

            asyncio.run(written())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of others, about each other
                arrow = pytest.importorskip("stac_geoparquet.arrow")
                arrow.to_parquet(arrow.parse_stac_items_to_arrow(items_of_table), path)
        return path

    return write


@pytest.fixture
def items_of_table(make_item: Make) -> list[dict[str, Any]]:
    """Five places and days, one of them across the antimeridian, with different properties."""
    across = make_item("across", at=(179.5, 60), day="2023-07-05T00:00:00Z")
    ring = [[179.5, 60], [180, 60], [180, 61], [179.5, 61], [179.5, 60]]
    west = [[-180, 60], [-179.5, 60], [-179.5, 61], [-180, 61], [-180, 60]]
    across["geometry"] = {"type": "MultiPolygon", "coordinates": [[ring], [west]]}
    across["bbox"] = [179.5, 60, -179.5, 61]
    return [
        make_item("a", day="2023-07-01T00:00:00Z", properties={"eo:cloud_cover": 10}),
        make_item("b", day="2023-07-02T23:59:59Z", collection="others"),
        make_item("c", day="2023-07-03T00:00:00Z", properties={"view:sun_azimuth": 170.0}),
        make_item("far", at=(-60, 60), day="2023-07-04T00:00:00Z"),
        across,
    ]


@pytest.mark.slow
def test_a_table_finds_what_its_items_find(
    write_table: Callable[[list[dict[str, Any]]], Path], items_of_table: list[dict[str, Any]]
) -> None:
    table, plain = ItemTable(str(write_table(items_of_table))), StacItems(items_of_table)
    period = Period(date(2023, 7, 2), date(2023, 7, 5))
    for area in (
        ALL_TABLE,
        box(10.2, 60.2, 10.4, 60.4),
        box(179.6, 60, 179.7, 61),
        box(-179.9, 60, -179.8, 61),
        box(0, 0, 1, 1),
    ):
        for days in (None, period, Period(date(2023, 7, 1), date(2023, 7, 2))):
            assert table.find(area, days, RED) == plain.find(area, days, RED)
    assert [image.id for image in table.find(ALL_TABLE, period, RED)] == ["b", "c", "far", "across"]
    assert pickle.loads(pickle.dumps(table)) == table


def test_rows_are_ruled_out_before_they_become_items(
    write_table: Callable[[list[dict[str, Any]]], Path], items_of_table: list[dict[str, Any]]
) -> None:
    path = str(write_table(items_of_table))

    def rows(area: Any, period: Period | None = None, collections: tuple[str, ...] = ()) -> list[Any]:
        return [item["id"] for item in table_items(path, collections=collections, area=area, period=period)]

    assert rows(box(10.2, 60.2, 10.4, 60.4)) == ["a", "b", "c"]
    assert rows(box(-179.9, 60, -179.8, 61)) == ["across"]
    assert rows(ALL_TABLE, Period(date(2023, 7, 2), date(2023, 7, 2))) == ["b"]
    assert rows(ALL_TABLE, None, ("others",)) == ["b"]


def test_row_groups_elsewhere_are_not_read(tmp_path: Path, items_of_table: list[dict[str, Any]]) -> None:
    arrow = pytest.importorskip("stac_geoparquet.arrow")
    path = tmp_path / "items.parquet"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pq.write_table(pa.table(arrow.parse_stac_items_to_arrow(items_of_table[:4]).read_all()), path, row_group_size=1)
    raw = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(3)
    for column in (group.column(number) for number in range(group.num_columns)):
        start = column.dictionary_page_offset or column.data_page_offset
        raw[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(raw)  # whoever reads the last row group fails now
    assert [image.id for image in ItemTable(str(path)).find(box(10.2, 60.2, 10.4, 60.4), None, RED)] == ["a", "b", "c"]
    with pytest.raises(CubeError, match=r"The item table .* cannot be read"):
        ItemTable(str(path)).find(ALL_TABLE, None, RED)


def test_relative_hrefs_count_from_the_table(
    write_table: Callable[[list[dict[str, Any]]], Path], make_item: Make, tmp_path: Path
) -> None:
    item = make_item()
    item["assets"]["red"]["href"] = "files/red.tif"
    (image,) = ItemTable(str(write_table([item]))).find(ALL_TABLE, None, RED)
    assert image.bands["red"].href == str(tmp_path / "files" / "red.tif")


def test_what_is_no_item_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match=r"nowhere\.parquet cannot be read"):
        ItemTable(str(tmp_path / "nowhere.parquet")).find(ALL_TABLE, None, RED)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(CubeError, match=r"no column \['assets', 'geometry'\] among \['id'\]"):
        ItemTable(str(tmp_path / "t.parquet")).find(ALL_TABLE, None, RED)
    (tmp_path / "x.parquet").write_text("nonsense")
    with pytest.raises(CubeError, match=r"x\.parquet cannot be read"):
        ItemTable(str(tmp_path / "x.parquet")).find(ALL_TABLE, None, RED)
