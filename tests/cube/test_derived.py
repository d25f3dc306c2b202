"""Layers that a user registers."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rtsx.cube.derived import add_derived, derived_layer, derived_named
from rtsx.errors import CubeError


def cube(*, lazy: bool) -> xr.Dataset:
    rng = np.random.default_rng(4)
    layers = {name: rng.integers(0, 40, (20, 30)).astype(np.uint16) for name in ("green", "nir")}
    attrs = {"scale_factor": 1e-4, "add_offset": -0.001, "_FillValue": np.uint16(0)}
    arrays = {name: da.from_array(layer, chunks=7) if lazy else layer for name, layer in layers.items()}
    valid = rng.random((20, 30)) > 0.2
    return xr.Dataset({name: (("y", "x"), array, attrs) for name, array in arrays.items()}).assign(
        valid=(("y", "x"), valid)
    )


@pytest.mark.parametrize("lazy", [True, False])
def test_a_registered_layer_gets_physical_values_and_nan_where_invalid(lazy: bool) -> None:
    @derived_layer("test_ndwi", needs=("green", "nir"), units="index", long_name="water")
    def ndwi(green: np.ndarray, nir: np.ndarray) -> np.ndarray:
        return (green - nir) / (green + nir)

    given = cube(lazy=lazy)
    made = add_derived(given, derived_named("test_ndwi"))["test_ndwi"]
    assert (made.chunks is not None) == lazy
    assert (made.dtype, made.attrs["units"], made.attrs["long_name"]) == (np.float32, "index", "water")
    green, nir = (
        given[name].values.astype(np.float32) * np.float32(1e-4) - np.float32(0.001) for name in ("green", "nir")
    )
    seen = (given["green"].values != 0) & (given["nir"].values != 0) & given["valid"].values & (green + nir != 0)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(made.values[seen], ((green - nir) / (green + nir))[seen], rtol=1e-5)
    assert np.isnan(made.values[~seen]).all()
    assert ndwi(1.0, 1.0) == 0.0  # type: ignore[arg-type]  # the function stays what it was


def test_an_unknown_layer_is_told_with_those_that_there_are() -> None:
    with pytest.raises(CubeError, match=r"Known derived layers are \[.*'ndvi'.*\]; got 'nvdi'"):
        derived_named("nvdi")


def test_nobodys_layer_is_replaced_but_by_itself() -> None:
    def made() -> None:
        @derived_layer("test_twice", needs=("nir",), units="1")
        def twice(nir: np.ndarray) -> np.ndarray:
            return 2 * nir

    made()
    made()  # a cell of a notebook, run again
    with pytest.raises(CubeError, match=r"'ndvi' is taken by rtsx; .*other needs another name"):

        @derived_layer("ndvi", needs=("red", "nir"), units="index")
        def other(red: np.ndarray, nir: np.ndarray) -> np.ndarray:
            return red - nir
