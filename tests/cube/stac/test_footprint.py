"""Footprints that stay true at the antimeridian, at the pole and between their corners."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import Point, box
from shapely.geometry import mapping

from rtsx.cube.stac.item import extent_of, item_footprint, lies_on, raster_footprint, with_native_edges
from rtsx.errors import CubeError
from rtsx.geometry.antimeridian import lonlat_polygon


def item(coordinates: Any, kind: str = "Polygon") -> dict[str, Any]:
    return {"id": "a", "geometry": {"type": kind, "coordinates": coordinates}}


ACROSS = [(179, 66), (-179, 66), (-179, 67), (179, 67), (179, 66)]


@pytest.mark.parametrize(
    "ring",
    [ACROSS, [(lon % 360, lat) for lon, lat in ACROSS], [(lon % 360 - 360, lat) for lon, lat in ACROSS]],
)
def test_an_outline_across_the_antimeridian_is_cut_there(ring: list[tuple[float, float]]) -> None:
    found = item_footprint(item([ring]))
    assert found is not None
    assert found.symmetric_difference(box(179, 66, 180, 67) | box(-180, 66, -179, 67)).area < 1e-9


def test_an_outline_that_was_cut_already_stays() -> None:
    parts = box(179, 66, 180, 67) | box(-180, 66, -179, 67)
    assert item_footprint({"id": "a", "geometry": mapping(parts)}).equals(parts)  # type: ignore[union-attr]


def test_the_whole_world_is_no_crossing() -> None:
    assert item_footprint({"id": "a", "geometry": mapping(box(-180, 60, 180, 90))}).area == 360 * 30  # type: ignore[union-attr]


def test_around_the_pole() -> None:
    ring = [(-135, 80), (-45, 80), (45, 80), (135, 80), (-135, 80)]
    found = item_footprint(item([ring]))
    assert found is not None
    assert all(found.contains(Point(lon, 89)) for lon in (-179, -90, 0, 90, 179))
    assert not found.intersects(Point(0, 75))


def test_bow_ties_are_made_valid_and_lines_are_no_ground() -> None:
    found = item_footprint(item([[(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]]))
    assert found is not None
    assert found.is_valid
    assert found.area == 0.5
    assert item_footprint(item([(0, 0), (1, 1)], "LineString")) is None
    assert item_footprint({"id": "a", "geometry": None}) is None


def test_a_geometry_that_is_none_names_the_item() -> None:
    with pytest.raises(CubeError, match=r"Item a has a geometry that is no GeoJSON.*set it to null"):
        item_footprint({"id": "a", "geometry": {"type": "Polygon"}})


def test_boxes() -> None:
    assert extent_of([1, 2, 0, 3, 4, 9]).bounds == (1, 2, 3, 4)
    assert extent_of([170, 60, 190, 61]).symmetric_difference(extent_of([170, 60, -170, 61])).area < 1e-9


def test_ground_between_the_corners_of_a_tile_is_not_missed() -> None:
    tile = GeoBox((10980, 10980), Affine(10, 0, 300000, 0, -10, 7400040), "EPSG:32601")
    true = lonlat_polygon(box(*tile.extent.boundingbox), "EPSG:32601")
    ring = np.array(box(*tile.extent.boundingbox).exterior.coords)
    lon, lat = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True).transform(ring[:, 0], ring[:, 1])
    corners = item_footprint(item([list(zip(lon, lat, strict=True))]))
    assert corners is not None
    widened = with_native_edges(corners, tile)
    assert true.difference(corners).area > 1e-3  # what the item alone would miss
    assert true.difference(widened).area < 1e-9
    assert corners.difference(widened).area < 1e-9


def test_a_raster_elsewhere_is_noticed() -> None:
    berlin = box(13.3, 52.2, 13.6, 52.4)
    right = GeoBox((8001, 8001), Affine(3, 0, 383997, 0, -3, 5808003), "EPSG:32633")
    wrong = GeoBox((8001, 8001), right.affine, "EPSG:32614")
    assert lies_on(berlin, right)
    assert not lies_on(berlin, wrong)
    assert raster_footprint(right).intersects(berlin)
    assert not raster_footprint(wrong).intersects(berlin)
