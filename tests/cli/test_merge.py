from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest

import rtsx
from rtsx.footprints import level2_footprints, merge_footprints, read_footprints
from tests.footprints.conftest import make_prediction

Command = Callable[..., Any]


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
def test_what_cannot_be_is_refused(
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
