import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely import box

from rtsx.cube.georeference import with_georeference
from rtsx.errors import FootprintError
from rtsx.footprints import track_footprints, track_summary, write_tracks
from rtsx.footprints.geometry import measure

CRS = "EPSG:32608"


def found(**outlines):
    """Outlines of one year by their ids."""
    return geopandas.GeoDataFrame({"footprint_id": list(outlines)}, geometry=list(outlines.values()), crs=CRS)


def by_name(tracks):
    names = tracks["year"].astype(str) + "_" + tracks["footprint_id"]
    return tracks.set_index(names)


def test_an_object_that_falls_apart_stays_one_track():
    tracks = by_name(
        track_footprints(
            {
                2022: found(a=box(0, 0, 60, 20)),
                2023: found(a=box(0, 0, 28, 20), b=box(32, 0, 60, 20)),
                2024: found(a=box(0, 0, 60, 21)),
            }
        )
    )
    assert tracks["track_id"].eq("2022_a").all()
    assert tracks["event"].tolist() == ["new", "split", "split", "merge"]
    assert tracks.loc["2022_a", "children"] == "2023_a,2023_b"
    assert tracks.loc["2024_a", "parents"] == "2023_a,2023_b"
    summary = track_summary(tracks)
    assert summary.loc[0, ["n_years", "n_outlines", "n_splits", "n_merges"]].tolist() == [3, 4, 2, 1]
    assert summary.loc[0, "status"] == "stable"


def test_objects_that_run_together_go_on_in_the_larger_one():
    yearly = {
        2022: found(small=box(0, 0, 10, 20), large=box(30, 0, 90, 20)),
        2023: found(whole=box(0, 0, 90, 20)),
    }
    tracks = by_name(track_footprints(yearly))
    assert tracks["track_id"].to_dict() == {
        "2022_large": "2022_large",
        "2023_whole": "2022_large",
        "2022_small": "2022_small",
    }
    assert tracks.loc["2023_whole", ["event", "merged_tracks"]].tolist() == ["merge", "2022_small"]
    assert tracks["family_id"].nunique() == 1
    summary = track_summary(tracks).set_index("track_id")
    assert summary["status"].to_dict() == {"2022_large": "growing", "2022_small": "merged"}
    assert summary.loc["2022_small", "merged_into"] == "2022_large"
    assert summary.loc["2022_large", "merged_from"] == "2022_small"
    # A merger is no growth: what grew is the ground between the two.
    area = tracks["area_m2"]
    gap = area["2023_whole"] - area["2022_small"] - area["2022_large"]
    assert summary.loc["2022_large", "growth_m2"] == pytest.approx(gap)


def test_a_neighbour_that_is_only_touched_does_not_end():
    yearly = {
        2022: found(a=box(0, 0, 60, 20), b=box(70, 0, 100, 20)),
        2023: found(a=box(0, 0, 80, 20), b=box(81, 0, 100, 20)),
    }
    tracks = by_name(track_footprints(yearly))
    assert tracks.loc["2023_b", "track_id"] == "2022_b"
    assert tracks["merged_tracks"].eq("").all()


@pytest.mark.parametrize(("max_gap", "tracks"), [(0, 2), (1, 1), (5, 1)])
def test_a_missed_year_is_bridged_as_far_as_asked(max_gap, tracks):
    yearly = {2021: found(a=box(0, 0, 30, 30)), 2022: found(), 2023: found(a=box(0, 0, 33, 30))}
    assert track_footprints(yearly, max_gap=max_gap)["track_id"].nunique() == tracks


def test_years_that_were_not_mapped_are_no_gap():
    yearly = {2010: found(a=box(0, 0, 30, 30)), 2024: found(a=box(0, 0, 33, 30))}
    assert track_footprints(yearly, max_gap=0)["track_id"].nunique() == 1


def test_the_shared_part_is_that_of_the_smaller_one():
    yearly = {2023: found(a=box(0, 0, 100, 100)), 2024: found(a=box(91, 0, 101, 10))}
    assert track_footprints(yearly, min_overlap=0.9)["track_id"].nunique() == 1
    assert track_footprints(yearly, min_overlap=0.91)["track_id"].nunique() == 2
    beside = {2023: found(a=box(0, 0, 10, 10)), 2024: found(a=box(10, 0, 20, 10))}
    assert track_footprints(beside, min_overlap=1e-9)["track_id"].nunique() == 2


def test_classes_are_tracked_apart():
    one = found(a=box(0, 0, 30, 30)).assign(class_name="slump")
    other = found(a=box(0, 0, 30, 30)).assign(class_name="lake")
    assert track_footprints({2023: one, 2024: other})["track_id"].nunique() == 2
    nameless = found(a=box(0, 0, 30, 30)).assign(class_name=None)
    assert track_footprints({2023: nameless, 2024: found(a=box(0, 0, 30, 30))})["track_id"].nunique() == 1


@pytest.mark.parametrize("is_lazy", [False, True])
@pytest.mark.parametrize("crs", ["EPSG:32608", "EPSG:3413"])
def test_what_is_not_seen_where_the_last_map_saw_no_ground_is_not_gone(crs, is_lazy):
    yearly = {
        2022: found(goes=box(0, 0, 30, 30), hides=box(60, 0, 90, 30), leaves=box(1200, 0, 1230, 30), stays=box(120, 0, 150, 30)),
        2023: found(hides=box(63, 0, 93, 30)),
        2024: found(stays=box(120, 0, 150, 30)),
    }  # fmt: skip
    tracks = track_footprints(yearly)
    valid = np.ones((40, 40), bool)
    valid[:, 18:36] = False  # x from 54 to 108
    geobox = GeoBox((40, 40), Affine(3, 0, 0, 0, -3, 60), "EPSG:32608")
    map_ = with_georeference({"valid": xr.Variable(("y", "x"), valid)}, geobox, lattice_origin=(0, 0))
    summary = track_summary(tracks.to_crs(crs), last_map=map_.chunk(y=7, x=9) if is_lazy else map_)
    assert summary.set_index("track_id")["status"].to_dict() == {
        "2022_goes": "gone",
        "2022_hides": "unseen",
        "2022_leaves": "unseen",  # it lies beside the map
        "2022_stays": "stable",
    }
    assert set(track_summary(tracks)["status"]) == {"gone", "stable"}
    numbers = map_.assign(valid=map_["valid"].astype(np.uint8))
    lost = tracks.copy()
    lost.loc[lost["footprint_id"] == "goes", "geometry"] = None
    assert track_summary(lost, last_map=numbers)["status"].tolist() == ["unseen", "unseen", "unseen", "stable"]
    for wrong in (map_.expand_dims(time=2), map_["valid"], "map.zarr"):
        with pytest.raises(FootprintError, match="a Dataset of one time"):
            track_summary(tracks, last_map=wrong)
    with pytest.raises(FootprintError, match="is of 2019, and the last year of the tracks is 2024"):
        track_summary(tracks, last_map=map_.assign_attrs(time_coverage_start="2019-07-01"))
    with pytest.raises(FootprintError, match="by their geometry only"):
        track_summary(pd.DataFrame(tracks.drop(columns="geometry")), last_map=map_)


def test_status_and_growth_follow_from_the_areas():
    def square(x, side):
        return box(x, 0, x + side, side)

    yearly = {
        2020: found(grows=square(0, 30), rests=square(100, 30), shrinks=square(200, 30), goes=square(300, 30)),
        2021: found(grows=square(0, 40), rests=square(100, 31), shrinks=square(200, 25)),
        2024: found(grows=square(0, 50), rests=square(100, 30), shrinks=square(200, 20), comes=square(400, 30)),
    }
    summary = track_summary(track_footprints(yearly)).set_index("track_id")
    assert summary["status"].to_dict() == {
        "2020_goes": "gone",
        "2020_grows": "growing",
        "2020_rests": "stable",
        "2020_shrinks": "shrinking",
        "2024_comes": "new",
    }
    row = summary.loc["2020_grows"]
    areas = np.array([measure(np.array([square(0, side)]), shapely_crs())[0][0] for side in (30, 40, 50)])
    assert row[["area_2020_m2", "area_2021_m2", "area_2024_m2"]].tolist() == pytest.approx(areas)
    assert row["growth_m2"] == pytest.approx(areas[2] - areas[0])
    assert row["growth_m2_per_a"] == pytest.approx(np.polyfit([2020, 2021, 2024], areas, 1)[0])
    assert row["growth_relative"] == pytest.approx(areas[2] / areas[0] - 1)
    assert row[["first_seen", "last_seen", "n_years"]].tolist() == [2020, 2024, 3]
    assert summary.loc["2024_comes", ["growth_m2", "growth_m2_per_a", "growth_relative"]].isna().all()
    assert summary.loc["2020_goes", "area_2021_m2"] != summary.loc["2020_goes", "area_2021_m2"]
    assert (
        track_summary(track_footprints(yearly), stable_within=2).set_index("track_id")["status"]["2020_grows"]
        == "stable"
    )


def shapely_crs():
    return geopandas.GeoSeries([box(0, 0, 1, 1)], crs=CRS).crs


def test_areas_are_measured_on_the_ground():
    mercator = found(a=box(0, 1.1e7, 1000, 1.1e7 + 1000)).set_crs("EPSG:3857", allow_override=True)
    area = track_footprints({2024: mercator})["area_m2"][0]
    assert area < 2e5  # a million square metres of the map
    assert track_footprints({2024: mercator.assign(area_m2=7.0)})["area_m2"][0] == 7


@pytest.mark.parametrize("lon", [-139.0, 100.0, 179.999, -180.0])
@pytest.mark.parametrize("turn", [-1, 0, 1])
def test_one_place_is_one_however_its_longitude_is_written(lon, turn):
    before = found(a=box(lon, 69, lon + 0.002, 69.001)).set_crs("EPSG:4326", allow_override=True)
    now = before.set_geometry(before.translate(360 * turn))
    tracks = track_footprints({2023: before.assign(area_m2=1.0), 2024: now.assign(area_m2=1.0)})
    assert tracks["event"].tolist() == ["new", "continued"]
    assert tracks.geometry.tolist() == [before.geometry[0], now.geometry[0]]


def test_nothing_gives_no_tracks():
    tracks = track_footprints({2023: found(), 2024: found()})
    assert len(tracks) == 0
    assert tracks.crs == CRS
    summary = track_summary(tracks)
    assert len(summary) == 0
    assert "area_2024_m2" in summary.columns


def test_further_columns_stay_and_geometry_keeps_its_place():
    named = found(a=box(0, 0, 30, 30)).assign(note="x").rename_geometry("shape")
    tracks = track_footprints({2023: named, 2024: found(a=box(0, 0, 30, 30))})
    assert tracks["note"].tolist()[0] == "x"
    assert tracks.columns[-1] == "geometry"
    assert shapely.equals(tracks.geometry[0], box(0, 0, 30, 30))


@pytest.mark.parametrize(
    ("yearly", "message"),
    [
        ({}, r"such as {2023: before, 2024: now}, not an empty one"),
        ([found()], r"tracks need footprints by year.* not list"),
        ({"2024": found()}, r"years are whole numbers such as 2024, but '2024' \(str\) came: give {int\(year\)"),
        ({2024.5: found()}, r"years are whole numbers such as 2024, but 2024.5 \(float\)"),
        ({True: found()}, r"but True \(bool\)"),
        ({2024: pd.DataFrame()}, r"the footprints of 2024 are a geopandas.GeoDataFrame, not DataFrame"),
        ({2024: found().drop(columns="footprint_id")}, r"of 2024 need the column footprint_id, but have geometry"),
        ({2024: found(a=box(0, 0, 1, 1)).assign(footprint_id=None)}, r"in 2024 footprint_id None is missing"),
        ({2024: pd.concat([found(a=box(0, 0, 1, 1))] * 2)}, r"in 2024 footprint_id 'a' is missing or repeated: unite"),
        ({2024: found(**{"a,b": box(0, 0, 1, 1)})}, r"footprint_id has no commas.* in 2024 there is 'a,b'"),
        (
            {2023: found(), 2024: found().set_crs(None, allow_override=True)},
            r"in the footprints of 2024: footprints have a CRS",
        ),
        (
            {2023: found(), 2024: found().to_crs(4326)},
            r"those of 2023 are in EPSG:32608 and those of 2024 in EPSG:4326",
        ),
        (
            {2024: found(a=shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]))},
            r"in the footprints of 2024: outlines are valid geometries, but that of row 0 is not \(Self-intersection",
        ),
        ({2024: found(a=shapely.Point(0, 0))}, r"in the footprints of 2024: .* row 0 has Point"),
        ({2024: found(a=box(0, 0, 1, 1)).assign(year=2023)}, r"given for 2024 say in their column 'year' .* of 2023"),
    ],
)
def test_what_is_wrong_is_said(yearly, message):
    with pytest.raises(FootprintError, match=message):
        track_footprints(yearly)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_overlap": 0}, r"above 0 and at most 1, not 0"),
        ({"min_overlap": 20}, r"above 0 and at most 1, not 20"),
        ({"max_gap": -1}, r"max_gap is a whole number of years from 0, not -1"),
        ({"max_gap": 0.5}, r"takes `max_gap` as a whole number; got float 0.5"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(FootprintError, match=message):
        track_footprints({2024: found()}, **options)


def test_the_summary_knows_the_years_that_were_mapped(tmp_path):
    tracks = track_footprints({2023: found(a=box(0, 0, 30, 30)), 2024: found()})
    assert track_summary(tracks)["status"].tolist() == ["gone"]
    for ending in ("parquet", "gpkg", "fgb"):
        back = geopandas.read_file if ending != "parquet" else geopandas.read_parquet
        stored = back(write_tracks(tracks, tmp_path / f"tracks.{ending}"))
        stored.attrs.clear()
        assert track_summary(stored)["status"].tolist() == ["stable"]
        assert track_summary(stored, years=[2023, 2024])["status"].tolist() == ["gone"]
    with pytest.raises(FootprintError, match=r"2023 occurs in the tracks and not in \[2024\]: add it"):
        track_summary(tracks, years=[2024])
    with pytest.raises(FootprintError, match=r"stable_within is a part of the first area, at least 0, not -1"):
        track_summary(tracks, stable_within=-1)
    with pytest.raises(FootprintError, match=r"tracks need the columns track_id, event"):
        track_summary(tracks.drop(columns=["track_id", "event"]))
    with pytest.raises(FootprintError, match=r"tracks need the columns parents"):
        write_tracks(tracks.drop(columns="parents"), tmp_path / "more.parquet")


@pytest.mark.parametrize("names", [("RTS", "rts"), (None, "rts"), ("rts", None)])
def test_one_class_in_other_capitals_or_unnamed_in_a_year(names):
    yearly = {
        year: geopandas.GeoDataFrame(
            {"footprint_id": ["a"], "class_name": [name]}, geometry=[shapely.box(0, 0, 30, 30)], crs="EPSG:3413"
        )
        for year, name in zip((2023, 2024), names, strict=True)
    }
    tracks = track_footprints(yearly)
    assert tracks["event"].tolist() == ["new", "continued"]
    assert tracks["class_name"].tolist() == list(names)
    with pytest.raises(FootprintError, match="takes `max_gap` as a whole number"):
        track_footprints(yearly, max_gap="1")
