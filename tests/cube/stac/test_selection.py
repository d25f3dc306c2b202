"""What every catalog's answer goes through."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pystac
import pytest
from shapely import box

from rtsx.cube.images import Period, Wanted
from rtsx.cube.stac import StacItems
from rtsx.cube.stac.images import search_area
from rtsx.errors import CubeError

Make = Callable[..., dict[str, Any]]
RED = [Wanted(name="red")]
AREA = box(10.2, 60.2, 10.4, 60.4)


def found(items: list[Any], period: Period | None = None, **options: Any) -> list[str]:
    return [image.id for image in StacItems(items, **options).find(AREA, period, RED)]


def test_by_time_then_id_whatever_the_order_and_each_once(make_item: Make) -> None:
    items = [
        make_item("late", day="2023-08-01T00:00:00Z"),
        make_item("b"),
        make_item("a"),
        make_item("a"),
        make_item("none") | {"properties": {"datetime": None, "proj:epsg": 4326}},
        make_item("early", day="2022-08-01T00:00:00Z"),
    ]
    assert found(items) == found(items[::-1]) == ["early", "a", "b", "late", "none"]


def test_the_same_id_in_two_collections_is_two_items(make_item: Make) -> None:
    assert found([make_item("a", collection="one"), make_item("a", collection="two")]) == ["a", "a"]


def test_area(make_item: Make) -> None:
    assert found([make_item("here"), make_item("there", at=(20, 60)), make_item("south", at=(10, 50))]) == ["here"]


def test_without_an_outline_the_raster_decides(make_item: Make) -> None:
    items = [make_item("here") | {"geometry": None}, make_item("there", at=(20, 60)) | {"geometry": None}]
    assert found(items) == ["here"]


def test_both_sides_of_the_antimeridian(make_item: Make) -> None:
    across = make_item("across", at=(179.5, 60))
    across["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[179.5, 60], [-179.5, 60], [-179.5, 61], [179.5, 61], [179.5, 60]]],
    }
    source = StacItems([across])
    for west, is_met in ((179.6, True), (-179.9, True), (-179.4, False), (179.0, False), (0, False)):
        assert bool(source.find(box(west, 60.2, west + 0.1, 60.4), None, RED)) is is_met


def test_days_and_months(make_item: Make) -> None:
    days = ("2022-07-31T23:59:59.9Z", "2023-07-01T00:00:00Z", "2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z")
    items = [make_item(day[:10], day=day) for day in days]
    assert found(items, Period(date(2023, 7, 1), date(2023, 12, 31))) == ["2023-07-01", "2023-12-31"]
    assert found(items, Period(date(2022, 1, 1), date(2024, 12, 31), months=(7,))) == ["2022-07-31", "2023-07-01"]


def test_cloud_cover_keeps_only_what_states_one(make_item: Make) -> None:
    items = [make_item(str(cover), properties={"eo:cloud_cover": cover}) for cover in (0, 20, 21)] + [
        make_item("silent")
    ]
    assert found(items, max_cloud_cover=20) == ["0", "20"]


def test_pystac_items_keep_what_pystac_would_rewrite(make_item: Make) -> None:
    item = make_item()
    item["stac_extensions"] = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    (image,) = StacItems([pystac.Item.from_dict(item)]).find(AREA, None, RED)
    (expected,) = StacItems([item]).find(AREA, None, RED)
    assert image == expected


def test_something_else_than_items_is_refused() -> None:
    with pytest.raises(CubeError, match=r"pystac items or their JSON with 'assets'; got dict"):
        StacItems([{"type": "Collection"}])
    with pytest.raises(CubeError, match=r"got str 'item.json'"):
        StacItems(["item.json"])  # type: ignore[list-item]


def test_catalogs_are_asked_for_more_but_not_beyond_the_world() -> None:
    assert search_area(box(10, 60, 11, 61)).bounds == pytest.approx((9.98, 59.98, 11.02, 61.02))
    assert search_area(box(179, 89, 180, 90)).bounds == pytest.approx((178.98, 88.98, 180, 90))
