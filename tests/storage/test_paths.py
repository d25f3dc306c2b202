import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from affine import Affine
from shapely.geometry import mapping

import rtsx
from rtsx.cube import CubeRecipe, FileImages, LayerRecipe, SourceRecipe, StoreImages, geobox_of
from rtsx.cube.images import BandRequest, ImageSource
from rtsx.cube.stac import StacCatalog, StacItems
from rtsx.errors import PathError, RtsxError
from rtsx.footprints import read_footprints
from rtsx.footprints.io import read_years
from rtsx.grid import lonlat_polygon
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
def scene(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder and home."""
    monkeypatch.chdir(made)
    monkeypatch.setenv("HOME", str(made))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with one image of a single layer in every form; its pixels are 1 or more."""
    tmp_path = tmp_path_factory.mktemp("scene")
    with contextlib.chdir(tmp_path):
        make_files()
        yield tmp_path


def make_files() -> None:
    pixels = np.random.default_rng(0).integers(1, 2000, (64, 96)).astype("uint16")
    profile = {"driver": "GTiff", "height": 64, "width": 96, "count": 1, "nodata": 0}
    for name, dtype in (("s.tif", "uint16"), ("m.tif", "uint8")):
        with rasterio.open(
            name, "w", **profile, dtype=dtype, crs="EPSG:3413", transform=Affine(3, 0, 0, 0, -3, 0)
        ) as file:
            file.write(np.full((64, 96), 4, dtype) if name == "m.tif" else pixels, 1)
            file.descriptions = ("red",)
    rtsx.write_cube(rtsx.open_cube("s.tif"), "s.zarr")
    geobox = geobox_of(rtsx.open_cube("s.tif"))
    outline = lonlat_polygon(geobox.extent.geom, str(geobox.crs))
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "geometry": mapping(outline),
        "bbox": outline.bounds,
        "properties": {"datetime": "2024-07-01T00:00:00Z"},
        "links": [],
        "assets": {"red": {"href": "./s.tif"}},
    }
    Path("item.json").write_text(json.dumps(item))
    grid = "grid: {crs: EPSG:3413, resolution: 3, origin: [0, 0], cell_size: 64}\nregion: {cell: r000c000}\n"
    Path("cube.yaml").write_text(f"{grid}sources: {{s: {{files: s.tif, layers: [red]}}}}\n")
    Path("elsewhere").mkdir()


FORMS = ("{name}", "elsewhere/../{name}", "~/{name}", "file://{folder}/{name}", "{folder}/{name}")


def recipe(images: ImageSource) -> CubeRecipe:
    grid = rtsx.Grid(crs="EPSG:3413", resolution=3, origin=(0, 0), cell_size=64)
    return CubeRecipe(
        grid=grid,
        sources=(SourceRecipe(name="a", images=images, layers=(LayerRecipe(wanted=BandRequest(name="red")),)),),
    )


LAZY: dict[str, tuple[str, Callable[[str], xr.Dataset | CubeRecipe]]] = {
    "raster": ("s.tif", rtsx.open_cube),
    "store": ("s.zarr", rtsx.open_cube),
    "rasters": ("s.tif", lambda path: rtsx.open_cube([path])),
    "mapping": ("s.tif", lambda path: rtsx.open_cube({"red": path})),
    "layer": ("s.tif", lambda path: rtsx.open_cube({"red": rtsx.Layer("red", path)})),
    "mask": ("m.tif", lambda path: rtsx.open_cube("s.tif", mask=(path, "sentinel2-scl"))),
    "config": ("cube.yaml", rtsx.open_cube),
    "files": ("s.tif", lambda path: recipe(FileImages(assets={"image": (path,)}))),
    "pattern": ("s*.tif", lambda path: recipe(FileImages(assets={"image": (path,)}))),
    "store of a recipe": ("s.zarr", lambda path: recipe(StoreImages(path=path))),
    "catalog": ("item.json", lambda path: recipe(StacCatalog(path))),
    "items": ("s.tif", lambda path: recipe(StacItems([item_of(path)]))),
}


def item_of(href: str) -> dict[str, Any]:
    return {**json.loads(Path("item.json").read_text()), "assets": {"red": {"href": href}}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", LAZY)
def test_what_a_door_was_given_in_one_folder_is_read_from_another(
    door: str, form: str, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, open_it = LAZY[door]
    opened = open_it(form.format(name=name, folder=scene))
    monkeypatch.chdir(scene / "elsewhere")
    monkeypatch.setenv("HOME", str(scene / "elsewhere"))
    if isinstance(opened, CubeRecipe):
        opened = rtsx.open_cube(cloudpickle.loads(cloudpickle.dumps(opened)), opened.grid[0, 0])
    cube = cloudpickle.loads(cloudpickle.dumps(opened))  # as a worker gets it, which was started elsewhere
    assert cube["red"].isel(x=slice(0, 64)).values.min() > 0
    assert "valid" not in cube or cube["valid"].values.all()


def test_a_prediction_is_computed_from_another_folder(
    scene: Path, bundle: rtsx.ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred = rtsx.predict_cube(rtsx.open_cube("s.zarr"), bundle)
    monkeypatch.chdir(scene / "elsewhere")
    assert pred["valid"].values.all()


@pytest.fixture(scope="module")
def results(made: Path, bundle: rtsx.ModelBundle) -> tuple[xr.Dataset, gpd.GeoDataFrame]:
    """A map and its outlines."""
    pred = rtsx.predict_cube(rtsx.open_cube(made / "s.zarr"), bundle).compute()
    return pred, rtsx.extract_footprints(pred, threshold=0.0)


@pytest.mark.parametrize("form", FORMS)
def test_every_output_goes_where_its_name_says(
    form: str, scene: Path, bundle: rtsx.ModelBundle, results: tuple[xr.Dataset, gpd.GeoDataFrame]
) -> None:
    def name(plain: str) -> str:
        return form.format(name=f"out/{plain}", folder=scene)

    shutil.rmtree("out", ignore_errors=True)
    pred, outlines = results
    rtsx.write_cube(pred, name("map.zarr"))
    rtsx.open_cube(name("map.zarr"))
    rtsx.build_cube("cube.yaml", name("cube.zarr"))
    rtsx.export_cog(pred, name("cogs"))
    bundle.save(name("bundle"))
    rtsx.ModelBundle.open(name("bundle"), trust=True)
    for suffix in (".parquet", ".gpkg", ".fgb"):
        rtsx.write_footprints(outlines, name(f"a{suffix}"))
        assert len(read_footprints(name(f"a{suffix}"))) == len(outlines)
        assert len(read_years({2024: name(f"a{suffix}")})[2024]) == len(outlines)
    labels = rtsx.standardise_labels(name("a.gpkg"), class_name="slump")
    rtsx.write_labels(labels.labels, name("labels.gpkg"))
    assert len(rtsx.read_labels(name("labels.gpkg"))) == len(outlines)
    assert not os.path.lexists("~")
    assert not os.path.lexists("file:")
    assert sorted(path.name for path in (scene / "out").iterdir()) == [
        *("a.fgb", "a.gpkg", "a.parquet", "bundle", "cogs", "cube.zarr", "cube.zarr.yaml", "labels.gpkg", "map.zarr")
    ]


def test_a_name_that_no_file_has_is_refused_by_every_door(scene: Path, bundle: rtsx.ModelBundle) -> None:
    doors: tuple[Callable[[str], object], ...] = (
        *(open_it for name, (_, open_it) in LAZY.items() if name != "items"),
        rtsx.ModelBundle.open,
        bundle.save,
        rtsx.read_labels,
        read_footprints,
        lambda path: rtsx.write_cube(rtsx.open_cube("s.tif"), path),
        lambda path: rtsx.export_cog(rtsx.open_cube("s.tif"), path, variables=["red"]),
    )
    for door in doors:
        for name, words in (("a\0b", "NUL"), (os.fsdecode(b"s\xff"), "no name in UTF-8")):
            with pytest.raises(RtsxError, match=words):
                door(name)


def test_a_working_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(PathError, match="the working folder, which is gone"):
        rtsx.open_cube("s.tif")
