"""Where a Dataset lies: what says so has to agree, and pixels are measured on the ground."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.cube import as_cube, geobox_of, open_source, validate_cube, write_cube
from rtsx.cube.georeference import ground_pixel_m, with_georeference, with_pixel_centres
from rtsx.errors import CubeError, FootprintError, GridError
from rtsx.footprints.geometry import Placement
from rtsx.grid import Grid

LOCAL = 'LOCAL_CS["Arbitrary",UNIT["metre",1]]'
TRUE = Affine(3.0, 0.0, 500000.0, 0.0, -3.0, 7700000.0)
STATES: dict[str, Callable[[xr.Dataset, Affine], xr.Dataset]] = {
    "GeoTransform": lambda cube, affine: cube.rio.write_transform(affine),
    "transform": lambda cube, affine: cube.assign_attrs(transform=affine),
    "transform of a layer": lambda cube, affine: _with_attrs(cube, "red", transform=tuple(affine)[:6]),
    "transform as text": lambda cube, affine: cube.assign_attrs(transform=repr(affine)),
}


def _with_attrs(cube: xr.Dataset, name: str, **attrs: Any) -> xr.Dataset:
    return (
        cube.assign_coords({name: cube[name].assign_attrs(attrs)})
        if name in cube.coords
        else cube.assign({name: cube[name].assign_attrs(attrs)})
    )


def make_cube(affine: Affine = TRUE, shape: tuple[int, int] = (12, 20), crs: str = "EPSG:32608") -> xr.Dataset:
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape)
    return with_georeference(
        {"red": xr.Variable(("y", "x"), pixels)}, GeoBox(shape, affine, crs), lattice_origin=(affine.c, affine.f)
    )


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("shift", [(0.5, 0.5), (-0.5, -0.5), (0.25, 0.0), (0.0, -0.3)])
def test_coordinates_beside_a_stated_transform_are_refused_in_pixels(
    state: Callable[[xr.Dataset, Affine], xr.Dataset], shift: tuple[float, float]
) -> None:
    bare = make_cube().drop_vars("spatial_ref").rio.write_crs("EPSG:32608")
    cube = state(bare, TRUE * Affine.translation(*shift))
    with pytest.raises(
        CubeError, match=r"contradict each other.*pixels \(x, y\) beside.*del cube.*assign_coords"
    ) as refused:
        validate_cube(cube)
    told = str(refused.value)
    # Both cures are typed as they stand.
    removed = cube.copy()
    exec(told.split("`")[1], {"cube": removed})
    assert geobox_of(removed).affine == TRUE
    moved: dict[str, Any] = {"cube": cube}
    exec(told.split("`")[3], moved)
    beside = ~(TRUE * Affine.translation(*shift)) * geobox_of(moved["cube"]).affine
    assert (beside.c, beside.f) == pytest.approx((round(beside.c), round(beside.f)), abs=1e-6)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize(
    "part",
    [
        lambda cube: cube,
        lambda cube: cube.isel(y=slice(3, 9), x=slice(5, None)),
        lambda cube: cube.isel(y=slice(0, None, 2), x=slice(1, None, 2)),
        lambda cube: cube.isel(x=slice(None, None, 3)),
        lambda cube: cube.coarsen(y=2, x=4).mean(),
        lambda cube: cube.isel(y=slice(4, 5), x=slice(4, 5)),
        lambda cube: cube.astype("float32") * 2,
    ],
    ids=["whole", "part", "every second", "one axis thinned", "coarser", "one pixel", "arithmetic"],
)
def test_parts_of_a_raster_agree_with_the_transform_of_the_whole(
    state: Callable[[xr.Dataset, Affine], xr.Dataset], part: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    cube = part(state(make_cube(), TRUE))
    validate_cube(cube)
    centre = geobox_of(cube).affine * (0.5, 0.5)
    assert centre == pytest.approx((float(cube.x[0]), float(cube.y[0])))


def test_a_grid_mapping_that_cannot_be_read_is_refused() -> None:
    cube = _with_attrs(make_cube(), "spatial_ref", GeoTransform=[500000.0, 3.0, 0.0, 7700000.0, 0.0, -3.0])
    with pytest.raises(CubeError, match=r"cannot be read: .*drop_vars"):
        validate_cube(cube)
    validate_cube(cube.drop_vars("spatial_ref").rio.write_crs("EPSG:32608"))


def test_coordinates_that_one_transform_supports_are_not_to_be_moved() -> None:
    cube = make_cube().assign_attrs(transform=TRUE * Affine.translation(0.5, 0.5))
    with pytest.raises(CubeError, match=r"`del cube.attrs\['transform'\]`\.$"):
        validate_cube(cube)


def test_pixels_of_another_size_than_stated_are_refused() -> None:
    for size in (2.0, 4.0, 3.1):
        with pytest.raises(CubeError, match=rf"step by 3, and the transform has pixels of {size:g}.*`del cube"):
            validate_cube(make_cube().assign_attrs(transform=Affine(size, 0, 500000, 0, -size, 7700000)))
    with pytest.raises(CubeError, match="is rotated"):
        validate_cube(make_cube().assign_attrs(transform=Affine(3, 1, 500000, 1, -3, 7700000)))


def test_what_states_no_transform_is_passed_over() -> None:
    for value in ("log", "log10 of 3", Affine.identity(), [1, 2], None, np.nan, {"a": 1}):
        validate_cube(make_cube().assign_attrs(transform=value))


def test_corners_that_stackstac_gives_as_coordinates_are_put_right(tmp_path: Path) -> None:
    right = make_cube()
    attrs = {"transform": TRUE, "resolution": 3.0}
    corners = right.assign_coords(x=right.x - 1.5, y=right.y + 1.5).assign_attrs(attrs)
    assert geobox_of(corners).affine == TRUE
    xr.testing.assert_equal(with_pixel_centres(corners), right)
    assert with_pixel_centres(right) is right
    write_cube(corners.drop_attrs(deep=False).assign_attrs(attrs | {"transform": list(TRUE)[:6]}), tmp_path / "a.zarr")
    xr.testing.assert_equal(open_source(tmp_path / "a.zarr").compute(), right)


def test_a_crs_without_a_place_on_earth_is_refused_at_every_door(write_tif: Any) -> None:
    path = write_tif("local.tif", np.ones((1, 64, 64), np.uint8), crs=LOCAL)
    with pytest.raises(CubeError, match=r"local.tif has the CRS 'Arbitrary'.*'Engineering CRS'.*gdalwarp.*gdal_edit"):
        open_source(path)
    for crs in (LOCAL, "EPSG:4978", "EPSG:5773"):
        cube = make_cube().drop_vars("spatial_ref").rio.write_crs(crs)
        with pytest.raises(CubeError, match=r"This cube has the CRS .*cube.rio.write_crs"):
            validate_cube(cube)
        with pytest.raises(GridError, match="projected or geographic"):
            Grid(crs, 3.0)


@pytest.mark.parametrize(
    ("crs", "affine", "expected"),
    [
        ("EPSG:3857", Affine(3, 0, -15028131, 0, -3, 10857000), (1.06, 1.06)),
        ("EPSG:3857", Affine(12, 0, -15028131, 0, -3, 10857000), (1.06, 4.24)),
        ("EPSG:3395", Affine(8.5, 0, -15028131, 0, -8.5, 10857000), (3.02, 3.02)),
        ("EPSG:4326", Affine(1e-3, 0, -135, 0, -1e-3, 70), (111.6, 38.2)),
        ("EPSG:4326", Affine(1e-3, 0, 225, 0, -1e-3, 70), (111.6, 38.2)),
        ("EPSG:3413", Affine(3, 0, 0, 0, -3, -2_200_000), (3.0, 3.0)),
        ("EPSG:3413", Affine(3, 0, -3, 0, -3, 3), (3.09, 3.09)),
        ("EPSG:2225", Affine(10, 0, 6_000_000, 0, -10, 2_200_000), (3.05, 3.05)),
        ("EPSG:32608", Affine(3, 0, 1e13, 0, -3, 1e13), (3.0, 3.0)),
    ],
)
def test_pixels_are_measured_on_the_ground(crs: str, affine: Affine, expected: tuple[float, float]) -> None:
    assert ground_pixel_m(GeoBox((4, 4), affine, crs)) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("crs", "affine", "told"),
    [
        ("EPSG:32608", Affine(3, 0, 1e13, 0, -3, 1e13), "nowhere on Earth"),
        ("EPSG:3413", Affine(3000, 0, 5e8, 0, -3000, -2e9), "nowhere on Earth"),  # mm
        ("EPSG:32608", Affine(3e-5, 0, -135.2, 0, -3e-5, 69.2), "degrees by their size"),
        ("EPSG:2225", Affine(1e-4, 0, -121, 0, -1e-4, 38), "degrees by their size"),  # US feet
        ("EPSG:4326", Affine(3, 0, 500_000, 0, -3, 7_700_000), "metres, write the CRS that they are of"),
    ],
)
def test_coordinates_that_cannot_be_of_the_crs_are_refused_at_every_door(
    write_tif: Any, crs: str, affine: Affine, told: str
) -> None:
    path = write_tif("a.tif", np.ones((1, 64, 64), np.uint8), crs=crs, transform=affine)
    with pytest.raises(CubeError, match=rf"a.tif has the CRS {crs}, .*{told}.*gdal_edit.py -a_srs"):
        open_source(path)
    cube = make_cube(affine, (64, 64), crs)
    with pytest.raises(CubeError, match=rf"This cube has the CRS {crs}, .*{told}.*cube.rio.write_crs"):
        validate_cube(cube)
    with pytest.raises(FootprintError, match=rf"{told}.*pred.rio.write_crs"):
        Placement.of(cube)


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(360 / 64, 0, -182.8125, 0, -180 / 63, 91.5)),  # centres on the poles
        ("EPSG:4326", Affine(0.01, 0, 540 - 0.64, 0, -0.01, 69)),
        ("EPSG:3413", Affine(3, 0, 0, 0, -3, 192)),  # at the pole
        ("EPSG:3413", Affine(1e6, 0, -3.2e7, 0, -1e6, 3.2e7)),
        ("EPSG:32608", Affine(0.05, 0, 12, 0, -0.05, 80)),
    ],
)
def test_all_of_the_earth_is_taken(crs: str, affine: Affine) -> None:
    validate_cube(make_cube(affine, (64, 64), crs))


WKT = {code: CRS(f"EPSG:{code}").to_wkt() for code in (32608, 32609, "32608+5773")}
CRS_PLACES: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "crs_wkt": lambda bare: bare.assign_coords(spatial_ref=((), 0, {"crs_wkt": WKT[32608]})),
    "GDAL's spatial_ref": lambda bare: bare.assign_coords(spatial_ref=((), 0, {"spatial_ref": WKT[32608]})),
    "words of CF": lambda bare: bare.assign_coords(
        spatial_ref=((), 0, {**_cf_words(), "GeoTransform": "500000 3 0 7700000 0 -3"})
    ),
    "another name": lambda bare: bare.assign_coords(crs=((), 0, {"crs_wkt": WKT[32608]})),
    "a variable": lambda bare: bare.assign(spatial_ref=((), 0, {"crs_wkt": WKT[32608]})),
    "with heights": lambda bare: bare.assign_coords(spatial_ref=((), 0, {"crs_wkt": WKT["32608+5773"]})),
    "the one that layers name": lambda bare: _mapped(
        bare.assign_coords(crs=((), 0, {"crs_wkt": WKT[32609]}), spatial_ref=((), 0, {"crs_wkt": WKT[32608]}))
    ),
    "the one that layers name, of another name": lambda bare: _mapped(
        bare.assign_coords(crs=((), 0, {"crs_wkt": WKT[32608]}), spatial_ref=((), 0, {"crs_wkt": WKT[32609]})), "crs"
    ),
    "attribute crs": lambda bare: bare.assign_attrs(crs="EPSG:32608"),
    "attribute of a layer": lambda bare: _with_attrs(bare, "red", crs="EPSG:32608"),
    "GDAL of Zarr": lambda bare: _with_attrs(
        bare, "red", _CRS={"wkt": WKT[32608], "url": "http://www.opengis.net/def/crs/EPSG/0/32608"}
    ),
    "proj:code": lambda bare: bare.assign_attrs({"proj:code": "EPSG:32608"}),
    "attribute epsg": lambda bare: bare.assign_attrs(epsg=32608),
    "stackstac's epsg": lambda bare: bare.assign_coords(epsg=32608),
    "stackstac's epsg, of items in another CRS": lambda bare: bare.assign_coords({"epsg": 32608, "proj:epsg": 32609}),
    "in two ways": lambda bare: bare.assign_attrs(crs="+proj=utm +zone=8 +datum=WGS84 +units=m", epsg=32608),
}


def _cf_words() -> dict[str, Any]:
    return {key: value for key, value in CRS("EPSG:32608").to_cf().items() if key != "crs_wkt"}


def _mapped(cube: xr.Dataset, name: str = "spatial_ref") -> xr.Dataset:
    cube["red"].encoding["grid_mapping"] = name
    return cube


def _bare() -> xr.Dataset:
    return make_cube().drop_vars("spatial_ref").drop_attrs().drop_encoding()


@pytest.mark.parametrize("place", CRS_PLACES.values(), ids=CRS_PLACES)
def test_a_crs_is_found_wherever_others_state_it(place: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    given = place(_bare())
    before = given.copy(deep=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cube = as_cube(given)
    xr.testing.assert_identical(given, before)
    assert geobox_of(cube) == GeoBox((12, 20), TRUE, "EPSG:32608")
    assert [name for name in cube.variables if not cube[name].dims and "crs_wkt" in cube[name].attrs] == ["spatial_ref"]
    for zarr_format in (2, 3):
        path = tmp_path / f"{zarr_format}.zarr"
        given.to_zarr(path, zarr_format=zarr_format, consolidated=False)
        opened = open_source(path)
        assert geobox_of(opened) == geobox_of(cube)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = xr.open_zarr(path, consolidated=False, decode_coords="all")
        assert geobox_of(as_cube(again)) == geobox_of(cube)
    write_cube(cube, tmp_path / "a.zarr")
    assert geobox_of(open_source(tmp_path / "a.zarr")) == geobox_of(cube)


def test_several_crs_are_refused_unless_layers_name_one() -> None:
    both = {name: ((), 0, {"crs_wkt": WKT[code]}) for name, code in (("crs", 32609), ("spatial_ref", 32608))}
    with pytest.raises(
        CubeError, match=r"do not agree: 'crs' EPSG:32609, 'spatial_ref' EPSG:32608. .*drop_vars\('crs'\)"
    ):
        as_cube(_bare().assign_coords(both))
    as_cube(_bare().assign_coords(both).drop_vars("crs"))
    with pytest.raises(CubeError, match="several CRS: EPSG:32608, EPSG:32609"):
        as_cube(_with_attrs(_bare(), "red", crs="EPSG:32609").assign_attrs(crs="EPSG:32608"))
    with pytest.raises(CubeError, match=r"CRS in 'crs' cannot be read.*drop_vars\('crs'\)"):
        as_cube(_bare().assign_coords(crs=((), 0, {"crs_wkt": "PROJCRS[none]"})))


def test_a_dataset_without_coordinates_lies_where_its_transform_says() -> None:
    for key, value in (("spatial:transform", list(TRUE)[:6]), ("transform", TRUE)):
        bare = make_cube().drop_vars(["y", "x"]).assign_attrs({key: value})
        assert geobox_of(as_cube(bare)) == geobox_of(make_cube())
    bare = make_cube().rio.write_transform(TRUE).drop_vars(["y", "x"])
    assert geobox_of(as_cube(bare)) == geobox_of(make_cube())
    bare["spatial_ref"].attrs.pop("GeoTransform")
    with pytest.raises(CubeError, match=r"'y' is missing, and no attribute GeoTransform"):
        validate_cube(bare)


@pytest.mark.parametrize("part", [slice(None), slice(3, None), slice(2, 9)])
def test_coordinates_that_float32_rounds_are_those_of_the_transform(part: slice) -> None:
    affine = TRUE * Affine.translation(0.09, 0.1)
    cube = make_cube(affine).rio.write_transform(affine).isel(y=part)
    rounded = cube.assign_coords({name: cube[name].astype("f4") for name in ("y", "x")})
    assert not np.array_equal(rounded.y, cube.y)
    assert geobox_of(as_cube(rounded)) == geobox_of(cube)
    shifted = rounded.assign_coords(y=rounded.y + np.float32(1.5))
    with pytest.raises(CubeError, match=r"contradict each other|step by one pixel"):
        validate_cube(shifted)


@pytest.mark.parametrize("crs", ["EPSG:3413", "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +datum=WGS84 +units=km"])
def test_coordinates_in_kilometres_are_brought_to_the_unit_of_the_crs(crs: str, tmp_path: Path) -> None:
    axes = {"y": -1000 - 0.01 * np.arange(20), "x": -2000 + 0.01 * np.arange(30)}
    coords = {name: (name, axis, {"units": "km", "axis": name.upper()}) for name, axis in axes.items()}
    cube = xr.Dataset({"red": (("y", "x"), np.ones((20, 30), np.uint16))}, coords=coords).rio.write_crs(crs)
    size = 0.01 if "km" in crs else 10.0
    cube.to_zarr(tmp_path / "far.zarr", consolidated=False)
    for one in (as_cube(cube), open_source(tmp_path / "far.zarr")):
        np.testing.assert_allclose(one.odc.geobox.affine[:6], (size, 0, -200_000.5 * size, 0, -size, -99_999.5 * size))
    assert cube["x"].attrs["units"] == "km"
