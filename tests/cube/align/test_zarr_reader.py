"""Zarr groups as readers, both formats."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox

from rtsx.cube import geobox_of, write_cube
from rtsx.cube.resample.readers import ArrayReader, ZarrReader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError

RandomCube = Callable[..., xr.Dataset]


def reader_of(path: Path, cube: xr.Dataset, *names: str, nodata: float | None = None) -> ZarrReader:
    return ZarrReader(
        path=str(path), arrays=names, geobox=geobox_of(cube), dtype=cube[names[0]].dtype, nodata=nodata, asset="cube"
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_are_bands(tmp_path: Path, zarr_format: int) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 900, (2, 130, 150)).astype(np.uint16)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)  # type: ignore[arg-type]
    for name, band, lead in (("red", pixels[0], ()), ("nir", pixels[1], (1,))):
        array = group.create_array(name, shape=(*lead, 130, 150), chunks=(*lead, 64, 64), dtype=band.dtype)
        array[...] = band.reshape(*lead, 130, 150)
    box = GeoBox.from_bbox((0, 0, 1500, 1300), "EPSG:32608", resolution=10)
    reader = ZarrReader(
        path=str(tmp_path / "a.zarr"), arrays=("nir", "red"), geobox=box, dtype=np.dtype(np.uint16), nodata=0
    )
    np.testing.assert_array_equal(reader.read(slice(60, 130), slice(3, 70)), pixels[::-1, 60:130, 3:70])
    assert pickle.loads(pickle.dumps(reader)) == reader
    target = GeoBox.from_bbox((0, 0, 1400, 1190), "EPSG:32608", resolution=7)
    given = {"resampling": "cubic", "anchor": (0.0, 0.0)}
    ours = warp(reader, target, **given)  # type: ignore[arg-type]
    expected = warp(ArrayReader(pixels[::-1], box, nodata=0), target, **given)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours.pixels, expected.pixels)


def test_stores_of_our_own(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path)
    reader = reader_of(path, cube, "red", nodata=0)
    assert (reader.count, reader.coarser(8)) == (1, reader)
    np.testing.assert_array_equal(reader.read(slice(9, 200), slice(100, 301))[0], cube["red"].values[9:200, 100:301])


def test_errors_name_store_and_array(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path)
    window = slice(0, 4), slice(0, 4)
    with pytest.raises(CubeError, match=r"cube.zarr \(asset 'cube'\) has no array 'green'; there are \["):
        replace(reader_of(path, cube, "red"), arrays=("green",)).read(*window)
    with pytest.raises(CubeError, match=r"dem of .*cube.zarr .*dtype: expected uint16, found float32"):
        reader_of(path, cube, "red", "dem").read(*window)
    smaller = replace(reader_of(path, cube, "red"), geobox=geobox_of(cube)[:10, :10])
    with pytest.raises(CubeError, match=r"shape \(y, x\): expected \(10, 10\), found \(230, 301\)"):
        smaller.read(*window)
    with pytest.raises(CubeError, match=r"gone.zarr cannot be opened: there is no such file"):
        reader_of(tmp_path / "gone.zarr", cube, "red").read(*window)


def test_damage_names_the_window(tmp_path: Path, random_cube: RandomCube) -> None:
    cube = random_cube()
    path = tmp_path / "cube.zarr"
    write_cube(cube, path, overviews=False)
    for chunk in (path / "red" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"\x00" * 40)
    with pytest.raises(CubeError, match=r"cube.zarr.*: red cannot be read in rows 3-9, columns 2-6: .*damaged"):
        reader_of(path, cube, "red").read(slice(3, 9), slice(2, 6))
