"""The warp on real elevation and real Sentinel-2, against exact positions."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from benchmarks.exact import exact_positions, exact_warp
from rtsx.cube.images import BandSource
from rtsx.cube.recipe import Resampling
from rtsx.cube.resample.readers import ArrayReader, FileReader, open_reader
from rtsx.cube.resample.warp import warp
from rtsx.cube.terrain_blocks import MosaicReader
from rtsx.grid import Grid
from tests.cube.file_reader import file_reader

COPERNICUS = "dem_highlat/COP30_63.84_-149.29_63.92_-149.21.tif"
YUKON = "dem_highlat/dem_SouthGlacier.tif"
SENTINEL2 = "rts_expert_s2l8/Bykovsky/S2_20210721T035541_20210721T035540_T52WEE.tif"
LANDSAT8 = "rts_expert_s2l8/Bykovsky/L8_LC08_198234_20210718.tif"

ARCTIC = (0.0, 0.0)


def arctic_window(source: GeoBox, size: float, *, margin: int = 20) -> GeoBox:
    """The part of the Arctic grid around a raster, and a margin beyond it."""
    height, width = source.shape
    edge = np.linspace(0, 1, 20)
    rows = np.concatenate([edge * height, edge * height, edge * 0, edge * 0 + height])
    columns = np.concatenate([edge * 0, edge * 0 + width, edge * width, edge * width])
    a = source.affine
    x, y = a.a * columns + a.b * rows + a.c, a.d * columns + a.e * rows + a.f
    x, y = Transformer.from_crs(str(source.crs), "EPSG:3413", always_xy=True).transform(x, y)
    return Grid.arctic(size).window(
        (int(-y.max() / size) - margin, int(-y.min() / size) + margin),
        (int(x.min() / size) - margin, int(x.max() / size) + margin),
    )


def whole(reader: FileReader) -> NDArray[Any]:
    return reader.read(slice(0, reader.geobox.shape[0]), slice(0, reader.geobox.shape[1]))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        (COPERNICUS, 10.0),
        (COPERNICUS, 100.0),
        (YUKON, 7.0),
        (SENTINEL2, 5.0),
        (LANDSAT8, 10.0),
    ],
)
def test_real_rasters_on_the_arctic_grid(real_data: Path, name: str, size: float, resampling: Resampling) -> None:
    reader = file_reader(str(real_data / name))
    reader = replace(reader, bands=reader.bands[:2])
    target = arctic_window(reader.geobox, size)
    warped = warp(reader, target, resampling=resampling, anchor=ARCTIC)
    positions = exact_positions(reader.geobox, target)
    value, valid = exact_warp(whole(reader), positions, resampling=resampling, nodata=reader.nodata)
    clear = np.minimum(*(np.abs(axis - np.round(axis)) for axis in positions)) > 1e-4
    np.testing.assert_array_equal(warped.valid[:, clear], valid[:, clear])
    assert 0.2 < valid.mean() < 0.99
    rounding = 0.5 if reader.dtype.kind == "u" else 0.0
    value = np.clip(value, 1, 65535) if rounding else value  # cubic overshoots
    assert np.abs(warped.pixels - value)[valid & warped.valid & clear].max() < rounding + 0.01


def test_stored_numbers_of_sentinel2(real_data: Path) -> None:
    path = str(real_data / SENTINEL2)
    file = file_reader(path)
    bands = BandSource(href=path, bands=(3, 7), geobox=file.geobox, dtype="uint16", nodata=0)
    target = arctic_window(file.geobox, 10.0)
    warped = warp(open_reader(bands), target, resampling="bilinear", anchor=ARCTIC)
    value, valid = exact_warp(
        whole(file)[[2, 6]], exact_positions(file.geobox, target), resampling="bilinear", nodata=0
    )
    assert warped.pixels.dtype == np.uint16
    np.testing.assert_array_equal(warped.valid, valid)
    assert np.abs(warped.pixels - value)[valid].max() <= 0.5 + 1e-3
    assert (warped.pixels[valid] > 0).all()
    assert (warped.pixels[~valid] == 0).all()


@pytest.mark.parametrize("resampling", get_args(Resampling))
def test_chunks_of_real_elevation_have_no_seams(real_data: Path, resampling: Resampling) -> None:
    reader = file_reader(str(real_data / COPERNICUS))
    target = arctic_window(reader.geobox, 13.0)
    together = warp(reader, target, resampling=resampling, anchor=ARCTIC)
    height, width = target.shape
    for top in range(0, height, 311):
        for left in range(0, width, 207):
            part = np.s_[top : min(top + 311, height), left : min(left + 207, width)]
            alone = warp(reader, target[part], resampling=resampling, anchor=ARCTIC)
            np.testing.assert_array_equal(alone.pixels, together.pixels[(slice(None), *part)])


def test_a_real_raster_in_tiles_is_the_same(real_data: Path) -> None:
    reader = file_reader(str(real_data / YUKON))
    pixels, box = whole(reader), reader.geobox
    tiles = [
        ArrayReader(pixels[:, rows, columns], box[rows, columns], nodata=reader.nodata)
        for rows in (slice(0, 140), slice(130, 300))
        for columns in (slice(0, 100), slice(100, 248))
    ]
    target = arctic_window(box, 10.0)
    ours, expected = (warp(one, target, resampling="cubic", anchor=ARCTIC) for one in (MosaicReader(tiles), reader))
    np.testing.assert_array_equal(ours.pixels, expected.pixels)
    np.testing.assert_array_equal(ours.valid, expected.valid)


def test_there_and_back_again(real_data: Path) -> None:
    # What moves by half a pixel on the way would come back a whole one off; a smooth surface comes back as it was.
    reader = file_reader(str(real_data / COPERNICUS))
    box = reader.geobox
    target = arctic_window(box, 10.0)
    there = warp(reader, target, resampling="cubic", anchor=ARCTIC)
    back = warp(
        ArrayReader(there.pixels, target, nodata=float("nan")),
        GeoBox(box.shape, box.affine, "EPSG:4326"),
        resampling="cubic",
        anchor=(box.affine.c, box.affine.f),
    )
    inner = np.s_[0, 20:-20, 20:-20]
    heights = whole(reader).astype(np.float64)
    off = (back.pixels.astype(np.float64) - heights)[inner]
    shifted = (np.roll(heights, 1, axis=2) - heights)[inner]
    assert np.abs(off.mean()) < 0.01
    assert np.sqrt((off**2).mean()) < 0.1 * np.sqrt((shifted**2).mean())
