"""Damage and hiccups of raster files."""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio._env import del_gdal_config
from rasterio.errors import RasterioIOError
from shapely import box

import rtsx.cube.rasterio
from rtsx.cube import Layer, open_source
from rtsx.cube.build import build_store
from rtsx.cube.encoding import is_representable, packing
from rtsx.cube.file_images import FileImages
from rtsx.cube.images import BandRequest
from rtsx.cube.native import with_native_images
from rtsx.cube.rasterio import read_header, read_overview_geobox, read_valid, read_window
from rtsx.cube.recipe import CubeRecipe, LayerRecipe, Resampling, SourceRecipe
from rtsx.cube.resample.readers import FileReader
from rtsx.cube.resample.warp import warp
from rtsx.cube.terrain_blocks import MosaicReader
from rtsx.errors import CubeError
from rtsx.grid import Grid
from tests.cube.file_reader import file_reader
from tests.ordering.file_server import FileServer
from tests.servers import ScriptedServer

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(1).integers(0, 60000, (2, 300, 300)).astype(np.uint16)


class FailsFirst:
    """Stands for `rasterio` and fails the first `count` times that a file is opened."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(rasterio, name)

    def open(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        self.left -= 1
        if self.left >= 0:
            raise RasterioIOError("connection reset")
        return rasterio.open(*args, **options)


WINDOW = (slice(10, 20), slice(0, 30))


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_read_is_tried_three_times(write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    path = str(write_tif("a.tif", PIXELS))
    flaky = FailsFirst(failures)
    monkeypatch.setattr(rtsx.cube.rasterio, "rasterio", flaky)
    np.testing.assert_array_equal(read_window(path, WINDOW, bands=(2,)), PIXELS[1:, 10:20, :30])
    assert flaky.calls == failures + 1


def test_then_the_error_names_file_and_window(write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_tif("a.tif", PIXELS))
    flaky = FailsFirst(99)
    monkeypatch.setattr(rtsx.cube.rasterio, "rasterio", flaky)
    with pytest.raises(
        CubeError, match=r"a.tif cannot be read in rows 10-20, columns 0-30 \(tried 3 times\): connection reset"
    ) as told:
        read_window(path, WINDOW, bands=(1,))
    assert isinstance(told.value.__cause__, RasterioIOError)
    assert flaky.calls == 3


def test_a_truncated_file_is_told_at_once_or_at_the_chunk_that_is_missing(write_tif: WriteTif) -> None:
    path = write_tif("a.tif", PIXELS, compress=None)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    cube = open_source(path, layers=["red", "nir"], chunks=64)
    np.testing.assert_array_equal(cube["red"].isel(y=slice(64), x=slice(64)).values, PIXELS[0, :64, :64])
    with pytest.raises(CubeError, match=r"a.tif cannot be read in rows 256-300, columns 256-300 .*It is truncated"):
        cube["red"].isel(y=slice(256, 300), x=slice(256, 300)).compute()
    path.write_bytes(whole[:4])
    with pytest.raises(CubeError, match=r"a.tif cannot be opened as a raster"):
        open_source(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("CPL_VSIL_CURL_USE_HEAD", "NO")  # the server knows no HEAD
    server = ScriptedServer()
    yield server
    server.close()


def test_a_server_that_accepts_and_says_nothing(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    server.answers["/silent.tif"] = [None]
    with pytest.raises(CubeError, match=r"silent.tif cannot be opened as a raster: .*too slow.* the last 1 seconds"):
        read_header(f"{server.url}/silent.tif")
    assert {path for _, path, _, _ in server.asked} == {"/silent.tif"}  # nor a folder, nor a sidecar


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_are_not_called_damage(server: ScriptedServer, status: int) -> None:
    path = f"{server.url}/{status}.tif"
    server.answers[f"/{status}.tif"] = [(status, b"no")]
    told = rf"{status}.tif is not allowed to be read: HTTP response code: {status}.*GDAL_HTTP_HEADERS.*AWS_\*.*signing hook"
    with pytest.raises(CubeError, match=told):
        read_header(path)
    with pytest.raises(CubeError, match=told):
        read_window(path, WINDOW, bands=(1,))
    with pytest.raises(CubeError, match=told):
        read_overview_geobox(path, 0, whole=GeoBox((4, 4), Affine(1, 0, 0, 0, -1, 0), "EPSG:3413"))


def test_credentials_that_ran_out_while_pixels_are_read(write_tif: WriteTif, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(FailsFirst):
        def open(self, *_: Any, **__: Any) -> Any:
            self.calls += 1
            raise RasterioIOError("Read failed. See previous exception for details.") from OSError(
                "HTTP error code : 403"
            )

    closed = Closed(0)
    monkeypatch.setattr(rtsx.cube.rasterio, "rasterio", closed)
    with pytest.raises(CubeError, match=r"a.tif is not allowed to be read: HTTP error code : 403"):
        read_window(str(write_tif("a.tif", PIXELS)), WINDOW, bands=(1,))
    assert closed.calls == 1


@pytest.mark.parametrize(
    ("path", "is_remote"),
    [
        ("https://example.org/a.tif", True),
        ("s3://bucket/a.tif", True),
        ("zip+https://example.org/a.zip!a.tif", True),
        ("/vsicurl/https://example.org/a.tif", True),
        ("/vsicurl?max_retry=3&url=https://example.org/a.tif", True),
        ("/vsizip//vsis3/bucket/a.zip/a.tif", True),
        ("/data/a.tif", False),
        ("file:///data/a.tif", False),
        ("zip:///data/a.zip!a.tif", False),
        ("/vsizip//data/a.zip/a.tif", False),
        ("/vsimem/a.tif", False),
    ],
)
def test_only_files_on_disk_keep_their_sidecars(path: str, is_remote: bool) -> None:
    options = rtsx.cube.rasterio._options(path)
    assert options["GDAL_HTTP_CONNECTTIMEOUT"] == "20"
    assert options.get("GDAL_DISABLE_READDIR_ON_OPEN") == ("EMPTY_DIR" if is_remote else "FALSE")


def test_what_the_caller_sets_goes_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")
    # Options that threads of an earlier test put back in another order than they set them would go before the environment.
    del_gdal_config("GDAL_DISABLE_READDIR_ON_OPEN")
    url = "https://example.org/a.tif"
    with rasterio.Env(GDAL_HTTP_MAX_RETRY=7), ThreadPoolExecutor(1) as pool:
        for options in (rtsx.cube.rasterio._options(url), pool.submit(rtsx.cube.rasterio._options, url).result()):
            assert not {"GDAL_HTTP_MAX_RETRY", "GDAL_DISABLE_READDIR_ON_OPEN"} & set(options)
            assert "GDAL_HTTP_LOW_SPEED_TIME" in options
    with rasterio.Env(**rtsx.cube.rasterio._options(url)):
        assert rtsx.cube.rasterio._options(url)["GDAL_HTTP_MAX_RETRY"] == "3"


@pytest.mark.parametrize("action", ["error", "ignore"])
def test_a_file_that_lies_nowhere_changes_no_filters(write_tif: WriteTif, action: Any) -> None:
    path = write_tif("a.tif", PIXELS, crs=None, transform=None)
    # Filters belong to all threads: what one thread puts back in the middle of another's work stays.
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            for failure in pool.map(_failure, [path] * 50):
                assert re.search(r"a.tif does not say where it lies: .*transform.*gdal_translate -a_srs", failure)
        assert warnings.filters == filters


def _failure(path: Path) -> str:
    with pytest.raises(CubeError) as told:
        read_header(path)
    return str(told.value)


def test_a_header_is_a_value(write_tif: WriteTif) -> None:
    path = write_tif("a.tif", PIXELS, nodata=0)
    header = read_header(path)
    assert header == read_header(path)
    assert hash(header) == hash(read_header(path))
    assert (header.count, header.nodata, header.block) == (2, (0.0, 0.0), (64, 64))


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FileServer]:
    server = FileServer(tmp_path)
    yield server
    server.close()


def vrt(source: str, *, beside: bool, tag: str = "SourceFilename") -> str:
    return (
        '<VRTDataset rasterXSize="300" rasterYSize="300"><SRS>EPSG:32649</SRS>'
        "<GeoTransform>0,3,0,0,0,-3</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f'<{tag} relativeToVRT="{int(beside)}">{source}</{tag}><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )


def test_a_mosaic_on_a_server_reads_no_file_of_this_machine(
    web: FileServer, tmp_path: Path, write_tif: WriteTif
) -> None:
    secret = write_tif("secret.tif", PIXELS[:1])
    files = {
        "far.vrt": vrt(str(secret), beside=False),
        "absolute.vrt": vrt(str(secret), beside=True),
        "near.vrt": vrt("secret.tif", beside=False),  # near the working folder, not the VRT
        "zip.vrt": vrt(f"/vsizip/{secret}.zip/a.tif", beside=False),
        "subdataset.vrt": vrt(f"GTIFF_DIR:1:{secret}", beside=False),
        "nested.vrt": vrt("far.vrt", beside=True),
        "good.vrt": vrt("secret.tif", beside=True),
        "both.vrt": vrt(f"/vsicurl/{web.url}/good.vrt", beside=False),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for place in (web.url, f"/vsicurl/{web.url}"):
        for name in files:
            path = f"{place}/{name}"
            if name in ("good.vrt", "both.vrt"):
                assert read_window(path, WINDOW, bands=(1,)).any()
                continue
            for read in (read_header, lambda path: read_window(path, WINDOW, bands=(1,))):
                with pytest.raises(CubeError, match=r"lies on a server and is made of .*, which may not|cannot be"):
                    read(path)
    assert read_header(str(tmp_path / "far.vrt")).count == 1  # one's own may


@pytest.mark.parametrize("nodata", [None, 7, float("nan")])
@pytest.mark.parametrize("nested", [False, True])
def test_a_missing_file_of_a_mosaic_is_told_each_time(
    tmp_path: Path, write_tif: WriteTif, nested: bool, nodata: float | None
) -> None:
    """While another VRT is open GDAL says so once, and gives the background from then on."""
    write_tif("there.tif", PIXELS[:1])
    mosaic = vrt("scene.tif", beside=True)
    if nodata is not None:
        mosaic = mosaic.replace("<SimpleSource>", f"<NoDataValue>{nodata}</NoDataValue><SimpleSource>")
        mosaic = mosaic.replace("UInt16", "Float32")
    for name, text in (
        ("there.vrt", vrt("there.tif", beside=True)),
        ("a.vrt", mosaic),
        ("outer.vrt", vrt("a.vrt", beside=True)),
    ):
        (tmp_path / name).write_text(text)
    path = str(tmp_path / ("outer.vrt" if nested else "a.vrt"))
    with rasterio.open(tmp_path / "there.vrt") as other:
        assert other.read().any()
        reads = [read_window, read_valid] if nodata is not None and not nested else [read_window]
        for read in reads * 4:
            with pytest.raises(CubeError, match=r"it refers to .*scene\.tif\. There is no such file"):
                read(path, WINDOW, bands=(1,))
        write_tif("scene.tif", PIXELS[:1])
        with contextlib.suppress(CubeError):  # where GDAL does not try again
            np.testing.assert_array_equal(read_window(path, WINDOW, bands=(1,)), PIXELS[:1, *WINDOW])


def test_an_index_on_a_server_is_not_followed(web: FileServer, tmp_path: Path, write_tif: WriteTif) -> None:
    secret = write_tif("secret.tif", PIXELS[:1])
    with rasterio.open(secret) as file:
        tiles = gpd.GeoDataFrame({"location": [str(secret)]}, geometry=[box(*file.bounds)], crs=file.crs)
    tiles.to_file(tmp_path / "index.gti.gpkg")
    assert read_header(tmp_path / "index.gti.gpkg").count == 1
    with pytest.raises(CubeError, match="is made of what a GTI file names"):
        read_header(f"{web.url}/index.gti.gpkg")


def test_a_document_on_a_server_sends_nobody_elsewhere(web: FileServer, tmp_path: Path, write_tif: WriteTif) -> None:
    """GDAL knows files by their content, so that what is called .tif may be one that names servers and files."""
    write_tif("secret.tif", PIXELS[:1])
    elsewhere = FileServer(tmp_path)
    (tmp_path / "red.tif").write_text(
        f"<GDAL_WMS><Service name='TMS'><ServerUrl>{elsewhere.url}/secret.tif</ServerUrl></Service><DataWindow>"
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>100</UpperLeftY><LowerRightX>100</LowerRightX><LowerRightY>0</LowerRightY>"
        "<SizeX>100</SizeX><SizeY>100</SizeY></DataWindow><Projection>EPSG:32649</Projection><BandsCount>1</BandsCount>"
        "</GDAL_WMS>"
    )
    try:
        for read in (read_header, lambda path: read_window(path, (slice(0, 9), slice(0, 9)), bands=(1,))):
            with pytest.raises(CubeError, match="is made of what a WMS file names, which may not"):
                read(f"{web.url}/red.tif")
    finally:
        elsewhere.close()
    assert not elsewhere.asked
    assert read_header(tmp_path / "red.tif").count == 1  # one's own may


SIZE = 64
HOLE = np.zeros((SIZE, SIZE), bool)
HOLE[:20, :30] = True
AFFINE = Affine(3, 0, 500_000, 0, -3, 7_700_000)

Make = Callable[[Path], Path]


def _write(
    path: Path, pixels: np.ndarray, *, internal: bool = True, mask: np.ndarray | None = None, **profile: Any
) -> Path:
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(
            path, "w", driver="GTiff", height=SIZE, width=SIZE, count=len(pixels), dtype=pixels.dtype, crs="EPSG:32608",
            transform=AFFINE, tiled=True, blockxsize=32, blockysize=32, **profile,
        ) as file,
    ):  # fmt: skip
        file.write(pixels)
        if mask is not None:
            file.write_mask(mask)
    return path


def _pixels(count: int, dtype: str, *, hole: float | None = None) -> np.ndarray:
    values = np.random.default_rng(7).integers(0, 100, (count, SIZE, SIZE)).astype(dtype)
    if hole is not None:
        values[:, HOLE] = hole
    return values


def _rgba(path: Path, dtype: str, **profile: Any) -> Path:
    pixels = _pixels(4, dtype)
    pixels[3] = np.where(HOLE, 0, 255)
    return _write(path, pixels, photometric="RGB", ALPHA="YES", **profile)


def _gray_alpha(path: Path) -> Path:
    pixels = _pixels(2, "uint8")
    pixels[1] = np.where(HOLE, 0, 7)  # half transparent is data
    return _write(path, pixels, ALPHA="YES")


def _premultiplied(path: Path) -> Path:
    pixels = _pixels(4, "uint8")
    pixels[3] = np.where(HOLE, 0, 255)
    return _write(path, pixels, photometric="RGB", ALPHA="PREMULTIPLIED")


def _vrt_mask(path: Path) -> Path:
    tif = _write(path, _pixels(1, "uint16"))
    _write(path.with_name("mask.tif"), np.where(HOLE, 0, 255).astype("uint8")[None])
    vrt = path.with_suffix(".vrt")
    source = (
        "<SimpleSource><SourceFilename relativeToVRT='1'>{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    )
    vrt.write_text(
        f"<VRTDataset rasterXSize='{SIZE}' rasterYSize='{SIZE}'><SRS>EPSG:32608</SRS>"
        "<GeoTransform>500000,3,0,7700000,0,-3</GeoTransform>"
        f"<VRTRasterBand dataType='UInt16' band='1'>{source.format(tif.name)}</VRTRasterBand>"
        f"<MaskBand><VRTRasterBand dataType='Byte'>{source.format('mask.tif')}</VRTRasterBand></MaskBand></VRTDataset>"
    )
    return vrt


def _with_overviews(path: Path) -> Path:
    _write(path, _pixels(3, "uint8"), mask=~HOLE)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2])
    return path


def _together(path: Path) -> Path:
    pixels = _pixels(3, "uint8") + np.uint8(1)
    pixels[:, HOLE] = 0
    pixels[0, 40:] = 0  # missing in one band is data
    _write(path, pixels, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.update_tags(NODATA_VALUES="0 0 0")
    return path


KINDS: dict[str, Make] = {
    "plain": lambda path: _write(path, _pixels(3, "uint16")),
    "nodata 0": lambda path: _write(path, _pixels(3, "uint16", hole=0), nodata=0),
    "nodata 255": lambda path: _write(path, _pixels(3, "uint8", hole=255), nodata=255),
    "nodata -1": lambda path: _write(path, _pixels(2, "int16", hole=-1), nodata=-1),
    "nodata -9999": lambda path: _write(path, _pixels(1, "float32", hole=-9999), nodata=-9999),
    "nodata NaN": lambda path: _write(path, _pixels(1, "float32", hole=np.nan), nodata=np.nan),
    "nodata float64": lambda path: _write(path, _pixels(1, "float64", hole=-3.4e38), nodata=-3.4e38),
    "int8": lambda path: _write(path, _pixels(1, "int8", hole=-128), nodata=-128),
    "uint32": lambda path: _write(path, _pixels(1, "uint32", hole=4_294_967_295), nodata=4_294_967_295),
    "internal mask uint8": lambda path: _write(path, _pixels(3, "uint8"), mask=~HOLE),
    "internal mask uint16": lambda path: _write(path, _pixels(3, "uint16"), mask=~HOLE),
    "internal mask int16": lambda path: _write(path, _pixels(1, "int16"), mask=~HOLE),
    "internal mask int32": lambda path: _write(path, _pixels(1, "int32"), mask=~HOLE),
    "internal mask float32": lambda path: _write(path, _pixels(2, "float32"), mask=~HOLE),
    "internal mask over nodata": lambda path: _write(path, _pixels(3, "uint8"), mask=~HOLE, nodata=7),
    "internal mask of all": lambda path: _write(path, _pixels(3, "uint8"), mask=np.zeros_like(HOLE)),
    "external mask": lambda path: _write(path, _pixels(3, "uint8"), internal=False, mask=~HOLE),
    "external mask float32": lambda path: _write(path, _pixels(1, "float32"), internal=False, mask=~HOLE),
    "external mask over nodata": lambda path: _write(path, _pixels(2, "uint16"), internal=False, mask=~HOLE, nodata=3),
    "rgba": lambda path: _rgba(path, "uint8"),
    "rgba uint16": lambda path: _rgba(path, "uint16"),
    "rgba premultiplied": _premultiplied,
    "gray and alpha": _gray_alpha,
    "mask in a VRT": _vrt_mask,
    "mask with overviews": _with_overviews,
    "nodata of all bands together": _together,
    "four bands of bytes": lambda path: _write(path, _pixels(4, "uint8")),
}


def _expected(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        bands = [band for band in file.indexes if file.colorinterp[band - 1].name != "alpha"]
        return (file.read_masks(bands) > 0).all(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_validity_is_what_gdal_says(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "a.tif")
    expected = _expected(path)
    cube = open_source(str(path), chunks=32).compute()
    valid = cube["valid"].values if "valid" in cube else np.ones((SIZE, SIZE), bool)
    for name, layer in cube.data_vars.items():
        if name != "valid":
            valid = valid & is_representable(layer.values, packing(layer)["nodata"])
    np.testing.assert_array_equal(valid, expected)


def test_masks_beside_local_files_count_whatever_the_environment_says(tmp_path: Path) -> None:
    path = KINDS["external mask"](tmp_path / "a.tif")
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # usual where files are on servers
        cube = open_source(str(path)).compute()
    np.testing.assert_array_equal(cube["valid"], ~HOLE)


@pytest.mark.slow
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", KINDS)
def test_warped_validity_is_what_gdal_says(kind: str, resampling: Resampling, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "a.tif")
    ground = box(-180, -90, 180, 90)
    with rasterio.open(path) as file:
        names = [f"b{n}" for n in file.indexes if file.colorinterp[n - 1].name != "alpha"]
    wanted = [BandRequest(name=name, bands=(int(name[1:]),)) for name in names]
    (image,) = FileImages(assets={"image": (str(path),)}).find(ground, None, wanted)
    from rtsx.cube.resample.readers import open_reader

    geobox = image.bands[names[0]].geobox
    valid = np.ones((SIZE, SIZE), bool)
    shifted = type(geobox)((SIZE - 4, SIZE - 4), geobox.affine * Affine.translation(1.2, 1.2), geobox.crs)
    aligned, moved = valid, np.ones(shifted.shape, bool)
    for name in names:
        reader = open_reader(image.bands[name])
        aligned = aligned & warp(reader, geobox, resampling=resampling, anchor=(500_000, 7_700_000)).valid[0]
        anchor = (shifted.affine.c, shifted.affine.f)
        moved = moved & warp(reader, shifted, resampling=resampling, anchor=anchor).valid[0]
    expected = _expected(path)
    np.testing.assert_array_equal(aligned, expected)
    np.testing.assert_array_equal(moved, expected[1:-3, 1:-3])  # the pixel that holds the middle


def test_values_under_a_mask_never_matter(tmp_path: Path) -> None:
    pixels = _pixels(1, "uint8")
    answers = []
    for place, hidden in enumerate((0, 255)):
        pixels[:, HOLE] = hidden
        reader = file_reader(str(_write(tmp_path / f"{place}.tif", pixels, mask=~HOLE)))
        target = reader.geobox.zoom_out(2)
        answers.append(warp(reader, target, resampling="average", anchor=(500_000, 7_700_000)).pixels)
    np.testing.assert_array_equal(*answers)


def test_a_mosaic_takes_what_the_mask_of_its_first_tile_leaves(tmp_path: Path) -> None:
    first = file_reader(str(_write(tmp_path / "a.tif", np.full((1, SIZE, SIZE), 1, "uint8"), mask=~HOLE)))
    second = file_reader(str(_write(tmp_path / "b.tif", np.full((1, SIZE, SIZE), 2, "uint8"))))
    both = MosaicReader([first, second]).read(slice(0, SIZE), slice(0, SIZE))
    np.testing.assert_array_equal(both[0], np.where(HOLE, 2, 1))
    alone = MosaicReader([first]).read(slice(0, SIZE), slice(0, SIZE))
    np.testing.assert_array_equal(np.ma.getmaskarray(alone)[0], HOLE)


def test_an_alpha_band_is_no_layer(tmp_path: Path) -> None:
    path = str(_rgba(tmp_path / "a.tif", "uint16"))
    assert list(open_source(path)) == ["band_1", "band_2", "band_3", "valid"]
    assert list(open_source(path, layers=["red", "green", "blue"])) == ["red", "green", "blue", "valid"]
    assert list(open_source(path, layers=["red", "green", "blue", "alpha"])) == [
        "red",
        "green",
        "blue",
        "alpha",
        "valid",
    ]
    assert list(open_source(path, sensor="tcvis")) == ["tc_brightness", "tc_greenness", "tc_wetness", "valid"]
    gray = str(_gray_alpha(tmp_path / "g.tif"))
    assert list(open_source({"dem": gray, "red": Layer("red", path, band=1)}))[:2] == ["dem", "red"]


def test_data_that_is_marked_as_alpha_is_warned_of(tmp_path: Path) -> None:
    path = str(KINDS["four bands of bytes"](tmp_path / "a.tif"))
    with pytest.warns(UserWarning, match=r"Band 4 of .*a.tif, layer 'nir', is marked as alpha.*ALPHA=NO"):
        cube = open_source(path, layers=["blue", "green", "red", "nir"])
    assert list(cube) == ["blue", "green", "red", "nir", "valid"]


def test_a_native_store_needs_a_value_for_what_a_mask_hides(tmp_path: Path) -> None:
    from rtsx.cube.encoding import without_mask

    reader = file_reader(str(_write(tmp_path / "a.tif", _pixels(1, "uint16"), mask=~HOLE)))
    pixels = reader.read(slice(0, SIZE), slice(0, SIZE))
    stored, nodata = without_mask(pixels, 999)
    assert stored.dtype == np.uint16
    assert nodata == 999
    np.testing.assert_array_equal(stored[0] == 999, HOLE)
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        wide, nodata = without_mask(np.ma.MaskedArray(np.array([1, 0], dtype), [False, True]), None)
        np.testing.assert_array_equal(is_representable(wide, nodata), [True, False])


@pytest.mark.parametrize("nodata", [None, 999.0])
def test_a_native_store_keeps_the_mask_of_a_file(tmp_path: Path, nodata: float | None) -> None:
    _write(tmp_path / "a.tif", _pixels(1, "uint16"), mask=~HOLE)
    source = SourceRecipe(
        name="files",
        images=FileImages(assets={"image": (str(tmp_path / "a.tif"),)}),
        layers=(LayerRecipe(wanted=BandRequest(name="red", bands=(1,), nodata=nodata)),),
    )
    grid = Grid("EPSG:32608", 3, cell_size=SIZE, origin=(AFFINE.c, AFFINE.f))
    recipe = CubeRecipe(grid=grid, sources=(source,), chunk=32)
    assert build_store(recipe, tmp_path / "a.zarr", cell=grid[0, 0], layout="native").built
    stored = open_source(with_native_images(recipe, str(tmp_path / "a.zarr")), grid[0, 0]).compute()
    xr.testing.assert_identical(stored, open_source(recipe, grid[0, 0]).compute())
    np.testing.assert_array_equal(stored["valid"], ~HOLE)


@pytest.mark.parametrize("field", ["nodata", "scale_factor", "add_offset"])
@pytest.mark.parametrize("item", [None, 2.0])
@pytest.mark.parametrize("file", [None, 2.0, 3.0])
@pytest.mark.parametrize("is_settled", [False, True])
def test_item_against_file(
    field: str, item: float | None, file: float | None, is_settled: bool, tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.tif", _pixels(1, "uint16"), nodata=file if field == "nodata" else None)
    if file is not None and field != "nodata":
        with rasterio.open(path, "r+") as opened:
            setattr(opened, "scales" if field == "scale_factor" else "offsets", (file,))
    silent = {"nodata": None, "scale_factor": 1.0, "add_offset": 0.0}
    stated = silent | {field: silent[field] if item is None else item}
    geobox = file_reader(str(path)).geobox
    settled = frozenset({field} if is_settled else ())
    reader = FileReader(path=str(path), bands=(1,), geobox=geobox, dtype=np.dtype("uint16"), settled=settled, **stated)
    if file is None or file == item or is_settled:
        assert reader.read(slice(0, 1), slice(0, 1)).shape == (1, 1, 1)
    else:
        with pytest.raises(CubeError, match=rf"declares {field} {file:.0f}; the item .*Write {field}: with"):
            reader.read(slice(0, 1), slice(0, 1))


def test_heights_of_a_crs_and_rotations_that_are_noise_are_left_out(write_tif: WriteTif) -> None:
    pixels = np.ones((1, 64, 64), np.uint16)
    for name, crs, plain, pixel in (
        ("utm", "EPSG:32608+5773", "EPSG:32608", 3),
        ("nad83", "EPSG:5498", "EPSG:4269", 1e-3),
    ):
        path = write_tif(f"{name}.tif", pixels, crs=crs, transform=Affine(pixel, 0, 50, 0, -pixel, 60))
        assert str(read_header(path).geobox.crs) == plain
    almost = write_tif("almost.tif", pixels, transform=Affine(3, 1e-12, 500, -1e-12, -3, 900))
    assert tuple(open_source(almost).odc.geobox.affine)[:6] == (3, 0, 500, 0, -3, 900)
    turned = write_tif("turned.tif", pixels, transform=Affine(3, 1e-3, 500, 1e-3, -3, 900))
    with pytest.raises(CubeError, match="not north-up"):
        open_source(turned)


@pytest.mark.parametrize("dtype", ["complex_int16", "complex64", "complex128"])
def test_complex_numbers_are_refused_at_every_door(dtype: str, write_tif: WriteTif, tmp_path: Path) -> None:
    pixels = np.ones((1, 64, 64), "complex128" if dtype == "complex128" else "complex64")
    path = write_tif("slc.tif", pixels, dtype=dtype, descriptions=("red",))
    with pytest.raises(CubeError, match=r"has to be numeric.*gdal_calc.*abs\(cube\['red'\]\)"):
        open_source(path)
    layer = LayerRecipe(wanted=BandRequest(name="red", bands=(1,)))
    source = SourceRecipe(name="s", images=FileImages(assets={"image": (str(path),)}), layers=(layer,))
    grid = Grid("EPSG:32649", 3, cell_size=64, origin=(711576.0, 94749.0))
    recipe = CubeRecipe(grid=grid, sources=(source,), chunk=64)
    out = tmp_path / "a.zarr"
    for door in (
        lambda: open_source(recipe, grid[0, 0]),
        lambda: build_store(recipe, out, cell=grid[0, 0]),
        lambda: build_store(recipe, out, cell=grid[0, 0], layout="native"),
    ):
        with pytest.raises(CubeError, match=r"is stored as complex.*gdal_calc.py"):
            door()
    assert not out.exists()


CF_WORDS: dict[str, tuple[dict[str, Any], str]] = {
    "_FillValue": ({"_FillValue": np.int16(0)}, ""),
    "missing_value": ({"missing_value": np.int16(0)}, ""),
    "missing_value in a list": ({"missing_value": np.array([0], "i2")}, ""),
    "nodata of odc-stac": ({"nodata": np.int16(0)}, ""),
    "nodata beside the fill value": ({"_FillValue": np.int16(0), "nodata": np.int16(5)}, ""),
    "valid_range": ({"valid_range": np.array([1, 5000], "i2")}, ""),
    "valid_min and valid_max": ({"valid_min": np.int16(1), "valid_max": np.int16(5000)}, ""),
    "scale": ({"_FillValue": np.int16(0), "scale_factor": 0.5, "add_offset": 2.0}, ""),
    "several": ({"missing_value": np.array([0, -5], "i2")}, r"missing_value 0,-5 .*setctomiss,-5"),
    "valid_min": ({"valid_min": np.int16(1)}, "valid_min 1 .*setvrange,1,MAX"),
    "valid_max": ({"valid_max": np.int16(900)}, "valid_max 900 .*setvrange,MIN,900"),
}


@pytest.mark.parametrize(("words", "message"), CF_WORDS.values(), ids=CF_WORDS)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_missing_pixels_of_netcdf_are_those_that_its_words_say(
    words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    stored = np.random.default_rng(0).integers(0, 6, (20, 30)).astype(np.int16)
    cube = xr.Dataset(
        {"red": (("y", "x"), stored, words)},
        coords={"y": 7_500_000 - 3 * (np.arange(20) + 0.5), "x": 500_000 + 3 * (np.arange(30) + 0.5)},
    )
    path = tmp_path / "a.nc"
    cube.rio.write_crs("EPSG:32608").rio.write_coordinate_system().to_netcdf(path)
    for name in (str(path), f'NETCDF:"{path}":red'):
        if message:
            with pytest.raises(CubeError, match=message):
                open_source(name)
            continue
        red = open_source(name)["red"]
        packed = packing(red)
        valid = is_representable(red.values, packed["nodata"])
        np.testing.assert_array_equal(valid, stored != 0)
        np.testing.assert_array_equal(red.values[valid], stored[valid])
        assert packed["scale_factor"] == words.get("scale_factor", 1.0)
        wanted = [BandRequest(name="red")]
        (image,) = FileImages(assets={"image": (name,)}).find(box(-180, -90, 180, 90), None, wanted)
        assert (image.bands["red"].nodata, image.bands["red"].add_offset) == (packed["nodata"], packed["add_offset"])


def test_a_connection_of_gdal_to_a_file_here_is_none_to_a_server(
    write_tif: WriteTif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tif("a.tif", PIXELS[:, :64, :64])
    monkeypatch.chdir(tmp_path)
    whole, part = open_source(f"vrt://{path}?bands=2"), open_source("vrt://a.tif?bands=2&a_scale=0.5")
    monkeypatch.chdir("/")
    for cube in (whole, part):
        np.testing.assert_array_equal(next(iter(cube.data_vars.values())).values, PIXELS[1, :64, :64])
    assert packing(next(iter(part.data_vars.values())))["scale_factor"] == 0.5
    with pytest.raises(CubeError, match="cannot be opened"):
        open_source("vrt://https://127.0.0.1:9/a.tif?bands=1")


def test_netcdf_that_names_no_variable_is_named_by_its_file(tmp_path: Path) -> None:
    profile = {
        "width": 4,
        "height": 4,
        "count": 1,
        "dtype": "int16",
        "crs": "EPSG:32608",
        "transform": Affine(10, 0, 5e5, 0, -10, 7.7e6),
    }
    for name in ("red", "nir"):
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **profile) as file:
            file.write(np.ones((1, 4, 4), np.int16))
        rasterio.shutil.copy(tmp_path / f"{name}.tif", tmp_path / f"{name}.nc", driver="netCDF")
    assert list(open_source([tmp_path / "red.nc", tmp_path / "nir.nc"]).data_vars) == ["red", "nir"]
