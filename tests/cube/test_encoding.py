"""Packing attributes, written and read."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from rasterio.warp import transform_bounds

import rtsx
from rtsx.cube import Layer, packing
from rtsx.cube.conventions import as_cube, as_stored
from rtsx.cube.encoding import as_mask, decoded_packing, packing_attrs, with_packing
from rtsx.errors import CubeError, LayerValuesWarning


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


@pytest.mark.parametrize(
    ("dtype", "words", "stored", "missing"),
    [
        ("uint16", {"_FillValue": -1}, 65535, 65535),  # NetCDF's way
        ("uint8", {"missing_value": np.int8(-1)}, 255, 255),
        ("uint16", {"nodata": -9999}, 55537, 55537),  # converted from int16 with its attributes
        ("int16", {"nodata": 65535}, -1, -1),
        ("int16", {"_Unsigned": "true", "_FillValue": np.int16(-1)}, -1, 65535),
        ("uint8", {"_Unsigned": "false", "_FillValue": 255}, 255, -1),
        ("uint16", {"fill_value": 0}, 0, 0),  # rioxarray's word
        ("float32", {"_FillValue": np.nan}, np.nan, None),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_said_of_missing_pixels_is_what_they_hold(
    dtype: str, words: dict[str, object], stored: float, missing: float | None, chunked: bool
) -> None:
    given = xr.DataArray(np.array([[1, stored]]).astype(dtype), dims=("y", "x"), attrs=words, name="red")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = with_packing(given.chunk(1) if chunked else given)
        assert with_packing(layer) is layer
    assert packing(layer)["nodata"] == missing
    assert set(layer.attrs) <= {"_FillValue"}
    assert (layer.values[0, 1] == missing) if missing is not None else np.isnan(layer.values[0, 1])


@pytest.mark.parametrize("words", [{"nodata": -9999}, {"_FillValue": np.nan}, {"missing_value": [1e20]}])
def test_a_missing_value_that_a_layer_cannot_hold_is_told_once(words: dict[str, object]) -> None:
    given = xr.DataArray(np.zeros((2, 2), np.uint8), dims=("y", "x"), attrs=words, name="red")
    with pytest.warns(LayerValuesWarning, match=r"'red' of uint8 says that its .*cube\['red'\].attrs\['_FillValue'\]"):
        layer = with_packing(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_packing(layer).attrs == {}


@pytest.mark.parametrize(
    ("nodata", "cure"), [("-1", "Say nodata=65535"), ("70000", "leave nodata out"), ("0.5", "leave")]
)
def test_nodata_that_is_stated_and_cannot_be_is_refused_at_every_door(
    write_tif: Callable[..., Path], tmp_path: Path, nodata: str, cure: str
) -> None:
    path = write_tif("a.tif", np.ones((1, 64, 64), np.uint16), descriptions=["red"])
    with rasterio.open(path) as file:
        west, south, east, north = transform_bounds(file.crs, 4326, *file.bounds)
        crs, resolution = file.crs.to_string(), file.res[0]
    recipe = tmp_path / "cube.yaml"
    recipe.write_text(
        f"grid: {{crs: '{crs}', resolution: {resolution}}}\nregion: {{bbox: [{west}, {south}, {east}, {north}]}}\n"
        f"sources: {{a: {{files: a.tif, layers: {{red: {{band: 1, nodata: {nodata}}}}}}}}}\n"
    )
    told = rf"'red' is stored as uint16, which cannot hold the nodata {nodata} .*{cure}"
    with pytest.raises(CubeError, match=told):
        rtsx.open_cube({"red": Layer("red", path, nodata=float(nodata))})
    with pytest.raises(CubeError, match=told):
        rtsx.open_cube(recipe)


RANGES: list[tuple[dict[str, Any], list[int]]] = [
    ({"valid_range": [10, 200]}, [10, 100, 200]),
    ({"valid_range": np.array([10, 200]), "_FillValue": 100}, [10, 200]),
    ({"valid_min": 10}, [10, 100, 200, 201, 250]),
    ({"valid_max": [200], "missing_value": 250}, [9, 10, 100, 200]),
]


@pytest.mark.slow
@pytest.mark.parametrize("door", ["array", "decoded", "Zarr 2", "Zarr 3", "open_zarr"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
@pytest.mark.parametrize(("words", "kept"), RANGES)
def test_what_valid_range_excludes_is_missing(
    words: dict[str, Any],
    kept: list[int],
    dtype: str,
    door: str,
    tmp_path: Path,
    random_cube: Callable[..., xr.Dataset],
) -> None:
    stored = np.array([[9, 10, 100], [200, 201, 250]], dtype)
    cube = random_cube(stored.shape, chunk=None)[["red"]]
    # Of the dtype that is stored, as CF wants; computed floats are another test.
    typed = {word: np.array(value, dtype)[()] for word, value in words.items()}
    cube["red"] = (("y", "x"), stored, typed | {"scale_factor": 0.5})
    cube["red"].encoding = {"dtype": stored.dtype}
    if door.startswith(("Zarr", "open")):
        cube.to_zarr(tmp_path / "a.zarr", zarr_format=2 if door == "Zarr 2" else 3, consolidated=False)
    if door == "decoded":
        cube = xr.decode_cf(cube)
    elif door == "open_zarr":
        cube = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    elif door != "array":
        cube = rtsx.open_cube(tmp_path / "a.zarr")
    layer = with_packing(as_stored(as_cube(cube), ["red"])["red"]).compute()
    found = np.isfinite(layer.values) & (layer.values != packing(layer)["nodata"])
    np.testing.assert_array_equal(found, np.isin(stored, kept))
    assert not {"valid_range", "valid_min", "valid_max"} & set(layer.attrs)


def test_computed_floats_keep_their_range_and_all_values() -> None:
    layer = xr.DataArray(np.array([300.0]), attrs={"valid_range": [0, 200]})
    assert with_packing(layer) is layer


@pytest.mark.parametrize("value", [[1e-4], np.array([1e-4]), (np.float32(0.5),)])
def test_a_scale_in_a_list_of_one_is_a_number(value: object) -> None:
    layer = with_packing(xr.DataArray(np.zeros((1, 1), np.int16), attrs={"scale_factor": value}))
    assert packing(layer)["scale_factor"] == np.ravel(value)[0]


def test_a_scale_that_an_encoding_leaves_open_is_none() -> None:
    layer = xr.DataArray(np.zeros((2, 2), np.float32), dims=("y", "x"), name="red")
    layer.encoding = {"scale_factor": None, "add_offset": None}
    assert decoded_packing(layer) == {}
    assert packing(layer)["is_declared"] is False


def test_a_mask_as_readers_give_it_is_bool(tmp_path: Path) -> None:
    """Of True, False and NaN, as xarray reads a bool with a missing value; and as rioxarray opens a file, whose chunks have bands."""
    given = xr.DataArray(np.array([[True, False, np.nan]], object), dims=("y", "x"))
    assert as_mask(given).values.tolist() == [[True, False, False]]
    profile = {"driver": "GTiff", "width": 3, "height": 1, "count": 1, "dtype": "uint8", "crs": "EPSG:3413"}
    with rasterio.open(tmp_path / "m.tif", "w", **profile, transform=rasterio.Affine(3, 0, 0, 0, -3, 0)) as file:
        file.write(np.array([[[1, 0, 1]]], np.uint8))
    lazy = rioxarray.open_rasterio(tmp_path / "m.tif").isel(band=0, drop=True)
    assert as_mask(lazy).values.tolist() == [[True, False, True]]


def test_a_lazy_mask_of_other_numbers_names_the_block_and_a_wrong_declaration_is_refused_at_once() -> None:
    pixels = np.ones((4, 6), np.uint8)
    pixels[3, 5] = 255
    lazy = xr.DataArray(pixels, dims=("y", "x")).chunk({"y": 2, "x": 3})
    made = as_mask(lazy)
    assert made[:2].values.all()
    with pytest.raises(CubeError, match=r"it has 255 in rows 2-4, columns 3-6\. Store 1"):
        made.compute()
    with pytest.raises(CubeError, match=r"it has 255\. Store 1"):
        as_mask(xr.DataArray(pixels, dims=("y", "x")))
    with pytest.raises(CubeError, match="1 is declared missing"):
        as_mask(lazy.assign_attrs(_FillValue=1))


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(
        CubeError, match=r"valid_range.* no numbers. Remove them, with cube\['red'\].attrs.pop\('valid_range'\)"
    ):
        with_packing(xr.DataArray(np.zeros((1, 1), np.int16), attrs={"valid_range": "all"}, name="red"))
