"""Packing attributes, written and read."""

import numpy as np
import pytest
import xarray as xr

from rtsx.cube import Layer, packing
from rtsx.cube.packing import packing_attrs
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
