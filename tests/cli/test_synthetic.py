"""`rtsx synthetic`: scenes and regions, by seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import pytest
import rasterio

from rtsx.synthetic import SceneSpec, varied_spec

Command = Callable[..., Any]


def test_scenes_are_written_once(rtsx_command: Command, tmp_path: Path) -> None:
    words = ("synthetic", "scenes", "--seeds", "5-6", "--size", "64", "--processes", "1", "--out", tmp_path / "data")
    first, again = rtsx_command(*words), rtsx_command(*words)
    assert first.status == 0, first.err
    assert "2, of which 2 were made now" in first.out
    assert "2, of which 0 were made now" in again.out
    names = {path.name.removesuffix("_scene.json") for path in (tmp_path / "data").glob("*_scene.json")}
    assert names == {varied_spec(seed).image_id for seed in (5, 6)}
    refused = rtsx_command(*words[:-2], "--slumps-per-km2", "3", "--out", tmp_path / "data")
    assert refused.status == 2
    assert "was made with --slumps-per-km2 1.0" in refused.err


def test_scenes_may_be_like_the_demos(rtsx_command: Command, tmp_path: Path) -> None:
    told = rtsx_command(
        *("synthetic", "scenes", "--seeds", "9", "--size", "96", "--one-day", "--region", "Peel", "--processes", "1"),
        *("--out", tmp_path),
    )
    assert told.status == 0, told.err
    image = tmp_path / f"{SceneSpec(seed=9).image_id}_3B_AnalyticMS_SR.tif"
    with rasterio.open(image) as raster:
        assert raster.shape == (96, 96)
    assert set(geopandas.read_parquet(next(tmp_path.glob("*_slumps.parquet")))["region"]) <= {"Peel"}


@pytest.mark.parametrize("seeds", ["", "a", "3-1", "1..4"])
def test_what_are_no_seeds_is_told(rtsx_command: Command, tmp_path: Path, seeds: str) -> None:
    told = rtsx_command("synthetic", "scenes", "--seeds", seeds, "--out", tmp_path)
    assert told.status == 2
    assert "such as" in told.err


def test_a_region_is_written(rtsx_command: Command, tmp_path: Path) -> None:
    words = ("synthetic", "region", "--seed", "1", "--size", "64", "--scenes", "2", "--out", tmp_path / "region")
    told = rtsx_command(*words)
    assert told.status == 0, told.err
    assert (tmp_path / "region" / "catalog.json").exists()
    assert rtsx_command(*words).status == 2
