"""Simplified outlines are valid, none vanishes or gains an overlap, holes stay, common borders stay common."""

import geopandas
import numpy as np
import pytest
import scipy.ndimage
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.footprints import extract_footprints, simplify_footprints, validate_footprints
from tests.footprints.conftest import make_prediction


@st.composite
def classes(draw):
    """A map of several classes side by side, with blobs, holes and corners that only meet."""
    size = draw(st.integers(8, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smooth = draw(st.sampled_from([0.0, 1.0, 2.5]))
    noise = scipy.ndimage.gaussian_filter(rng.standard_normal((3, size, size)), (0, smooth, smooth))
    return noise.argmax(0), draw(st.sampled_from([1.5, 3.0, 9.0, 40.0]))


def outlines(chosen, *, count, crs, step):
    level = np.stack([np.where(chosen == number, 80, 10) for number in range(count)])[None]
    corner = (-1_999_998.0, 3000.0) if step == 3.0 else (-139.0, 69.6)
    pred = make_prediction(level, crs=crs, corner=corner, step=(step, -step))
    names = [f"c{number}" for number in range(count)]
    return extract_footprints(pred.assign_coords({"class": names}).assign_attrs(bundle_classes=names), min_area_m2=0)


@settings(max_examples=25, deadline=None)
@given(classes(), st.integers(1, 3), st.sampled_from([("EPSG:3413", 3.0), ("EPSG:4326", 2.0**-15)]))
def test_topology_stays(case, count, grid):
    chosen, tolerance_m = case
    before = outlines(chosen, count=count, crs=grid[0], step=grid[1])
    after = simplify_footprints(before, tolerance_m=tolerance_m)
    validate_footprints(after)
    assert list(after["footprint_id"]) == list(before["footprint_id"])
    assert (after["area_outlined_m2"] - before["area_m2"]).abs().max() < 1e-6 or len(before) == 0
    old, new = np.asarray(before.geometry.array), np.asarray(after.geometry.array)
    # Where outlines have neighbours, the corners of those are corners too, and there may be more than before.
    assert count > 1 or (shapely.get_num_coordinates(new) <= shapely.get_num_coordinates(old)).all()
    assert [holes(shape) for shape in new] == [holes(shape) for shape in old]
    assert [parts(shape) for shape in new] == [parts(shape) for shape in old]
    one, other = shapely.STRtree(new).query(new, predicate="intersects")
    overlap = shapely.area(shapely.intersection(new[one], new[other]))[one < other]
    assert overlap.max(initial=0) < 1e-9 * shapely.area(old).max(initial=1)
    assert borders(old) == borders(new)


def holes(shape):
    return sum(len(part.interiors) for part in shapely.get_parts(shape))


def parts(shape):
    return len(shapely.get_parts(shape))


def borders(shapes):
    """The pairs of outlines that have a border in common, not only a corner."""
    one, other = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    pairs = [(int(a), int(b)) for a, b in zip(one, other, strict=True) if a < b]
    return {pair for pair in pairs if shapely.length(shapely.intersection(shapes[pair[0]], shapes[pair[1]])) > 0}


def test_a_corner_goes_where_its_triangle_is_below_the_square_of_the_tolerance():
    level = np.full((20, 30), 10)
    level[5:15, 5:25], level[4, 10:12] = 80, 80
    before = outlines(np.where(level == 80, 0, 1), count=1, crs="EPSG:3413", step=3.0)
    assert len(before.geometry[0].exterior.coords) == 9
    # The bump spans triangles of 3 m by 6 m at the smallest, halved: 9 m² in the grid, a little less on the ground.
    ratio = before["area_m2"][0] / before.geometry[0].area
    kept = simplify_footprints(before, tolerance_m=2.99 * ratio**0.5)
    gone = simplify_footprints(before, tolerance_m=3.01 * ratio**0.5)
    assert len(kept.geometry[0].exterior.coords) == 9
    assert len(gone.geometry[0].exterior.coords) < 9
    assert gone["area_m2"][0] < gone["area_outlined_m2"][0] == pytest.approx(before["area_m2"][0])


def test_the_steps_of_pixels_become_a_slope():
    rows, columns = np.indices((60, 60))
    before = outlines(np.where(rows < columns, 0, 1), count=2, crs="EPSG:3413", step=3.0)
    after = simplify_footprints(before, tolerance_m=3)
    assert shapely.get_num_coordinates(after.geometry.array).max() < 10
    assert geopandas.GeoSeries(after.geometry).union_all().area == pytest.approx(before.union_all().area)
