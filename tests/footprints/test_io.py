""""""

import json
import os
import re
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import shapely
from pyproj import CRS

from rtsx.errors import FootprintError, OutputExistsError, OutputNotWritableError
from rtsx.footprints import (
    extract_footprints,
    read_footprints,
    read_years,
    track_footprints,
    track_summary,
    write_footprints,
)
from rtsx.labels import standardise_labels, write_labels

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


@pytest.fixture
def footprints_of_yearly_files(pred):
    return extract_footprints(pred, min_area_m2=0)


@pytest.fixture
def drawn(footprints_of_yearly_files):
    """The same ground drawn by hand a little smaller, with heights, in longitude and latitude."""
    outlines = shapely.force_3d(footprints_of_yearly_files.geometry.buffer(-1).array, 40.0)
    return geopandas.GeoDataFrame(
        {"note": ["a", "b", "c"]}, geometry=outlines, crs=footprints_of_yearly_files.crs
    ).to_crs(4326)


@pytest.mark.parametrize("ending", ["shp", "geojson", "gpkg", "parquet"])
def test_what_was_drawn_is_tracked_beside_footprints(footprints_of_yearly_files, drawn, tmp_path, ending):
    path = tmp_path / f"drawn.{ending}"
    drawn.to_parquet(path) if ending == "parquet" else drawn.to_file(path)
    yearly = read_years({2010: path, 2024: write_footprints(footprints_of_yearly_files, tmp_path / "2024.parquet")})
    assert [CRS.from_user_input(table.crs) for table in yearly.values()] == [
        CRS.from_user_input(footprints_of_yearly_files.crs)
    ] * 2
    assert yearly[2010]["footprint_id"].tolist() == ["0", "1", "2"]
    assert yearly[2010]["class_name"].tolist() == ["slump"] * 3
    assert set(footprints_of_yearly_files.columns) == set(yearly[2024].columns)
    summary = track_summary(track_footprints(yearly))
    assert summary["track_id"].tolist() == ["2010_0", "2010_1", "2010_2"]
    assert (summary["growth_m2"] > 0).all()
    assert summary["area_2024_m2"].tolist() == pytest.approx(footprints_of_yearly_files["area_m2"].tolist())


def test_labels_are_tracked_by_their_ids(drawn, tmp_path):
    labels = standardise_labels(drawn, class_name="slump").labels
    write_labels(labels, tmp_path / "labels.gpkg")
    tracks = track_footprints(read_years({2010: tmp_path / "labels.gpkg"}))
    assert tracks["footprint_id"].tolist() == ["table 0/0", "table 0/1", "table 0/2"]
    assert tracks["area_m2"].tolist() == pytest.approx(labels["area_m2"].tolist())


def test_ids_of_their_own_stay_and_years_are_looked_at(drawn, tmp_path):
    drawn.assign(footprint_id=[7, 8, 9], year=2010).to_file(tmp_path / "drawn.gpkg")
    assert read_years({2010: tmp_path / "drawn.gpkg"})[2010]["footprint_id"].tolist() == ["7", "8", "9"]
    with pytest.raises(FootprintError, match="given for 2011 say in their column 'year' that row 0 is of 2010"):
        track_footprints(read_years({2011: tmp_path / "drawn.gpkg"}))


@pytest.mark.parametrize(
    ("columns", "kept", "message"),
    [
        (
            {"TrainClass": ["Positive", "Negative", "Positive"]},
            ["0", "2"],
            "1 of 3 .* 'TrainClass' that they are none of",
        ),
        ({"class": [1.0, 0.0, 1.0]}, ["0", "2"], "1 of 3 .* 'class' that they are none of"),
        ({"class": [0, 0, 0]}, ["0", "1", "2"], "3 of 3 .* of class 0 by .* 'class': taken for the target"),
        ({"class": ["negative"] * 3}, [], "3 of 3 .* 'class' that they are none of"),
        ({"class_name": ["rts", "rts", "negative"]}, ["0", "1"], "1 of 3 .* 'class_name' that they are none of"),
        ({"label": [0, 1, 2]}, ["0", "1", "2"], None),
        (
            {"date": ["2010-07-01", "2009-07-01", None]},
            ["0", "1", "2"],
            "1 of 3 .* another year than 2010 by .* 'date'",
        ),
        (
            {"year": [2010] * 3, "image_year": [2010, 2009, 2010]},
            ["0", "1", "2"],
            "1 of 3 .* another year than 2010 by .* 'image_year'; their column year counts",
        ),
        ({"image_year": [2010, 2009, 2010]}, ["0", "1", "2"], r"1 of 3 .* than 2010 by their column 'image_year'\.$"),
        ({"BaseMapDate": ["2009-07-01,2010-08-31"] * 3}, ["0", "1", "2"], None),
    ],
    ids=str,
)
def test_what_an_inventory_says_of_its_rows_counts(drawn, tmp_path, recwarn, columns, kept, message):
    drawn.assign(**columns).to_file(tmp_path / "drawn.gpkg")
    assert read_years({2010: tmp_path / "drawn.gpkg"})[2010]["footprint_id"].tolist() == kept
    assert [re.search(message, str(one.message)) is not None for one in recwarn] == [True] * (message is not None)
    assert {one.filename for one in recwarn} <= {__file__}


def test_an_outline_that_is_there_twice_is_one(drawn, tmp_path):
    pd.concat([drawn, drawn]).to_file(tmp_path / "drawn.gpkg")
    with pytest.warns(RuntimeWarning, match=r"3 of 6 outlines of .*drawn.gpkg repeat another one: left out"):
        assert len(read_years({2010: tmp_path / "drawn.gpkg"})[2010]) == 3


def test_files_that_cannot_be_tracked_are_named(drawn, footprints_of_yearly_files, tmp_path):
    def refuse(table: geopandas.GeoDataFrame, message: str) -> None:
        path = tmp_path / "bad.parquet"
        table.to_parquet(path)
        with pytest.raises(FootprintError, match=message):
            read_years(
                {
                    2010: path,
                    2024: write_footprints(footprints_of_yearly_files, tmp_path / "now.parquet", overwrite=True),
                }
            )

    point = geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326)
    refuse(point, r"bad\.parquet: outlines are Polygons .* row 0 has Point.* rtsx labels standardise")
    refuse(drawn.set_crs(None, allow_override=True), r"bad\.parquet: footprints have a CRS, but it is None")
    beyond = geopandas.GeoDataFrame(geometry=[shapely.box(0, -91, 1, -90)], crs=4326)
    refuse(beyond, r"bad\.parquet cannot be tracked beside files in .* has no place")
    with pytest.raises(FootprintError, match="file of at least one year, but none came"):
        read_years({})
    Path(tmp_path / "broken.gpkg").write_text("nothing")
    with pytest.raises(FootprintError, match=r"broken\.gpkg cannot be tracked: .* cannot be read"):
        read_years({2010: tmp_path / "broken.gpkg"})


def test_a_year_without_outlines(footprints_of_yearly_files, tmp_path):
    write_footprints(footprints_of_yearly_files.iloc[:0], tmp_path / "none.parquet")
    footprints_of_yearly_files[["geometry"]].to_file(tmp_path / "now.gpkg")
    yearly = read_years({2023: tmp_path / "none.parquet", 2024: tmp_path / "now.gpkg"})
    tracks = track_footprints(yearly)
    assert tracks.attrs["years"] == [2023, 2024]
    assert np.array_equal(tracks["event"].unique(), ["new"])


def test_capitals_and_outlines_that_overlap_in_a_year(drawn, tmp_path):
    drawn = drawn.iloc[:2].assign(class_name=["RTS", "rts"])
    drawn.to_file(tmp_path / "2010.gpkg")
    drawn.assign(class_name="rts").to_file(tmp_path / "2011.gpkg")
    yearly = read_years({2010: tmp_path / "2010.gpkg", 2011: tmp_path / "2011.gpkg"})
    assert {name for table in yearly.values() for name in table["class_name"]} == {"RTS"}
    moved = drawn.iloc[[0]].translate(1e-5, 0)
    pd.concat([drawn, drawn.iloc[[0]].set_geometry(moved)]).to_file(tmp_path / "2012.gpkg")
    with pytest.warns(RuntimeWarning, match="1 of 3 outlines of .*2012.gpkg lie on another one"):
        read_years({2012: tmp_path / "2012.gpkg"})


def test_a_column_of_years_is_looked_at_in_any_spelling(drawn, tmp_path):
    drawn.assign(Year=2009).to_file(tmp_path / "drawn.gpkg")
    with pytest.warns(RuntimeWarning, match="3 of 3 outlines .* are of another year than 2010 by their column 'Year'"):
        read_years({2010: tmp_path / "drawn.gpkg"})


def test_columns_that_a_file_has_as_text(footprints, tmp_path):
    words = footprints.iloc[:2].assign(date=["2020-07-01T20:11:00Z", "2020/07/02"], touches_edge=["false", "True"])
    words.to_file(tmp_path / "words.gpkg")
    read = read_footprints(tmp_path / "words.gpkg")
    assert read["touches_edge"].tolist() == [False, True]
    assert read["date"].astype(str).tolist() == ["2020-07-01 20:11:00", "2020-07-02 00:00:00"]
    for name, wrong, message in (
        ("date", "01.07.2020", "date of footprints is a date such as 2020-07-01; got '01.07.2020'"),
        ("touches_edge", "maybe", "touches_edge of footprints is true or false; got 'maybe'"),
    ):
        words.assign(**{name: wrong}).to_file(tmp_path / "wrong.gpkg")
        with pytest.raises(FootprintError, match=message):
            read_footprints(tmp_path / "wrong.gpkg")
