import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from rtsx.cli.score import PixelScore, truth_mask
from rtsx.cube import geobox_of


def cube(size: int) -> xr.Dataset:
    import rioxarray  # noqa: F401 - registers .rio

    coords = {"y": 7_000_000 - 1.5 - 3 * np.arange(size), "x": 500_000 + 1.5 + 3 * np.arange(size)}
    return xr.Dataset({"binary": (("y", "x"), np.zeros((size, size), np.uint8))}, coords=coords).rio.write_crs(32608)


def test_the_truth_is_burnt_where_pixel_centres_lie_inside() -> None:
    left, top = geobox_of(cube(10)).affine.c, geobox_of(cube(10)).affine.f
    box = shapely.box(left + 6, top - 12, left + 15, top - 3)
    truth = gpd.GeoDataFrame(geometry=[box], crs=32608).to_crs(4326)
    mask = truth_mask(truth, cube(10))
    expected = np.zeros((10, 10), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(mask, expected)


def test_no_outline_is_an_empty_truth() -> None:
    assert not truth_mask(gpd.GeoDataFrame(geometry=[], crs=4326), cube(4)).any()


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    score = PixelScore(hits=0, false_alarms=0, misses=0)
    assert (score.iou, score.precision, score.recall) == (1, 1, 1)
