"""Damage and hiccups of raster files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError

import rtsx.cube.rasterio
from rtsx.cube import open_cube
from rtsx.cube.rasterio import read_header, read_window
from rtsx.errors import CubeError

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(0, 60000, (2, 300, 300)).astype(np.uint16)


class FailsFirst:
    """Stands for `rasterio` and fails the first `count` times that a file is opened."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(rasterio, name)

    def open(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise RasterioIOError("connection reset")
        return rasterio.open(*args, **options)


WINDOW = (slice(10, 20), slice(0, 30))


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_read_is_tried_three_times(write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    path = str(write_tif("a.tif", PIXELS))
    flaky = FailsFirst(failures)
    monkeypatch.setattr(rtsx.cube.rasterio, "rasterio", flaky)
    np.testing.assert_array_equal(read_window(path, WINDOW, bands=(2,)), PIXELS[1:, 10:20, :30])
    assert flaky.calls == failures + 1


def test_then_the_error_names_file_and_window(write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_tif("a.tif", PIXELS))
    flaky = FailsFirst(99)
    monkeypatch.setattr(rtsx.cube.rasterio, "rasterio", flaky)
    with pytest.raises(
        CubeError, match=r"a.tif cannot be read in rows 10-20, columns 0-30 \(tried 3 times\): connection reset"
    ) as told:
        read_window(path, WINDOW, bands=(1,))
    assert isinstance(told.value.__cause__, RasterioIOError)
    assert flaky.calls == 3


def test_a_truncated_file_is_told_at_once_or_at_the_chunk_that_is_missing(write_tif: WriteTif) -> None:
    path = write_tif("a.tif", PIXELS, compress=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    cube = open_cube(path, layers=["red", "nir"], chunks=64)
    np.testing.assert_array_equal(cube["red"].isel(y=slice(64), x=slice(64)).values, PIXELS[0, :64, :64])
    with pytest.raises(
        CubeError, match=r"a.tif cannot be read in rows 256-300, columns 256-300 .*truncated or damaged"
    ):
        cube["red"].isel(y=slice(256, 300), x=slice(256, 300)).compute()
    path.write_bytes(whole[:4])
    with pytest.raises(CubeError, match=r"a.tif cannot be opened as a raster"):
        open_cube(path)


def test_a_header_is_a_value(write_tif: WriteTif) -> None:
    path = write_tif("a.tif", PIXELS, nodata=0)
    header = read_header(path)
    assert header == read_header(path)
    assert hash(header) == hash(read_header(path))
    assert (header.count, header.nodata, header.block) == (2, (0.0, 0.0), (64, 64))
