"""What label truths say depends on labels and raster alone, and equals what a naive reference says."""

import geopandas
import numpy as np
import pytest
import rasterio.features
import shapely
import xarray as xr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from rtsx.labels import IGNORED, open_label_raster, rasterize_labels, standardise_labels, truth_array, validate_labels
from rtsx.labels.rasterize import PIXEL_PARTS, ignore_borders

CLASSES = ("slump", "pond", "scar")
SHAPE = (37, 41)
RASTER = GeoBox(SHAPE, Affine(3, 0, 600, 0, -3, -300), "EPSG:3413")


def everything(truth):
    return truth.read((slice(0, truth.shape[0]), slice(0, truth.shape[1])))


def random_labels(seed, *, count=14, on_corners=False):
    """Overlapping labels with holes, of several classes, some across the raster's edge, some elsewhere."""
    rng = np.random.default_rng(seed)
    outlines = []
    for _ in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 12)))
        centre, radius = rng.uniform(-15, 55, 2), rng.uniform(1, 16)
        ring = centre + radius * np.column_stack((np.cos(angles), np.sin(angles)))
        if on_corners:
            ring = np.rint(2 * ring) / 2  # through pixel corners and centres, where windows could disagree
        outline = shapely.make_valid(shapely.Polygon(ring))
        outline = outline.difference(shapely.Point(centre).buffer(radius / 4, quad_segs=2))
        parts = [one for one in shapely.get_parts(outline) if one.geom_type == "Polygon"]
        if parts:
            outlines.append(shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0])
    on_ground = shapely.transform(outlines, lambda pixel: pixel * (3, -3) + (600, -300))
    names = [CLASSES[number] for number in rng.integers(0, 3, len(outlines))]
    return geopandas.GeoDataFrame({"class_name": names}, geometry=on_ground, crs="EPSG:3413")


def naive(labels, raster, *, pad=0):
    """Ask each pixel centre for the last label that it lies in."""
    height, width = raster.shape.yx
    rows, columns = np.mgrid[-pad : height + pad, -pad : width + pad] + 0.5
    x, y = raster.affine @ (columns, rows) if hasattr(Affine, "__matmul__") else raster.affine * (columns, rows)
    values = np.zeros(rows.shape, np.uint8)
    for name, outline in zip(labels["class_name"], labels.geometry, strict=True):
        values[shapely.contains_xy(outline, x, y)] = 1 + CLASSES.index(name)
    return values


def naive_band(values, width):
    """Look from each pixel at each other one."""
    banded = values.copy()
    known = np.argwhere(values != IGNORED)
    for row, column in known:
        apart = np.hypot(*(known - (row, column)).T)
        near = known[apart <= width]
        if (values[near[:, 0], near[:, 1]] != values[row, column]).any():
            banded[row, column] = IGNORED
    return banded


@given(seed=st.integers(0, 10**6))
@settings(max_examples=12)
def test_pixels_are_the_last_label_that_their_centre_lies_in(seed):
    labels = random_labels(seed)
    values, expected = everything(rasterize_labels(labels, RASTER, classes=CLASSES)), naive(labels, RASTER)
    # Vertices are rounded to a fraction of a pixel, so a centre that a border passes nearer than that may fall to either side.
    rows, columns = np.argwhere(values != expected).T + 0.5
    x, y = RASTER.affine.c + 3 * columns, RASTER.affine.f - 3 * rows
    borders = shapely.union_all(shapely.boundary(labels.geometry.array))
    assert (shapely.distance(borders, shapely.points(x, y)) < 3 * 2 / PIXEL_PARTS).all()


def test_agrees_with_gdal():
    labels = random_labels(7, count=40)
    shapes = [(one, 1 + CLASSES.index(name)) for one, name in zip(labels.geometry, labels["class_name"], strict=True)]
    expected = rasterio.features.rasterize(shapes, SHAPE, transform=RASTER.affine, dtype="uint8")
    np.testing.assert_array_equal(everything(rasterize_labels(labels, RASTER, classes=CLASSES)), expected)


@given(seed=st.integers(0, 10**6), ignore=st.integers(0, 4), on_corners=st.booleans(), data=st.data())
@settings(max_examples=12)
def test_any_window_is_a_part_of_the_whole(seed, ignore, on_corners, data):
    truth = rasterize_labels(random_labels(seed, on_corners=on_corners), RASTER, classes=CLASSES, ignore=ignore)
    whole = everything(truth)
    cover = xr.DataArray(np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8), dims=("y", "x"))
    rasters = open_label_raster(cover.chunk(y=7, x=9), classes={"a": [1], "b": [2]}, ignore=ignore)
    all_codes = everything(rasters)
    for _ in range(4):
        top, bottom = sorted(data.draw(st.tuples(st.integers(0, SHAPE[0]), st.integers(0, SHAPE[0]))))
        left, right = sorted(data.draw(st.tuples(st.integers(0, SHAPE[1]), st.integers(0, SHAPE[1]))))
        window = (slice(top, bottom), slice(left, right))
        np.testing.assert_array_equal(truth.read(window), whole[window])
        np.testing.assert_array_equal(rasters.read(window), all_codes[window])


@given(seed=st.integers(0, 10**6), width=st.integers(0, 9))
@settings(max_examples=12)
def test_the_band_is_what_lies_near_another_class(seed, width):
    rng = np.random.default_rng(seed)
    values = np.kron(rng.integers(0, 3, (4, 5)), np.ones((4, 4), int)).astype(np.uint8)
    values[rng.random(values.shape) < 0.1] = IGNORED
    np.testing.assert_array_equal(ignore_borders(values, ignore=width), naive_band(values, width) if width else values)


@pytest.mark.parametrize("ignore", [1, 3])
def test_the_band_lies_on_both_sides_of_outlines_and_looks_beyond_the_edge(ignore):
    labels = random_labels(3)
    truth = rasterize_labels(labels, RASTER, classes=CLASSES, ignore=ignore)
    expected = naive_band(naive(labels, RASTER, pad=ignore), ignore)[ignore:-ignore, ignore:-ignore]
    np.testing.assert_array_equal(everything(truth), expected)


def test_a_straight_border_loses_so_many_pixels_on_each_side():
    labels = geopandas.GeoDataFrame(
        {"class_name": ["slump"]}, geometry=[shapely.box(600, -400, 630, -200)], crs="EPSG:3413"
    )
    row = rasterize_labels(labels, RASTER, classes=CLASSES, ignore=3).read((slice(5, 6), slice(0, 20)))[0]
    # Columns 0 to 9 are the label, which begins at the raster's edge: there is a border there too.
    assert row.tolist() == [255] * 3 + [1] * 4 + [255] * 6 + [0] * 7


@given(seed=st.integers(0, 10**6), ignore=st.integers(0, 3))
@settings(max_examples=8)
def test_a_part_of_the_raster_has_its_part_of_the_truth(seed, ignore):
    labels = random_labels(seed)
    whole = everything(rasterize_labels(labels, RASTER, classes=CLASSES, ignore=ignore))
    part = rasterize_labels(labels, RASTER[5:25, 8:31], classes=CLASSES, ignore=ignore)
    np.testing.assert_array_equal(everything(part), whole[5:25, 8:31])


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_neighbours_that_share_a_border_leave_no_gap_and_no_overlap(seed):
    rng = np.random.default_rng(seed)
    points = shapely.MultiPoint(np.rint(rng.uniform(0, 40, (12, 2)) * 2) / 2)
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=shapely.box(-60, -60, 100, 100)))
    on_ground = shapely.transform(cells, lambda pixel: pixel * (3, -3) + (600, -300))
    sums = np.zeros(SHAPE, int)
    for cell in on_ground:
        one = geopandas.GeoDataFrame({"class_name": ["slump"]}, geometry=[cell], crs="EPSG:3413")
        sums += everything(rasterize_labels(one, RASTER, classes=CLASSES))
    assert (sums == 1).all()


@pytest.mark.parametrize("chunks", [(5, 41), (37, 8), (11, 13)])
def test_a_lazy_array_does_not_depend_on_chunks(chunks):
    truth = rasterize_labels(random_labels(5), RASTER, classes=CLASSES, ignore=2)
    cube = xr.Dataset({"red": (("y", "x"), np.zeros(SHAPE))}).chunk(y=chunks[0], x=chunks[1])
    array = truth_array(truth, cube)
    assert array.chunks == cube["red"].chunks
    np.testing.assert_array_equal(array.values, everything(truth))


def random_inventory(seed):
    """Rows of every kind that inventories have, good and bad, in a random order."""
    rng = np.random.default_rng(seed)

    def square():
        lon, lat = rng.integers(-179, 178), rng.integers(60, 80)
        return shapely.box(lon, lat, lon + 0.01 * rng.integers(1, 300), lat + 0.01)

    def crossed():
        west, south, east, north = square().bounds
        return shapely.Polygon([(west, south), (east, north), (east, south), (west, north)])

    def flat():
        west, south, east, north = square().bounds
        return shapely.Polygon([(west, south), (east, north), (west, south)])

    kinds = [
        square, square, square, crossed, flat, lambda: None, lambda: square().centroid, lambda: square().exterior, shapely.Polygon,
        lambda: shapely.MultiPolygon([square(), square()]), lambda: shapely.GeometryCollection([square(), square().centroid]),
        lambda: shapely.transform(square(), lambda xy: xy + np.array([0, 50])),
    ]  # fmt: skip
    outlines = [square()] + [kinds[number]() for number in rng.integers(0, len(kinds), 12)]
    outlines += [outlines[number] for number in rng.integers(0, len(outlines), 4)]
    dates = rng.choice([None, "2019-07-03", "2019", "3.7.2019", "1900-01-01", "2999-01-01"], len(outlines))
    return geopandas.GeoDataFrame({"image_date": dates}, geometry=outlines, crs="EPSG:4326")


@given(seed=st.integers(0, 10**6))
@settings(max_examples=12)
def test_every_row_is_a_label_or_was_dropped_with_a_reason(seed):
    raw = random_inventory(seed)
    inventory = standardise_labels(raw)
    validate_labels(inventory.labels)
    kept = inventory.labels["source_row"].tolist()
    dropped = [one.row for one in inventory.report.dropped]
    assert sorted(kept + dropped) == list(range(len(raw)))
    assert all(one.detail for one in inventory.report.findings)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_standardising_again_changes_nothing(seed):
    once = standardise_labels(random_inventory(seed)).labels
    again = standardise_labels(once)
    assert again.report.is_clean
    assert_geodataframe_equal(again.labels, once)
