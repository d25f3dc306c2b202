import numpy as np
import pytest
import shapely
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.geographic import centroids, largest_pixel_m2, longest_edge, measure
from rtsx.footprints.geometry import Placement

POLAR = CRS.from_epsg(3413)
EQUAL_AREA = CRS.from_epsg(6931)


def test_areas_agree_with_an_equal_area_projection():
    outlines = np.array(
        [shapely.box(1_900_000, 500_000, 1_903_000, 500_600), shapely.box(0, -2e6, 90, -2e6 + 90)], object
    )
    area, _ = measure(outlines, EQUAL_AREA)
    np.testing.assert_allclose(area, shapely.area(outlines), rtol=1e-6)


def test_holes_and_parts_count():
    hole = shapely.box(1e6, 1e6, 1e6 + 300, 1e6 + 300) - shapely.box(1e6 + 100, 1e6 + 100, 1e6 + 200, 1e6 + 200)
    both = shapely.union_all([hole, shapely.box(1e6 + 600, 1e6, 1e6 + 700, 1e6 + 100)])
    area, perimeter = measure(np.array([both], object), EQUAL_AREA)
    assert area[0] == pytest.approx(90_000, rel=1e-6)
    assert perimeter[0] == pytest.approx(2000, rel=0.02)


@pytest.mark.parametrize("center", [(0.0, 0.0), (1500.0, 0.0), (1500.0, 1500.0), (700_000.0, 700_000.0)])
def test_the_pole_and_the_antimeridian_are_ordinary_places(center):
    x, y = center
    outline = np.array([shapely.box(x - 1500, y - 1500, x + 1500, y + 1500)], object)
    area, _ = measure(outline, EQUAL_AREA)
    assert area[0] == pytest.approx(9e6, rel=1e-5)


@pytest.mark.parametrize("turn", [-360, 0, 360])
@pytest.mark.parametrize("lon", [-180.0, -140.0, 0.0, 179.99])
def test_centroids_have_longitudes_within_180_whatever_turn_the_outlines_are_in(lon, turn):
    outline = np.array([shapely.box(lon + turn - 1e-3, 70, lon + turn + 1e-3, 70.001)], object)
    lat, found = centroids(outline, CRS.from_epsg(4326))
    assert lat[0] == pytest.approx(70.0005)
    assert -180 <= found[0] <= 180
    assert np.cos(np.radians(found[0] - lon)) == pytest.approx(1)


def test_no_outlines_have_no_measures():
    assert [values.tolist() for values in measure(np.empty(0, object), POLAR)] == [[], []]


def test_a_place_outside_the_projection_is_named():
    outline = np.array([shapely.box(1e12, 1e12, 2e12, 2e12)], object)
    with pytest.raises(FootprintError, match=r"has no longitude and latitude in 'WGS 84 / UTM zone 8N'"):
        centroids(outline, CRS.from_epsg(32608))


@pytest.mark.parametrize(
    ("epsg", "corner", "step"), [(3413, (-4e6, 4e6), 400.0), (4326, (-170.0, 89.9), 0.004), (32608, (2e5, 8.5e6), 60.0)]
)
def test_no_pixel_is_larger_than_the_largest(predict, epsg, corner, step):
    pred = predict(np.zeros((2000, 2000)), crs=f"EPSG:{epsg}", corner=corner, step=(step, -step))
    placement = Placement.of(pred)
    rng = np.random.default_rng(0)
    column, row = rng.integers(0, 2000, (2, 300))
    pixels = shapely.box(
        corner[0] + step * column, corner[1] - step * (row + 1), corner[0] + step * (column + 1), corner[1] - step * row
    )
    area, _ = measure(pixels, placement.crs)
    bound = largest_pixel_m2(placement)
    assert area.max() <= bound <= area.max() * 1.2


def test_edges_are_followed_in_steps_of_the_crs_unit():
    assert longest_edge(POLAR) == 500
    assert longest_edge(CRS.from_epsg(4326)) == pytest.approx(500 / 111_194.9, rel=1e-5)
    assert longest_edge(CRS.from_epsg(2225)) == pytest.approx(500 / 0.3048, rel=1e-4)  # US survey feet
