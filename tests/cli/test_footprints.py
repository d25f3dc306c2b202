from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

import rtsx
from rtsx.footprints import clean_footprints, read_footprints, simplify_footprints
from rtsx.synthetic import SceneFiles

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def stored(scene: SceneFiles, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map on disk."""
    cube = rtsx.open_cube(scene.image, sensor="planetscope", mask=(scene.udm2, "tss-v1"))
    pred = rtsx.predict_cube(cube, rtsx.ModelBundle.open(bundle), tile=128, overlap=32)
    return Path(rtsx.write_cube(pred, tmp_path_factory.mktemp("stored") / "map.zarr"))


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "fgb"])
def test_outlines_are_those_of_the_library(rtsx_command: Command, stored: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"slumps.{ending}"
    outcome = rtsx_command("footprints", stored, "--out", out)
    assert outcome.status == 0, outcome.err
    expected = rtsx.extract_footprints(rtsx.open_cube(stored))
    found = gpd.read_parquet(out) if ending == "parquet" else gpd.read_file(out)
    assert sorted(found["footprint_id"]) == sorted(expected["footprint_id"])
    assert f"objects   {len(expected)}" in outcome.out


def test_options_reach_the_extraction(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "slumps.parquet"
    line = ("--threshold", "0.4", "--min-area-m2", "900", "--edge-distance", "3", "--drop-edge", "--geographic")
    assert rtsx_command("footprints", stored, "--out", out, *line, "--class", "slump").status == 0
    expected = rtsx.extract_footprints(
        rtsx.open_cube(stored),
        threshold=0.4,
        min_area_m2=900,
        edge_distance=3,
        drop_edge=True,
        geographic=True,
        class_name="slump",
    )
    found = gpd.read_parquet(out)
    assert list(found["footprint_id"]) == list(expected["footprint_id"])
    assert found.crs == expected.crs


def test_refuses_an_image_that_is_no_map(rtsx_command: Command, scene: SceneFiles, tmp_path: Path) -> None:
    outcome = rtsx_command("footprints", scene.image, "--out", tmp_path / "slumps.parquet")
    assert outcome.status == 2
    assert "is no prediction" in outcome.err
    assert "rtsx predict" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_refuses_an_unknown_ending(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    outcome = rtsx_command("footprints", stored, "--out", tmp_path / "slumps.shp")
    assert outcome.status == 2
    assert ".parquet, .gpkg, .fgb" in outcome.err


def test_refuses_a_threshold_in_per_cent(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    outcome = rtsx_command("footprints", stored, "--out", tmp_path / "slumps.parquet", "--threshold", "50")
    assert outcome.status == 2
    assert "threshold is a probability from 0 to 1" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_refuses_outlines_that_exist(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "slumps.parquet"
    out.write_text("mine")
    outcome = rtsx_command("footprints", stored, "--out", out)
    assert outcome.status == 2
    assert "exists already" in outcome.err
    assert out.read_text() == "mine"
    assert rtsx_command("footprints", stored, "--out", out, "--overwrite").status == 0


def test_a_map_becomes_geotiffs(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    outcome = rtsx_command("cog", stored, "--out", tmp_path / "map")
    assert outcome.status == 0, outcome.err
    with rasterio.open(tmp_path / "map" / "probability.tif") as file:
        assert (file.read(1) == rtsx.open_cube(stored)["probability"].values).all()
    again = rtsx_command("cog", stored, "--out", tmp_path / "map")
    assert again.status == 2
    assert "probability.tif exists already" in again.err


def test_flags_water_and_simplification_reach_the_outlines(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    pred = rtsx.open_cube(stored)
    whole = rtsx.extract_footprints(pred, min_area_m2=0)
    lake = whole.geometry.iloc[[0]].buffer(30)
    lake.to_file(tmp_path / "lake.gpkg")
    out = tmp_path / "slumps.parquet"
    line = ("--flags", "--water", tmp_path / "lake.gpkg", "--min-area-m2", "900", "--simplify-m", "3")
    outcome = rtsx_command("footprints", stored, "--out", out, *line)
    assert outcome.status == 0, outcome.err
    found = read_footprints(out)
    expected = simplify_footprints(
        clean_footprints(rtsx.extract_footprints(pred, min_area_m2=0, water=lake), min_area_m2=900), tolerance_m=3
    )
    pd.testing.assert_frame_equal(pd.DataFrame(found), pd.DataFrame(expected))
    assert "water" in found["flags"].iloc[0]
    dropped = tmp_path / "clean.parquet"
    assert rtsx_command("footprints", stored, "--out", dropped, *line, "--drop", "water,small,edge").status == 0
    assert read_footprints(dropped)["flags"].eq("").all()
    assert len(read_footprints(dropped)) == expected["flags"].eq("").sum()


def test_water_may_be_a_raster(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    pred = rtsx.open_cube(stored)
    water = pred["valid"].copy(data=np.ones(pred["valid"].shape, "uint8"))
    water.drop_encoding().rio.to_raster(tmp_path / "water.tif")
    out = tmp_path / "slumps.parquet"
    outcome = rtsx_command("footprints", stored, "--out", out, "--water", tmp_path / "water.tif")
    assert outcome.status == 0, outcome.err
    assert read_footprints(out)["water_fraction"].eq(1).all()
    assert read_footprints(out)["flags"].str.contains("water").all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--drop", "lake"), "--drop takes some of small, edge, water, weak; got lake"),
        (("--simplify-m", "0"), "--simplify-m takes a length above 0 m; got 0.0"),
        (("--max-water", "0.1"), "--max-water has no meaning without water: say where it is with --water FILE"),
        (("--drop", "small,water"), "--drop water has no meaning without water"),
        (("--max-water", "20", "--water", "nowhere.gpkg"), "--max-water takes a part from 0 to 1; got 20.0"),
        (("--min-prob-mean", "70"), "--min-prob-mean takes a part from 0 to 1; got 70.0"),
        (("--water", "nowhere.gpkg"), "Polygons of water are read from a file, but {here}/nowhere.gpkg is none"),
    ],
)
def test_refuses_rules_that_cannot_be(
    rtsx_command: Command, stored: Path, tmp_path: Path, line: tuple[str, ...], message: str
) -> None:
    outcome = rtsx_command("footprints", stored, "--out", tmp_path / "slumps.parquet", *line)
    assert outcome.status == 2
    assert message.replace("{here}", str(Path.cwd())) in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_raster_of_several_layers_as_water(
    rtsx_command: Command, stored: Path, scene: SceneFiles, tmp_path: Path
) -> None:
    outcome = rtsx_command("footprints", stored, "--out", tmp_path / "slumps.parquet", "--water", stored)
    assert outcome.status == 2
    assert "--water takes a raster of one layer" in outcome.err


def test_refuses_polygons_that_cannot_be_read(rtsx_command: Command, stored: Path, tmp_path: Path) -> None:
    (tmp_path / "lake.gpkg").write_text("no lake")
    line = ("--water", tmp_path / "lake.gpkg")
    outcome = rtsx_command("footprints", stored, "--out", tmp_path / "slumps.parquet", *line)
    assert outcome.status == 2
    assert "cannot be read as polygons of water" in outcome.err
