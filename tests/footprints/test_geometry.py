""""""

import numpy as np
import pytest
import shapely
from affine import Affine

from rtsx.errors import FootprintError
from rtsx.footprints.geometry import Placement, to_map_crs, union


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
