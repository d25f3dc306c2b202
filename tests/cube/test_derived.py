"""Layers that a user registers."""

from collections.abc import Callable

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from rtsx.cube import add_ndvi
from rtsx.cube.derived import add_derived, derived_layer, derived_text, get_derived
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
    made = add_derived(given, get_derived("test_ndwi"))["test_ndwi"]
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
        get_derived("nvdi")


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


@pytest.mark.parametrize(("red", "nir"), [("dn", None), ("DN", "reflectance"), ("1", "digital_numbers")])
def test_an_index_of_digital_numbers_and_of_something_else_is_refused_and_its_cure_works(
    red: str, nir: str | None, random_cube: Make
) -> None:
    cube = bands(random_cube())
    cube["other"] = cube["red"].copy()
    cube["red"].attrs["units"] = red
    cube["nir"].attrs |= {} if nir is None else {"units": nir}
    with pytest.raises(CubeError, match=rf"'red' in {red} and 'nir' in {nir or 'no stated unit'}. Name those of one"):
        add_ndvi(cube)
    cube["other"].attrs |= {"units": nir or "1"}
    layer = get_derived("ndvi(other, nir)")
    made = add_derived(cube, layer)["ndvi"]
    cube["red"].attrs["units"] = nir or "1"
    xr.testing.assert_equal(made, add_ndvi(cube)["ndvi"])
    assert derived_text(layer) == "ndvi(other, nir)"
    assert derived_text(get_derived("ndvi")) == "ndvi"


@pytest.mark.parametrize(
    "name", ["ndvi(red)", "ndvi(red, nir, blue)", "ndvi(red, )", "nvdi(red, nir)", "ndvi(red", "nir)"]
)
def test_a_derived_layer_of_other_layers_names_as_many(name: str) -> None:
    with pytest.raises(CubeError, match=r"made from 2 layers|Known derived layers|in quotes"):
        get_derived(name)
