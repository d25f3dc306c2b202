import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import shapely

import rtsx

Command = Callable[..., Any]

SQUARE = shapely.box(124, 72, 124.01, 72.01)


@pytest.fixture
def slumps(tmp_path: Path) -> Path:
    """Two slumps, one of them an outline that crosses itself."""
    bow = shapely.Polygon([(124, 71), (124.01, 71.01), (124.01, 71), (124, 71.01)])
    path = tmp_path / "slumps.gpkg"
    gpd.GeoDataFrame({"place": ["Lena", "Yana"]}, geometry=[SQUARE, bow], crs="EPSG:4326").to_file(path)
    return path


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """One slump in a projection."""
    path = tmp_path / "clean.geojson"
    gpd.GeoDataFrame({"id": [1]}, geometry=[SQUARE.buffer(0.02)], crs="EPSG:4326").to_file(path)
    return path


def test_validate_tells_what_is_wrong_and_fails(rtsx_command: Command, slumps: Path, tmp_path: Path) -> None:
    outcome = rtsx_command("labels", "validate", slumps, "--report", tmp_path / "wrong.csv")
    assert outcome.status == 1
    assert "1 repaired: invalid geometry" in outcome.out
    assert "1 findings in 2 rows" in outcome.err
    assert pd.read_csv(tmp_path / "wrong.csv")["row"].tolist() == [1]


def test_validate_passes_what_is_right(rtsx_command: Command, clean: Path) -> None:
    outcome = rtsx_command("labels", "validate", clean)
    assert outcome.status == 0, outcome.err
    assert "nothing to repair, nothing dropped" in outcome.out


def test_standardise_makes_one_table_of_several_files(
    rtsx_command: Command, slumps: Path, clean: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "new" / "labels.parquet", tmp_path / "report.json"
    facts = ("--creator", "me", "--class", "slump", "--image-date", "2019-07", "--site", "s", "--image-ids", "a,b")
    outcome = rtsx_command(
        "labels", "standardise", slumps, clean, "--out", out, "--column", "region=place", "--region", "Yakutia", *facts,
        "--report", report,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    labels = rtsx.read_labels(out)
    assert labels["region"].tolist() == ["Lena", "Yana", "Yakutia"]
    assert labels["source_file"].tolist() == ["slumps.gpkg", "slumps.gpkg", "clean.geojson"]
    assert labels["source_id"].tolist() == [None, None, "1"]
    same = labels[["creator", "class_name", "site", "image_ids"]].drop_duplicates().to_numpy().tolist()
    assert same == [["me", "slump", "s", "a,b"]]
    assert set(labels["image_date_end"]) == {pd.Timestamp("2019-07-31")}
    assert json.loads(report.read_text())["written"] == 3
    assert "labels  3" in outcome.out


def test_a_file_without_crs(rtsx_command: Command, clean: Path, tmp_path: Path) -> None:
    gpd.read_file(clean).to_file(tmp_path / "raw.shp")
    (tmp_path / "raw.prj").unlink()
    outcome = rtsx_command("labels", "validate", tmp_path / "raw.shp")
    assert outcome.status == 2
    assert "does not say in which CRS" in outcome.err
    assert rtsx_command("labels", "validate", tmp_path / "raw.shp", "--crs", "EPSG:4326").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "labels.shp"), ".parquet, .gpkg, .fgb"),
        (("--out", "labels.parquet", "--report", "report.txt"), ".csv, .json"),
        (("--out", "labels.parquet", "--column", "region"), "--column takes OURS=THEIRS"),
        (("--out", "labels.parquet", "--column", "regoin=place"), "Did you mean 'region'?"),
        (("--out", "labels.parquet", "--layer", "other"), "no layer 'other'"),
    ],
)
def test_refuses(
    rtsx_command: Command, slumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = rtsx_command("labels", "standardise", slumps, *words)
    assert outcome.status == 2
    assert message in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["slumps.gpkg"]


def test_what_is_there_stays(rtsx_command: Command, slumps: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.parquet"
    out.write_text("mine")
    assert rtsx_command("labels", "standardise", slumps, "--out", out).status == 2
    assert out.read_text() == "mine"
    assert rtsx_command("labels", "standardise", slumps, "--out", out, "--overwrite").status == 0
    assert len(rtsx.read_labels(out)) == 2


def test_a_file_that_is_not_there_is_no_defect(rtsx_command: Command, tmp_path: Path) -> None:
    (tmp_path / "map.zarr").mkdir()
    for line in (("labels", "validate", "no.shp"), ("evaluate", tmp_path / "map.zarr", "--truth", "no.shp")):
        outcome = rtsx_command(*line)
        assert outcome.status == 2
        assert "no.shp" in outcome.err
        assert "Check the path." in outcome.err
        assert "defect" not in outcome.err
