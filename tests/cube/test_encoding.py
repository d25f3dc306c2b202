"""Packing attributes, written and read."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rtsx.cube import Layer, packing
from rtsx.cube.encoding import packing_attrs, with_packing
from rtsx.errors import CubeError


@pytest.mark.parametrize(
    ("dtype", "nodata", "stored"),
    [
        ("uint8", 255, 255),
        ("uint8", -9999, None),
        ("uint8", 0.5, None),
        ("float32", -9999, -9999),
        ("int16", -9999, -9999),
    ],
)
def test_nodata_that_no_pixel_can_have_is_left_out(dtype: str, nodata: float, stored: float | None) -> None:
    attrs = packing_attrs(
        np.dtype(dtype), scale_factor=0.01, add_offset=None, nodata=nodata, units=None, long_name=None
    )
    layer = xr.DataArray(np.zeros((2, 2), dtype), attrs=dict(attrs))
    assert packing(layer) == {"scale_factor": 0.01, "add_offset": 0.0, "nodata": stored, "is_declared": True}


def test_infinite_nodata_is_kept() -> None:
    attrs = packing_attrs(
        np.dtype("float32"), scale_factor=None, add_offset=None, nodata=-np.inf, units="1", long_name="dem"
    )
    assert attrs == {"_FillValue": -np.inf, "units": "1", "long_name": "dem"}


def test_a_silent_variable_has_only_a_fallback() -> None:
    assert packing(xr.DataArray([1.0])) == {
        "scale_factor": 1.0,
        "add_offset": 0.0,
        "nodata": None,
        "is_declared": False,
    }
    assert packing(xr.DataArray([1.0], attrs={"missing_value": 7}))["nodata"] == 7


def test_layers_without_a_name_or_a_band_are_refused() -> None:
    with pytest.raises(CubeError, match="needs a name"):
        Layer("", "a.tif")
    with pytest.raises(CubeError, match="counted from 1; layer 'red' asks for band 0"):
        Layer("red", "a.tif", 0)


def test_several_values_of_missing_pixels_become_one_without_a_look_at_the_pixels(tmp_path: Path) -> None:
    words = {"_FillValue": np.uint8(0), "missing_value": [0, 255]}
    values = np.array([[0, 7, 255, 9]], np.uint8)
    xr.Dataset({"red": (("y", "x"), values, words)}).to_zarr(
        tmp_path / "a.zarr", encoding={"red": {"chunks": (1, 2)}}, consolidated=False
    )
    stored = xr.open_zarr(tmp_path / "a.zarr", chunks=None, mask_and_scale=False, consolidated=False)["red"]
    layer = with_packing(stored)
    assert layer.chunks == ((1,), (2, 2))
    np.testing.assert_array_equal(layer, [[0, 7, 0, 9]])
    assert with_packing(stored.load()).chunks is None
