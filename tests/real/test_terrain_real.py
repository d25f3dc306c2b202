"""Terrain and quality on real elevation and quality data."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from rtsx.cube.erosion import erode_quality
from rtsx.cube.mask_rules import mask_rule, quality_level
from rtsx.cube.resample.readers import ArrayReader
from rtsx.cube.terrain import TERRAIN, TerrainReader

GLO30 = "dem_highlat/COP30_63.84_-149.29_63.92_-149.21.tif"
GLACIER = "dem_highlat/dem_SouthGlacier.tif"
LANDSAT = "stac_json/landsat_greenland/LC08_L2SP_005009_20150710_20200908_02_T2_{}.TIF"
DEMS = pytest.mark.parametrize("name", [GLO30, GLACIER])


def elevation(path: Path) -> ArrayReader:
    with rasterio.open(path) as file:
        geobox = GeoBox((file.height, file.width), file.transform, file.crs.to_string())
        return ArrayReader(file.read().astype(np.float32), geobox, nodata=file.nodata)


def read(dem: ArrayReader, names: list[str]) -> dict[str, NDArray[np.float32]]:
    height, width = dem.geobox.shape
    return dict(zip(names, TerrainReader(dem, names).read(slice(0, height), slice(0, width)), strict=True))


@DEMS
def test_slope_and_aspect_are_those_of_a_plane_fitted_on_the_ellipsoid(real_data: Path, name: str) -> None:
    dem = elevation(real_data / name)
    layers = read(dem, ["slope", "aspect"])
    crs = CRS(str(dem.geobox.crs))
    to_lonlat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    rng = np.random.default_rng(0)
    steps = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    weights = np.sqrt(np.where(np.abs(steps).sum(axis=1) == 2, 1.0, 2.0))
    compared = 0
    for row, column in rng.integers(1, min(dem.geobox.shape) - 1, (400, 2)):
        z = dem.pixels[0, row - 1 : row + 2, column - 1 : column + 2].ravel().astype(float)
        if (z == dem.nodata).any():
            continue
        x, y = dem.geobox.affine @ (column + 0.5 + steps[:, 1], row + 0.5 + steps[:, 0])
        lon, lat = to_lonlat.transform(x, y)
        azimuth, _, distance = Geod(ellps="WGS84").inv(np.full(9, lon[4]), np.full(9, lat[4]), lon, lat)
        east, north = distance * np.sin(np.radians(azimuth)), distance * np.cos(np.radians(azimuth))
        plane = np.stack([east, north, np.ones(9)], axis=1)
        (to_east, to_north, _), *_ = np.linalg.lstsq(plane * weights[:, None], z * weights, rcond=None)
        slope = np.degrees(np.arctan(np.hypot(to_east, to_north)))
        # A UTM map is up to 0.04 % short or long, and the glacier's datum is not quite WGS84.
        assert layers["slope"][row, column] == pytest.approx(slope, abs=0.03)
        if slope > 2:
            aspect = np.degrees(np.arctan2(-to_east, -to_north))
            assert abs((layers["aspect"][row, column] - aspect + 180) % 360 - 180) < 0.1
            compared += 1
    assert compared > 100


@DEMS
def test_any_window_of_a_real_dem_is_a_part_of_the_whole(real_data: Path, name: str) -> None:
    dem = elevation(real_data / name)
    reader = TerrainReader(dem, list(TERRAIN))
    height, width = dem.geobox.shape
    whole = reader.read(slice(0, height), slice(0, width))
    for step in (64, 101):
        for top in range(0, height, step):
            for left in range(0, width, step):
                rows, columns = slice(top, min(top + step, height)), slice(left, min(left + step, width))
                np.testing.assert_array_equal(reader.read(rows, columns), whole[:, rows, columns])


@DEMS
def test_real_layers_are_plausible(real_data: Path, name: str) -> None:
    dem = elevation(real_data / name)
    layers = read(dem, list(TERRAIN))
    valid = dem.pixels[0] != dem.nodata
    for made in layers.values():
        np.testing.assert_array_equal(np.isfinite(made), valid)
    assert 1 < np.median(layers["slope"][valid]) < 40
    assert abs(layers["relative_elevation"][valid].mean()) < 1
    assert np.abs(layers["relative_elevation"][valid]).max() < 120
    assert layers["hillshade"][valid].std() > 0.03
    # What faces the sun in the south-west is brighter than what turns its back to it, where it slopes.
    slopes = valid & (layers["slope"] > 5)
    towards = np.abs((layers["aspect"] - 225 + 180) % 360 - 180)
    assert layers["hillshade"][slopes & (towards < 30)].min() > layers["hillshade"][slopes & (towards > 150)].max()


def test_landsat_quality_knows_fill_and_cloud(real_data: Path) -> None:
    with rasterio.open(real_data / LANDSAT.format("QA_PIXEL")) as file:
        qa = file.read()
    with rasterio.open(real_data / LANDSAT.format("SR_B5")) as file:
        nir = file.read(1)
    levels = quality_level(qa, "landsat-qa-pixel")
    np.testing.assert_array_equal(levels == 0, qa[0] & 1 == 1)
    assert ((levels == 0) == (nir == 0)).mean() > 0.99
    assert set(np.unique(levels)) == {0, 1}, "Greenland in July: what is not cloud is snow"
    keeps_snow = mask_rule({"invalid": "fill", "low": "cloud or cloud_shadow or bit(1)"}, data="qa_pixel")
    expected = np.where(qa[0] & 1, 0, np.where(qa[0] & 0b11010, 1, 2))
    np.testing.assert_array_equal(quality_level(qa, keeps_snow), expected)
    assert (expected == 2).mean() > 0.1
    eroded = erode_quality(levels, distance_m=5000, resolution_m=(516.86, 515.1))
    assert (eroded[levels == 0] == 0).all()
    assert 0.8 < (eroded > 0).sum() / (levels > 0).sum() < 1
