"""Outlines in degrees at the places where degrees are awkward."""

import numpy as np
import pytest
from pyproj import Geod, Transformer
from shapely import MultiPolygon, Point, Polygon, box

from rtsx.grid import Grid, lonlat_polygon, lonlat_region

TO_LONLAT = Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)


def polar_points(polygon: Polygon, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    xmin, ymin, xmax, ymax = polygon.bounds
    side = xmax - xmin
    points = rng.uniform((xmin - side, ymin - side), (xmax + side, ymax + side), (count, 2))
    return points, np.array([polygon.contains(Point(p)) for p in points])


@pytest.mark.parametrize(
    ("iy", "ix"),
    [(0, 0), (-1, 0), (0, -1), (-1, -1), (-40, -40), (-41, -40), (-55, 0), (-30, -31), (12, -30)],
)
def test_a_point_is_in_the_outline_exactly_when_it_is_in_the_cell(iy: int, ix: int) -> None:
    cell = Grid.arctic()[iy, ix]
    outline = cell.lonlat
    assert outline.is_valid
    assert outline.bounds[0] >= -180
    assert outline.bounds[2] <= 180
    points, inside = polar_points(cell.polygon)
    lonlat = np.column_stack(TO_LONLAT.transform(points[:, 0], points[:, 1]))
    found = np.array([outline.contains(Point(p)) for p in lonlat])
    edge = np.array([cell.polygon.boundary.distance(Point(p)) < 100 for p in points])
    assert inside.sum() > 10
    assert (found == inside)[~edge].all()


def test_a_cell_on_the_antimeridian_is_split() -> None:
    outline = lonlat_polygon(box(-1_800_000, 1_700_000, -1_700_000, 1_800_000), "EPSG:3413")
    assert isinstance(outline, MultiPolygon)
    assert outline.bounds[0] == -180
    assert outline.bounds[2] == 180


def test_a_ring_around_the_south_pole_reaches_it() -> None:
    outline = lonlat_polygon(box(-1e5, -1e5, 1e5, 1e5), "EPSG:3031")
    assert outline.bounds[1] == -90
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(outline & box(0, -90, 90, -80))
    assert abs(area) == pytest.approx(1e10, rel=0.1)  # a quarter of 4e10 m², and the map's scale is not 1 at the pole


def test_the_corner_on_the_pole_is_kept() -> None:
    assert Grid.arctic()[0, 0].lonlat.bounds[3] == 90


@pytest.mark.parametrize("middle", [(0.0, 0.0), (-1_750_000.0, 1_750_000.0), (1_200_000.0, -1_500_000.0)])
def test_many_polygons_with_holes_come_back(middle: tuple[float, float]) -> None:
    x, y = middle
    ring = box(x - 9e4, y - 9e4, x + 9e4, y + 9e4) - box(x - 4e4, y - 4e4, x + 3e4, y + 5e4)
    ground = MultiPolygon([ring, box(x + 2e5, y, x + 3e5, y + 1e5)])
    again = Grid.arctic().projected(lonlat_region(ground, "EPSG:3413", longest=1000.0))
    assert again.symmetric_difference(ground).area < 1e-4 * ground.area
