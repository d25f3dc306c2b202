"""What is a cube and what is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from rtsx.cube import Layer, as_cube, geobox_of, lattice_origin, layer_names, open_source, validate_cube
from rtsx.errors import CubeError

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
    (lambda cube: cube.isel(x=[0, 1, 2, 9]), "'x' has to step by one pixel"),
    (lambda cube: cube.drop_vars(["probability", "binary", "dem", "red"]), "at least one layer"),
    (lambda cube: cube.expand_dims(band=2), r"has to be on \(y, x\) or \(time, y, x\).*to_dataset"),
    (lambda cube: cube.transpose("x", "y"), "or transpose"),
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
    (lambda cube: cube.assign(valid=cube["valid"].astype(np.uint8)), "`valid` has to be boolean"),
    (lambda cube: cube.assign_attrs(lattice_origin=[1.0]), "two numbers"),
    (lambda cube: cube.assign_attrs(lattice_origin=[1.0, np.nan]), "two numbers"),
    (lambda cube: cube.assign(red=cube["red"].assign_attrs(scale_factor=0)), "other than 0; got 0"),
    (lambda cube: cube.assign(red=cube["red"].assign_attrs(scale_factor="tiny")), "that are no numbers.*tiny"),
]


@pytest.mark.parametrize(("damage", "message"), BREAKS)
def test_what_is_no_cube_is_told(random_cube: Make, damage: Callable[[xr.Dataset], object], message: str) -> None:
    with pytest.raises(CubeError, match=message):
        validate_cube(damage(random_cube()))  # type: ignore[arg-type]


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
