"""The config of a cube: what it means, what it refuses, and that it comes back."""

from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import yaml
import zarr
from affine import Affine

import rtsx
from rtsx.config import CubeConfig, build_cube, load_cube_config, load_cube_recipe, open_cube
from rtsx.config.layers import SOURCE_KINDS
from rtsx.config.yaml import parse_yaml
from rtsx.cube.build import build_store as build_recipe
from rtsx.cube.file_images import FileImages
from rtsx.cube.images import GivenImages, Period
from rtsx.cube.mask_rules import MASK_RULES
from rtsx.cube.sensors import SENSORS
from rtsx.cube.stac import StacCatalog, StacSearch
from rtsx.errors import ConfigError, CubeError, OutputExistsError, OutputNotWritableError
from rtsx.grid import Grid
from rtsx.storage.zarr import BUILD, COMPLETE, consolidate
from rtsx.synthetic import RegionFiles
from tests.servers import ScriptedServer

FULL = """
preset: tss-v1
grid: {crs: EPSG:3413, resolution: 3}
region: {bbox: [-139.3, 69.5, -138.9, 69.65]}
period: {start: 2024-07-01, end: 2024-08-31, months: [7, 8]}
sources:
  planetscope:
    stac: {url: "https://stac.example.org", collections: PSScene, max_cloud_cover: 20}
    asset: ortho_analytic_4b_sr
    layers: {blue: 1, green: , red: {band: red, dtype: float32}, nir: nir}
    quality: {asset: ortho_udm2, erode_m: 30}
    group: day
  dem:
    catalog: dem/catalog.json
    terrain: [relative_elevation, slope]
  tcvis:
    zarr: "tcvis_{tcvis_window}.zarr"
    layers: [tc_brightness, tc_greenness, tc_wetness]
    period: any
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cube.yaml"
    path.write_text(text)
    return path


def changed(**parts: Any) -> str:
    return str(yaml.safe_dump({**yaml.safe_load(FULL), **parts}, sort_keys=False))


def one_source(**fields: Any) -> str:
    return changed(preset=None, sources={"scene": {"files": "a.tif", "layers": ["red"], **fields}})


def test_a_file_becomes_the_recipe_that_it_means(tmp_path: Path) -> None:
    recipe = load_cube_recipe(write(tmp_path, FULL))
    planetscope, dem, tcvis = recipe.sources
    assert recipe.grid == Grid.arctic(resolution=3)
    assert recipe.region == shapely.box(-139.3, 69.5, -138.9, 69.65)
    assert planetscope.images == StacSearch("https://stac.example.org", ("PSScene",), max_cloud_cover=20)
    assert [(layer.name, layer.wanted.bands, layer.dtype) for layer in planetscope.layers] == [
        ("blue", (1,), None),
        ("green", (), None),
        ("red", ("red",), "float32"),
        ("nir", ("nir",), None),
    ]
    assert {layer.wanted.asset for layer in planetscope.layers} == {"ortho_analytic_4b_sr"}
    assert planetscope.period == Period(date(2024, 7, 1), date(2024, 8, 31), months=(7, 8))
    assert planetscope.group == "day"
    assert planetscope.quality is not None
    assert planetscope.quality.rule == MASK_RULES["tss-v1"]
    assert planetscope.quality.erode_m == 30
    assert planetscope.quality.wanted.name == "ortho_udm2"
    assert dem.images == StacCatalog(str(tmp_path / "dem/catalog.json"))
    assert (dem.period, tcvis.period) == (None, None)
    assert (dem.terrain_grid, dem.terrain_resampling, dem.layers[0].resampling) == ("source", "cubic", "cubic")
    assert {layer.resampling for layer in tcvis.layers} == {"nearest"}
    assert recipe.layers == (
        *("ndvi", "blue", "green", "red", "nir", "relative_elevation", "slope"),
        *("tc_brightness", "tc_greenness", "tc_wetness"),
    )
    assert [layer.name for layer in recipe.derived] == ["ndvi"]


def test_darts_v2_means_other_choices(tmp_path: Path) -> None:
    recipe = load_cube_recipe(write(tmp_path, changed(preset="darts-v2")))
    planetscope, dem, tcvis = recipe.sources
    assert planetscope.quality is not None
    assert planetscope.quality.rule == MASK_RULES["darts-v2"]
    assert dem.terrain_grid == "cube"
    assert {layer.resampling for layer in tcvis.layers} == {"cubic"}
    assert "2005-2024" in str(tcvis.images)
    assert recipe.layers is None


@pytest.mark.parametrize(
    ("preset", "year", "window"),
    [("tss-v1", 2024, "2000-2019"), ("darts-v2", 2018, "2000-2019"), ("darts-v2", 2019, "2001-2020"),
     ("darts-v2", 2020, "2003-2022"), ("darts-v2", 2021, "2003-2022"), ("darts-v2", 2022, "2005-2024")],
)  # fmt: skip
def test_the_window_of_the_trends_goes_by_preset_and_year(tmp_path: Path, preset: str, year: int, window: str) -> None:
    recipe = load_cube_recipe(write(tmp_path, changed(preset=preset, period={"years": year})))
    assert recipe.sources[2].images.path == str(tmp_path / f"tcvis_{window}.zarr")  # type: ignore[attr-defined]


def test_a_period_over_several_windows_has_to_choose(tmp_path: Path) -> None:
    text = changed(preset="darts-v2", period={"years": [2018, 2022]})
    with pytest.raises(
        ConfigError, match=r"sources\.tcvis: .*spans several: 2000-2019, 2001-2020, 2003-2022, 2005-2024"
    ):
        load_cube_config(write(tmp_path, text))
    chosen = changed(preset="darts-v2", period={"years": [2018, 2022]}, tcvis_window="2003-2022")
    assert "2003-2022" in str(load_cube_recipe(write(tmp_path, chosen)).sources[2].images)


def test_what_is_said_wins_over_the_preset(tmp_path: Path) -> None:
    sources = yaml.safe_load(FULL)["sources"]
    sources["dem"] |= {"terrain_grid": "cube", "terrain_resampling": "bilinear", "resampling": "average"}
    sources["planetscope"]["quality"]["rule"] = "darts-v2"
    sources["tcvis"]["layers"] = {"tc_brightness": {"resampling": "bilinear"}}
    recipe = load_cube_recipe(write(tmp_path, changed(sources=sources, derived=[], layers=["red", "slope"])))
    assert (recipe.sources[1].terrain_grid, recipe.sources[1].terrain_resampling) == ("cube", "bilinear")
    assert recipe.sources[1].layers[0].resampling == "average"
    assert recipe.sources[0].quality is not None
    assert recipe.sources[0].quality.rule == MASK_RULES["darts-v2"]
    assert recipe.sources[2].layers[0].resampling == "bilinear"
    assert (recipe.derived, recipe.layers) == ((), ("red", "slope"))


def test_everything_that_is_wrong_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """grid: {crs: EPSG:3413, reslution: 3, origin: [a, 1]}
period: {start: 2024-07-01}
sources:
  one: {catalog: x, layers: [q], qualty: {asset: b}}
  two:
    files: "${RTSX_NOT_SET_ANYWHERE}"
    layers: [q]
    composite: frist
    quality: {rule: tss-v2}
  three: {catalog: x, zarr: y, layers: [q]}
chunk: 0
""",
    )
    with pytest.raises(ConfigError) as error:
        load_cube_config(path)
    text = str(error.value)
    assert text.startswith(f"{path} has 9 errors:")
    for part in (
        "line 1, grid.reslution: unknown key; did you mean 'resolution'?",
        "line 1, grid.origin[0]: ",
        "line 2, period: a period has start and end, or years",
        "line 4, sources.one.qualty: unknown key; did you mean 'quality'?",
        "line 6, sources.two.files: the environment variable RTSX_NOT_SET_ANYWHERE is not set",
        "line 8, sources.two.composite: ",
        "line 9, sources.two.quality: Known mask rules are",
        "line 10, sources.three: a source has one of stac, catalog, items, files, zarr; got catalog and zarr",
        "line 11, chunk: ",
    ):
        assert part in text, part
    assert [int(line.split(",")[0].removeprefix("  line ")) for line in text.splitlines()[1:]] == [
        1, 1, 2, 4, 6, 8, 9, 10, 11,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(preset=None), r"sources\.planetscope: quality needs a rule"),
        (changed(grid={"crs": "EPSG:nowhere"}), r"grid: The CRS of a grid has to be one that PROJ knows"),
        (changed(region={"bbox": [1, 2, 3]}), r"region\.bbox"),
        (changed(region={"bbox": [1, 5, 3, 2]}), r"region: bbox is \[west, south, east, north\]"),
        (changed(region={"bbox": [1, 2, 3, 4], "cell": "r001c001"}), "given by one of .*got bbox and cell"),
        (changed(region={"cell": "here"}), r"A cell is named like"),
        (changed(region={"file": "gone.geojson"}), r"region in .*gone\.geojson cannot be read"),
        (changed(derived="ndwi_of_nobody"), r"Known derived layers are"),
        (changed(layers=["ndvi", "moon"]), r"\['moon'\] are not in this cube"),
        (one_source(terrain=["slop"], layers=["dem"]), r"sources\.scene: .*Did you mean 'slope'"),
        (one_source(sensor="planetscop"), r"sources\.scene\.sensor: Known sensors are"),
        (one_source(layers=None), r"a source needs layers, or a sensor"),
        (one_source(layers=None, sensor="planetscope"), r"planetscope files have 4 or 8 bands"),
        (one_source(files=None), r"a source has one of .*; got none"),
        ("[1, 2]", r"expected keys with values, such as \{key: value\}; got '\[1, 2\]'"),
        (changed(period="any"), r"period: expected keys with values, such as \{key: value\}; got 'any'"),
        (changed(derived={"wet": "green - nir"}), r"derived: expected a list, such as \[first, second\]; got"),
        ("sources: {}", r"sources: dictionary should have at least 1 item"),
    ],
)
def test_what_cannot_be_is_refused_with_a_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_cube_config(write(tmp_path, text))


def test_a_sensor_names_the_bands_of_files_that_do_not(tmp_path: Path) -> None:
    text = one_source(layers=None, sensor={"name": "planetscope", "bands": 8})
    layers = {layer.name: layer for layer in load_cube_recipe(write(tmp_path, text)).sources[0].layers}
    assert layers["blue"].wanted.bands == (2,)
    assert layers["nir"].wanted.bands == (8,)
    assert (layers["red"].wanted.scale_factor, layers["red"].wanted.nodata) == (1e-4, 0)
    assert layers["red"].units == "reflectance"


def test_paths_count_from_the_file_and_the_home_folder(tmp_path: Path) -> None:
    files = {"image": ["a/*.tif", "~/b.tif", "s3://bucket/c.tif"], "udm2": str(tmp_path / "d.tif")}
    images = load_cube_recipe(write(tmp_path, one_source(files=files))).sources[0].images
    assert isinstance(images, FileImages)
    assert images.assets["image"] == (str(tmp_path / "a/*.tif"), str(Path.home() / "b.tif"), "s3://bucket/c.tif")
    assert images.assets["udm2"] == (str(tmp_path / "d.tif"),)


def test_a_region_may_be_a_file_a_cell_or_cross_the_antimeridian(tmp_path: Path) -> None:
    (tmp_path / "region.geojson").write_text(
        '{"type": "Feature", "properties": {}, "geometry": '
        '{"type": "Polygon", "coordinates": [[[-139, 69], [-138, 69], [-138, 70], [-139, 69]]]}}'
    )
    recipe = load_cube_recipe(write(tmp_path, changed(region={"file": "region.geojson"})))
    assert recipe.region == shapely.Polygon([(-139, 69), (-138, 69), (-138, 70)])
    config = load_cube_config(write(tmp_path, changed(region={"cell": "r-005c-061"})))
    assert config.cell == Grid.arctic(resolution=3)[-5, -61]
    assert config.recipe().region is None
    across = load_cube_recipe(write(tmp_path, changed(region={"bbox": [170, 65, -170, 70]}))).region
    assert across is not None
    assert across.bounds == (-180, 65, 180, 70)
    assert across.area == pytest.approx(100)


def test_expressions_are_mask_rules(tmp_path: Path) -> None:
    quality = {"asset": "mask", "rule": {"invalid": "unusable", "low": "cloud or shadow"}, "data": "udm2"}
    config = load_cube_config(write(tmp_path, one_source(quality=quality)))
    recipe = config.recipe()
    assert recipe.sources[0].quality is not None
    assert recipe.sources[0].quality.rule.name == "invalid: unusable; low: cloud or shadow"
    assert CubeConfig.from_recipe(recipe).recipe() == recipe


def test_config_and_recipe_come_back_equal(tmp_path: Path) -> None:
    config = load_cube_config(write(tmp_path, FULL))
    assert load_cube_config(write(tmp_path, config.to_yaml())) == config
    resolved = config.resolved()
    assert load_cube_config(write(tmp_path, resolved.to_yaml())) == resolved
    assert resolved.resolved() == resolved
    assert resolved.recipe() == config.recipe()
    assert CubeConfig.from_recipe(config.recipe()) == resolved


def test_objects_that_no_file_can_name_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    recipe = load_cube_recipe(write(tmp_path, FULL))
    given = replace(recipe.sources[0], images=GivenImages([]))
    with pytest.raises(ConfigError, match=r"'planetscope' are GivenImages, which no file can name"):
        CubeConfig.from_recipe(replace(recipe, sources=(given,), derived=(), layers=None))


def test_headers_of_servers_are_not_stored() -> None:
    source = {
        "stac": {"url": "https://x", "collections": "c", "access": {"headers": {"Authorization": "secret"}}},
        "layers": ["red"],
    }
    config = CubeConfig.model_validate({"sources": {"one": source}})
    assert config.recipe().sources[0].images.access.headers == {"Authorization": "secret"}  # type: ignore[attr-defined]
    assert "secret" not in config.without_secrets().to_yaml()
    assert CubeConfig.model_validate(parse_yaml(config.without_secrets().to_yaml(), name="f").values)


@pytest.mark.parametrize("count", [4, 10, 12])
@pytest.mark.parametrize("described", [False, True])
def test_a_sensor_names_the_bands_of_a_file_as_at_the_other_doors(tmp_path: Path, count: int, described: bool) -> None:
    names = SENSORS["sentinel2-l2a"].names(count)
    given = names[::-1] if described else (None,) * count
    pixels = np.arange(1, count + 1, dtype="uint16")[:, None, None] * np.ones((32, 32), "uint16")
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=count, height=32, width=32, dtype="uint16", crs="EPSG:32608",
        transform=Affine(3, 0, 500000, 0, -3, 7700000),
    ) as file:  # fmt: skip
        file.write(pixels)
        file.descriptions = given
    expected = {name: 1 + place for place, name in enumerate(names[::-1] if described else names)}
    direct = rtsx.open_cube(tmp_path / "s.tif", sensor="sentinel2-l2a")
    for layers in ("", ", layers: [red, nir]"):
        (tmp_path / "c.yaml").write_text(
            "grid: {crs: EPSG:32608, resolution: 3, origin: [500000, 7700000]}\nregion: {bbox: [-135, 69.408, -134.998, 69.41]}\n"
            f"sources:\n  s: {{files: s.tif, sensor: sentinel2-l2a{layers}}}\n"
        )
        cube = rtsx.open_cube(tmp_path / "c.yaml")
        for name in ("red", "nir") if layers else names:
            assert int(cube[name].max()) == int(direct[name].max()) == expected[name]
            assert cube[name].attrs["scale_factor"] == 1e-4
        config = load_cube_config(tmp_path / "c.yaml").resolved()
        assert CubeConfig.from_recipe(config.recipe()).recipe() == config.recipe()


@pytest.fixture
def config(region_files: RegionFiles, tmp_path: Path) -> Path:
    source = {"catalog": {"path": str(region_files.catalog), "collections": "tcvis"}, "layers": ["tc_wetness"]}
    values = {
        "grid": {"resolution": 20, "cell_size": 32},
        "region": {"bbox": [-132.005, 67.398, -131.996, 67.402]},
        "sources": {"trends": source},
        "chunk": 16,
    }
    path = tmp_path / "cube.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_config_opens_by_its_path(config: Path) -> None:
    cube = open_cube(config)
    assert cube.identical(open_cube(str(config)))
    assert cube.identical(open_cube(load_cube_recipe(config)))
    assert list(cube.data_vars) == ["tc_wetness", "valid"]
    assert set(cube.chunksizes["y"][:-1]) <= {16}


def test_a_cell_takes_the_place_of_the_region(config: Path) -> None:
    loaded = load_cube_config(config)
    grid, region = loaded.grid.grid(), loaded.recipe().region
    assert region is not None
    cell = next(iter(grid.cells(region)))
    assert dict(open_cube(config, cell).sizes) == {"y": 32, "x": 32}
    config.write_text(loaded.changed(region={"cell": cell.id}).to_yaml())
    assert open_cube(config).identical(open_cube(config, cell))


def test_words_of_the_door_reach_the_recipe(config: Path) -> None:
    assert max(open_cube(config, chunks=7).chunksizes["y"]) == 7
    with pytest.raises(CubeError, match=r"Layers \['red'\] are not in this cube"):
        open_cube(config, layers=["red"])
    with pytest.raises(CubeError, match="A recipe says itself"):
        open_cube(config, sensor="tcvis")


def test_a_native_store_remembers_its_config(config: Path, tmp_path: Path) -> None:
    build_cube(config, tmp_path / "native.zarr", layout="native")
    wanted = open_cube(config).compute()
    config.unlink()
    cube = open_cube(tmp_path / "native.zarr")
    assert cube.compute().identical(wanted)
    assert isinstance(cube, xr.Dataset)
    assert load_cube_config(tmp_path / "native.zarr.yaml").chunk == 16


def test_a_native_store_without_a_config_says_so(config: Path, tmp_path: Path) -> None:
    build_recipe(load_cube_recipe(config), tmp_path / "native.zarr", layout="native")
    with pytest.raises(CubeError, match=r"with_native_images\(recipe, path\)"):
        open_cube(tmp_path / "native.zarr")


def test_what_is_no_config_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"built from a YAML file; got scene\.tif"):
        build_cube("scene.tif", tmp_path / "cube.zarr")


def test_other_sources_pass_through(tmp_path: Path) -> None:
    with pytest.raises(CubeError, match="there is no such file or folder"):
        open_cube(tmp_path / "gone.zarr")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_never_replaces_a_config_of_the_user(config: Path, tmp_path: Path, overwrite: bool) -> None:
    mine = config.read_bytes()
    with pytest.raises(OutputNotWritableError, match=r"ends in \.zarr; got .*cube\. Use .*cube\.zarr"):
        build_cube(config, config.with_suffix(""), overwrite=overwrite)
    config = config.rename(config.with_name("cube.zarr.yaml"))
    with pytest.raises(OutputExistsError, match="holds another config"):
        build_cube(config, tmp_path / "cube.zarr", overwrite=overwrite)
    assert config.read_bytes() == mine
    assert [file.name for file in tmp_path.iterdir() if "cube" in file.name] == ["cube.zarr.yaml"]


def test_a_config_that_a_build_wrote_is_replaced_by_the_next(config: Path, tmp_path: Path) -> None:
    for _ in range(2):
        build_cube(config, tmp_path / "cube.zarr")
    config.write_text(config.read_text().replace("chunk: 16", "chunk: 32"))
    build_cube(config, tmp_path / "cube.zarr", overwrite=True)
    assert load_cube_config(tmp_path / "cube.zarr.yaml").chunk == 32


def test_a_store_holds_the_ground_of_its_region_and_not_the_name_of_a_file(config: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(config.read_text())
    ground = gpd.GeoDataFrame(geometry=[shapely.Point(-132.0, 67.4).buffer(0.004)], crs="EPSG:4326")
    ground.to_file(tmp_path / "aoi.gpkg")
    config.write_text(yaml.safe_dump({**values, "region": {"file": "aoi.gpkg"}}))
    build_cube(config, tmp_path / "native.zarr", layout="native")
    wanted = open_cube(config).compute()
    (tmp_path / "aoi.gpkg").unlink()
    assert open_cube(tmp_path / "native.zarr").compute().identical(wanted)


@pytest.mark.parametrize("file", ["https://example.org/x.geojson?key=${KEY:-}", "~/.ssh/id.gpkg", "/etc/aoi.gpkg"])
def test_a_store_neither_opens_what_its_author_names_nor_learns_of_the_environment(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "SECRET")
    asked: list[object] = []
    monkeypatch.setattr("rtsx.config.place._read", asked.append)
    text = f"region: {{file: '{file}'}}\nsources: {{s: {{files: a.tif, layers: [red]}}}}\n"
    state = {COMPLETE: True, BUILD: {"state": "complete"}}
    group = zarr.create_group(tmp_path / "theirs.zarr", zarr_format=3, attributes=state)
    group.create_group("build", attributes={"index": {}, "config": text, "images": {}, "recipe": {}})
    with pytest.raises(ConfigError, match=r"a store may not make its reader open other files") as refused:
        open_cube(tmp_path / "theirs.zarr")
    assert "SECRET" not in str(refused.value)
    assert not asked


STRANGE: tuple[dict[str, Any], ...] = (
    {"files": "URL/x.tif", "sensor": "planetscope", "layers": None},
    {"files": "~/x.tif", "sensor": {"name": "planetscope"}, "layers": None},
    {"files": ["URL/x*.tif", "/etc/*"]},
    {"stac": {"url": "URL", "collections": "c", "sign": "of-a-stranger"}},
    {"catalog": {"path": "URL/catalog.json", "sign": "planetary-computer", "access": {"headers": {"X-Key": "${KEY}"}}}},
    {"items": {"path": "URL/items.parquet", "sign": "os:system"}},
    {"zarr": "URL/other.zarr"},
    {"zarr": "~/other.zarr"},
)
"""What the author of a store may have written in place of a source's images."""


def test_images_come_from_a_store_whatever_its_author_names_beside_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_cube(config, tmp_path / "native.zarr", layout="native")
    wanted = open_cube(tmp_path / "native.zarr").compute()
    group = zarr.open_group(tmp_path / "native.zarr", mode="r+", use_consolidated=False)["build"]
    values = yaml.safe_load(str(group.attrs["config"]))
    (source,) = values["sources"].values()
    server = ScriptedServer()
    monkeypatch.setenv("KEY", "SECRET")
    monkeypatch.setenv("HOME", server.url)
    try:
        for strange in STRANGE:
            own = {key: value for key, value in source.items() if key not in SOURCE_KINDS}
            text = yaml.safe_dump(values | {"sources": {"trends": own | strange}}).replace("URL", server.url)
            group.attrs["config"] = text
            consolidate(group.store)
            if "layers" not in strange:
                assert open_cube(tmp_path / "native.zarr").compute().identical(wanted), strange
            else:
                with pytest.raises(ConfigError, match=r"planetscope files have 4 or 8 bands. Name the layers"):
                    open_cube(tmp_path / "native.zarr")
    finally:
        server.close()
    assert not server.asked


@pytest.mark.parametrize(
    ("key", "source", "grid"),
    [
        ("sources.s.layers.red", "layers: {red: yes}", ""),
        ("sources.s.layers.red.band", "layers: {red: {band: true}}", ""),
        ("sources.s.layers.red.nodata", "layers: {red: {nodata: no}}", ""),
        ("sources.s.layers.red.scale_factor", "layers: {red: {scale_factor: on}}", ""),
        ("grid.cell_size", "layers: [red]", ", cell_size: true"),
    ],
)
def test_true_is_no_number(key: str, source: str, grid: str, tmp_path: Path) -> None:
    text = f"grid: {{crs: EPSG:3413, resolution: 3{grid}}}\nsources:\n  s: {{files: a.tif, required: yes, {source}}}\n"
    with pytest.raises(ConfigError, match=rf"{key}: expected a number; got (true|false), which .*yes, no, on and off"):
        load_cube_config(str(write(tmp_path, text)))


def test_a_derived_layer_may_be_made_from_layers_of_other_names(tmp_path: Path) -> None:
    files = {"files": str(tmp_path / "scene.tif"), "layers": {"s2_red": 1, "nir": 2}}
    config = CubeConfig.model_validate({"sources": {"a": files}, "derived": "ndvi(s2_red, nir)", "layers": ["ndvi"]})
    (layer,) = config.recipe().derived
    assert (layer.name, layer.needs) == ("ndvi", ("s2_red", "nir"))
    assert CubeConfig.from_recipe(config.recipe()).derived == ("ndvi(s2_red, nir)",)
    assert config.only(["a"]).layers == ("ndvi",)
