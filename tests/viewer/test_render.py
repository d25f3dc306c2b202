"""Pictures of windows: which chunks are read, at which level, in which colours."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx.cube import rasterio as rasterio_files
from rtsx.cube.write import halved_geobox, multiscale_attrs, spatial_attrs
from rtsx.errors import CubeError
from rtsx.viewer import Pyramid, Style, draw_window, styles_of
from rtsx.viewer.pyramid import Level
from tests.cube.buildable import make_mixed, make_scenes
from tests.cube.scenes import Ground
from tests.viewer.maps import small_image

SIDE = 1 << 20
"""Pixels of the whole Arctic at 3 m."""


def cube(values: dict[str, np.ndarray], *, crs: str = "EPSG:3413", pixel: float = 3.0) -> xr.Dataset:
    rows, columns = next(iter(values.values())).shape
    coords = xr_coords(GeoBox((rows, columns), Affine(pixel, 0, 0, 0, -pixel, rows * pixel), crs))
    return xr.Dataset({name: (("y", "x"), array) for name, array in values.items()}, coords=coords)


@pytest.fixture(scope="module")
def arctic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole-Arctic store of 10^12 px with its overviews, of which one square of each level is written."""
    path = tmp_path_factory.mktemp("arctic") / "map.zarr"
    half = 1.5 * SIDE
    levels = [(".", GeoBox((SIDE, SIDE), Affine(3, 0, -half, 0, -3, half), "EPSG:3413"))]
    while max(levels[-1][1].shape) > 1024:
        levels.append((f"{2 ** len(levels)}x", halved_geobox(levels[-1][1])))
    root = zarr.open_group(path, mode="w")
    root.attrs.update(multiscale_attrs(levels))
    packing = {"_FillValue": 255, "scale_factor": 0.01, "grid_mapping": "spatial_ref"}
    for name, geobox in levels:
        group = root if name == "." else root.create_group(name)
        group.attrs.update(spatial_attrs(geobox))
        side = geobox.shape[0]
        array = group.create_array(
            "probability", shape=geobox.shape, dtype="uint8", chunks=(512, 512), fill_value=255,
            shards=(4096, 4096) if side > 4096 else None, dimension_names=("y", "x"), attributes=packing,
        )  # fmt: skip
        for axis, coordinate in xr_coords(geobox).items():
            made = group.create_array(
                str(axis), shape=coordinate.shape, dtype=coordinate.dtype, chunks=coordinate.shape,
                dimension_names=coordinate.dims, attributes=dict(coordinate.attrs),
            )  # fmt: skip
            made[...] = coordinate.values
        array[side // 2 - 40 : side // 2 + 40, side // 2 - 40 : side // 2 + 40] = 80
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of pixels that were read from local stores, and how many bytes of them."""
    monkeypatch.setattr("rtsx.storage.codecs._zarrs", lambda: None)  # whose reads nobody sees
    keys: list[str] = []
    get = zarr.storage.LocalStore.get

    async def noted(self, key, prototype, byte_range=None):
        found = await get(self, key, prototype, byte_range)
        if "probability/c/" in key and found is not None:
            keys.append(f"{self.root.name}/{key} {len(found)}")
        return found

    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
    return keys


def test_a_window_of_the_whole_arctic_is_read_at_the_level_of_the_screen_and_nothing_else(
    arctic: Path, read: list[str]
) -> None:
    image = Pyramid.of(arctic)
    style = styles_of(image.cube)["probability"]
    assert read == []
    whole = draw_window(image, image.box, size=(1000, 1000), style=style)
    assert whole.rgba.shape == (1024, 1024, 4)
    assert (whole.rgba[..., 3] > 0).sum() == 80 * 80
    assert {key.split("/")[0] for key in read} == {"1024x"}
    read.clear()
    near = draw_window(image, (-300, -300, 300, 300), size=(200, 200), style=style)
    assert near.box == (-300.0, -300.0, 300.0, 300.0)
    assert (near.rgba[..., 3] > 0).sum() == 80 * 80
    # Of each of the four shards that meet in the middle, its index and one chunk of 512 px.
    assert {key.split()[0] for key in read} == {
        f"map.zarr/probability/c/{y}/{x}" for y in (127, 128) for x in (127, 128)
    }
    assert sum(int(key.split()[1]) for key in read) < 4 * (64 * 16 + 4 + 2000)
    read.clear()
    draw_window(image, (3e5, 3e5, 3.1e5, 3.1e5), size=(1000, 1000), style=style)
    assert read == []


def test_colours_are_those_of_the_data_and_missing_pixels_are_transparent() -> None:
    ramp = np.arange(101, dtype="uint16").reshape(1, -1) * 10
    red = xr.Dataset({name: cube({name: ramp})[name] for name in ("red", "green", "blue")})
    for name in red:
        red[name].attrs = {"_FillValue": 0, "scale_factor": 1e-4}
    picture = draw_window(red, (0, 0, 303, 3), size=(1, 101), style=styles_of(red)["true colour"])
    assert picture.rgba[0, :, 3].tolist() == [0] + [255] * 100
    low, high = picture.style.limits[0]
    assert (low, high) == pytest.approx(np.percentile(ramp[ramp > 0], (1, 99)) * 1e-4)
    assert picture.rgba[0, 50].tolist() == [round(255 * ((0.05 - low) / (high - low)) ** 0.8)] * 3 + [255]


def test_what_is_not_valid_does_not_count_in_the_stretch() -> None:
    values = np.r_[np.arange(100.0), np.full(100, 9000.0)].reshape(1, -1)
    cloudy = cube({"dem": values, "valid": values < 9000})
    picture = draw_window(cloudy, (0, 0, 600, 3), size=(1, 200), style=styles_of(cloudy)["dem"])
    assert picture.style.limits == (pytest.approx(tuple(np.percentile(np.arange(100), (1, 99)))),)


def test_binary_draws_what_was_found_and_valid_what_is_missing() -> None:
    given = cube({"binary": np.array([[0, 1, 255]], np.uint8), "valid": np.array([[True, True, False]])})
    given["binary"].attrs["_FillValue"] = 255
    box, size = (0, 0, 9, 3), (1, 3)
    assert draw_window(given, box, size=size, style=styles_of(given)["binary"]).rgba[0, :, 3].tolist() == [0, 255, 0]
    assert draw_window(given, box, size=size, style=styles_of(given)["valid"]).rgba[0, :, 3].tolist() == [0, 0, 140]


def test_a_slope_to_the_north_west_is_brighter_than_one_to_the_south_east() -> None:
    y, x = np.mgrid[0:20, 0:20].astype(np.float32)
    for sign, is_bright in ((1, True), (-1, False)):  # rises to the south-east, so it faces the sun
        slope = cube({"dem": sign * (x + y)})
        shaded = draw_window(slope, (0, 0, 60, 60), size=(20, 20), style=styles_of(slope)["relief"]).rgba[10, 10, 0]
        assert (shaded > 180) == is_bright


def test_an_image_of_another_crs_is_drawn_where_it_lies_on_the_map() -> None:
    spot = np.zeros((200, 200), np.uint8)
    spot[100, 100] = 1
    image = cube({"binary": spot}, crs="EPSG:32608", pixel=10.0)
    image = image.assign_coords(x=image.x + 500_000, y=image.y + 7_700_000)
    image = image.drop_vars("spatial_ref").rio.write_crs("EPSG:32608")
    from pyproj import Transformer

    x, y = Transformer.from_crs("EPSG:32608", "EPSG:3413", always_xy=True).transform(
        float(image.x[100]), float(image.y[100])
    )
    style = Style(layers=("binary",), kind="found")
    picture = draw_window(image, (x - 20, y - 20, x + 20, y + 20), size=(40, 40), style=style, crs="EPSG:3413")
    rows, columns = np.nonzero(picture.rgba[..., 3])
    assert abs(rows.mean() - 19.5) < 1
    assert abs(columns.mean() - 19.5) < 1
    away = draw_window(image, (x + 1e6, y, x + 1.1e6, y + 1e5), size=(4, 4), style=style, crs="EPSG:3413")
    assert not away.rgba[..., 3].any()


def test_what_is_beyond_an_image_of_another_crs_is_not_called_invalid() -> None:
    image = cube({"valid": np.ones((50, 50), bool)}, pixel=10.0)
    image["valid"][:25] = False
    box = (-1000, -1000, 1500, 1500)
    seen = [
        draw_window(image, box, size=(100, 100), style=styles_of(image)["valid"], crs=crs)
        for crs in (None, "EPSG:3995")
    ]
    around = seen[1].rgba[..., 3]
    assert not around[:, :10].any()
    assert 0 < (around > 0).mean() < 0.1


def test_a_time_and_class_are_selected() -> None:
    flat = cube({"red": np.zeros((4, 4), np.float32)})
    years = xr.concat([flat, flat + 1], "time")
    style = Style(layers=("red",), limits=((0.0, 1.0),))
    shown = [
        draw_window(years, (0, 0, 12, 12), size=(4, 4), style=style, select=select).rgba[0, 0, 0]
        for select in ({"time": 0}, {"time": 1}, None)
    ]
    assert shown == [0, 255, 255]


def test_overviews_of_a_file_are_what_is_read_from_afar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.full((1001, 1001), 40, np.uint8)
    values[:500, :500] = 255  # missing in the north-west
    image = cube({"probability": values}).chunk({"y": 512, "x": 512})
    image["probability"].rio.write_nodata(255).rio.to_raster(tmp_path / "map.tif", tiled=True)
    with rasterio.open(tmp_path / "map.tif", "r+") as file:
        file.build_overviews([2, 4, 8, 16])
    file_image = Pyramid.of(tmp_path / "map.tif")
    assert [level.pixel for level in file_image.levels] == [3, 6, 12, 24, 48]
    monkeypatch.setattr("rtsx.viewer.pyramid._LARGEST_READ", 1 << 14)
    style = styles_of(file_image.cube)["probability"]
    whole = draw_window(file_image, file_image.box, size=(63, 63), style=style)
    assert whole.rgba.shape[:2] == (63, 63)
    assert whole.box == pytest.approx(file_image.box)
    assert whole.rgba[..., 3].mean() == pytest.approx(255 * 0.75, rel=0.03)
    assert not whole.rgba[:30, :30, 3].any()


def test_an_image_without_overviews_is_refused_from_afar() -> None:
    import dask.array as da

    big = cube({"red": np.zeros((1, 1), np.uint8)})
    coords = xr_coords(GeoBox((1 << 14, 1 << 14), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413"))
    big = xr.Dataset({"red": (("y", "x"), da.zeros((1 << 14, 1 << 14), "uint8", chunks=4096))}, coords=coords)
    with pytest.raises(CubeError, match=r"no overview as coarse.*gdaladdo.*write_cube"):
        draw_window(big, Pyramid.of(big).box, size=(100, 100), style=Style(layers=("red",)))


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(CubeError, match=r"\['nir'\] are not in this image, which has \['red'\]"):
        draw_window(cube({"red": np.zeros((2, 2))}), (0, 0, 6, 6), size=(2, 2), style=Style(layers=("nir",)))


def test_a_look_at_some_layers_reads_the_sources_of_those_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = Ground(tmp_path)
    image = Pyramid.of(make_mixed(ground, make_scenes(ground)))
    read: set[str] = set()
    tried = vars(rasterio_files)["_tried"]
    monkeypatch.setattr(
        rasterio_files, "_tried", lambda path, *a, **k: read.add(Path(path).stem) or tried(path, *a, **k)
    )
    styles = styles_of(image.cube)
    whole = image.cube.compute()
    for name, files in {"red": "_sr _udm2", "tc_greenness": "t", "valid": "_sr _udm2 t east west"}.items():
        read.clear()
        picture = draw_window(image, image.box, size=image.geobox.shape.yx, style=styles[name])
        assert {one[1:] if one[1:2] == "_" else one for one in read} == set(files.split())
        present = {"red": whole["red"] != 0, "tc_greenness": True, "valid": ~whole["valid"]}[name]
        assert np.array_equal(picture.rgba[..., 3] > 0, np.broadcast_to(present, image.geobox.shape.yx))
    assert image.only(("nir",)) is image.only(("red", "nir"))
    assert image.only(("red", "slope", "tc_brightness")) is image.only(("valid",)) is image.only(("ndvi",)) is image


def test_an_overview_without_all_years_is_not_taken_for_another_year() -> None:
    def of_years(side: int, *years: str) -> xr.Dataset:
        flat = [xr.full_like(small_image(side, pixel=3600 / side)[["red"]], int(year)) for year in years]
        return xr.concat(flat, xr.DataArray(np.array(years, "datetime64[ns]"), dims="time", name="time"))

    written = of_years(300, "2025", "2024")  # as they were run
    for coarse in (of_years(75, "2025"), of_years(75, "2025", "2024")):
        levels = (Level(pixel=12.0, opener=lambda: written), Level(pixel=48.0, opener=lambda coarse=coarse: coarse))
        for year, expected in ((2024, 2024), (2025, 2025), (2030, 2025), (1990, 2024), (None, 2025)):
            image = Pyramid(levels=levels, year=year)
            read = image.read(["red"], image.box, size=(75, 75))
            assert np.unique(read.cube["red"]) == expected
            assert read.cube["red"].shape == (75, 75)
        assert image.years == (2024, 2025)
