"""What is a cube and what is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio.shutil
import rioxarray
import xarray as xr
import zarr
from affine import Affine
from pyproj import CRS
from shapely import box

from rtsx.cube import (
    Layer,
    as_cube,
    geobox_of,
    lattice_origin,
    layer_names,
    open_source,
    packing,
    validate_cube,
    write_cube,
)
from rtsx.cube.encoding import is_representable
from rtsx.cube.file_images import StoreImages
from rtsx.cube.images import BandRequest
from rtsx.cube.resample.readers import open_reader
from rtsx.errors import CubeError
from rtsx.storage.zarr import refuse_absent_chunks
from tests.cube.test_rasterio import KINDS as MASKS

Make = Callable[..., xr.Dataset]


def test_a_cube_passes_whatever_is_behind_it(random_cube: Make) -> None:
    for cube in (random_cube(), random_cube(chunk=None), random_cube(times=2), random_cube().isel(y=slice(3, 90))):
        validate_cube(cube)
    named = random_cube().assign(scene=("scene", ["a", "b"]))
    validate_cube(named)
    assert layer_names(named) == ("probability", "binary", "dem", "red")


def test_the_lattice_is_the_cubes_own_corner_where_nobody_says_otherwise(random_cube: Make) -> None:
    cube = random_cube()
    assert lattice_origin(cube) == (711000.0, 95001.0)
    assert lattice_origin(cube.drop_attrs(deep=False)) == (711576.0, 94749.0)


BREAKS: list[tuple[Callable[[xr.Dataset], object], str]] = [
    (
        lambda cube: "cube.zarr",
        r"xarray.Dataset with one variable per layer.*the path 'cube.zarr'. Open it first, with rtsx",
    ),
    (lambda cube: cube["red"].values, r"xarray.Dataset with one variable per layer.*got ndarray"),
    (lambda cube: cube.rename(y="row"), r"'y' is missing, there are dimensions .*'row'"),
    (lambda cube: cube.drop_vars("x"), "'x' is missing"),
    (lambda cube: cube.drop_vars("spatial_ref").drop_attrs(), r"needs a CRS.*write_crs"),
    (lambda cube: cube.isel(y=slice(None, None, -1)), r"'y' has to fall.*slice\(None, None, -1\)"),
    (lambda cube: cube.isel(x=slice(None, None, -1)), "'x' has to rise"),
    (lambda cube: cube.isel(x=[0, 1, 2, 9]), "'x' has to step by one pixel.*Warp the cube"),
    (
        lambda cube: (
            cube.drop_vars("spatial_ref")
            .drop_attrs()
            .assign_coords(y=(cube.y * 1.03 + 7_700_000).astype("f4"))
            .odc.assign_crs("EPSG:32649")
        ),
        "'y' has to step by one pixel.*are float32, which rounds them by 0.5.*float64",
    ),
    (lambda cube: cube.drop_vars(["probability", "binary", "dem", "red"]), "at least one layer"),
    (lambda cube: cube.expand_dims(band=2), r"has to be on \(y, x\) or \(time, y, x\).*to_dataset"),
    (
        lambda cube: cube.assign(red=cube["red"].astype(complex)),
        "'red' has to be numeric, of 64 bits at most; got complex128",
    ),
    (lambda cube: cube.assign(red=cube["red"].astype(np.longdouble)), r"of 64 bits at most; got float128.*astype"),
    (lambda cube: cube.assign(red=cube["red"].astype(str)), r"'red' has to be numeric.*got <U\d+.*drop_vars"),
    (lambda cube: cube.assign_coords(x=cube["x"].astype(str)), r"'x' has to be numbers; got <U\d+.*astype\(float\)"),
    (lambda cube: cube.isel(x=slice(0, 0)), "no pixel along 'x'"),
    (lambda cube: cube.expand_dims(time=2).isel(time=[]), "The cube has no time"),
    (lambda cube: cube.expand_dims(time=np.array(["NaT"], "M8[ns]")), r"NaT.*cube\.time\.notnull"),
    (
        lambda cube: cube.expand_dims(time=2).assign_coords(
            xr.Coordinates.from_pandas_multiindex(
                pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", "k"]), "time"
            )
        ),
        r"'time' is a MultiIndex.*reset_index",
    ),
    (lambda cube: cube.assign(valid=cube["valid"].astype(str)), "`valid` has to be boolean"),
    (lambda cube: cube.assign(valid=cube["valid"].astype(np.uint8).expand_dims(member=2)), "`valid` has to be boolean"),
    (lambda cube: cube.assign_attrs(lattice_origin=[1.0]), "two numbers"),
    (lambda cube: cube.assign_attrs(lattice_origin=[1.0, np.nan]), "two numbers"),
    (lambda cube: cube.assign(red=cube["red"].assign_attrs(scale_factor=0)), "other than 0; got 0"),
    (lambda cube: cube.assign(red=cube["red"].assign_attrs(scale_factor="tiny")), "that are no numbers.*tiny"),
]


@pytest.mark.parametrize(("damage", "message"), BREAKS)
def test_what_is_no_cube_is_told(random_cube: Make, damage: Callable[[xr.Dataset], object], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        validate_cube(damage(random_cube()))  # type: ignore[arg-type]


ARRANGED: list[Callable[[xr.Dataset], xr.Dataset]] = [
    lambda cube: cube.transpose("x", "y"),
    lambda cube: cube.expand_dims(band=1),
    lambda cube: cube.expand_dims(band=[1]).transpose("y", "x", "band"),
    lambda cube: cube.expand_dims(scene=["a"]),
    lambda cube: cube[["red"]].expand_dims(band=[7]).assign(dem=cube["dem"]),
]


@pytest.mark.parametrize("change", ARRANGED)
def test_layers_are_brought_onto_y_and_x(change: Callable[[xr.Dataset], xr.Dataset], random_cube: Make) -> None:
    cube = random_cube()[["red", "dem"]]
    found = as_cube(change(cube))
    validate_cube(found)
    for name in ("red", "dem"):
        xr.testing.assert_identical(found[name].drop_vars("band", errors="ignore"), as_cube(cube)[name])


def test_time_comes_first_wherever_it_was(random_cube: Make) -> None:
    cube = random_cube(times=2)[["red"]].transpose("y", "x", ...)
    assert as_cube(cube.expand_dims(time=2).transpose("y", "x", "time"))["red"].dims == ("time", "y", "x")


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4617"])
def test_longitudes_go_on_beyond_180(crs: str, flip: int, random_cube: Make) -> None:
    cube = random_cube((6, 8), crs=crs, affine=Affine(0.01, 0, 179.97, 0, -0.01, 70))[["red"]]
    wrapped = cube.assign_coords(x=(cube.x + 180) % 360 - 180).isel(x=slice(None, None, flip))
    found = as_cube(wrapped)
    np.testing.assert_allclose(found.x[::flip], cube.x - 360 * (flip < 0), atol=1e-9)
    validate_cube(found.isel(x=slice(None, None, flip)))


@pytest.mark.parametrize(
    "name", ["x", "y", "time", "band", "spatial_ref", "valid", "a/b", ".red", "2x", "build", "RED"]
)
def test_names_that_would_vanish_are_refused_at_every_door(
    name: str, write_tif: Callable[..., Path], random_cube: Make
) -> None:
    path = write_tif("s.tif", np.ones((2, 8, 8), np.uint8), nodata=0, descriptions=("red", name))
    message = r"No layer can be called|have one name, or differ in case and blanks only"
    for source in (path, {"red": Layer("red", path), name: Layer(name, path, band=2)}):
        with pytest.raises(CubeError, match=f"{message}.*layers="):
            open_source(source)
    named = open_source(path, layers=["first", "second"])
    assert layer_names(named) == ("first", "second")
    assert name == "RED" or layer_names(open_source(path, layers=["red"])) == ("red",)
    array = named.to_dataarray("band").assign_coords(band=["red", name]).assign_attrs(nodata=0)
    with pytest.raises(CubeError, match=f"{message}.*layers="):
        as_cube(array)
    if name not in ("x", "y", "spatial_ref", "valid", "band", "time"):  # xarray or the mask's type say it
        with pytest.raises(CubeError, match=rf"{message}.*cube\.rename"):
            as_cube(named.rename(first="red", second=name))


@pytest.mark.parametrize("name", ["variable", "index", "quality", "class", "lat", "crs", "probability"])
def test_other_names_are_kept(name: str, write_tif: Callable[..., Path]) -> None:
    cube = open_source(write_tif("s.tif", np.ones((3, 8, 8), np.uint8), descriptions=("red ", name, "")))
    assert layer_names(as_cube(cube)) == ("red", name, "band_3")


@pytest.mark.parametrize("name", ["", "  ", 7, None, ("a", "b")])
def test_names_that_are_none_are_refused(name: object, random_cube: Make) -> None:
    with pytest.raises(CubeError, match=r"A layer needs a name of text|called by their number.*cube\.rename"):
        as_cube(random_cube().rename(red=name))


def test_one_pixel_has_a_geobox(random_cube: Make) -> None:
    cube = random_cube().isel(y=slice(5, 6), x=slice(7, 8))
    validate_cube(cube)
    assert geobox_of(cube).affine.c == 711576.0 + 7 * 3


@pytest.mark.parametrize(
    "kind", ["internal mask uint16", "internal mask float32", "external mask", "rgba", "nodata of all bands together"]
)
def test_a_mask_that_rioxarray_left_out_is_refused(kind: str, tmp_path: Path) -> None:
    path = MASKS[kind](tmp_path / "a.tif")
    for options in ({}, {"chunks": 32}, {"band_as_variable": True}):
        with pytest.raises(CubeError, match=r"a.tif says by a mask .*rioxarray.open_rasterio\(.*a.tif', masked=True\)"):
            as_cube(rioxarray.open_rasterio(path, **options))
    with rasterio.open(path) as file:
        names = file.descriptions if all(file.descriptions) else tuple("abcd"[: file.count])
        colours, valid = [one.name for one in file.colorinterp], file.read_masks(1) > 0
    cube = as_cube(rioxarray.open_rasterio(path, masked=True), layers=names)
    first = cube[names[colours.index(next(one for one in colours if one != "alpha"))]]
    np.testing.assert_array_equal(np.isfinite(first), valid)


def test_nodata_that_differs_between_bands_is_refused_where_rioxarray_keeps_one(tmp_path: Path) -> None:
    tif = MASKS["nodata 0"](tmp_path / "a.tif")
    rasterio.shutil.copy(tif, tmp_path / "a.vrt", driver="VRT")
    text = (tmp_path / "a.vrt").read_text()
    (tmp_path / "a.vrt").write_text(text.replace("<NoDataValue>0<", "<NoDataValue>7<", 1))
    with pytest.raises(CubeError, match=r"nodata values \[7.0, 0.0, 0.0\] of its bands.*masked=True"):
        as_cube(rioxarray.open_rasterio(tmp_path / "a.vrt"), layers=["a", "b", "c"])
    cube = as_cube(rioxarray.open_rasterio(tmp_path / "a.vrt", band_as_variable=True))
    assert [packing(cube[name])["nodata"] for name in cube.data_vars] == [7, 0, 0]


def test_nodatavals_of_a_layer_are_its_own(random_cube: Make) -> None:
    cube = random_cube()[["red", "binary"]].drop_attrs(deep=True).assign_attrs(random_cube().attrs)
    for name in ("red", "binary"):
        cube[name].attrs["nodatavals"] = (7.0, 255.0)
    cube = as_cube(cube)
    assert [packing(cube[name])["nodata"] for name in ("red", "binary")] == [7, 255]


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "words", "is_told"),
    [
        ("uint16", {}, False),
        ("uint16", {"_FillValue": 0}, True),
        ("uint8", {"missing_value": 0}, None),  # in format 3 it is the fill value too
        ("uint8", {"_FillValue": 255}, None),  # in format 2 it is the fill value too
        ("bool", {}, False),
        ("float32", {}, True),
        ("float64", {"_FillValue": -9999.0}, True),
    ],
)
def test_a_chunk_that_is_not_there_is_missing_ground_or_refused(
    tmp_path: Path, zarr_format: int, dtype: str, words: dict[str, float], is_told: bool | None
) -> None:
    if is_told is None:
        is_told = zarr_format == (3 if "missing_value" in words else 2)
    path = tmp_path / "a.zarr"
    pixels = np.random.default_rng(0).integers(1, 200, (64, 64)).astype(dtype)
    cube = xr.Dataset({"red": (("y", "x"), pixels)}, coords={"y": 640 - np.arange(64.0), "x": np.arange(64.0)})
    cube = cube.rio.write_crs(3413)
    cube["red"].attrs = {key: value for key, value in words.items() if key != "_FillValue"}
    fill = {key: value for key, value in words.items() if key == "_FillValue"}
    cube.to_zarr(path, zarr_format=zarr_format, encoding={"red": {"chunks": (16, 32), **fill}}, consolidated=False)
    (path / ("red/1.1" if zarr_format == 2 else "red/c/1/1")).unlink()
    hole = np.zeros((64, 64), bool)
    hole[16:32, 32:] = True

    def stored(opened: xr.Dataset) -> xr.DataArray:
        return opened["red"].compute(scheduler="synchronous")

    def warped(_: str) -> xr.DataArray:
        (image,) = StoreImages(path=str(path)).find(box(-180, -90, 180, 90), None, [BandRequest(name="red")])
        pixels = open_reader(image.bands["red"]).read(slice(16, 32), slice(30, 40))
        return xr.DataArray(pixels[0])

    doors: dict[str, Callable[[str], xr.DataArray]] = {
        "open_cube": lambda path: stored(open_source(path)),
        "xarray": lambda path: stored(as_cube(xr.open_zarr(path, consolidated=False))),
        "xarray as stored": lambda path: stored(
            as_cube(xr.open_zarr(path, consolidated=False, decode_coords="all", mask_and_scale=False))
        ),
        "recipe": warped,
    }
    for name, door in doors.items():
        if is_told:
            layer = door(str(path))
            if name != "recipe":
                valid = is_representable(layer.values, packing(layer)["nodata"])
                np.testing.assert_array_equal(valid, ~hole, err_msg=name)
        else:
            with pytest.raises(CubeError, match=r"a.zarr has no chunk red/.*1.1. If it was copied.*_FillValue"):
                door(str(path))
    part = as_cube(xr.open_zarr(path, consolidated=False).isel(y=slice(32, None)))
    assert part["red"].shape == (32, 64), "without the chunk"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("names", [("y", "x"), ("lat", "lon"), ("northing", "easting")])
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_chunk_is_missed_whatever_axes_are_called_and_however_they_lie(
    tmp_path: Path, zarr_format: int, names: tuple[str, str], is_turned: bool
) -> None:
    path = tmp_path / "a.zarr"
    cube = xr.Dataset(
        {"red": (("y", "x"), np.ones((16, 32), np.uint16))}, coords={"y": 160 - np.arange(16.0), "x": np.arange(32.0)}
    )
    cube = cube.rio.write_crs(3413).rename(dict(zip(("y", "x"), names, strict=True))).drop_encoding()
    cube = cube.transpose(*names[::-1]) if is_turned else cube
    shape = (16, 8) if is_turned else (8, 16)
    cube.to_zarr(path, zarr_format=zarr_format, encoding={"red": {"chunks": shape}}, consolidated=False)

    def opened() -> tuple[xr.Dataset, ...]:
        return open_source(path), as_cube(xr.open_zarr(path, consolidated=False, decode_coords="all"))

    for one in opened():
        assert (one["red"].compute() == 1).all()
    (path / ("red/1.1" if zarr_format == 2 else "red/c/1/1")).unlink()
    with pytest.raises(CubeError, match="has no chunk red"):
        open_source(path).compute()
    with pytest.raises(CubeError, match="has no chunk red"):
        opened()[1]


def test_looking_for_missing_chunks_reads_no_coordinate_of_every_pixel(tmp_path: Path) -> None:
    pixels = np.ones((16, 16), np.uint16)
    axes = {"y": 16 - np.arange(16.0), "x": np.arange(16.0), "lat": (("y", "x"), pixels * 70.0)}
    cube = xr.Dataset({"red": (("y", "x"), pixels)}, coords=axes).rio.write_crs(3413)
    cube.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False)
    (tmp_path / "a.zarr/lat/0.0").write_bytes(b"damaged")
    as_cube(xr.open_zarr(tmp_path / "a.zarr", consolidated=False, decode_coords="all"))
    (tmp_path / "a.zarr/red/.zattrs").unlink()  # where dimensions are named elsewhere, as NCZarr does
    known = {"y": cube["y"].values, "x": cube["x"].values}
    refuse_absent_chunks(str(tmp_path / "a.zarr"), {"red": ()}, **known, axis_names=[("y", "x")])


def test_cures_of_a_missing_chunk_work_when_typed(tmp_path: Path) -> None:
    cube = xr.Dataset(
        {"red": (("y", "x"), np.zeros((32, 32), np.uint8))}, coords={"y": 32 - np.arange(32.0), "x": np.arange(32.0)}
    ).rio.write_crs(3413)
    cube.to_zarr(tmp_path / "a.zarr", consolidated=False)
    with pytest.raises(CubeError, match="has no chunk"):
        open_source(tmp_path / "a.zarr").compute()
    ds = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    ds.to_zarr(tmp_path / "b.zarr", write_empty_chunks=True, consolidated=False)
    assert not open_source(tmp_path / "b.zarr")["red"].any()
    ds["red"].attrs["_FillValue"] = 0
    assert packing(as_cube(ds)["red"])["nodata"] == 0
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    group["red"].attrs["_FillValue"] = 0
    assert packing(open_source(tmp_path / "a.zarr").compute()["red"])["nodata"] == 0


def test_stores_of_our_own_have_every_chunk_of_layers_without_nodata(tmp_path: Path) -> None:
    cube = xr.Dataset(
        {"red": (("y", "x"), np.zeros((64, 64), np.uint8)), "dem": (("y", "x"), np.full((64, 64), np.nan, "f4"))},
        coords={"y": 64 - np.arange(64.0), "x": np.arange(64.0)},
    ).rio.write_crs(3413)
    write_cube(cube.chunk(32), tmp_path / "a.zarr", chunks=16)
    assert not open_source(tmp_path / "a.zarr").compute()["red"].any()
    assert len(list((tmp_path / "a.zarr/red/c").rglob("*/*"))) == 4
    assert not (tmp_path / "a.zarr/dem/c").exists(), "nothing is stored of what is missing"


def test_attributes_become_what_a_store_takes(random_cube: Make, tmp_path: Path) -> None:
    when = np.datetime64("2024-07-01")
    odd = {
        "numbers": [np.int64(3)],
        "inner": {"a": np.float32(1)},
        "when": when,
        "crs": CRS("EPSG:32608"),
        "plain": ("a", 1),
    }
    cube = random_cube()
    cube = cube.assign_attrs(odd).assign(red=cube["red"].assign_attrs(odd))
    expected = {"numbers": [3], "inner": {"a": 1.0}, "when": "2024-07-01", "crs": "EPSG:32608"}
    write_cube(cube, tmp_path / "cube.zarr")
    for attrs in (
        as_cube(cube).attrs,
        as_cube(cube)["red"].attrs,
        dict(zarr.open_group(tmp_path / "cube.zarr")["red"].attrs),
    ):
        assert {key: attrs[key] for key in expected} == expected
    assert cube["red"].attrs["when"] is when


def test_an_encoding_of_the_dtype_before_it_was_converted(random_cube: Make) -> None:
    cube = random_cube()
    cube["red"].attrs.pop("_FillValue", None)
    cube["red"].encoding = {"dtype": "int16", "_FillValue": -1}
    assert as_cube(cube)["red"].attrs["_FillValue"] == 65535


def test_bands_without_a_coordinate_are_named_by_the_caller(random_cube: Make) -> None:
    one = random_cube()[["red"]]
    stack = one["red"].expand_dims(band=2).drop_vars("red", errors="ignore").rename("image").to_dataset()
    cube = as_cube(stack.assign(valid=one["red"] > 0), layers=["red", "nir"])
    assert list(cube.data_vars) == ["valid", "red", "nir"]
    np.testing.assert_array_equal(cube["nir"].values, one["red"].values)


def test_values_of_bands_follow_their_names_when_bands_were_selected(tmp_path: Path) -> None:
    array = xr.DataArray(np.ones((3, 4, 4), np.uint16), dims=("band", "y", "x"))
    array.attrs = {"long_name": ("red", "green", "blue"), "scales": (1.0, 2.0, 3.0), "nodatavals": (7, 8, 9)}
    turned = array.isel(band=[2, 0]).assign_coords(band=["blue", "red"])
    cube = as_cube(turned)
    assert {name: (cube[name].attrs.get("scale_factor", 1), cube[name].attrs["_FillValue"]) for name in cube} == {
        "blue": (3.0, 9),
        "red": (1.0, 7),
    }


def test_layers_of_the_same_names_are_taken_by_name(random_cube: Make, write_tif: Callable[..., Path]) -> None:
    one = random_cube()["red"]
    cube = xr.Dataset({"Blue": one, "green": one + 1, "Red": one + 2}).drop_attrs(deep=False)
    array = cube.to_dataarray("band").assign_attrs(nodata=0)
    path = write_tif("scene.tif", array.values)
    with rasterio.open(path, "r+") as file:
        file.descriptions = tuple(cube.data_vars)
    asked = ["red", "green", "blue"]
    for found in (as_cube(cube, layers=asked), as_cube(array, layers=asked), open_source(path, layers=asked)):
        for name, number in (("blue", 0), ("green", 1), ("red", 2)):
            np.testing.assert_array_equal(found[name].values, array.values[number])
    assert list(as_cube(cube, layers=["swir", "nir", "pan"]).data_vars) == ["swir", "nir", "pan"]
