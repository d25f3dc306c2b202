"""Files and stores as images."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from rtsx.cube import CubeRecipe, LayerRecipe, SourceRecipe, open_source
from rtsx.cube.file_images import FileImages, StoreImages
from rtsx.cube.georeference import with_georeference
from rtsx.cube.images import BandRequest, Period
from rtsx.cube.pinning import image_stamp
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.resample.warp import warp
from rtsx.cube.write import write_cube
from rtsx.errors import CubeError
from rtsx.grid import Grid
from tests.ordering.file_server import FileServer

EVERYWHERE = shapely.box(-180, 40, 180, 90)


def write(
    path: Path, *, bands: int, left: float = 500_000, names: tuple[str, ...] = (), nodata: float | None = 0
) -> None:
    profile = {"driver": "GTiff", "count": bands, "height": 20, "width": 30, "dtype": "uint16", "nodata": nodata}
    with rasterio.open(path, "w", **profile, crs="EPSG:32608", transform=Affine(3, 0, left, 0, -3, 7_500_000)) as file:
        file.write(np.ones((bands, 20, 30), np.uint16))
        if names:
            file.descriptions = names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for day, left in (("20240721_200707", 500_000), ("20230630_195501", 500_030), ("20240102_100000", 900_000)):
        write(tmp_path / f"{day}_1a_SR.tif", bands=4, left=left, names=("blue", "green", "red", "nir"))
        write(tmp_path / f"{day}_1a_udm2.tif", bands=8, left=left, nodata=None)
    return tmp_path


def test_files_of_one_name_belong_together_and_are_dated_by_it(folder: Path) -> None:
    source = FileImages(assets={"image": (f"{folder}/*_SR.tif",), "udm2": (f"{folder}/*_udm2.tif",)})
    wanted = [
        BandRequest(name="red"),
        BandRequest(name="udm2", asset="udm2"),
        BandRequest(name="fourth", asset="image", bands=(4,)),
    ]
    images = source.find(EVERYWHERE, Period(date(2023, 1, 1), date(2024, 12, 31), months=(6, 7)), wanted)
    assert [image.id for image in images] == ["20230630_195501_1a_SR", "20240721_200707_1a_SR"]
    assert images[1].time == datetime(2024, 7, 21, 20, 7, 7, tzinfo=UTC)
    bands = images[1].bands
    assert (bands["red"].bands, bands["red"].dtype, bands["red"].nodata) == ((3,), "uint16", 0)
    assert (bands["udm2"].bands, bands["udm2"].nodata) == (tuple(range(1, 9)), None)
    assert bands["udm2"].href.endswith("20240721_200707_1a_udm2.tif")
    assert bands["fourth"].bands == (4,)


def test_images_that_do_not_meet_the_area_are_left_out(folder: Path) -> None:
    source = FileImages(assets={"image": (f"{folder}/*_SR.tif",)})
    everything = source.find(EVERYWHERE, None, [BandRequest(name="red")])
    assert len(everything) == 3
    east = everything[1].footprint
    assert east is not None
    found = source.find(everything[0].footprint, None, [BandRequest(name="red")])
    assert [image.id for image in found] == ["20230630_195501_1a_SR", "20240721_200707_1a_SR"]


@pytest.mark.parametrize(
    ("assets", "wanted", "message"),
    [
        (
            {"image": ("{}/*_SR.tif",), "udm2": ("{}/2023*_udm2.tif",)},
            "red",
            r"equally many; got \{'image': 3, 'udm2': 1\}",
        ),
        ({"image": ("{}/*.jp2",)}, "red", r"No file matches '.*jp2'"),
        ({"image": ("{}/*_SR.tif",)}, "swir", r"no band called 'swir': its 4 bands are described as \['blue'"),
        ({"image": ("{}/missing.tif",)}, "red", r"missing\.tif cannot be opened as a raster.*There is no such file"),
    ],
)
def test_what_is_missing_is_named(folder: Path, assets: dict[str, tuple[str, ...]], wanted: str, message: str) -> None:
    given = {name: tuple(path.format(folder) for path in paths) for name, paths in assets.items()}
    with pytest.raises(CubeError, match=message):
        FileImages(assets=given).find(EVERYWHERE, None, [BandRequest(name=wanted)])


def test_a_file_without_a_date_is_neither_in_nor_out_of_a_period(tmp_path: Path) -> None:
    write(tmp_path / "scene.tif", bands=1)
    source = FileImages(assets={"image": (str(tmp_path / "scene.tif"),)})
    assert source.find(EVERYWHERE, None, [BandRequest(name="red")])[0].time is None
    with pytest.raises(CubeError, match=r"no date such as 20240721 in its name"):
        source.find(EVERYWHERE, Period(date(2024, 1, 1), date(2024, 12, 31)), [BandRequest(name="red")])


def test_a_zarr_store_is_one_image(tmp_path: Path) -> None:
    box = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 7_500_000), "EPSG:32608")
    attrs = {"scale_factor": 0.5, "_FillValue": np.int16(-5)}
    stored = xr.Variable(("y", "x"), np.ones((64, 64), np.int16), attrs)
    write_cube(with_georeference({"dem": stored}, box, lattice_origin=(0, 0)), str(tmp_path / "dem.zarr"))
    source = StoreImages(path=str(tmp_path / "dem.zarr"))
    (image,) = source.find(EVERYWHERE, None, [BandRequest(name="heights", bands=("dem",))])
    bands = image.bands["heights"]
    assert (bands.opener, bands.bands, bands.dtype, bands.nodata, bands.scale_factor) == (
        "zarr",
        ("dem",),
        "int16",
        -5,
        0.5,
    )
    assert bands.geobox == box
    assert bands.settled == frozenset()
    (image,) = source.find(EVERYWHERE, None, [BandRequest(name="dem", scale_factor=0.3048)])
    assert (image.bands["dem"].scale_factor, image.bands["dem"].settled) == (0.3048, {"scale_factor"})
    assert source.find(shapely.box(0, 0, 1, 1), None, [BandRequest(name="dem")]) == ()


def test_a_zarr_store_with_one_step_of_time_is_an_image_of_that_time(tmp_path: Path) -> None:
    box = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 7_500_000), "EPSG:32608")
    pixels = np.arange(64 * 64, dtype=np.float32).reshape(1, 64, 64)
    layer = xr.Variable(("time", "y", "x"), pixels, {"_FillValue": np.float32(np.nan)})
    cube = with_georeference({"red": layer}, box, lattice_origin=(0, 0))
    cube = cube.assign_coords(time=np.array(["2023-07-01T10:00"], "datetime64[ns]"))
    cube.to_zarr(tmp_path / "one.zarr", zarr_format=2)
    cube.isel(time=[0, 0]).to_zarr(tmp_path / "two.zarr", zarr_format=2)
    images, wanted = StoreImages(path=str(tmp_path / "one.zarr")), [BandRequest(name="red")]
    (image,) = images.find(EVERYWHERE, Period(date(2023, 6, 1), date(2023, 8, 31)), wanted)
    assert image.time == datetime(2023, 7, 1, 10, tzinfo=UTC)
    assert images.find(EVERYWHERE, Period(date(2024, 6, 1), date(2024, 8, 31)), wanted) == ()
    (stated,) = replace(images, time=datetime(2024, 7, 1, tzinfo=UTC)).find(EVERYWHERE, None, wanted)
    assert stated.time == datetime(2024, 7, 1, tzinfo=UTC)
    source = SourceRecipe(name="a", images=images, layers=(LayerRecipe(wanted=wanted[0], resampling="nearest"),))
    recipe = CubeRecipe(grid=Grid("EPSG:32608", 10, cell_size=64), sources=(source,))
    np.testing.assert_array_equal(open_source(recipe, box)["red"].values, pixels[0])
    with pytest.raises(CubeError, match=r"2 steps of time .*store the step that is meant by itself"):
        StoreImages(path=str(tmp_path / "two.zarr")).find(EVERYWHERE, None, wanted)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"missing_value": [-5, -6]}, r"several values of missing pixels, \[-5.0, -6.0\]"),
        ({"valid_range": [0, 9]}, "has the attribute valid_range, and"),
        ({"valid_min": 0}, "has the attribute valid_min, and"),
    ],
)
def test_a_zarr_store_with_several_missing_values_is_refused_and_its_cure_works(
    words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    box = GeoBox((64, 64), Affine(10, 0, 500_000, 0, -10, 7_500_000), "EPSG:32608")
    pixels = np.ones((64, 64), np.int16)
    pixels[0, :2] = -5, -6
    cube = with_georeference({"dem": xr.Variable(("y", "x"), pixels)}, box, lattice_origin=(0, 0))
    cube["dem"].attrs = words
    cube.to_zarr(tmp_path / "several.zarr", zarr_format=2)
    wanted = [BandRequest(name="dem")]
    with pytest.raises(CubeError, match=message):
        StoreImages(path=str(tmp_path / "several.zarr")).find(EVERYWHERE, None, wanted)
    write_cube(open_source(str(tmp_path / "several.zarr")), str(tmp_path / "one.zarr"))
    (image,) = StoreImages(path=str(tmp_path / "one.zarr")).find(EVERYWHERE, None, wanted)
    fill = image.bands["dem"].nodata
    assert fill == (-5 if "missing_value" in words else 32767 if "valid_range" in words else -32768)
    assert (xr.open_zarr(tmp_path / "one.zarr", mask_and_scale=False)["dem"].values[0, :3] == [fill, fill, 1]).all()


@pytest.mark.parametrize("query", ["?sig=SECRET&se=20190101T000000Z&a=[b]*.zarr", "?X=/20190101/SECRET.vrt#x?"])
def test_a_signed_address_is_known_by_its_name(folder: Path, query: str) -> None:
    server = FileServer(folder)
    try:
        address = f"{server.url}/20240721_200707_1a_SR.tif{query}"
        summer = Period(date(2024, 7, 1), date(2024, 7, 31))
        (image,) = FileImages(assets={"image": (address,)}).find(EVERYWHERE, summer, [BandRequest(name="red")])
        assert (image.id, image.bands["red"].href) == ("20240721_200707_1a_SR", address)
        assert list(open_source(address).data_vars) == ["blue", "green", "red", "nir"]  # no Zarr store
    finally:
        server.close()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_with_steps_of_time_is_an_image_for_each_within_the_period(zarr_format: int, tmp_path: Path) -> None:
    box = GeoBox((40, 40), Affine(10, 0, 500_000, 0, -10, 7_500_000), "EPSG:32608")
    pixels = np.random.default_rng(0).integers(1, 900, (3, 40, 40)).astype(np.uint16)
    wanted, valid = [BandRequest(name="red"), BandRequest(name="dem")], pixels % 5 > 0
    days = np.array(["2023-07-09", "2024-07-11", "2024-09-01"], "datetime64[ns]")
    layers = {
        "red": xr.Variable(("time", "y", "x"), pixels),
        "dem": xr.Variable(("y", "x"), pixels[0] + 9),
        "valid": xr.Variable(("time", "y", "x"), valid),
    }
    cube = with_georeference(layers, box, lattice_origin=(0, 0))

    def store(name: str, steps: slice, times: Any) -> StoreImages:
        one = cube.isel(time=steps).assign_coords(time=times[steps])
        one.to_zarr(tmp_path / name, zarr_format=zarr_format, consolidated=False)
        return StoreImages(path=f"{tmp_path}/{name}")

    summers = Period(date(2023, 1, 1), date(2024, 12, 31), months=(7,))
    images = store("several.zarr", slice(3), days).find(EVERYWHERE, summers, wanted)
    assert [str(image.time)[:10] for image in images] == ["2023-07-09", "2024-07-11"]
    assert len({image.id for image in images}) == len({image_stamp(image) for image in images}) == 2
    for step, image in enumerate(images):
        red, dem = (
            warp(open_reader(image.bands[name]), box, resampling="nearest", anchor=(0, 0)) for name in ("red", "dem")
        )
        np.testing.assert_array_equal(red.valid[0], valid[step])
        np.testing.assert_array_equal(red.pixels[0][valid[step]], pixels[step][valid[step]])
        np.testing.assert_array_equal(dem.pixels[0][valid[step]], (pixels[0] + 9)[valid[step]])
    for source in (StoreImages(path=f"{tmp_path}/several.zarr"), store("counted.zarr", slice(3), np.arange(3))):
        with pytest.raises(CubeError, match=r"has 3 steps of time \(.*, \.\.\.\), .*Say which count with a period"):
            source.find(EVERYWHERE, None if "several" in source.path else summers, wanted)

    with pytest.raises(CubeError, match="has 3 steps of time"):  # of its mask
        StoreImages(path=f"{tmp_path}/several.zarr").find(EVERYWHERE, None, [BandRequest(name="dem")])

    single = store("single.zarr", slice(1, 2), days)
    assert [str(image.time)[:10] for image in single.find(EVERYWHERE, None, wanted)] == ["2024-07-11"]
    assert single.find(EVERYWHERE, Period(date(2023, 1, 1), date(2023, 12, 31)), wanted) == ()
    stated = replace(single, time=datetime(2023, 8, 1, tzinfo=UTC))
    assert len(stated.find(EVERYWHERE, Period(date(2023, 1, 1), date(2023, 12, 31)), wanted)) == 1
    (image,) = store("year.zarr", slice(1), np.array([2024, 2025, 2026])).find(EVERYWHERE, summers, wanted)
    assert str(image.time)[:10] == "2024-07-01"  # a year, of which some days are in the period
    (image,) = store("first.zarr", slice(1), np.arange(3)).find(EVERYWHERE, summers, wanted)
    assert image.time is None  # 0 is no date


LYING: dict[str, tuple[Any, str]] = {
    "rising y": (lambda cube: cube.isel(y=slice(None, None, -1)), ""),
    "falling x": (lambda cube: cube.isel(x=slice(None, None, -1)), ""),
    "both": (lambda cube: cube.isel(y=slice(None, None, -1), x=slice(None, None, -1)), ""),
    "other names": (lambda cube: cube.isel(y=slice(None, None, -1)).rename(y="lat", x="lon"), ""),
    "no coordinates": (lambda cube: cube.rio.write_transform(cube.odc.geobox.affine).drop_vars(["y", "x"]), ""),
    "transposed": (lambda cube: cube.transpose("x", "y"), r"'red' is on \('x', 'y'\)"),
    "unsigned": (
        lambda cube: cube.assign(red=cube.red.astype("i2").assign_attrs(_Unsigned="true")),
        "attribute _Unsigned",
    ),
    "mask of bytes": (lambda cube: cube.assign(valid=cube.valid.astype("u1")), ""),
    "mask of floats": (lambda cube: cube.assign(valid=cube.valid.astype("f4")), "array 'valid' is float32"),
    "mask transposed": (lambda cube: cube.assign(valid=cube.valid.T), r"'valid' is on \('x', 'y'\)"),
}
"""How others store one cube, square so that turning it shows in no shape, and what the refusal says."""


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("turn", "message"), LYING.values(), ids=LYING)
def test_a_zarr_store_is_aligned_by_its_coordinates_or_refused(
    turn: Any, message: str, zarr_format: int, tmp_path: Path
) -> None:
    box = GeoBox((40, 40), Affine(10, 0, 500_000, 0, -10, 7_500_000), "EPSG:32608")
    rng = np.random.default_rng(0)
    pixels, valid = rng.integers(1, 900, (40, 40)).astype(np.uint16), rng.random((40, 40)) < 0.8
    cube = with_georeference(
        {"red": xr.Variable(("y", "x"), pixels), "valid": xr.Variable(("y", "x"), valid)}, box, lattice_origin=(0, 0)
    )
    path = str(tmp_path / "theirs.zarr")
    turn(cube).drop_encoding().to_zarr(path, zarr_format=zarr_format, consolidated=False)
    source = StoreImages(path=path)
    if message:
        with pytest.raises(CubeError, match=f"{message}.*write_cube"):
            source.find(EVERYWHERE, None, [BandRequest(name="red")])
        return
    (image,) = source.find(EVERYWHERE, None, [BandRequest(name="red")])
    warped = warp(open_reader(image.bands["red"]), box, resampling="nearest", anchor=(0, 0))
    np.testing.assert_array_equal(warped.valid[0], valid)
    np.testing.assert_array_equal(warped.pixels[0][valid], pixels[valid])


def test_numbers_of_classes_are_known_by_a_colour_table_and_by_flags(tmp_path: Path) -> None:
    write(tmp_path / "plain.tif", bands=1)
    profile = {"driver": "GTiff", "count": 1, "height": 20, "width": 30, "dtype": "uint8", "photometric": "palette"}
    place = {"crs": "EPSG:32608", "transform": Affine(3, 0, 500_000, 0, -3, 7_500_000)}
    with rasterio.open(tmp_path / "cover.tif", "w", **profile, **place) as file:
        file.write_colormap(1, {1: (0, 90, 0, 255)})
        file.write(np.ones((1, 20, 30), np.uint8))
    cover = open_source(tmp_path / "cover.tif")
    for name, flags in (("binary", [0, 1]), ("kinds", [1, 2, 3])):
        write_cube(cover.assign(cover=cover["cover"].assign_attrs(flag_values=flags)), tmp_path / f"{name}.zarr")
    found = {
        source: source.find(EVERYWHERE, None, [BandRequest(name="cover", bands=bands)])[0].bands["cover"].has_classes
        for source, bands in (
            (FileImages(assets={"image": (f"{tmp_path}/plain.tif",)}), (1,)),
            (FileImages(assets={"image": (f"{tmp_path}/cover.tif",)}), (1,)),
            (StoreImages(path=f"{tmp_path}/binary.zarr"), ()),
            (StoreImages(path=f"{tmp_path}/kinds.zarr"), ()),
        )
    }
    assert list(found.values()) == [False, True, False, True]


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("2024-07-21_red", datetime(2024, 7, 21, tzinfo=UTC)),
        ("mosaic_2010_10_10", None),
        ("scene_20981012", None),
        ("run.1900250", None),
        ("HLS.S30.T08WMB.2024183T202851.v2.0.B04", datetime(2024, 7, 1, 20, 28, 51, tzinfo=UTC)),
        ("MOD09GA.A2024183.h12", datetime(2024, 7, 1, tzinfo=UTC)),
        ("L15-2024-1012", None),
        ("tile.2024399.red", None),
    ],
)
def test_dates_in_names_of_files(name: str, time: datetime | None, tmp_path: Path) -> None:
    write(tmp_path / f"{name}.tif", bands=1)
    source = FileImages(assets={"image": (f"{tmp_path}/{name}.tif",)})
    assert [image.time for image in source.find(EVERYWHERE, None, [BandRequest(name="red", bands=(1,))])] == [time]
