"""Law 5 across predictions: cells outlined one by one and merged give the outlines of the whole map, to the last bit."""

import dask
import geopandas
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers the accessor .rio
import scipy.ndimage
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rtsx.footprints import extract_footprints, merge_footprints, simplify_footprints, validate_footprints
from rtsx.footprints.geometry import measure
from tests.footprints.conftest import make_prediction

EDGE_DISTANCE = 2
PIXEL_M2 = 9.0


@st.composite
def cut_map(draw):
    """A map of many corners, holes and invalid pixels, water on it, and a division into cells."""
    height, width = draw(st.integers(3, 12)), draw(st.integers(3, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]))
    level = np.where(rng.random((height, width)) < density, rng.integers(50, 101, (height, width)), 10)
    valid = rng.random((height, width)) >= draw(st.sampled_from([0.0, 0.05, 0.2]))
    water = rng.random((height, width)) < 0.3
    cuts = [sorted(draw(st.sets(st.integers(1, length - 1), max_size=2))) for length in (height, width)]
    order = draw(st.permutations(range((len(cuts[0]) + 1) * (len(cuts[1]) + 1))))
    return level, valid, water, cuts, order, draw(st.sampled_from(["uint8", "float32"]))


def prediction(level, valid, *, dtype="uint8"):
    scaled = np.where(valid, level, 255).astype("uint8") if dtype == "uint8" else (level / 100).astype("float32")
    attrs = {"scale_factor": 0.01, "_FillValue": 255} if dtype == "uint8" else {}
    binary = np.where(valid, level >= 50, 255).astype("uint8")
    height, width = level.shape
    pred = xr.Dataset(
        {
            "probability": (("y", "x"), scaled, attrs),
            "binary": (("y", "x"), binary, {"_FillValue": 255}),
            "valid": (("y", "x"), valid),
        },
        coords={"y": 3000 - 3 * (np.arange(height) + 0.5), "x": -1_999_998 + 3 * (np.arange(width) + 0.5)},
        attrs={"bundle_id": "demo"},
    )
    return pred.rio.write_crs("EPSG:3413")


def cells(pred, cuts):
    """The parts of a map with their halos."""
    for rows in intervals(cuts[0], pred.sizes["y"]):
        for columns in intervals(cuts[1], pred.sizes["x"]):
            (top, bottom), (left, right) = (
                (min(EDGE_DISTANCE, start), min(EDGE_DISTANCE, length - stop))
                for (start, stop), length in ((rows, pred.sizes["y"]), (columns, pred.sizes["x"]))
            )
            # A side that would have a narrower halo takes all that there is: then the rest is an end of the data.
            part = pred.isel(y=slice(rows[0] - top, rows[1] + bottom), x=slice(columns[0] - left, columns[1] + right))
            yield part, (top, bottom, left, right)


def intervals(cuts, length):
    return list(zip([0, *cuts], [*cuts, length], strict=True))


def padded(level, valid, water):
    """Invalid ground around the map, so that every halo is whole."""
    pad = EDGE_DISTANCE
    return np.pad(level, pad), np.pad(valid, pad), np.pad(water, pad)


def extract(pred, **keywords):
    return extract_footprints(pred, edge_distance=EDGE_DISTANCE, **keywords)


def assert_same(one, other):
    one, other = (table.sort_values("footprint_id").reset_index(drop=True) for table in (one, other))
    assert one.crs == other.crs
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(one.drop(columns="geometry"), other.drop(columns="geometry"), check_exact=True)


@pytest.mark.slow
@settings(max_examples=7, deadline=None)
@given(cut_map(), st.sampled_from([0.0, 3.5 * PIXEL_M2, 8.5 * PIXEL_M2]))
def test_cells_merge_to_the_whole(case, min_area_m2):
    level, valid, water, cuts, order, dtype = case
    cuts = [[cut + EDGE_DISTANCE for cut in axis] for axis in cuts]
    level, valid, water = padded(level, valid, water)
    pred = prediction(level, valid, dtype=dtype)
    on_water = pred["valid"].copy(data=water)
    keywords = {"min_area_m2": min_area_m2, "water": on_water, "area_thresholds": [0.55, 0.8], "nodata_fraction": True}
    whole = extract(pred, **keywords)
    parts = [extract(part, halo=halo, **keywords) for part, halo in cells(pred, cuts)]
    merged = merge_footprints(
        [parts[number] for number in order],
        min_area_m2=min_area_m2,
        valid=pred["valid"],
        edge_distance=EDGE_DISTANCE,
    )
    validate_footprints(merged)
    assert list(merged["footprint_id"]) == list(whole["footprint_id"])
    columns = [name for name in merged.columns if name not in ("cut", "prob_counts")]
    assert_same(merged[columns], whole)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(cut_map())
def test_merging_in_steps_is_merging_at_once(case):
    level, valid, water, cuts, order, _ = case
    cuts = [[cut + EDGE_DISTANCE for cut in axis] for axis in cuts]
    level, valid, _ = padded(level, valid, water)
    parts = [extract(part, min_area_m2=0, halo=halo) for part, halo in cells(prediction(level, valid), cuts)]
    at_once = merge_footprints(parts, min_area_m2=30)
    so_far = parts[order[0]]
    for number in order[1:]:
        so_far = merge_footprints([so_far, parts[number]], min_area_m2=30, complete=False)
    in_steps = merge_footprints([so_far], min_area_m2=30)
    assert_same(in_steps, at_once)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_overlapping_scenes_unite_in_any_order(seed, count):
    """Ground, ids and statistics of the union do not depend on the order of scenes and rows."""
    rng = np.random.default_rng(seed)
    level = np.where(rng.random((14, 14)) < 0.4, rng.integers(50, 101, (14, 14)), 10)
    scenes = []
    for number in range(count):
        y, x = rng.integers(0, 8, 2)
        part = prediction(level, np.ones(level.shape, bool)).isel(y=slice(y, y + 6), x=slice(x, x + 6))
        scenes.append(extract(part.assign_coords(scene_id=f"s{number}"), min_area_m2=0))
    filled = [scene for scene in scenes if len(scene)]
    one = merge_footprints(scenes)
    shuffled = [scenes[number].sample(frac=1, random_state=number) for number in rng.permutation(count)]
    assert_same(merge_footprints(shuffled), one)
    ground = shapely.union_all([shape for scene in filled for shape in scene.geometry])
    assert one.union_all().symmetric_difference(ground).area == 0
    # Each of the united outlines is one object: none meets another.
    assert len(geopandas.GeoSeries(one.geometry).sindex.query(one.geometry, predicate="intersects")[0]) == len(one)


LEVELS = np.array([0, 10, 30, 50, 51, 80, 100])


@st.composite
def raster(draw):
    """A prediction with many corners, holes and invalid pixels, and a division of its axes."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]))
    level = np.where(rng.random((height, width)) < density, rng.choice(LEVELS[3:], (height, width)), 10)
    valid = rng.random((height, width)) >= draw(st.sampled_from([0.0, 0.1, 0.3]))
    chunks = tuple(draw(division(length)) for length in (height, width))
    return level, valid, chunks, draw(st.sampled_from(["uint8", "float32"]))


@st.composite
def division(draw, length):
    """Chunks of any lengths that add up, often all of one pixel."""
    if draw(st.booleans()):
        return (1,) * length
    cuts = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    return tuple(np.diff([0, *cuts, length]).tolist())


def prediction_of_footprints_chunking(level, valid, *, dtype, hidden=255):
    if dtype == "uint8":
        probability = xr.DataArray(
            np.where(valid, level, hidden).astype("uint8"),
            dims=("y", "x"),
            attrs={"scale_factor": 0.01, "_FillValue": 255},
        )
    else:
        probability = xr.DataArray(np.where(valid, level / 100, hidden / 100).astype("float32"), dims=("y", "x"))
    binary = xr.DataArray(np.where(valid, level >= 50, hidden <= 100).astype("uint8"), dims=("y", "x"))
    height, width = level.shape
    y, x = 3000 - 3 * (np.arange(height) + 0.5), -1_999_998 + 3 * (np.arange(width) + 0.5)
    pred = xr.Dataset({"probability": probability, "binary": binary, "valid": (("y", "x"), valid)})
    pred = pred.assign_coords(y=y, x=x).rio.write_crs("EPSG:3413")
    # One row or column has no step of its own; the grid mapping tells it.
    transform = f"{x[0] - 1.5} 3.0 0.0 {y[0] + 1.5} 0.0 -3.0"
    pred.spatial_ref.attrs["GeoTransform"] = transform
    return pred


def extract_of_footprints_chunking(pred, **keywords):
    # One thread, because starting two for a hundred chunks of a pixel takes most of the time.
    with dask.config.set(scheduler="synchronous"):
        return extract_footprints(pred, min_area_m2=0, edge_distance=EDGE_DISTANCE, **keywords)


def assert_equal(one, other):
    assert one.crs == other.crs
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(one.drop(columns="geometry"), other.drop(columns="geometry"), check_exact=True)


@pytest.mark.slow
@settings(max_examples=11, deadline=None)
@given(raster())
def test_chunks_change_nothing(case):
    level, valid, (rows, columns), dtype = case
    pred = prediction_of_footprints_chunking(level, valid, dtype=dtype)
    whole = extract_of_footprints_chunking(pred, nodata_fraction=True)
    assert_equal(whole, extract_of_footprints_chunking(pred.chunk(y=rows, x=columns), nodata_fraction=True))
    validate_footprints(whole)


@settings(max_examples=7, deadline=None)
@given(raster(), st.integers(0, 100))
def test_hidden_values_change_nothing(case, hidden):
    level, valid, (rows, columns), dtype = case
    shown = extract_of_footprints_chunking(prediction_of_footprints_chunking(level, valid, dtype=dtype))
    assert_equal(
        shown,
        extract_of_footprints_chunking(
            prediction_of_footprints_chunking(level, valid, dtype=dtype, hidden=hidden).chunk(y=rows, x=columns)
        ),
    )


@settings(max_examples=11, deadline=None)
@given(raster())
def test_the_answer_is_that_of_the_naive_reference(case):
    """Pixel squares united one by one, statistics by NumPy, distance by comparing every pair of pixels."""
    level, valid, (rows, columns), dtype = case
    found = extract_of_footprints_chunking(
        prediction_of_footprints_chunking(level, valid, dtype=dtype).chunk(y=rows, x=columns),
        area_thresholds=[0.51, 0.8],
        nodata_fraction=True,
    )
    labels, count = scipy.ndimage.label(valid & (level >= 50), np.ones((3, 3)))
    assert len(found) == count
    order = [int(name[1:].partition("x")[0]) for name in found["footprint_id"]]
    assert order == sorted(order)
    padded = np.pad(~valid, EDGE_DISTANCE, constant_values=True)
    names = found["footprint_id"].tolist()
    for number in range(1, count + 1):
        y, x = np.nonzero(labels == number)
        row = found.iloc[names.index(f"y{y[0] - 1000}x{x[0] - 666_666}")]
        squares = shapely.box(-1_999_998 + 3 * x, 3000 - 3 * (y + 1), -1_999_998 + 3 * (x + 1), 3000 - 3 * y)
        assert row.geometry.equals(shapely.union_all(squares))
        rings = shapely.get_rings(shapely.get_parts(row.geometry))
        assert shapely.get_num_coordinates(row.geometry) == corners(labels == number) + len(rings)
        values = level[y, x] / 100
        assert row["n_pixels"] == len(y)
        expected = (values.min(), values.max(), values.mean(), np.median(values), values.std())
        got = row[["prob_min", "prob_max", "prob_mean", "prob_median", "prob_std"]].astype(float)
        np.testing.assert_allclose(got, expected, atol=1e-12)
        near = [
            padded[i : i + 2 * EDGE_DISTANCE + 1, j : j + 2 * EDGE_DISTANCE + 1].any()
            for i, j in zip(y, x, strict=True)
        ]
        assert row["touches_edge"] == any(near)
        for name, least in (("area_m2_t51", 51), ("area_m2_t80", 80)):
            certain = geodesic_m2(squares[level[y, x] >= least])
            assert row[name] == pytest.approx(certain, rel=1e-5, abs=1e-9)
        box = padded[y.min() : y.max() + 2 * EDGE_DISTANCE + 1, x.min() : x.max() + 2 * EDGE_DISTANCE + 1]
        assert row["nodata_fraction"] == box.mean()


def geodesic_m2(squares):
    return sum(measure(squares, CRS.from_epsg(3413))[0])


def corners(mask):
    """Return how often the outline of a mask turns: twice where two pixels meet in a corner."""
    padded = np.pad(mask, 1).astype(int)
    above_left, above_right, below_left, below_right = (
        padded[:-1, :-1],
        padded[:-1, 1:],
        padded[1:, :-1],
        padded[1:, 1:],
    )
    around = above_left + above_right + below_left + below_right
    meeting = (around == 2) & (above_left == below_right)
    return int((around % 2 == 1).sum() + 2 * meeting.sum())


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


@settings(max_examples=9, deadline=None)
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
