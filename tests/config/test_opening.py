"""The public door: configs, recipes, native stores, and everything that it passes on."""

from pathlib import Path

import geopandas as gpd
import pytest
import shapely
import xarray as xr
import yaml
import zarr

from rtsx.config import build_cube, load_cube_config, load_cube_recipe, open_cube
from rtsx.cube.build import build_cube as build_recipe
from rtsx.errors import ConfigError, CubeError, OutputExistsError, OutputNotWritableError
from rtsx.storage.zarr import BUILD, COMPLETE
from rtsx.synthetic import RegionFiles


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
