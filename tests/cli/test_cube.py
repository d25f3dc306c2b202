"""`rtsx cube`: build, info, check and plot, on a YAML file and on what was built."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtsx.config import load_cube_config, open_cube
from rtsx.synthetic import RegionFiles

Command = Callable[..., Any]
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def config(region_files: RegionFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YAML file of ten layers over the middle of the region."""
    catalog = {"path": str(region_files.catalog)}
    values = {
        "preset": "tss-v1",
        "grid": {"resolution": 6, "cell_size": 128},
        "region": {"bbox": [-132.008, 67.3985, -131.994, 67.4025]},
        "sources": {
            "planetscope": {
                "catalog": {**catalog, "collections": "planetscope"},
                "asset": "ortho_analytic_4b_sr",
                "layers": ["blue", "green", "red", "nir"],
                "quality": {"asset": "ortho_udm2"},
            },
            "dem": {"catalog": {**catalog, "collections": "arcticdem-mosaic-10m"}, "terrain": ["slope"]},
        },
        "chunk": 64,
    }
    path = tmp_path_factory.mktemp("config") / "cube.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def store(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it builds to."""
    from rtsx.config import build_cube

    path = tmp_path_factory.mktemp("store") / "cube.zarr"
    build_cube(config, path)
    return path


@pytest.mark.slow
def test_a_store_is_built_once(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.zarr"
    first = rtsx_command("cube", "build", config, "--out", out)
    assert first.status == 0, first.err
    assert "4 were built now" in first.out.replace("  ", " ")
    again = rtsx_command("cube", "build", config, "--out", out)
    assert "0 were built now" in again.out
    assert load_cube_config(f"{out}.yaml") == load_cube_config(config).resolved()
    refused = rtsx_command("cube", "build", config, "--out", out, "--shard", "32")
    assert refused.status == 2
    assert "begun from another recipe: shard is null there and 32 here" in refused.err
    assert rtsx_command("cube", "build", config, "--out", out, "--shard", "32", "--overwrite").status == 0


@pytest.mark.slow
def test_a_native_store_opens_like_its_config(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    made = rtsx_command("cube", "build", config, "--out", tmp_path / "native.zarr", "--native")
    assert made.status == 0, made.err
    native, wanted = open_cube(tmp_path / "native.zarr"), open_cube(config)
    # At once, because lazy ones would be computed for each variable.
    assert native.compute().identical(wanted.compute())
    told = rtsx_command("cube", "info", tmp_path / "native.zarr")
    assert "native, aligned on opening" in told.out
    picture = rtsx_command("cube", "plot", tmp_path / "native.zarr", "--out", tmp_path / "a.png", "--size", "32")
    assert picture.status == 0, picture.err
    checked = rtsx_command("cube", "check", tmp_path / "native.zarr")
    assert checked.status == 0, checked.err


def test_a_cell_is_built(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    grid = load_cube_config(config).grid.grid()
    region = load_cube_config(config).recipe().region
    assert region is not None
    cell = next(iter(grid.cells(region)))
    made = rtsx_command("cube", "build", config, "--out", tmp_path / "cell.zarr", "--cell", cell.id)
    assert made.status == 0, made.err
    assert dict(open_cube(tmp_path / "cell.zarr").sizes) == {"y": 128, "x": 128}
    assert load_cube_config(tmp_path / "cell.zarr.yaml").cell == cell
    assert rtsx_command("cube", "build", config, "--out", tmp_path / "b.zarr", "--cell", "here").status == 2


def test_info_tells_of_files_and_stores(rtsx_command: Command, config: Path, store: Path) -> None:
    of_config, of_store = rtsx_command("cube", "info", config), rtsx_command("cube", "info", store)
    for told in (of_config, of_store):
        assert told.status == 0, told.err
        assert "px of 6 m, EPSG:3413" in told.out
        assert "uint16, scale 0.0001" in told.out
        assert "4: 20230711_204058_03e8" in told.out
    assert "in shards 64 x 64 px" in of_store.out
    assert "4, all built" in of_store.out


def test_a_sound_cube_passes_the_check(rtsx_command: Command, config: Path, store: Path) -> None:
    for cube in (store, config):
        told = rtsx_command("cube", "check", cube)
        assert told.status == 0, told.err
        assert "% covered; min " in told.out
        assert "none" in told.out
    assert "all as written" in rtsx_command("cube", "check", store).out


def test_a_damaged_store_fails_the_check(rtsx_command: Command, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "cube.zarr"
    rtsx_command("cube", "build", config, "--out", out)
    shard = next(file for file in sorted((out / "slope" / "c").rglob("*")) if file.is_file())
    shard.unlink()
    told = rtsx_command("cube", "check", out)
    assert told.status == 1
    assert f"{shard.relative_to(out)} is missing or damaged" in told.err


def test_a_store_that_is_not_built_to_its_end_is_told(
    rtsx_command: Command, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cube.zarr"
    monkeypatch.setattr("rtsx.cube.build.finish_store", lambda store: (_ for _ in ()).throw(OSError(28, "full")))
    stopped = rtsx_command("cube", "build", config, "--out", out)
    assert stopped.status == 2
    assert "Free space and run again" in stopped.err
    told = rtsx_command("cube", "info", out)
    assert told.status == 0, told.err
    assert "4 of 4 built" in told.out
    refused = rtsx_command("cube", "check", out)
    assert refused.status == 2
    assert "run the same rtsx cube build" in refused.err


def test_pictures_are_drawn_of_files_and_stores(
    rtsx_command: Command, config: Path, store: Path, tmp_path: Path
) -> None:
    for number, (cube, words) in enumerate([(store, []), (config, []), (store, ["--layers", "slope,valid"])]):
        out = tmp_path / f"{number}.png"
        told = rtsx_command("cube", "plot", cube, "--out", out, "--size", "50", *words)
        assert told.status == 0, told.err
        assert out.read_bytes().startswith(PNG)
    unknown = rtsx_command("cube", "plot", store, "--out", tmp_path / "x.png", "--layers", "moon")
    assert unknown.status == 2
    assert "['moon'] are not in this cube" in unknown.err
    assert rtsx_command("cube", "plot", store, "--out", tmp_path / "0.png").status == 2  # it is there


def test_errors_of_a_file_come_all_at_once(rtsx_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "cube.yaml"
    path.write_text("gird: {}\nsources: {a: {files: x.tif, layer: [red]}}\n")
    told = rtsx_command("cube", "build", path, "--out", tmp_path / "cube.zarr")
    assert told.status == 2
    assert "line 1, gird: unknown key; did you mean 'grid'?" in told.err
    assert "line 2, sources.a.layer: unknown key; did you mean 'layers'?" in told.err


def test_predict_and_info_take_a_config(rtsx_command: Command, config: Path, bundle: Path, tmp_path: Path) -> None:
    told = rtsx_command("predict", config, "--model", bundle, "--out", tmp_path / "map.zarr", "--device", "cpu")
    assert told.status == 0, told.err
    lazy, written = open_cube(config), open_cube(tmp_path / "map.zarr")
    assert (written["x"].values == lazy["x"].values).all()
    assert rtsx_command("info", config).status == 0
