import json
import os

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from rtsx.errors import FootprintError, OutputExistsError, OutputNotWritableError
from rtsx.footprints import extract_footprints, read_footprints, write_footprints

SUFFIXES = [".parquet", ".gpkg", ".fgb"]


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def footprints(predict, level):
    level[26:32, 40:46] = 80  # meets the first object in a corner: a MultiPolygon
    level[28, 40] = 80
    pred = predict(np.stack([level, level])).assign_coords(
        time=np.array(["2023-08-01", "2024-08-02T03:04:05.678"], "M8[ns]")
    )
    return extract_footprints(pred)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [slice(None), slice(0, 0)])
def test_what_is_written_comes_back(footprints, tmp_path, suffix, rows):
    expected = footprints[rows].reset_index(drop=True)
    path = write_footprints(expected, tmp_path / f"slumps{suffix}")
    back = read_footprints(path)
    assert back.crs == expected.crs
    by_id = [table.sort_values("footprint_id").reset_index(drop=True) for table in (back, expected)]
    pd.testing.assert_frame_equal(*(table.drop(columns="geometry") for table in by_id))
    assert by_id[0].geometry.geom_equals(by_id[1].geometry).all()
    assert by_id[0].geometry.geom_type.tolist() == by_id[1].geometry.geom_type.tolist()
    assert names(tmp_path) == [f"slumps{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unknown_times_and_further_columns_come_back(pred, tmp_path, suffix):
    footprints = extract_footprints(pred).assign(water=0.25)
    back = read_footprints(write_footprints(footprints, tmp_path / f"slumps{suffix}"))
    assert back["date"].isna().all()
    assert back["year"].isna().all()
    assert back["scene_id"].tolist() == [None] * 3
    assert back["water"].tolist() == [0.25] * 3


def test_parquet_is_compressed_and_has_boxes(footprints, tmp_path):
    path = write_footprints(footprints, tmp_path / "slumps.parquet")
    file = pyarrow.parquet.ParquetFile(path)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert "bbox" in geo["columns"]["geometry"]["covering"]
    x, y = footprints.geometry[0].centroid.coords[0]
    assert 0 < len(geopandas.read_parquet(path, bbox=(x, y, x, y))) < len(footprints)


def test_the_table_of_a_geopackage_is_named_like_the_file(footprints, tmp_path):
    path = write_footprints(footprints, tmp_path / "slumps.gpkg")
    assert geopandas.list_layers(path)["name"].tolist() == ["slumps"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_exists_is_kept_unless_asked(footprints, tmp_path, suffix):
    path = tmp_path / f"slumps{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=rf"slumps{suffix} exists already\. .*overwrite=True"):
        write_footprints(footprints, path)
    assert path.read_bytes() == b"precious"
    write_footprints(footprints, path, overwrite=True)
    assert len(read_footprints(path)) == len(footprints)
    assert names(tmp_path) == [path.name]


def test_a_folder_is_never_replaced(footprints, tmp_path):
    (tmp_path / "slumps.gpkg").mkdir()
    with pytest.raises(OutputExistsError, match=r"is a folder, so it is not overwritten"):
        write_footprints(footprints, tmp_path / "slumps.gpkg", overwrite=True)


@pytest.mark.parametrize("name", ["slumps.shp", "slumps", "slumps.parquet.gz"])
def test_other_endings_name_the_three(footprints, tmp_path, name):
    with pytest.raises(
        FootprintError, match=r"\.parquet \(GeoParquet\), \.gpkg \(GeoPackage\) or \.fgb \(FlatGeobuf\)"
    ):
        write_footprints(footprints, tmp_path / name)
    assert names(tmp_path) == []


def test_a_missing_folder_is_named(footprints, tmp_path):
    with pytest.raises(OutputNotWritableError, match=r"must exist and be writable, but there is no such folder"):
        write_footprints(footprints, tmp_path / "no" / "slumps.parquet")


def test_a_folder_that_cannot_be_written_is_named(footprints, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OutputNotWritableError, match=r"cannot be written: Permission denied"):
        write_footprints(footprints, tmp_path / "slumps.parquet")


def test_a_file_for_a_folder_is_named(footprints, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritableError, match=r"must exist and be writable, but there is no such folder"):
        write_footprints(footprints, tmp_path / "file" / "slumps.gpkg")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(footprints, tmp_path, suffix):
    """A complex number is no value that any of the formats could hold."""
    path = write_footprints(footprints, tmp_path / f"slumps{suffix}")
    before = path.read_bytes()
    spoiled = footprints.assign(strange=1j)
    with pytest.raises(Exception, match=r"(?i)complex"):
        write_footprints(spoiled, path, overwrite=True)
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_a_table_that_is_no_footprints_is_not_written(footprints, tmp_path):
    with pytest.raises(FootprintError, match="need the columns year"):
        write_footprints(footprints.drop(columns="year"), tmp_path / "slumps.parquet")
    assert names(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_told(footprints, tmp_path, suffix):
    path = write_footprints(footprints, tmp_path / f"slumps{suffix}")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FootprintError, match=r"cannot be read as footprints: .*(truncated|damaged|copied completely)"):
        read_footprints(path)


def test_a_missing_file_and_other_outlines_are_told(footprints, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\. Check the path"):
        read_footprints(tmp_path / "slumps.fgb")
    footprints[["geometry"]].to_file(tmp_path / "other.gpkg")
    with pytest.raises(FootprintError, match="holds no footprints of rtsx: the columns footprint_id"):
        read_footprints(tmp_path / "other.gpkg")
