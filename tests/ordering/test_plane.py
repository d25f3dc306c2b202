import numpy as np
import pytest
from pyproj import Geod
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate

from rtsx.errors import OrderError
from rtsx.ordering.select import EqualAreaPlane


def geodesic(geometry) -> float:
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(geometry.segmentize(0.02))[0])


@pytest.mark.parametrize("lat", [-40, 0, 57, 72, 84])
def test_areas_are_true_far_from_the_centre(lat):
    plane = EqualAreaPlane.around(box(100, 60, 102, 61))
    cell = box(80, lat, 83, lat + 1)
    # A straight edge in degrees is the one a GeoJSON says, so the reference follows it too.
    assert plane.place(cell).area == pytest.approx(geodesic(cell), rel=2e-5)


@pytest.mark.parametrize("west", [-181.0, -180.0, 179.0])
def test_the_antimeridian_is_no_edge(west):
    inland = EqualAreaPlane.around(box(20, 70, 22, 71)).place(box(20, 70, 22, 71)).area
    crossing = box(west, 70, west + 2, 71)
    split = MultiPolygon([box(179, 70, 180, 71), box(-180, 70, -179, 71)])
    assert EqualAreaPlane.around(crossing).place(crossing).area == pytest.approx(inland, rel=1e-7)
    assert EqualAreaPlane.around(split).place(split).area == pytest.approx(inland, rel=1e-7)


def test_a_footprint_that_was_not_split_is_the_split_one():
    plane = EqualAreaPlane.around(box(178, 69, 182, 72))
    naive = Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
    split = MultiPolygon([box(179, 70, 180, 71), box(-180, 70, -179, 71)])
    difference = plane.place_footprint(naive).symmetric_difference(plane.place_footprint(split)).area
    assert difference < 1e-6 * plane.place_footprint(split).area


def test_a_ring_around_the_pole_covers_it():
    ring = Polygon([(lon, 85) for lon in range(-180, 180, 30)])
    cap = box(-180, 85, 180, 90)
    plane = EqualAreaPlane.around(cap)
    assert plane.place_footprint(ring).area == pytest.approx(plane.place(cap).area, rel=1e-7)


def test_ground_comes_back_with_its_holes_and_split():
    ground = box(178, 70, 184, 73).difference(box(179, 71, 181, 72))
    plane = EqualAreaPlane.around(ground)
    back = plane.lonlat(plane.place(ground))
    assert back.bounds[0] == pytest.approx(-180)
    assert back.bounds[2] == pytest.approx(180)
    expected = MultiPolygon(
        [*_parts(ground & box(170, 0, 180, 90)), *_parts(translate(ground & box(180, 0, 190, 90), -360))]
    )
    assert back.symmetric_difference(expected).area < 1e-3 * expected.area


def _parts(geometry):
    return geometry.geoms if isinstance(geometry, MultiPolygon) else [geometry]


def test_the_centre_of_the_whole_arctic_is_the_pole():
    assert EqualAreaPlane.around(box(-180, 60, 180, 90)).lat == 90
    assert np.isclose(EqualAreaPlane.around(box(179, 60, 181, 62)).lon % 360, 180, atol=0.5)


def test_no_ground_is_an_error():
    with pytest.raises(OrderError, match="has to be a polygon with an area"):
        EqualAreaPlane.around(box(0, 0, 1, 1).boundary)
