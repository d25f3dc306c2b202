"""Damage and hiccups of raster files."""

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
from rasterio._env import del_gdal_config
from rasterio.errors import RasterioIOError
from shapely import box

import rtsx.cube.rasterio
from rtsx.cube import open_cube
from rtsx.cube.rasterio import read_header, read_overview_shape, read_window
from rtsx.errors import CubeError
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
    cube = open_cube(path, layers=["red", "nir"], chunks=64)
    np.testing.assert_array_equal(cube["red"].isel(y=slice(64), x=slice(64)).values, PIXELS[0, :64, :64])
    with pytest.raises(CubeError, match=r"a.tif cannot be read in rows 256-300, columns 256-300 .*It is truncated"):
        cube["red"].isel(y=slice(256, 300), x=slice(256, 300)).compute()
    path.write_bytes(whole[:4])
    with pytest.raises(CubeError, match=r"a.tif cannot be opened as a raster"):
        open_cube(path)


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
    assert [path for _, path, _, _ in server.asked] == ["/silent.tif"]  # nor a folder, nor a sidecar


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
        read_overview_shape(path, 0)


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


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of the writer
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
                with pytest.raises(CubeError, match=r"lies on a server and is made of .*, which does not|cannot be"):
                    read(path)
    assert read_header(str(tmp_path / "far.vrt")).count == 1  # one's own may


def test_an_index_on_a_server_is_not_followed(web: FileServer, tmp_path: Path, write_tif: WriteTif) -> None:
    secret = write_tif("secret.tif", PIXELS[:1])
    with rasterio.open(secret) as file:
        tiles = gpd.GeoDataFrame({"location": [str(secret)]}, geometry=[box(*file.bounds)], crs=file.crs)
    tiles.to_file(tmp_path / "index.gti.gpkg")
    assert read_header(tmp_path / "index.gti.gpkg").count == 1
    with pytest.raises(CubeError, match="is made of what a GTI index lists"):
        read_header(f"{web.url}/index.gti.gpkg")
