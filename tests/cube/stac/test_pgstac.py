"""Searches against the reference STAC API over PostGIS, where everything works."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from shapely import MultiPolygon, box

from rtsx.cube.images import Period, Wanted
from rtsx.cube.stac import Access, StacSearch
from rtsx.cube.stac.client import SearchRequest, searched_items
from tests.servers import pgstac_server

RED = [Wanted(name="red")]


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
    request = SearchRequest(
        url=url,
        collections=("scenes",),
        ids=(),
        query={"platform": {"eq": "old"}},
        filter=None,
        max_cloud_cover=40,
        page=2,
    )
    items = searched_items(request, Access(), area=box(-180, 50, 180, 70), period=None)
    assert sorted(item["id"] for item in items) == ["00", "02", "04"]
