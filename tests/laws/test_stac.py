"""What is found does not depend on the kind of catalog, and is what a naive look at every item gives."""

import json
import warnings
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely import MultiPolygon, box
from shapely.geometry import mapping

from rtsx.cube.images import BandRequest, ImageSource, Period
from rtsx.cube.stac import ItemTable, StacCatalog, StacItems, StacSearch
from tests.servers import collection_of, rustac_server

RED = [BandRequest(name="red")]
BEGIN = date(2021, 1, 1)


def lonlat_box(west: float, south: float, width: float, height: float) -> Any:
    """A box that may cross the antimeridian, cut there."""
    east = west + width
    if east <= 180:
        return box(west, south, east, south + height)
    return MultiPolygon([box(west, south, 180, south + height), box(-180, south, east - 360, south + height)])


def random_items(count: int, seed: int) -> list[dict[str, Any]]:
    """Items around the antimeridian, each with its box under ``place`` for the naive look."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        west = round(float(rng.uniform(170, 190)), 3)
        west = west - 360 if west >= 180 else west
        south, width, height = (round(float(rng.uniform(*span)), 3) for span in ((60, 68), (0.2, 3), (0.2, 3)))
        outline = lonlat_box(west, south, width, height)
        crosses = west + width > 180
        east = west + width - 360 if crosses else west + width
        asset = {
            "href": f"https://example.org/{number}.tif",
            "proj:transform": [width / 50, 0, west, 0, -height / 50, south + height],
            "proj:shape": [50, 50],
            "eo:bands": [{"name": "red"}],
            "raster:bands": [{"data_type": "uint16", "nodata": 0}],
        }
        day = BEGIN + timedelta(days=int(rng.integers(0, 900)))
        properties = {"datetime": f"{day}T{int(rng.integers(24)):02d}:30:00Z", "proj:epsg": 4326}
        if rng.random() < 0.8:
            properties["eo:cloud_cover"] = int(rng.integers(0, 101))
        found.append(
            {
                "type": "Feature",
                "stac_version": "1.0.0",
                "stac_extensions": [],
                "id": f"{number:03d}",
                "collection": "scenes",
                "geometry": mapping(outline),
                "bbox": [west, south, east, south + height],
                "properties": properties,
                "links": [],
                "assets": {"red": asset},
                "place": [west, south, width, height],
            }
        )
    return found


def naive(items: list[dict[str, Any]], area: list[float], period: Period | None, clouds: float | None) -> list[str]:
    """Ids by comparing intervals: longitudes on a circle, latitudes and days on a line."""
    found = []
    for item in items:
        west, south, width, height = item["place"]
        turns = [(west - area[0] + 360 * turn) for turn in (-1, 0, 1)]
        meets = any(-width <= turn <= area[2] for turn in turns) and -height <= south - area[1] <= area[3]
        moment = datetime.fromisoformat(item["properties"]["datetime"])
        in_time = period is None or (
            period.start <= moment.date() <= period.end and moment.month in (period.months or range(1, 13))
        )
        cover = item["properties"].get("eo:cloud_cover")
        if meets and in_time and (clouds is None or (cover is not None and cover <= clouds)):
            found.append((moment, item["id"]))
    return [name for _, name in sorted(found)]


Make = Callable[[float | None], ImageSource]


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    """Random items."""
    return random_items(100, seed=11)


@pytest.fixture(scope="module", params=["items", "catalog", "list", "table", "server"])
def source(
    request: pytest.FixtureRequest, items: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The same items in each kind of catalog."""
    folder = tmp_path_factory.mktemp(request.param)
    plain = [{name: value for name, value in item.items() if name != "place"} for item in items]
    if request.param == "server":
        with rustac_server(folder, plain, ["scenes"]) as url:
            yield lambda clouds: StacSearch(url, ("scenes",), max_cloud_cover=clouds, page=17)
        return
    yield _local(request.param, folder, plain)


def _local(kind: str, folder: Path, plain: list[dict[str, Any]]) -> Make:
    if kind == "items":
        return lambda clouds: StacItems(plain[::-1], max_cloud_cover=clouds)
    if kind == "table":
        arrow = pytest.importorskip("stac_geoparquet.arrow")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrow.to_parquet(arrow.parse_stac_items_to_arrow(plain), folder / "items.parquet")
        return lambda clouds: ItemTable(str(folder / "items.parquet"), max_cloud_cover=clouds)
    if kind == "list":
        (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": plain}))
        return lambda clouds: StacCatalog(str(folder / "items.json"), max_cloud_cover=clouds)
    for item in plain:
        (folder / f"{item['id']}.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": f"./{item['id']}.json"} for item in plain]
    (folder / "collection.json").write_text(json.dumps(collection_of("scenes", links=links)))
    return lambda clouds: StacCatalog(str(folder), max_cloud_cover=clouds)


@pytest.mark.slow
def test_every_catalog_finds_what_a_naive_look_finds(source: Make, items: list[dict[str, Any]]) -> None:
    rng = np.random.default_rng(5)
    sizes = []
    for trial in range(12):
        west = round(float(rng.uniform(172, 188)), 2)
        area = [west - 360 if west >= 180 else west, round(float(rng.uniform(60, 68)), 2), 3.0, 2.0]
        first = BEGIN + timedelta(days=int(rng.integers(0, 500)))
        months = tuple(int(month) for month in rng.choice(np.arange(1, 13), 6, replace=False)) if trial % 4 == 1 else ()
        period = Period(first, first + timedelta(days=int(rng.integers(200, 900))), months) if trial % 2 else None
        clouds = float(rng.integers(0, 101)) if trial % 3 == 0 else None
        expected = naive(items, area, period, clouds)
        found = source(clouds).find(lonlat_box(*area), period, RED)
        assert [image.id for image in found] == expected
        sizes.append(len(expected))
    assert sum(sizes) > 40
    assert len(set(sizes)) > 3
