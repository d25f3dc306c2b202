"""Laws of aligned cubes: chunks, workers and threads change no bit; opening reads nothing; a chunk reads its own sources."""

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import rtsx
from rtsx.cube import rasterio as files
from rtsx.cube.recipe import CubeRecipe
from tests import warm
from tests.cube.scenes import CUBE, GRID, Ground, at, elevation, optical, recipe, trend


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Scenes of two zones, two tiles of elevation, trends."""
    ground = Ground(tmp_path_factory.mktemp("ground"))
    return {
        "scenes": [
            ground.scene("a", shift=(-500, 200), cloud=2, time=at("2024-07-01")),
            ground.scene("b", shift=(450, -100), cloud=1, crs="EPSG:32608", time=at("2024-07-02")),
            ground.scene("c", cloud=3, time=at("2023-07-03")),
        ],
        "heights": [ground.heights("west", shift=(-1500, 0)), ground.heights("east", shift=(1500, 0))],
        "trends": [ground.trends("t")],
    }


def full(many: dict[str, Any], *, chunk: int, **fields: Any) -> CubeRecipe:
    terrain = {"terrain_grid": fields.pop("terrain_grid", "source")}
    return recipe(
        optical(many["scenes"], erode_m=25.0, **fields),
        elevation(many["heights"], terrain=("relative_elevation", "slope", "hillshade"), **terrain),
        trend(many["trends"]),
        chunk=chunk,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resampling", "composite", "terrain_grid"),  # every pair of two
    [
        ("nearest", "first", "source"),
        ("nearest", "median", "cube"),
        ("bilinear", "first", "cube"),
        ("bilinear", "median", "source"),
        ("cubic", "first", "source"),
        ("cubic", "median", "cube"),
        ("average", "first", "cube"),
        ("average", "median", "source"),
    ],
)
def test_chunks_change_no_bit(many: dict[str, Any], resampling: str, composite: str, terrain_grid: str) -> None:
    fields = {"composite": composite, "terrain_grid": terrain_grid, "resampling": resampling}
    whole = rtsx.open_cube(full(many, chunk=200, **fields), CUBE).compute()
    assert 0.1 < float(whole["valid"].mean()) < 0.99
    # Each of the two with every resampling, every composite and every grid of terrain.
    chunk = 31 if (composite == "first") == (resampling in ("nearest", "bilinear")) else 64
    parts = rtsx.open_cube(full(many, chunk=chunk, **fields), CUBE).compute()
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name].values, parts[name].values, err_msg=str(name))


@pytest.mark.slow
def test_two_processes_and_four_threads_give_the_same_bytes(many: dict[str, Any]) -> None:
    cube = rtsx.open_cube(full(many, chunk=64, group="year"), CUBE)
    with dask.config.set(scheduler="threads", num_workers=4):
        threads = cube.compute()
    with warm.pools(), dask.config.set(scheduler="processes", num_workers=2):
        processes = cube.compute()
    for name in threads.data_vars:
        np.testing.assert_array_equal(threads[name].values, processes[name].values, err_msg=str(name))


def test_opening_reads_no_pixel_and_a_chunk_reads_only_what_meets_it(
    many: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    read = files.read_window

    def counted(path: str, *arguments: Any, **named: Any) -> Any:
        seen.append(Path(path).stem)
        return read(path, *arguments, **named)

    monkeypatch.setattr("rtsx.cube.resample.readers.read_window", counted)
    cube = rtsx.open_cube(full(many, chunk=30, composite="median"), CUBE)
    assert seen == []
    with dask.config.set(scheduler="synchronous"):
        cube.isel(y=slice(0, 30), x=slice(0, 30)).compute()
    assert set(seen) == {"a_sr", "a_udm2", "c_sr", "c_udm2", "west", "t"}


def test_tasks_per_chunk_stay_few_whatever_the_number_of_scenes(many: dict[str, Any]) -> None:
    ground_elsewhere = [
        type(many["scenes"][0])(id=f"far{number}", bands=_moved(many["scenes"][0].bands, number), cloud_cover=1.0)
        for number in range(300)
    ]
    few = rtsx.open_cube(full(many, chunk=32, composite="median"), CUBE)
    crowded = {**many, "scenes": [*many["scenes"], *ground_elsewhere]}
    lots = rtsx.open_cube(full(crowded, chunk=32, composite="median"), CUBE)
    chunks = int(np.prod(few["red"].data.numblocks))
    counts = [len(dict(cube.__dask_graph__())) for cube in (few, lots)]
    assert counts[0] == counts[1]
    assert counts[0] / chunks < 25


def _moved(bands: Any, number: int) -> Any:
    from dataclasses import replace

    return {
        name: replace(one, geobox=one.geobox.translate_pix(2000 + 10 * number, 0), href=f"/nowhere/{number}.tif")
        for name, one in bands.items()
    }


def test_a_cube_of_fifty_thousand_pixels_has_a_small_graph(many: dict[str, Any]) -> None:
    cube = rtsx.open_cube(full(many, chunk=1024), GRID.window((15_000, 65_000), (-235_000, -185_000)))
    assert cube.sizes["y"] == 50_000
    assert len(cube.__dask_graph__()) / 49**2 < 25
