from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest

import rtsx
from rtsx.footprints import track_summary
from tests.footprints.conftest import make_prediction

Command = Callable[..., Any]


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
        (("2023={2023}", "--min-overlap", "20"), "min_overlap is a part of the smaller outline"),
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
