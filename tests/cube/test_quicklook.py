"""Small versions of cubes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rtsx.cube import write_cube
from rtsx.cube.quicklook import coarse_window, small_store, thinned
from rtsx.grid import Grid


def test_a_store_gives_its_coarsest_level_that_is_large_enough(
    random_cube: Callable[..., xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtsx.cube.pyramid._SMALLEST_TOP_LEVEL", 30)
    write_cube(random_cube((230, 301)), tmp_path / "cube.zarr")
    for side, width in ((301, 301), (200, 301), (151, 151), (75, 76), (40, 76), (25, 38), (10, 19)):
        small = small_store(str(tmp_path / "cube.zarr"), side=side, options={})
        assert small.sizes["x"] == width, side


def test_thinned_pixels_are_those_of_the_cube(random_cube: Callable[..., xr.Dataset]) -> None:
    cube = random_cube((230, 301))
    small = thinned(cube, side=100)
    np.testing.assert_array_equal(small["red"].values, cube["red"].values[1::3, 1::3])
    assert thinned(cube, side=400).sizes == cube.sizes


def test_a_coarse_window_holds_the_fine_one_on_a_lattice_with_the_same_corner() -> None:
    grid = Grid("EPSG:3413", 3.0, origin=(7.0, 11.0))
    raster = grid.window((1001, 2113), (-5003, -4100))
    coarse, window = coarse_window(grid, raster, side=100)
    assert coarse.resolution == 33
    assert coarse.origin == grid.origin
    assert window.boundingbox.left <= raster.boundingbox.left
    assert window.boundingbox.bottom <= raster.boundingbox.bottom
    assert window.boundingbox.right >= raster.boundingbox.right
    assert window.boundingbox.top >= raster.boundingbox.top
    assert max(window.shape) <= 103
