"""Terrain as a raster that is read by windows."""

import pickle

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.terrain import TerrainGrid, TerrainReader, terrain_block
from rtsx.errors import CubeError

BOX = GeoBox((120, 110), Affine(5, 0, -2_100_000, 0, -5, -400_000), "EPSG:3413")
LAYERS = ("relative_elevation", "slope", "aspect", "hillshade", "curvature", "dem")


def heights(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dem = np.cumsum(rng.normal(0, 1, BOX.shape.yx), axis=0) + 300
    dem[rng.random(dem.shape) < 0.1] = -9999
    return dem[None].astype(np.float32)


def test_a_window_is_a_part_of_the_whole() -> None:
    dem = heights()
    reader = TerrainReader(ArrayReader(dem, BOX, nodata=-9999), LAYERS, sun_azimuth=170, sun_elevation=40)
    assert (reader.dtype, reader.count, reader.geobox) == (np.float32, 6, BOX)
    assert np.isnan(reader.nodata)
    ground = TerrainGrid.from_geobox(BOX, sun_azimuth=170, sun_elevation=40)
    whole = terrain_block(dem[0], dem[0] != -9999, ground=ground, layers=LAYERS, halo=0)
    rng = np.random.default_rng(1)
    for _ in range(12):
        rows, columns = (slice(*map(int, sorted(rng.choice(size + 1, 2, replace=False)))) for size in BOX.shape)
        window = reader.read(rows, columns)
        np.testing.assert_array_equal(window, whole[:, rows, columns])
        assert window.flags.owndata
        assert window.flags.writeable


def test_stored_units_become_metres_and_infinite_heights_are_none() -> None:
    dem = heights()
    stored = np.where(dem == -9999, -32768, np.round(dem * 10 - 2000)).astype(np.int16)
    reader = TerrainReader(ArrayReader(stored, BOX, nodata=-32768), ["dem"], scale_factor=0.1, add_offset=200)
    made = reader.read(slice(0, 120), slice(0, 110))
    np.testing.assert_allclose(made, np.where(dem == -9999, np.nan, dem), atol=0.051)
    dem[0, 5, 5] = -np.inf
    made = TerrainReader(ArrayReader(dem, BOX, nodata=None), ["slope"]).read(slice(0, 120), slice(0, 110))
    assert np.isnan(made[0, 5, 5])
    assert np.isfinite(made[0, 5, 6])


def test_overviews_change_nothing_and_no_more_than_the_halo_is_read() -> None:
    asked: list[tuple[slice, slice]] = []

    class Watched(ArrayReader):
        def read(self, rows: slice, columns: slice) -> np.ndarray:
            asked.append((rows, columns))
            return super().read(rows, columns)

    dem = Watched(heights(), BOX, nodata=-9999)
    reader = TerrainReader(dem, ["slope", "relative_elevation"])
    assert reader.overview_for(16) is reader
    reader.read(slice(30, 40), slice(95, 100))
    TerrainReader(dem, ["slope"]).read(slice(0, 40), slice(95, 110))
    TerrainReader(dem, ["dem"]).read(slice(3, 4), slice(5, 6))
    assert asked == [
        (slice(10, 60), slice(75, 110)),
        (slice(0, 41), slice(94, 110)),
        (slice(3, 4), slice(5, 6)),
    ]


def test_it_is_a_value_and_refuses_at_once() -> None:
    dem = ArrayReader(heights(), BOX, nodata=-9999)
    reader = pickle.loads(pickle.dumps(TerrainReader(dem, LAYERS)))
    np.testing.assert_array_equal(
        reader.read(slice(4, 9), slice(0, 9)), TerrainReader(dem, LAYERS).read(slice(4, 9), slice(0, 9))
    )
    with pytest.raises(CubeError, match="got 'steepness'"):
        TerrainReader(dem, ["steepness"])
    with pytest.raises(CubeError, match="at least one layer"):
        TerrainReader(dem, [])
    with pytest.raises(CubeError, match="rows run along its x"):
        TerrainReader(
            ArrayReader(heights(), GeoBox((120, 110), Affine(3, 1, 0, 0, -3, 0), "EPSG:3413"), nodata=0), LAYERS
        )


def test_a_raster_in_degrees_may_reach_the_pole() -> None:
    box = GeoBox((40, 24), Affine(15, 0, -180, 0, -0.0005, 90.00025), "EPSG:4326")
    dem = np.random.default_rng(0).normal(100, 1, (1, *box.shape)).astype(np.float32)
    reader = TerrainReader(ArrayReader(dem, box, nodata=None), LAYERS)
    whole = reader.read(slice(0, 40), slice(0, 24))
    assert np.isfinite(whole).all()
    np.testing.assert_array_equal(reader.read(slice(0, 3), slice(7, 9)), whole[:, 0:3, 7:9])
