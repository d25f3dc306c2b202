"""Every file in `configs/` loads, obeys the published schema, and opens on data in the formats that it names."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import rasterio
import yaml
from odc.geo.geobox import GeoBox

from rtsx.config import build_cube, cube_schema, load_campaign_config, load_cube_config, open_cube
from rtsx.errors import ConfigError
from rtsx.grid import Grid, lonlat_polygon
from rtsx.synthetic import RegionFiles, demo_spec, region_items, write_landsat, write_scene
from rtsx.synthetic.stac import catalog_items
from tests.servers import rustac_server

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(CONFIGS.glob("cube*.yaml"))
TEN = (
    "ndvi",
    "blue",
    "green",
    "red",
    "nir",
    "relative_elevation",
    "slope",
    "tc_brightness",
    "tc_greenness",
    "tc_wetness",
)


@pytest.fixture(scope="module")
def server(region_files: RegionFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A STAC API with the region's items."""
    with rasterio.open(region_files.images[0]) as file:
        x, y = file.xy(file.height // 2, file.width // 2)
        corner, crs = (x // 30 * 30 - 585, y // 30 * 30 + 585), str(file.crs)  # on the pixels of Landsat
    folder = tmp_path_factory.mktemp("landsat")
    stack = write_landsat(folder, shape=(39, 39), years=(2010, 2019), scenes_a_year=1, crs=crs, corner=corner)
    items = [*region_items(region_files), *catalog_items(stack.catalog)]
    names = sorted({item["collection"] for item in items})
    with rustac_server(tmp_path_factory.mktemp("server"), items, names) as url:
        yield url


@pytest.fixture
def ground(region_files: RegionFiles) -> GeoBox:
    """A hundred pixels in the middle of the region."""
    return around(region_files.images[0], Grid.arctic(resolution=3), side=100)


def around(path: Path, grid: Grid, *, side: int) -> GeoBox:
    with rasterio.open(path) as file:
        box = GeoBox(file.shape, file.transform, file.crs)
    middle = grid.projected(lonlat_polygon(box.extent.geom, str(box.crs))).centroid
    row = round((grid.origin[1] - middle.y) / grid.resolution)
    column = round((middle.x - grid.origin[0]) / grid.resolution)
    return grid.window((row - side // 2, row + side // 2), (column - side // 2, column + side // 2))


@pytest.fixture
def local(region_files: RegionFiles, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the configs at the synthetic region."""
    monkeypatch.setenv("RTSX_CATALOG", str(region_files.catalog))
    monkeypatch.setenv("RTSX_PLANETSCOPE", str(region_files.catalog))
    monkeypatch.setenv("RTSX_DEM_STAC", server)
    monkeypatch.setenv("RTSX_DEM_COLLECTION", "arcticdem-mosaic-10m")
    monkeypatch.setenv("RTSX_LANDSAT_STAC", server)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_loads_and_comes_back(path: Path, tmp_path: Path) -> None:
    config = load_cube_config(path)
    again = tmp_path / "again.yaml"
    again.write_text(config.resolved().to_yaml())
    assert load_cube_config(again) == config.resolved()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_obeys_the_schema(path: Path) -> None:
    values = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
    jsonschema.validate(values, cube_schema())


def test_the_file_of_the_documentation_means_the_published_layers(tmp_path: Path) -> None:
    page = (CONFIGS.parent / "docs" / "howto" / "cube.md").read_text()
    (tmp_path / "cube.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    recipe = load_cube_config(tmp_path / "cube.yaml").recipe()
    assert recipe.layers == TEN
    assert recipe.sources[-1].trend.window == (2000, 2019)


def test_the_schema_refuses_unknown_keys() -> None:
    with pytest.raises(jsonschema.ValidationError, match="reslution"):
        jsonschema.validate({"sources": {"a": {"layers": ["b"]}}, "grid": {"reslution": 3}}, cube_schema())


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("name", ["cube-demo", "cube-planetscope"])
def test_ten_layers_of_the_first_models_open(name: str, ground: GeoBox) -> None:
    cube = open_cube(CONFIGS / f"{name}.yaml", ground)
    assert tuple(cube.data_vars)[:10] == TEN
    valid = cube["valid"].values
    assert 0.3 < valid.mean() <= 1
    assert np.isfinite(cube["relative_elevation"].values[valid]).all()
    assert (cube["red"].values[valid] > 0).all()


@pytest.mark.usefixtures("local")
def test_the_layers_of_darts_v2_open_with_a_step_per_day(ground: GeoBox) -> None:
    cube = open_cube(CONFIGS / "cube-planetscope-darts-v2.yaml", ground)
    assert cube["red"].dims == ("time", "y", "x")
    assert set(cube["time"].dt.year.values) == {2024}
    assert {"dem", "aspect", "hillshade", "curvature", "ndvi"} <= set(cube.data_vars)
    assert 0 <= float(cube["hillshade"].min()) <= float(cube["hillshade"].max()) <= 1
    trends = load_cube_config(CONFIGS / "cube-planetscope-darts-v2.yaml").recipe().sources[-1].trend
    assert (trends.window, trends.resampling) == ((2005, 2024), "cubic")


@pytest.mark.usefixtures("local")
def test_the_ten_layers_of_the_arctic_open_without_files_of_trends(
    region_files: RegionFiles, ground: GeoBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "2024").symlink_to(region_files.catalog.parent)
    monkeypatch.setenv("RTSX_PLANETSCOPE", str(tmp_path))
    recipe = load_campaign_config(CONFIGS / "campaign-arctic.yaml").cube.recipe()
    cube = open_cube(recipe, ground)
    assert tuple(cube.data_vars)[:10] == TEN
    assert cube["valid"].values.any()


def test_files_open_without_a_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_scene(demo_spec(size=128), tmp_path)
    monkeypatch.setenv("RTSX_FILES", str(tmp_path))
    cube = open_cube(CONFIGS / "cube-files.yaml", around(files.image, Grid.arctic(resolution=3), side=60))
    assert tuple(cube.data_vars)[:10] == TEN
    assert cube["red"].attrs["units"] == "reflectance"
    assert cube["valid"].values.any()


def test_sentinel2_opens_from_a_server(
    region_files: RegionFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [sentinel2(path, tmp_path, date=f"2024-07-{day:02d}") for day, path in enumerate(region_files.images, 10)]
    items = [*images, *(item for item in region_items(region_files) if item["collection"].startswith("arcticdem"))]
    with rustac_server(tmp_path, items, ["sentinel-2-l2a", "arcticdem-mosaic-10m"]) as url:
        monkeypatch.setenv("RTSX_S2_STAC", url)
        monkeypatch.setenv("RTSX_DEM_STAC", url)
        monkeypatch.setenv("RTSX_DEM_COLLECTION", "arcticdem-mosaic-10m")
        ground = around(region_files.images[0], Grid.arctic(resolution=10), side=30)
        cube = open_cube(CONFIGS / "cube-sentinel2.yaml", ground)
        assert tuple(cube.data_vars)[:7] == ("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope")
        assert cube["red"].attrs["add_offset"] == -0.1
        valid = cube["valid"].values
        assert valid.any()
        assert (cube["quality_sentinel2"].values[valid] == 2).all()


def test_the_ndvi_beside_a_basemap_is_that_of_sentinel2(
    region_files: RegionFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load((CONFIGS / "cube-basemap.yaml").read_text())
    ground = around(region_files.images[0], load_cube_config(CONFIGS / "cube-basemap.yaml").grid.grid(), side=30)
    colours = ground.pad(9)
    with rasterio.open(
        tmp_path / "20250815_quad.tif", "w", driver="GTiff", count=3, height=colours.shape.y, width=colours.shape.x, dtype="uint8",
        crs="EPSG:3857", transform=colours.affine,
    ) as file:  # fmt: skip
        file.write(np.full((3, *colours.shape.yx), 60, np.uint8))
    values["sources"]["basemap"] = {"sensor": "planet-basemap", "files": str(tmp_path / "*_quad.tif")}
    (tmp_path / "cube.yaml").write_text(yaml.safe_dump(values))
    values["sources"].pop("basemap")
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump({**values, "layers": ["ndvi"]}))
    with rustac_server(
        tmp_path, [sentinel2(region_files.images[0], tmp_path, date="2025-07-10")], ["sentinel-2-l2a"]
    ) as url:
        monkeypatch.setenv("RTSX_S2_STAC", url)
        cube, alone = (open_cube(tmp_path / name, ground) for name in ("cube.yaml", "alone.yaml"))
        assert tuple(cube.data_vars)[:4] == ("red", "green", "blue", "ndvi")
        assert 0 < np.nanmax(cube["ndvi"].values) < 1
        np.testing.assert_array_equal(cube["ndvi"], alone["ndvi"])


def sentinel2(path: Path, folder: Path, *, date: str) -> dict[str, Any]:
    """A PlanetScope-like file as a Sentinel-2 L2A item: one file per band at 10 m, classes at 20 m."""
    with rasterio.open(path) as file:
        height, width = file.height * 3 // 20 * 2, file.width * 3 // 20 * 2
        pixels = file.read(out_shape=(file.count, height, width))
        transform = file.transform @ file.transform.scale(file.width / width, file.height / height)
        crs = file.crs
    name = f"S2_{path.stem[:15]}"
    assets: dict[str, Any] = {}
    bands = dict(zip(("blue", "green", "red", "nir"), pixels, strict=True))
    bands["scl"] = np.where(pixels[0, ::2, ::2] > 0, 4, 0).astype(np.uint8)
    for key, band in bands.items():
        step = 2 if key == "scl" else 1
        affine = transform @ transform.scale(step)
        target = folder / f"{name}_{key}.tif"
        stored = band if key == "scl" else np.where(band > 0, band + 1000, 0).astype(np.uint16)
        with rasterio.open(
            target, "w", driver="GTiff", count=1, height=band.shape[0], width=band.shape[1], dtype=stored.dtype,
            crs=crs, transform=affine, nodata=0,
        ) as file:  # fmt: skip
            file.write(stored, 1)
        packed = {} if key == "scl" else {"scale": 0.0001, "offset": -0.1}
        assets[key] = {
            "href": str(target),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "proj:shape": list(band.shape),
            "proj:transform": list(affine)[:6],
            "eo:bands": [{"name": key, "common_name": key}],
            "raster:bands": [{"data_type": str(stored.dtype), "nodata": 0, **packed}],
        }
    with rasterio.open(path) as file:
        outline = lonlat_polygon(GeoBox(file.shape, file.transform, file.crs).extent.geom, str(file.crs))
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": outline.__geo_interface__,
        "bbox": list(outline.bounds),
        "properties": {"datetime": f"{date}T20:00:00Z", "eo:cloud_cover": 3.0, "proj:epsg": crs.to_epsg()},
        "links": [],
        "assets": assets,
    }


@pytest.mark.usefixtures("local")
def test_trends_are_built_alone_and_taken_by_the_cube(ground: GeoBox, tmp_path: Path) -> None:
    text = (CONFIGS / "cube-planetscope.yaml").read_text()
    middle = lonlat_polygon(ground.extent.geom, str(ground.crs)).centroid
    x, y = middle.x, middle.y
    here = f"region: {{bbox: [{x - 0.01}, {y - 0.002}, {x + 0.01}, {y + 0.002}]}}"
    text = "\n".join(here if line.startswith("region:") else line for line in text.splitlines())
    (tmp_path / "cube.yaml").write_text(text)
    built = build_cube(tmp_path / "cube.yaml", tmp_path / "trends.zarr", only=["trend"], resolution=30.0)
    assert built.built == 1
    assert build_cube(tmp_path / "cube.yaml", tmp_path / "trends.zarr", only=["tcvis"], resolution=30.0).built == 0
    trends = open_cube(tmp_path / "trends.zarr")
    assert [*trends.data_vars] == ["tc_brightness", "tc_greenness", "tc_wetness", "quality_tcvis", "valid"]
    assert abs(trends["x"].values[1] - trends["x"].values[0]) == 30
    with pytest.raises(ConfigError, match="has the sources planetscope, dem, tcvis; got tcviz"):
        build_cube(tmp_path / "cube.yaml", tmp_path / "other.zarr", only=["tcviz"])

    head, _ = text.split("  tcvis:\n")
    stored = f"  tcvis: {{zarr: {tmp_path / 'trends.zarr'}, layers: [{', '.join(TEN[-3:])}]}}\n"
    (tmp_path / "stored.yaml").write_text(head + stored)
    cube, there = open_cube(tmp_path / "stored.yaml", ground), trends["valid"]
    assert tuple(cube.data_vars)[:10] == TEN
    seen = there.sel(x=cube["x"], y=cube["y"], method="nearest").values
    assert 0 < seen.mean() < 1
    np.testing.assert_array_equal(
        cube["valid"].values & ~seen, False
    )  # what no trend says is missing, and not a fall of 0.12
    assert cube["valid"].values.any()
