""""""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

import rtsx
from rtsx.footprints import (
    clean_footprints,
    level2_footprints,
    merge_footprints,
    read_footprints,
    simplify_footprints,
    track_summary,
)
from rtsx.synthetic import SceneFiles
from tests.footprints.conftest import make_prediction

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
    line += ("--area-thresholds", "0.5", "--nodata-fraction", "--class", "slump")
    assert rtsx_command("footprints", stored, "--out", out, *line).status == 0
    expected = rtsx.extract_footprints(
        rtsx.open_cube(stored),
        threshold=0.4,
        min_area_m2=900,
        edge_distance=3,
        drop_edge=True,
        geographic=True,
        class_name="slump",
        area_thresholds=[0.5],
        nodata_fraction=True,
    )
    found = gpd.read_parquet(out)
    assert list(found.columns.drop("geometry")) == list(expected.columns.drop("geometry"))
    assert list(found["footprint_id"]) == list(expected["footprint_id"])
    assert list(found["area_m2_t50"]) == list(expected["area_m2_t50"])
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
    assert "is 1 nowhere" not in outcome.err
    (water * 80).drop_encoding().rio.to_raster(tmp_path / "cover.tif")
    outcome = rtsx_command("footprints", stored, "--out", out, "--water", tmp_path / "cover.tif", "--overwrite")
    assert "cover.tif is 1 nowhere, and has other numbers up to 80" in " ".join(outcome.err.split())


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


def test_a_map_of_which_nothing_has_run_is_no_map_without_objects(rtsx_command: Command, tmp_path: Path) -> None:
    level = np.full((2, 60, 80), 80)
    level[1] = 255
    years = make_prediction(level).assign_coords(time=np.array(["2023-01-01", "2024-01-01"], "datetime64[ns]"))
    years["valid"][1] = False
    several = rtsx.write_cube(years, tmp_path / "years.zarr")
    refused = rtsx_command("footprints", several, "--year", "2024", "--out", tmp_path / "slumps.parquet")
    assert (refused.status, list(tmp_path.glob("*.parquet"))) == (2, [])
    assert "in 2024 is valid: nothing has been mapped. Of a campaign, rtsx campaign status says" in refused.err


@pytest.fixture
def years(tmp_path: Path) -> dict[int, str]:
    """Files of two years: one object that grows, one that goes, one that comes."""
    files = {}
    for year, blocks in {2023: ((10, 20), (40, 50)), 2024: ((8, 22), (60, 70))}.items():
        level = np.full((80, 80), 10)
        for first, last in blocks:
            level[first:last, first:last] = 80
        footprints = rtsx.extract_footprints(make_prediction(level))
        files[year] = str(rtsx.write_footprints(footprints, tmp_path / f"{year}.parquet"))
    return files


def test_tracks_and_summary_are_those_of_the_library(
    rtsx_command: Command, years: dict[int, str], tmp_path: Path
) -> None:
    out, summary = tmp_path / "new" / "tracks.parquet", tmp_path / "tracks.csv"
    words = [f"{year}={file}" for year, file in years.items()]
    outcome = rtsx_command("track", *words, "--out", out, "--summary", summary)
    assert outcome.status == 0, outcome.err
    expected = rtsx.track_footprints({year: geopandas.read_parquet(file) for year, file in years.items()})
    found = geopandas.read_parquet(out)
    assert found["track_id"].tolist() == expected["track_id"].tolist()
    table = pd.read_csv(summary, keep_default_na=False, na_values={"growth_m2": ""})
    assert table["status"].tolist() == track_summary(expected)["status"].tolist()
    assert set(table["status"]) == {"gone", "growing", "new"}
    for line in ("outlines", "tracks", "growing", "gone", "new"):
        assert line in outcome.out


def test_the_map_of_the_last_year_says_what_was_not_seen(
    rtsx_command: Command, years: dict[int, str], tmp_path: Path
) -> None:
    pred = make_prediction(np.full((80, 80), 10))
    pred["valid"][35:55, 35:55] = False  # where one was in 2023
    both = pred.expand_dims(time=[2023, 2024]).transpose("time", "y", "x")
    path = rtsx.write_cube(both, tmp_path / "years.zarr")
    words = [f"{year}={file}" for year, file in years.items()]
    line = ("--out", tmp_path / "t.parquet", "--summary", tmp_path / "t.csv", "--last-map")
    assert rtsx_command("track", *words, *line, path).status == 0
    assert set(pd.read_csv(tmp_path / "t.csv")["status"]) == {"unseen", "growing", "new"}
    old = rtsx.write_cube(pred.assign_attrs(time_coverage_start="2022-07-01"), tmp_path / "old.zarr")
    refused = rtsx_command("track", *words, "--overwrite", *line, old)
    said = " ".join(refused.err.split()).replace("│ ", "").replace(" │", "")
    assert (refused.status, "is of 2022, and the last year of the tracks is 2024" in said) == (2, True), said


def test_options_reach_the_tracking(rtsx_command: Command, years: dict[int, str], tmp_path: Path) -> None:
    words = [f"{year}={file}" for year, file in years.items()]
    line = ("--min-overlap", "1", "--max-gap", "0", "--stable-within", "5", "--summary", tmp_path / "t.parquet")
    assert rtsx_command("track", *words, "--out", tmp_path / "t.gpkg", *line).status == 0
    assert set(pd.read_parquet(tmp_path / "t.parquet")["status"]) == {"gone", "stable", "new"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("2023",), "expected YEAR=FILE, such as 2024=slumps.parquet; got '2023'"),
        (("last=a.parquet",), "got 'last=a.parquet'"),
        (("2023={2023}", "2023={2023}"), "2023 is given twice"),
        (("2023=nowhere.parquet",), "nowhere.parquet is no file"),
        (("2023={2023}", "--out", "tracks.shp"), ".parquet, .gpkg, .fgb"),
        (("2023={2023}", "--summary", "tracks.xls"), ".csv, .parquet"),
        (("2023={2023}", "--min-overlap", "20"), "--min-overlap is a part of the smaller outline"),
    ],
)
def test_what_cannot_be_is_refused(
    rtsx_command: Command, years: dict[int, str], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    line = [word.replace("{2023}", years[2023]) for word in words]
    outcome = rtsx_command("track", *line, *([] if "--out" in line else ["--out", tmp_path / "tracks.parquet"]))
    assert outcome.status == 2
    assert message in " ".join(outcome.err.split()).replace("│ ", "").replace(" │", "")
    assert not (tmp_path / "tracks.parquet").exists()


def test_tracks_that_exist_are_kept(rtsx_command: Command, years: dict[int, str], tmp_path: Path) -> None:
    out = tmp_path / "tracks.parquet"
    out.write_text("mine")
    words = [f"{year}={file}" for year, file in years.items()]
    assert rtsx_command("track", *words, "--out", out).status == 2
    assert out.read_text() == "mine"
    assert rtsx_command("track", *words, "--out", out, "--overwrite").status == 0


def test_outlines_of_any_kind_are_tracked(rtsx_command: Command, years: dict[int, str], tmp_path: Path) -> None:
    drawn = geopandas.read_parquet(years[2023])[["geometry"]].to_crs(4326)
    drawn.to_file(tmp_path / "drawn.geojson")
    line = (f"2010={tmp_path / 'drawn.geojson'}", f"2024={years[2024]}", "--out", tmp_path / "tracks.parquet")
    outcome = rtsx_command("track", *line)
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    new = f"2024_{geopandas.read_parquet(years[2024])['footprint_id'].iloc[-1]}"
    assert set(geopandas.read_parquet(tmp_path / "tracks.parquet")["track_id"]) == {"2010_0", "2010_1", new}


def test_classes_that_cannot_meet_are_told(rtsx_command: Command, years: dict[int, str], tmp_path: Path) -> None:
    drawn = geopandas.read_parquet(years[2023])[["geometry"]].assign(class_name="rts")
    drawn.to_file(tmp_path / "drawn.gpkg")
    line = (f"2010={tmp_path / 'drawn.gpkg'}", f"2024={years[2024]}", "--out", tmp_path / "tracks.parquet")
    outcome = rtsx_command("track", *line)
    assert outcome.status == 0, outcome.err
    assert "no class occurs in two years" in outcome.err
    assert "2010 rts; 2024 slump" in outcome.err


@pytest.fixture
def cells(tmp_path: Path) -> list[str]:
    """Two halves of a map, with an object across their border, outlined one by one."""
    level = np.full((80, 80), 10)
    level[30:50, 30:50], level[60:70, 60:70] = 80, 70
    pred = make_prediction(level).assign_coords(time=np.datetime64("2024-07-01", "ns"))
    files = []
    for name, part in {"west": slice(0, 40), "east": slice(40, 80)}.items():
        footprints = rtsx.extract_footprints(pred.isel(x=part)).assign(scene_id=name)
        files.append(str(rtsx.write_footprints(footprints, tmp_path / f"{name}.parquet")))
    return files


def test_cells_become_one_map(rtsx_command: Command, cells: list[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "slumps.parquet"
    outcome = rtsx_command("merge", *cells, "--out", out)
    assert outcome.status == 0, outcome.err
    expected = merge_footprints([read_footprints(file) for file in cells])
    pd.testing.assert_frame_equal(pd.DataFrame(read_footprints(out)), pd.DataFrame(expected))
    assert expected["n_pixels"].tolist() == [400, 100]
    assert rtsx_command("merge", *cells, "--out", out).status == 2
    line = ("--min-area-m2", "1000", "--overwrite")
    assert rtsx_command("merge", *cells, "--out", out, *line).status == 0
    assert len(read_footprints(out)) == 1


def test_scenes_become_sets_of_years(rtsx_command: Command, cells: list[str], tmp_path: Path) -> None:
    before = read_footprints(cells[0]).assign(date=pd.Timestamp("2023-08-01"), year=2023)
    files = [*cells, str(rtsx.write_footprints(before, tmp_path / "before.parquet"))]
    ground = geopandas.GeoDataFrame(
        {"year": [2023, 2024, 2024]}, geometry=[before.union_all().buffer(500)] * 3, crs=before.crs
    )
    ground.to_file(tmp_path / "ground.gpkg")
    out = tmp_path / "yearly" / "{year}.gpkg"
    outcome = rtsx_command("merge", *files, "--out", out, "--images", tmp_path / "ground.gpkg")
    assert outcome.status == 0, outcome.err
    expected = level2_footprints([read_footprints(file) for file in files], images=ground)
    assert list(expected) == [2023, 2024]
    for year, table in expected.items():
        found = read_footprints(tmp_path / "yearly" / f"{year}.gpkg")
        assert found["footprint_id"].tolist() == table["footprint_id"].tolist()
        assert found["n_images_possible"].tolist() == table["n_images_possible"].tolist()
    assert "2023.gpkg" in outcome.out
    again = rtsx_command("merge", *files, "--out", out)
    assert again.status == 2
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--out", "a.shp"), ".parquet, .gpkg, .fgb"),
        (("--out", "a.parquet", "--images", "b.gpkg"), "images are counted by year: put {year} into --out"),
        (("--out", "{year}.parquet", "--min-area-m2", "9"), "it is for outlines of a day"),
        (("nowhere.parquet", "--out", "a.parquet"), "nowhere.parquet is none"),
    ],
)
def test_merge_what_cannot_be_is_refused(
    rtsx_command: Command,
    cells: list[str],
    monkeypatch: pytest.MonkeyPatch,
    line: tuple[str, ...],
    message: str,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    outcome = rtsx_command("merge", *cells, *line)
    assert outcome.status == 2
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert set(tmp_path.iterdir()) == before
