""""""

import numpy as np
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from rtsx.cube.georeference import with_georeference
from rtsx.errors import FootprintError
from rtsx.footprints import extract_footprints, to_geographic
from rtsx.footprints.geometry import Placement, centroids, largest_pixel_m2, measure, to_map_crs, union
from rtsx.geometry.crs import longest_edge


def test_the_lattice_begins_where_the_prediction_says(pred):
    placement = Placement.of(pred.assign_attrs(lattice_origin=[-2_000_004.0, 3009.0]))
    assert (placement.row, placement.column) == (3, 2)
    assert placement.lattice_names(np.array([0, 81])) == ["y3x2", "y4x3"]


def test_a_single_pixel_has_a_place_if_the_grid_mapping_tells(pred):
    one = pred.isel(y=[5], x=[7])
    one.spatial_ref.attrs["GeoTransform"] = "-1999977 3 0 2985 0 -3"
    assert tuple(Placement.of(one).transform[:6]) == (3, 0, -1_999_977, 0, -3, 2985)


def test_no_pixels_are_refused(pred):
    with pytest.raises(FootprintError, match=r"sizes are \{.*'x': 0.*\}: select a part that is not empty"):
        Placement.of(pred.isel(x=slice(0, 0)))


def test_no_crs_is_refused(pred):
    pointing = pred.drop_vars("spatial_ref")
    with pytest.raises(FootprintError, match=r"coordinate 'spatial_ref', but that is not there: attach one"):
        Placement.of(pointing)
    for each in (pointing, *pointing.data_vars.values()):
        each.attrs.pop("grid_mapping", None)
        each.encoding.clear()
    with pytest.raises(FootprintError, match=r"has a CRS, but came without: attach one with pred.rio.write_crs"):
        Placement.of(pointing)


def test_no_coordinates_are_refused(pred):
    with pytest.raises(FootprintError, match=r"coordinates 'y' and 'x', but came with \['spatial_ref'\]: take them"):
        Placement.of(pred.drop_vars(["y", "x"]))


def test_uneven_steps_are_refused(pred):
    x = pred["x"].values.copy()
    x[10:] += 100
    with pytest.raises(FootprintError, match=r"coordinate 'x' .* in equal steps of 3.0, but pixel 10"):
        Placement.of(pred.assign_coords(x=x))


def test_a_rotated_grid_is_refused(pred):
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_zeros

    turned = GeoBox((20, 30), pred.odc.geobox.affine.rotation(10) * pred.odc.geobox.affine, "EPSG:3413")
    rotated = xr_zeros(turned, dtype="uint8").to_dataset(name="probability")
    with pytest.raises(FootprintError, match=r"is rotated: warp the prediction to an upright grid"):
        Placement.of(rotated.rename(dict(zip(rotated.dims, ("y", "x"), strict=True))))


def test_a_prediction_that_lies_nowhere_or_twice_is_refused(pred):
    local = 'LOCAL_CS["site",LOCAL_DATUM["site",0],UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    with pytest.raises(FootprintError, match=r"the CRS 'site', of type 'Engineering CRS'"):
        Placement.of(pred.drop_vars("spatial_ref").rio.write_crs(local))
    affine = pred.odc.geobox.affine
    shifted = pred.assign_attrs(transform=[affine.a, 0.0, affine.c + 0.3 * affine.a, 0.0, affine.e, affine.f])
    with pytest.raises(FootprintError, match=r"contradict each other: .* lie \(-0.3, "):
        Placement.of(shifted)


def boxes(*corners):
    return np.array([shapely.box(*corner) for corner in corners], object)


def test_a_seam_leaves_no_vertex_behind():
    united = union(boxes((0, 0, 2, 3), (2, 0, 5, 3), (9, 9, 10, 10)), np.array([0, 0, 1]))
    assert united[0].equals(shapely.box(0, 0, 5, 3))
    assert shapely.get_num_coordinates(united).tolist() == [5, 5]


def test_pieces_that_meet_in_a_corner_become_parts():
    (united,) = union(boxes((0, 0, 1, 1), (1, 1, 2, 2)), np.array([0, 0]))
    assert united.geom_type == "MultiPolygon"
    assert united.is_valid


def test_a_ring_of_pieces_keeps_its_hole():
    (united,) = union(boxes((0, 0, 3, 1), (0, 1, 1, 2), (2, 1, 3, 2), (0, 2, 3, 3)), np.zeros(4, np.int64))
    assert united.equals(shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2))
    assert shapely.get_num_coordinates(united) == 10


def test_nothing_united_is_nothing():
    assert union(np.empty(0, object), np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("step", [-3, 3])
def test_pixels_go_to_the_ground_in_normal_order(step):
    (placed,) = to_map_crs(boxes((0, 0, 2, 1)), Affine(4, 0, 100, 0, step, 50))
    assert placed.bounds == (100, min(50, 50 + step), 108, max(50, 50 + step))
    assert placed.equals_exact(placed.normalize())


WGS84 = CRS.from_epsg(4326)


def around(predict, lon, lat, *, shift=(0, 0), mask=None):
    """A prediction whose lattice corner nearest to a place is in its middle, plus `shift` pixels (x, y)."""
    x, y = Transformer.from_crs(4326, 3413, always_xy=True).transform(lon, lat)
    level = np.full((80, 80), 10)
    level[20:60, 20:60] = np.where(np.ones((40, 40), bool) if mask is None else mask, 90, 10)
    corner = (round(x / 3) * 3 - 120 + 3 * shift[0], round(y / 3) * 3 + 120 + 3 * shift[1])
    return predict(level, corner=corner)


def test_far_from_everything_it_is_to_crs(pred):
    footprints = extract_footprints(pred)
    geographic = to_geographic(footprints)
    np.testing.assert_allclose(geographic.bounds, footprints.to_crs(4326).bounds, atol=1e-9)
    assert geographic.drop(columns="geometry").equals(footprints.drop(columns="geometry"))
    assert extract_footprints(pred, geographic=True).equals(geographic)


@pytest.mark.parametrize("lat", [65.0, 70.7, 83.0])
def test_the_antimeridian_cuts_an_outline_in_two(predict, lat):
    hole = np.ones((40, 40), bool)
    hole[10:30, 18:22] = False
    footprints = extract_footprints(around(predict, 180.0, lat, mask=hole))
    (outline,) = to_geographic(footprints).geometry
    assert outline.geom_type == "MultiPolygon"
    assert outline.is_valid
    parts = shapely.bounds(shapely.get_parts(outline))
    assert sorted(parts[:, 0])[0] == -180.0
    assert sorted(parts[:, 2])[-1] == 180.0
    assert (parts[:, 2] - parts[:, 0] < 0.05).all()
    area, _ = measure(np.array([outline], object), WGS84)
    assert area[0] == pytest.approx(footprints["area_m2"][0], rel=1e-5)
    assert footprints["area_m2"][0] == pytest.approx((1600 - 80) * 9, rel=0.06)
    assert abs(footprints["centroid_lon"][0]) == pytest.approx(180, abs=0.01)


def test_an_outline_that_only_touches_the_antimeridian_stays_whole(predict):
    """In EPSG:3413 longitude 180 is the diagonal y = x; a square beside it meets it in one corner."""
    footprints = extract_footprints(around(predict, 180.0, 70.7, shift=(40, 40)))
    mirrored = extract_footprints(around(predict, 180.0, 70.7, shift=(-40, 0)))
    for table in (footprints, mirrored):
        (outline,) = to_geographic(table).geometry
        area, _ = measure(np.array([outline], object), WGS84)
        assert area[0] == pytest.approx(table["area_m2"][0], rel=1e-5)


@pytest.mark.parametrize(
    "shift", [(0, 0), (7, -3), (20, 0), (0, -20), (20, 20), (20, -20), (-20, 20), (19, 0), (21, 5), (20, 7)]
)
def test_the_pole_in_on_and_beside_an_outline(predict, shift):
    footprints = extract_footprints(around(predict, 0.0, 90.0, shift=shift))
    (outline,) = to_geographic(footprints).geometry
    assert outline.is_valid
    west, _, east, north = outline.bounds
    assert -180 <= west <= east <= 180
    assert north <= 90
    area, _ = measure(np.array([outline], object), CRS.from_epsg(4326))
    assert area[0] == pytest.approx(footprints["area_m2"][0], rel=2e-3)


def test_a_ring_around_the_pole_keeps_the_pole_outside(predict):
    ring = np.ones((40, 40), bool)
    ring[12:28, 12:28] = False
    footprints = extract_footprints(around(predict, 0.0, 90.0, mask=ring))
    (outline,) = to_geographic(footprints).geometry
    assert outline.is_valid
    assert outline.bounds[0] == -180
    assert outline.bounds[2] == 180
    assert outline.bounds[3] < 90
    area, _ = measure(np.array([outline], object), WGS84)
    assert area[0] == pytest.approx(footprints["area_m2"][0], rel=2e-3)


def test_a_geographic_grid_beyond_180_is_folded_back(predict, level):
    pred = predict(level, crs="EPSG:4326", corner=(179.9935, 69.6), step=(1e-4, -1e-4))
    geographic = extract_footprints(pred, geographic=True)
    assert geographic.bounds["minx"].min() == -180.0
    assert geographic.bounds["maxx"].max() <= 180.0
    area, _ = measure(np.asarray(geographic.geometry.array), WGS84)
    np.testing.assert_allclose(area, geographic["area_m2"], rtol=1e-6)


def test_other_tables_are_refused(pred):
    with pytest.raises(FootprintError, match="need the columns footprint_id"):
        to_geographic(extract_footprints(pred)[["geometry"]])


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


@pytest.mark.parametrize("top", [90.0, 90.125, 90.5, -89.5])
@pytest.mark.parametrize("geographic", [False, True])
def test_rasters_of_the_whole_earth_end_at_the_poles(top, geographic):
    """Their outermost pixels have centres on the poles, so that half of each lies beyond."""
    shape = (4, 720)
    cube = with_georeference({}, GeoBox(shape, Affine(0.25, 0, -90, 0, -0.25, top), "EPSG:4326"), lattice_origin=(0, 0))
    level = np.full(shape, 10, np.uint8)
    level[:3, 20:200] = 90
    cube["probability"] = (("y", "x"), level, {"scale_factor": 0.01, "_FillValue": np.uint8(255)})
    (found,) = extract_footprints(cube, threshold=0.5, geographic=geographic).itertuples()
    inside = shapely.box(-85, max(top - 0.75, -90), -40, min(top, 90))
    area, _ = measure(np.array([shapely.segmentize(inside, 0.25)], object), WGS84)
    assert found.area_m2 == pytest.approx(area[0], rel=1e-3)
    assert np.abs(found.centroid_lat) <= 90


def test_no_latitude_is_far_beyond_a_pole():
    with pytest.raises(FootprintError, match=r"y = 92.0 has no longitude and latitude"):
        measure(np.array([shapely.box(0, 92, 1, 93)], object), WGS84)
