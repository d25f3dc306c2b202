"""Fields of items old and new."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from shapely import Point, box
from shapely.geometry import mapping

from rtsx.cube.stac.item import (
    bounds_of,
    buffered_area,
    cloud_cover_of,
    densify_in_source_crs,
    item_footprint,
    overlaps,
    proj_geobox,
    raster_footprint,
    sun_of,
    time_of,
)
from rtsx.errors import CubeError
from rtsx.geometry.antimeridian import lonlat_polygon


def item(**properties: Any) -> dict[str, Any]:
    return {"id": "a", "properties": {name.replace("__", ":"): value for name, value in properties.items()}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-07-10", datetime(2015, 7, 10, tzinfo=UTC)),
        ("2017-08-31T19:54:26.5328Z", datetime(2017, 8, 31, 19, 54, 26, 532800, tzinfo=UTC)),
        ("2023-01-01T02:00:00+03:00", datetime(2022, 12, 31, 23, tzinfo=UTC)),
        ("2023-01-01T02:00:00", datetime(2023, 1, 1, 2, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_are_aware_and_in_utc(text: str | None, expected: datetime | None) -> None:
    found = time_of(item(datetime=text))
    assert found == expected
    assert found is None or found.tzinfo is UTC


def test_an_interval_is_its_middle() -> None:
    interval = item(datetime=None, start_datetime="2020-01-01T00:00:00Z", end_datetime="2020-01-03T00:00:00Z")
    assert time_of(interval) == datetime(2020, 1, 2, tzinfo=UTC)
    assert time_of(item(start_datetime="2020-01-01T00:00:00Z")) == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_date_that_is_none_names_the_item() -> None:
    with pytest.raises(CubeError, match=r"Item a has datetime 'yesterday', which is no date"):
        time_of(item(datetime="yesterday"))


@pytest.mark.parametrize(("stated", "expected"), [(0, 0.0), (54.65, 54.65), (-1, None), (None, None), (True, None)])
def test_cloud_cover_is_a_percentage_or_nothing(stated: object, expected: float | None) -> None:
    assert cloud_cover_of(item(eo__cloud_cover=stated)) == expected


def test_the_sun_in_three_dialects() -> None:
    assert sun_of(item(view__sun_azimuth=174.7, view__sun_elevation=47.1)) == (174.7, 47.1)
    assert sun_of(item(eo__sun_azimuth=177.9, eo__sun_elevation=40.0)) == (177.9, 40.0)
    assert sun_of(item(s2__mean_solar_azimuth=170.0, s2__mean_solar_zenith=38.0)) == (170.0, 52.0)
    assert sun_of({"id": "a", "properties": None}) == (None, None)


def item_of_footprint(coordinates: Any, kind: str = "Polygon") -> dict[str, Any]:
    return {"id": "a", "geometry": {"type": kind, "coordinates": coordinates}}


ACROSS = [(179, 66), (-179, 66), (-179, 67), (179, 67), (179, 66)]


@pytest.mark.parametrize(
    "ring",
    [ACROSS, [(lon % 360, lat) for lon, lat in ACROSS], [(lon % 360 - 360, lat) for lon, lat in ACROSS]],
)
def test_an_outline_across_the_antimeridian_is_cut_there(ring: list[tuple[float, float]]) -> None:
    found = item_footprint(item_of_footprint([ring]))
    assert found is not None
    assert found.symmetric_difference(box(179, 66, 180, 67) | box(-180, 66, -179, 67)).area < 1e-9


def test_an_outline_that_was_cut_already_stays() -> None:
    parts = box(179, 66, 180, 67) | box(-180, 66, -179, 67)
    assert item_footprint({"id": "a", "geometry": mapping(parts)}).equals(parts)  # type: ignore[union-attr]


def test_the_whole_world_is_no_crossing() -> None:
    assert item_footprint({"id": "a", "geometry": mapping(box(-180, 60, 180, 90))}).area == 360 * 30  # type: ignore[union-attr]


def test_around_the_pole() -> None:
    ring = [(-135, 80), (-45, 80), (45, 80), (135, 80), (-135, 80)]
    found = item_footprint(item_of_footprint([ring]))
    assert found is not None
    assert all(found.contains(Point(lon, 89)) for lon in (-179, -90, 0, 90, 179))
    assert not found.intersects(Point(0, 75))


def test_bow_ties_are_made_valid_and_lines_are_no_ground() -> None:
    found = item_footprint(item_of_footprint([[(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]]))
    assert found is not None
    assert found.is_valid
    assert found.area == 0.5
    assert item_footprint(item_of_footprint([(0, 0), (1, 1)], "LineString")) is None
    assert item_footprint({"id": "a", "geometry": None}) is None


def test_a_geometry_that_is_none_names_the_item() -> None:
    with pytest.raises(CubeError, match=r"Item a has a geometry that is no GeoJSON.*set it to null"):
        item_footprint({"id": "a", "geometry": {"type": "Polygon"}})


def test_boxes() -> None:
    assert bounds_of([1, 2, 0, 3, 4, 9]).bounds == (1, 2, 3, 4)
    assert bounds_of([170, 60, 190, 61]).symmetric_difference(bounds_of([170, 60, -170, 61])).area < 1e-9


def test_ground_between_the_corners_of_a_tile_is_not_missed() -> None:
    tile = GeoBox((10980, 10980), Affine(10, 0, 300000, 0, -10, 7400040), "EPSG:32601")
    true = lonlat_polygon(box(*tile.extent.boundingbox), "EPSG:32601")
    ring = np.array(box(*tile.extent.boundingbox).exterior.coords)
    lon, lat = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True).transform(ring[:, 0], ring[:, 1])
    corners = item_footprint(item_of_footprint([list(zip(lon, lat, strict=True))]))
    assert corners is not None
    widened = densify_in_source_crs(corners, tile)
    assert true.difference(corners).area > 1e-3  # what the item alone would miss
    assert true.difference(widened).area < 1e-9
    assert corners.difference(widened).area < 1e-9


def test_a_raster_elsewhere_is_noticed() -> None:
    berlin = box(13.3, 52.2, 13.6, 52.4)
    right = GeoBox((8001, 8001), Affine(3, 0, 383997, 0, -3, 5808003), "EPSG:32633")
    wrong = GeoBox((8001, 8001), right.affine, "EPSG:32614")
    assert overlaps(berlin, right)
    assert not overlaps(berlin, wrong)
    assert raster_footprint(right).intersects(berlin)
    assert not raster_footprint(wrong).intersects(berlin)


TRANSFORM = [10, 0, 300000, 0, -10, 7400040]
BBOX = [300000, 7399040, 302000, 7400040]


def grid(asset: dict[str, Any], **properties: Any) -> Any:
    named = {f"proj:{name}": value for name, value in properties.items()}
    item = {"id": "a", "properties": named, "assets": {"it": {f"proj:{name}": value for name, value in asset.items()}}}
    return proj_geobox(item, "it")


@pytest.mark.parametrize(
    "crs",
    [
        {"code": "EPSG:32601"},
        {"epsg": 32601},
        {"wkt2": CRS.from_epsg(32601).to_wkt()},
        {"projjson": CRS.from_epsg(32601).to_json_dict()},
        {"epsg": None, "code": "EPSG:32601"},
        {"code": "EPSG:nonsense", "epsg": 32601},
        {"epsg": "EPSG:32601"},
        {"epsg": "32601"},
        {"code": "EPSG:32601+5773"},
        {"wkt2": CRS("EPSG:32601+5773").to_wkt()},
    ],
)
def test_a_crs_in_each_way(crs: dict[str, Any]) -> None:
    box = grid({"transform": TRANSFORM, "shape": [100, 200]}, **crs)
    assert box.crs.to_epsg() == 32601
    assert (tuple(box.shape), tuple(box.affine)[:6]) == ((100, 200), tuple(TRANSFORM))


def test_any_two_of_transform_shape_and_bbox_are_enough() -> None:
    expected = grid({"transform": TRANSFORM, "shape": [100, 200]}, epsg=32601)
    assert grid({"shape": [100, 200], "bbox": BBOX}, epsg=32601) == expected
    assert grid({"transform": [*TRANSFORM, 0, 0, 1], "bbox": BBOX}, epsg=32601) == expected
    assert grid({"transform": TRANSFORM, "shape": [100.0, 200.0], "bbox": BBOX}, epsg=32601) == expected
    assert grid({}, epsg=32601, shape=[100, 200], bbox=BBOX) == expected


@pytest.mark.parametrize(
    "asset",
    [
        {},
        {"transform": TRANSFORM},
        {"shape": [100, 200]},
        {"transform": TRANSFORM, "shape": [100, 201], "bbox": BBOX},  # they contradict each other
        {"transform": TRANSFORM, "shape": [0, 200]},
        {"transform": [300000, 10, 0, 7400040, 0, -10], "shape": [100, 200]},  # GDAL's order
        {"transform": [0, 0, 0, 0, 0, 0], "shape": [100, 200]},
        {"transform": [1, 2, 3], "shape": [100, 200]},
    ],
)
def test_what_cannot_be_trusted_is_left_to_the_file(asset: dict[str, Any]) -> None:
    assert grid(asset, epsg=32601) is None


def test_half_a_pixel_of_rounding_is_forgiven() -> None:
    near = [BBOX[0] + 4, *BBOX[1:]]
    assert grid({"transform": TRANSFORM, "shape": [100, 200], "bbox": near}, epsg=32601) is not None


def test_an_assets_shape_is_never_joined_with_the_items_transform() -> None:
    assert grid({"shape": [50, 100]}, epsg=32601, transform=TRANSFORM, shape=[100, 200]) is None
    assert grid({"epsg": 32602, "shape": [100, 200], "bbox": BBOX}, epsg=32601).crs.to_epsg() == 32602


def test_without_a_crs_there_is_no_grid() -> None:
    assert grid({"transform": TRANSFORM, "shape": [100, 200]}) is None


def test_rotated_grids_stay_rotated() -> None:
    box = grid({"transform": [8, 6, 0, 6, -8, 0], "shape": [10, 10]}, epsg=32601)
    assert tuple(box.affine)[:6] == (8, 6, 0, 6, -8, 0)


def test_catalogs_are_asked_for_more_but_not_beyond_the_world() -> None:
    assert buffered_area(box(10, 60, 11, 61)).bounds == pytest.approx((9.98, 59.98, 11.02, 61.02))
    assert buffered_area(box(179, 89, 180, 90)).bounds == pytest.approx((178.98, 88.98, 180, 90))
