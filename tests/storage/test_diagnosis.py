"""What is told of things that cannot be opened: each reason by itself, at every door, with the cure for that one."""

import json
import os
import shlex
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

import rtsx
from rtsx.config.cube import load_cube_config
from rtsx.cube.open import is_store
from rtsx.cube.rasterio import read_header, read_window
from rtsx.cube.stac.client import HttpAccess, read_document
from rtsx.errors import CubeError, RtsxError
from rtsx.labels.io import read_table
from rtsx.storage import file_problem
from rtsx.storage.diagnosis import gdal_problem
from tests.servers import ScriptedServer

WriteTif = Callable[..., Path]
PIXELS = np.random.default_rng(0).integers(1, 2000, (2, 128, 128)).astype("uint16")
WINDOW = (slice(0, 128), slice(0, 128))


def link(path: Path) -> None:
    path.symlink_to("nowhere")


def unreadable(path: Path) -> None:
    path.write_bytes(b"secret")
    path.chmod(0)


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


PROBLEMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.with_name(f"scene1{path.suffix}").touch(), r"Did you mean .*scene1\."),
    "no folder": (lambda path: path.parent.rmdir(), r"the folder .* does not exist"),
    "link": (link, "It is a link to nowhere, and there is nothing"),
    "folder": (lambda path: path.mkdir(), "It is a folder"),
    "empty": (lambda path: path.touch(), "It is empty: the copy or download ended at once"),
    "page": (written(b"\n<!DOCTYPE html><html><body>Log in</body></html>"), "It holds a web page or an answer of a server"),
    "error": (written(b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'), "It holds a web page or an answer"),
    "message": (written(b'{"message": "No token"}'), "It holds a web page or an answer"),
    "pointer": (written(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "git lfs pull"),
    "zeros": (written(bytes(4096)), "It begins with zeros only"),
}  # fmt: skip
if os.getuid():  # root may read everything
    PROBLEMS["permission"] = (unreadable, "This user may not read it.*chmod")


def read_vrt(path: Path) -> None:
    vrt = path.parent.parent / "v.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="128" rasterYSize="128"><SRS>EPSG:32649</SRS><GeoTransform>500000,3,0,7700000,0,-3</GeoTransform>'
        f'<VRTRasterBand dataType="UInt16" band="1"><SimpleSource><SourceFilename relativeToVRT="1">{path.parent.name}/{path.name}'
        "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(CubeError) as told:
        read_window(str(vrt), WINDOW, bands=(1,))
    assert f"it refers to {path}. " in str(told.value)  # not the VRT, which is whole
    raise told.value


DOORS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "raster": (".tif", read_header),
    "pixels": (".tif", lambda path: read_window(str(path), WINDOW, bands=(1,))),
    "source of a VRT": (".tif", read_vrt),
    "GeoPackage": (".gpkg", read_table),
    "shapefile": (".shp", read_table),
    "GeoJSON": (".geojson", read_table),
    "GeoParquet": (".parquet", read_table),
    "YAML": (".yaml", load_cube_config),
    "STAC": (".json", lambda path: read_document(str(path), HttpAccess(retries=0), home=None)),
    "checkpoint": (".pt", rtsx.ModelBundle.open),
    "ONNX": (".onnx", rtsx.ModelBundle.open),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_is_wrong_with_a_file_is_told_at_every_door(tmp_path: Path, door: str) -> None:
    suffix, opened = DOORS[door]
    for name, (make, told) in PROBLEMS.items():
        if door in ("checkpoint", "ONNX") and name in ("missing", "no folder", "link", "folder", "permission"):
            continue  # bundles are folders, and told as what they are
        if (door, name) == ("source of a VRT", "link"):
            continue  # GDAL names what the link leads to
        if name == "message" and suffix in (".json", ".geojson", ".yaml"):
            continue  # JSON that is read, and told as what it lacks
        folder = tmp_path / f"{door} {name}"
        folder.mkdir()
        path = folder / f"scene{suffix}"
        make(path)
        with pytest.raises(RtsxError, match=told):
            opened(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("CPL_VSIL_CURL_USE_HEAD", "NO")  # the server knows no HEAD
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    server = ScriptedServer()
    yield server
    server.close()


@pytest.mark.parametrize(
    ("address", "answer", "told"),
    [
        ("{}/x.tif", (404, b"no"), "404.*The server has no such file"),
        ("{}/x.tif", (410, b"no"), "410.*The server has no such file"),
        ("{}/x.tif", (500, b"no"), "500.*The server failed.*Try again later"),
        ("{}/x.tif", (429, b"no"), "429.*The server failed, or asks for patience"),
        ("{}/x.tif", (200, b"<html>Log in</html>"), "What the server sent is no raster, but perhaps a login page"),
        ("{}/x.tif?sig=a%2Fb&se=2020", (403, b"no"), "is not allowed to be read: .*403.*find the images again"),
        ("http://127.0.0.1:1/x.tif", None, "Nothing answers there. Check host and port"),
        ("http://no.such.host.invalid/x.tif", None, "There is no such host"),
    ],
)
def test_what_is_wrong_on_the_way_to_a_server_is_told(
    server: ScriptedServer, address: str, answer: Any, told: str
) -> None:
    url = address.format(server.url)
    server.answers[url.removeprefix(server.url)] = [answer]
    for read in (read_header, lambda path: read_window(path, WINDOW, bands=(1,))):
        with pytest.raises(CubeError, match=told):
            read(url)


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("CURL error: TLS connect error: error:0A00010B:SSL routines::wrong version number", "CURL_CA_BUNDLE"),
        ("CURL error: Operation timed out after 2002 milliseconds with 0 bytes received", "GDAL_HTTP_CONNECTTIMEOUT"),
        ("CURL error: Empty reply from server", "The connection broke off"),
        ("TIFFFillTile:Read error at row 128, col 128, tile 7; got 19692 bytes, expected 19983", "It is truncated"),
        ("ZIPDecode:Decoding error at scanline 0", "It is damaged"),
        ("Cannot open TIFF file due to missing codec of code 34925", "gdal_translate -co COMPRESS=DEFLATE"),
        ("/data/a.tif: Too many open files", "ulimit -n"),
        ("something new", "something new. Check it with gdalinfo"),
    ],
)
def test_the_innermost_reason_counts(reason: str, told: str) -> None:
    outer = RuntimeError("Read failed. See previous exception for details.")
    outer.__cause__ = RuntimeError("band 1: IReadBlock failed at X offset 3, Y offset 1")
    outer.__cause__.__context__ = RuntimeError(reason)
    assert told in gdal_problem("https://example.org/a.tif", outer)


def test_archives_say_what_is_in_them(write_tif: WriteTif, tmp_path: Path) -> None:
    archive = tmp_path / "scenes.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(write_tif("a.tif", PIXELS), "in/a.tif")
    assert read_header(f"/vsizip/{archive}/in/a.tif").count == 2
    for path, told in (
        (f"/vsizip/{archive}/b.tif", f"There is no b.tif in {archive}; there are in/a.tif"),
        (f"zip://{archive}!b.tif", f"There is no b.tif in {archive}; there are in/a.tif"),
        (f"/vsizip/{tmp_path}/none.zip/a.tif", "none.zip: There is no such file"),
        (str(archive), f"It is a zip archive. Name the rasters in it: /vsizip/{archive}/in/a.tif"),
    ):
        with pytest.raises(CubeError, match=told):
            rtsx.open_cube(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz"])
def test_tars_say_what_is_in_them(ending: str, write_tif: WriteTif, tmp_path: Path) -> None:
    archive = tmp_path / f"scene.{ending}"
    with tarfile.open(archive, "w" if ending == "tar" else "w:gz") as file:
        file.add(write_tif("a.tif", PIXELS), "in/a.tif")
    assert read_header(f"/vsitar/{archive}/in/a.tif").count == 2
    for path, told in (
        (str(archive), f"It is a tar archive. Name the rasters in it: /vsitar/{archive}/in/a.tif"),
        (f"/vsitar/{archive}/b.tif", f"There is no b.tif in {archive}; there are in/a.tif"),
    ):
        with pytest.raises(CubeError, match=told):
            rtsx.open_cube(path)


def placed_by_points(file: Any, crs: str) -> None:
    x, y, step = (500000, 7700000, 300) if crs == "EPSG:32649" else (111.0, 69.4, 0.01)
    points = [GroundControlPoint(row, col, x + col * step, y - row * step) for row, col in ((0, 0), (0, 9), (9, 0))]
    file.gcps = (points, rasterio.CRS.from_string(crs))


def placed_by_rpcs(file: Any, _: str) -> None:
    one = [1.0] + [0.0] * 19
    x, y = [0.0, 1.0] + [0.0] * 18, [0.0, 0.0, 1.0] + [0.0] * 17
    file.rpcs = RPC(
        height_off=0, height_scale=100, lat_off=-69.4, lat_scale=0.1, line_off=64, line_scale=64, line_num_coeff=y, line_den_coeff=one,
        long_off=-134.9, long_scale=0.1, samp_off=64, samp_scale=64, samp_num_coeff=x, samp_den_coeff=one, err_bias=0, err_rand=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("place", "crs", "nodata", "command"),
    [
        (placed_by_points, "EPSG:32649", None, "gdalwarp -t_srs EPSG:32649 -dstalpha {} {}"),
        (placed_by_points, "EPSG:4326", 0, "gdalwarp -t_srs EPSG:32649 {} {}"),
        (placed_by_rpcs, "", None, "gdalwarp -rpc -t_srs EPSG:32708 -dstalpha {} {}"),
    ],
)
def test_control_points_and_rpcs_are_warped(
    write_tif: WriteTif, place: Callable[[Any, str], None], crs: str, nodata: int | None, command: str
) -> None:
    path = write_tif("a scene.tif", PIXELS, crs=None, transform=None, nodata=nodata)
    with rasterio.open(path, "r+") as file:
        place(file, crs)
    with pytest.raises(CubeError) as told:
        read_header(path)
    out = path.with_name("a scene_warped.tif")
    assert command.format(shlex.quote(str(path)), shlex.quote(str(out))) in str(told.value)
    assert "gdal_translate" not in str(told.value)


def test_a_shapefile_without_its_columns_is_refused(tmp_path: Path) -> None:
    table = gpd.GeoDataFrame({"class": ["slump"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    for part in (".shx", ".dbf"):
        folder = tmp_path / part[1:]
        folder.mkdir()
        table.to_file(folder / "Slumps.shp")
        assert list(read_table(folder / "Slumps.shp")["class"]) == ["slump"]
        (folder / f"Slumps{part}").unlink()
        with pytest.raises(RtsxError, match=rf"{part} is not beside it. Copy all of them"):
            read_table(folder / "Slumps.shp")
    table.to_file(tmp_path / "UPPER.shp")
    (tmp_path / "UPPER.dbf").rename(tmp_path / "UPPER.DBF")
    assert len(read_table(tmp_path / "UPPER.shp")) == 1


def test_other_things_are_told_what_they_are(write_tif: WriteTif, tmp_path: Path) -> None:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [], "bbox": [111.0, 0.85, 111.002, 0.856],
        "properties": {"datetime": "2024-07-01T00:00:00Z", "proj:code": "EPSG:32649", "proj:shape": [128, 128],
                       "proj:transform": [3, 0, 711576, 0, -3, 94749]},
        "assets": {"red": {"href": "red.tif", "roles": ["data"], "raster:bands": [{"data_type": "uint16"}]}},
    }  # fmt: skip
    (tmp_path / "stac").mkdir()
    write_tif("stac/red.tif", PIXELS[:1])
    for folder, name in ((tmp_path, "item.json"), (tmp_path / "stac", "a.json")):
        (folder / name).write_text(json.dumps(item))
    (tmp_path / "tifs" / "deeper").mkdir(parents=True)
    write_tif("tifs/deeper/a b.tif", PIXELS)
    table = gpd.GeoDataFrame({"a": [1]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    table.to_parquet(tmp_path / "t.parquet")
    table.to_file(tmp_path / "t.geojson")
    for name, told in (
        ("item.json", "It is a STAC item. Open it by a config"),
        ("tifs", r"folder of 1 rasters. Give those that are meant: '.*tifs/deeper/a b.tif'"),
        ("t.parquet", "It is a table, of outlines perhaps, and no raster"),
        ("t.geojson", "It is GeoJSON, a table of outlines, and no raster"),
    ):
        with pytest.raises(CubeError, match=told):
            rtsx.open_cube(tmp_path / name)


def test_a_campaign_s_output_is_called_one(write_tif: WriteTif, tmp_path: Path) -> None:
    (tmp_path / "maps/years/2024").mkdir(parents=True)
    write_tif("maps/years/2024/a.tif", PIXELS)
    (tmp_path / "maps/campaign.json").write_text("{}")
    for folder, told in (("maps", "It is the output"), ("maps/years/2024", "It is a part of the output")):
        with pytest.raises(
            CubeError, match=rf"{told} of a campaign\. Give its map, \S+/maps/map.zarr; .* collect \S+/maps makes"
        ):
            rtsx.open_cube(tmp_path / folder)
        for read in (read_table, rtsx.footprints.read_footprints):
            with pytest.raises(
                ValueError, match=r"is a folder of several. Give one file; rtsx campaign collect --format gpkg"
            ):
                read(tmp_path / folder)


def test_indexes_and_repositories_of_other_libraries_are_told_how_to_open(tmp_path: Path) -> None:
    axes = {"y": 64 - np.arange(64.0), "x": np.arange(64.0)}
    cube = xr.Dataset({"red": (("y", "x"), np.ones((64, 64), "f4"))}, coords=axes).rio.write_crs(3413)
    cube.to_zarr(tmp_path / "a.zarr", consolidated=False)
    texts = ("zarr.json",)
    refs = {
        file.relative_to(tmp_path / "a.zarr").as_posix(): file.read_text() if file.name in texts else [str(file)]
        for file in sorted((tmp_path / "a.zarr").rglob("*"))
        if file.is_file()
    }
    index = tmp_path / "a.json"
    index.write_text(json.dumps({"version": 1, "refs": refs}))
    with pytest.raises(
        CubeError, match=r"kerchunk index .* as 'reference://', with the storage_options {'fo': '.*a.json'}"
    ):
        rtsx.open_cube(index)
    assert (rtsx.open_cube("reference://", storage_options={"fo": str(index)})["red"] == 1).all()
    for folder in ("refs", "snapshots"):
        (tmp_path / "repository" / folder).mkdir(parents=True)
    with pytest.raises(CubeError, match=r"Icechunk repository.*xarray.open_zarr\(session.store"):
        rtsx.open_cube(tmp_path / "repository")


def test_pipes_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert file_problem(tmp_path / "pipe.yaml") is None


def test_a_server_that_recovers_is_asked_again(server: ScriptedServer, write_tif: WriteTif) -> None:
    whole = write_tif("a.tif", PIXELS).read_bytes()
    for name, read in (("a", read_header), ("b", lambda path: read_window(path, WINDOW, bands=(1,)))):
        server.answers[f"/{name}.tif"] = [(503, b"")]
        for _ in range(2):
            with pytest.raises(CubeError, match=r"503. The server failed"):
                read(f"{server.url}/{name}.tif")
        server.answers[f"/{name}.tif"] = [(200, whole)]
        read(f"{server.url}/{name}.tif")


@pytest.mark.parametrize(
    ("name", "is_zarr"),
    [
        ("https://example.org/20240701_s.tif?sig=a/b&se=20250101", False),
        ("https://example.org/a.zarr?sig=a/b.tif", True),
        ('NETCDF:"a.nc":red', False),
        ('HDF5:"a.h5"://group/red', False),
        ("/vsizip/a.zip/b.tif", False),
        ("s3://bucket/a.zarr", True),
    ],
)
def test_names_are_read_without_what_is_no_part_of_them(name: str, is_zarr: bool) -> None:
    assert is_store(name) is is_zarr


def test_variables_of_a_file_are_named_and_open_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "a b.nc"
    cube = xr.Dataset(
        {name: (("y", "x"), PIXELS[place]) for place, name in enumerate(("red", "green"))},
        coords={"y": 94749 - 1.5 - 3 * np.arange(128), "x": 711576 + 1.5 + 3 * np.arange(128)},
    )
    cube = cube.rio.write_crs("EPSG:32649").rio.write_coordinate_system()
    cube.to_netcdf(path)
    with pytest.raises(CubeError, match=r"holds 2 rasters and none of its own") as told:
        rtsx.open_cube(path)
    names = [name.rstrip(".") for name in shlex.split(str(told.value).replace(",", " ")) if name.startswith("NETCDF:")]
    assert len(names) == 2
    opened = rtsx.open_cube(names)
    assert list(opened.data_vars) == ["red", "green"]
    np.testing.assert_array_equal(opened["green"].values, PIXELS[1])
    assert rtsx.open_cube({"r": names[0]})["r"].shape == (128, 128)
    (tmp_path / "c.yaml").write_text(
        "grid: {crs: EPSG:32649, resolution: 3, origin: [711576, 94749]}\nregion: {bbox: [110.9, 0.84, 110.91, 0.86]}\n"
        f"sources:\n  s: {{files: {{image: ['{names[0]}'], second: ['{names[1]}']}}, layers: {{red: , green: {{asset: second}}}}}}\n"
    )
    geobox = GeoBox((128, 128), Affine(3, 0, 711576, 0, -3, 94749), "EPSG:32649")
    aligned = rtsx.open_cube(tmp_path / "c.yaml", geobox)
    np.testing.assert_array_equal(aligned["green"].values, PIXELS[1])
