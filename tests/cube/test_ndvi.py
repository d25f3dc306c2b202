"""The vegetation index from stored values."""

from collections.abc import Callable

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rtsx.cube import add_ndvi
from rtsx.errors import CubeError

Make = Callable[..., xr.Dataset]


def bands(cube: xr.Dataset, *, offset: float = 0.0) -> xr.Dataset:
    rng = np.random.default_rng(3)
    attrs = {"scale_factor": 1e-4, "add_offset": offset, "_FillValue": np.uint16(0)}
    stored = rng.integers(0, 4000, (2, 230, 301)).astype(np.uint16)
    stored[:, :20] = 0
    stored[:, 20:30, :10] = 1000
    return cube.assign(red=(("y", "x"), stored[0], attrs), nir=(("y", "x"), stored[1], attrs))


@pytest.mark.parametrize("offset", [0.0, -0.1])
@pytest.mark.parametrize("is_lazy", [True, False])
def test_ndvi_equals_the_formula(random_cube: Make, offset: float, is_lazy: bool) -> None:
    cube = bands(random_cube(chunk=None), offset=offset)
    ndvi = add_ndvi(cube.chunk(y=100, x=70) if is_lazy else cube)["ndvi"]
    assert isinstance(ndvi.data, da.Array) == is_lazy
    assert ndvi.dtype == np.float32
    red, nir = (cube[name].values * 1e-4 + offset for name in ("red", "nir"))
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (nir - red) / (nir + red)
    hidden = (cube["red"].values == 0) | (cube["nir"].values == 0) | ~cube["valid"].values
    clear = ~hidden & (np.abs(nir + red) > 1e-9)
    np.testing.assert_allclose(ndvi.values[clear], expected[clear], rtol=1e-5)
    assert np.isnan(ndvi.values[hidden]).all()
    if offset:
        assert np.isnan(ndvi.values[20:30, :10]).all()  # both 0.1 - 0.1: the sum is 0


def test_values_under_the_mask_do_not_matter(random_cube: Make) -> None:
    cube = bands(random_cube(chunk=None))
    other = cube.assign(nir=cube["nir"].where(cube["valid"], 9999).astype(np.uint16).assign_attrs(cube["nir"].attrs))
    xr.testing.assert_identical(add_ndvi(cube)["ndvi"], add_ndvi(other)["ndvi"])


def test_bands_have_to_be_there_and_ndvi_not(random_cube: Make) -> None:
    with pytest.raises(CubeError, match=r"missing \['nir'\]"):
        add_ndvi(random_cube())
    with pytest.raises(CubeError, match="where there is none yet"):
        add_ndvi(add_ndvi(bands(random_cube())))
