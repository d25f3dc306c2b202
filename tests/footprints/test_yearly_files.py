from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints import extract_footprints, read_years, track_footprints, track_summary, write_footprints
from rtsx.labels import standardise_labels, write_labels


@pytest.fixture
def footprints(pred):
    return extract_footprints(pred, min_area_m2=0)


@pytest.fixture
def drawn(footprints):
    """The same ground drawn by hand a little smaller, with heights, in longitude and latitude."""
    outlines = shapely.force_3d(footprints.geometry.buffer(-1).array, 40.0)
    return geopandas.GeoDataFrame({"note": ["a", "b", "c"]}, geometry=outlines, crs=footprints.crs).to_crs(4326)


@pytest.mark.parametrize("ending", ["shp", "geojson", "gpkg", "parquet"])
def test_what_was_drawn_is_tracked_beside_footprints(footprints, drawn, tmp_path, ending):
    path = tmp_path / f"drawn.{ending}"
    drawn.to_parquet(path) if ending == "parquet" else drawn.to_file(path)
    yearly = read_years({2010: path, 2024: write_footprints(footprints, tmp_path / "2024.parquet")})
    assert [CRS.from_user_input(table.crs) for table in yearly.values()] == [CRS.from_user_input(footprints.crs)] * 2
    assert yearly[2010]["footprint_id"].tolist() == ["0", "1", "2"]
    assert yearly[2010]["class_name"].tolist() == ["slump"] * 3
    assert set(footprints.columns) == set(yearly[2024].columns)
    summary = track_summary(track_footprints(yearly))
    assert summary["track_id"].tolist() == ["2010_0", "2010_1", "2010_2"]
    assert (summary["growth_m2"] > 0).all()
    assert summary["area_2024_m2"].tolist() == pytest.approx(footprints["area_m2"].tolist())


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


def test_files_that_cannot_be_tracked_are_named(drawn, footprints, tmp_path):
    def refuse(table: geopandas.GeoDataFrame, message: str) -> None:
        path = tmp_path / "bad.parquet"
        table.to_parquet(path)
        with pytest.raises(FootprintError, match=message):
            read_years({2010: path, 2024: write_footprints(footprints, tmp_path / "now.parquet", overwrite=True)})

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


def test_a_year_without_outlines(footprints, tmp_path):
    write_footprints(footprints.iloc[:0], tmp_path / "none.parquet")
    footprints[["geometry"]].to_file(tmp_path / "now.gpkg")
    yearly = read_years({2023: tmp_path / "none.parquet", 2024: tmp_path / "now.gpkg"})
    tracks = track_footprints(yearly)
    assert tracks.attrs["years"] == [2023, 2024]
    assert np.array_equal(tracks["event"].unique(), ["new"])
