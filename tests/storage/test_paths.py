import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from affine import Affine

import rtsx
from rtsx.cube import CubeRecipe, FileImages, SourceRecipe, StoreImages
from rtsx.cube.stac import ItemTable, StacCatalog
from rtsx.footprints import read_footprints
from rtsx.storage import absolute, is_url, local_path


def test_a_local_name_is_absolute_and_what_leads_elsewhere_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/kim")
    for name in ("a.nc", "a.zip", "2024:07.tif"):
        Path(name).touch()
    here = str(tmp_path)
    expected = {
        "a.tif": f"{here}/a.tif",
        "../a.tif": f"{tmp_path.parent}/a.tif",
        "~/a.tif": "/home/kim/a.tif",
        "~nobody-of-that-name/a.tif": f"{here}/~nobody-of-that-name/a.tif",
        "file:///data/lena%20delta.tif": "/data/lena delta.tif",
        "file://localhost/data/a.tif": "/data/a.tif",
        "file:/data/a.tif": "/data/a.tif",
        "2024:07.tif": f"{here}/2024:07.tif",
        'NETCDF:"a.nc":red': f'NETCDF:"{here}/a.nc":red',
        "NETCDF:a.nc:red": f"NETCDF:{here}/a.nc:red",
        "GTIFF_DIR:1:a.zip": f"GTIFF_DIR:1:{here}/a.zip",
        "/vsizip/a.zip/red.tif": f"/vsizip/{here}/a.zip/red.tif",
        "zip://a.zip!red.tif": f"zip://{here}/a.zip!red.tif",
    }
    assert {name: absolute(name) for name in expected} == expected
    for name in (
        "s3://bucket/a.zip",
        "https://example.org/a.tif",
        "memory://a.zarr",
        "/vsicurl/https://example.org/a.tif",
        "/vsizip//data/a.zip/red.tif",
        'NETCDF:"/data/a.nc":red',
        "NETCDF:missing.nc:red",
        "WMTS:https://example.org,layer=a",
    ):
        assert absolute(name) == name, name
    assert [is_url(name) for name in ("s3://a", "file:///a", "file:/a", "a")] == [True, False, False, False]
    assert local_path("a.tif", folder="/data") == Path("/data/a.tif")


@pytest.fixture(scope="module")
def bundle() -> rtsx.ModelBundle:
    return rtsx.ModelBundle.from_module(
        torch.nn.Conv2d(1, 1, 1), layers=("red",), mean=[1000], std=[500], tile=32, overlap=0
    )


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder and home, with an image as GeoTIFF, Zarr and in an archive; pixels are 1 or more."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    pixels = np.random.default_rng(0).integers(1, 2000, (64, 96)).astype("uint16")
    profile = {"driver": "GTiff", "height": 64, "width": 96, "count": 1, "dtype": "uint16", "nodata": 0}
    with rasterio.open("s.tif", "w", **profile, crs="EPSG:3413", transform=Affine(3, 0, 0, 0, -3, 0)) as file:
        file.write(pixels, 1)
        file.descriptions = ("red",)
    rtsx.write_cube(rtsx.open_cube("s.tif"), "s.zarr")
    return tmp_path


def opened(door: str, folder: Path) -> xr.Dataset:
    if door == "files of a recipe":
        return rtsx.open_cube(recipe(FileImages(assets={"image": ("s*.tif",)})))
    if door == "store of a recipe":
        return rtsx.open_cube(recipe(StoreImages(path="s.zarr")))
    if door == "mapping":
        return rtsx.open_cube({"red": "s.tif"})
    return rtsx.open_cube(door.format(folder=folder))


def recipe(images: FileImages | StoreImages) -> CubeRecipe:
    grid = rtsx.Grid(crs="EPSG:3413", resolution=3, origin=(0, 0), cell_size=64)
    return CubeRecipe(grid=grid, sources=(SourceRecipe(name="a", images=images, layers=("red",)),))


DOORS = ("s.tif", "s.zarr", "~/s.tif", "~/s.zarr", "file://{folder}/s.tif", "file://{folder}/s.zarr", "mapping")


@pytest.mark.parametrize("door", DOORS)
def test_a_cube_opened_by_a_relative_path_is_read_from_any_folder(
    door: str, scene: Path, bundle: rtsx.ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = opened(door, scene)
    pred = rtsx.predict_cube(cube, bundle)
    (scene / "elsewhere").mkdir()
    monkeypatch.chdir(scene / "elsewhere")
    assert cube["red"].values.min() > 0
    assert pred["valid"].values.all()


def test_sources_remember_the_folder_that_they_were_named_in(scene: Path) -> None:
    assert FileImages(assets={"image": ("s*.tif",)}).assets == {"image": (f"{scene}/s*.tif",)}
    for source in (StoreImages(path="a"), StacCatalog("a"), ItemTable("a")):
        assert source.path == f"{scene}/a"


def test_the_home_folder_is_meant_by_every_output(scene: Path, bundle: rtsx.ModelBundle) -> None:
    pred = rtsx.predict_cube(rtsx.open_cube("~/s.zarr"), bundle).compute()
    outlines = rtsx.extract_footprints(pred, threshold=0.0)
    rtsx.write_cube(pred, "~/out/map.zarr")
    rtsx.export_cog(pred, "~/out")
    bundle.save("~/out/bundle")
    rtsx.ModelBundle.open("~/out/bundle", trust=True)
    for suffix in (".parquet", ".gpkg", ".fgb"):
        rtsx.write_footprints(outlines, f"~/out/a{suffix}")
        assert len(read_footprints(f"~/out/a{suffix}")) == len(outlines)
    assert not os.path.lexists("~")
    assert {path.name for path in (scene / "out").iterdir()} >= {"map.zarr", "probability.tif", "bundle", "a.gpkg"}
