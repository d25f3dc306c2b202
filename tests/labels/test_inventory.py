import json
import zipfile
from datetime import date

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.errors import LabelDateWarning, LabelError, OutputExistsError, OutputNotWritableError
from rtsx.labels import LABEL_COLUMNS, read_labels, standardise_labels, validate_labels, write_labels
from rtsx.labels.standardise import marked_absent

TODAY = date(2026, 1, 1)


def square(lon=124.0, lat=72.0, size=0.01):
    return shapely.box(lon, lat, lon + size, lat + size)


def table(*outlines, crs="EPSG:4326", **columns):
    return geopandas.GeoDataFrame(columns, geometry=list(outlines), crs=crs)


def problems(report):
    return [(one.row, one.problem, one.action) for one in report.findings]


def test_every_row_is_in_the_table_or_in_the_report():
    bow = shapely.Polygon([(124, 71), (124.01, 71.01), (124.01, 71), (124, 71.01)])
    raw = table(
        square(), None, shapely.Point(124, 72), bow, square(), shapely.Polygon(), square(lat=72.5), shapely.LineString([(0, 0), (1, 1)]),
        image_date=["2019-07-01"] * 6 + ["2031-02-30", "2019"],
    )  # fmt: skip
    inventory = standardise_labels(raw, today=TODAY)
    validate_labels(inventory.labels)
    assert inventory.labels["source_row"].tolist() == [0, 3, 6]
    assert problems(inventory.report) == [
        (1, "empty geometry", "dropped"),
        (2, "not a polygon", "dropped"),
        (3, "invalid geometry", "repaired"),
        (4, "duplicate", "dropped"),
        (5, "empty geometry", "dropped"),
        (6, "impossible date", "repaired"),
        (7, "not a polygon", "dropped"),
    ]
    assert inventory.report.written == 3
    assert "no day of the calendar" in inventory.report.findings[5].detail
    text = str(inventory.report)
    assert "8 rows read from 1 source, 3 labels" in text
    assert "row 2: is a Point, which encloses nothing" in text


def test_resolutions_with_a_unit_are_read_and_what_is_none_is_said():
    said = ["3 m", "3m", "0.5 metres", "50 CM", "3", None, "nan", "high", "3,4", 4.77]
    raw = table(*(square(lat=60 + row) for row in range(len(said))), resolution=said)
    inventory = standardise_labels(raw, today=TODAY)
    np.testing.assert_array_equal(inventory.labels["image_resolution_m"], [3, 3, 0.5, 0.5, 3, *[np.nan] * 4, 4.77])
    assert "row 7: 'high' is no length in metres" in str(inventory.report)
    assert "row 8: '3,4' is no length in metres" in str(inventory.report)


def test_columns_of_arts_are_found():
    raw = table(
        square(), square(lat=73), square(lat=74),
        CentroidLat=["72.005", "73.005", "74.005"], CentroidLon=["124.005"] * 3, RegionName=["Lena"] * 3,
        CreatorLab=["A, AWI"] * 3, BaseMapDate=["2020-07-05,2020-08-20", "2020-07-05", None], BaseMapSource=["PlanetScope"] * 3,
        BaseMapResolution=["3", "3", None], TrainClass=["Positive", "Negative", "Positive"], LabelType=["Polygon"] * 3,
        UID=["a", "b", "c"], BaseMapID=["x,y", None, None], Area=[None] * 3, ContributionDate=["2024-02-01"] * 3,
    )  # fmt: skip
    inventory = standardise_labels(raw, today=TODAY)
    labels = inventory.labels
    assert inventory.report.is_clean
    assert labels["class_name"].tolist() == ["rts", "negative", "rts"]
    assert labels["image_ids"].tolist() == ["x,y", None, None]
    assert labels["image_resolution_m"].tolist()[:2] == [3.0, 3.0]
    assert labels["image_date"].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2020-07-05", "2020-07-05"]
    assert labels["image_date_end"].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2020-08-20", "2020-07-05"]
    assert labels["image_date"].isna().tolist() == [False, False, True]
    assert labels["source_id"].tolist() == ["a", "b", "c"]
    assert labels[["region", "creator", "image_source"]].iloc[0].tolist() == ["Lena", "A, AWI", "PlanetScope"]
    assert inventory.report.unused["table 0"] == ("LabelType", "Area", "ContributionDate")


def test_columns_and_facts_of_the_caller():
    raw = table(square(), square(lat=73), where=["Lena", None], date=["2019-07-03", None], region=["wrong", "wrong"])
    inventory = standardise_labels(
        raw, columns={"region": "where", "source_id": None}, region="Yana", creator="me", site="s", image_ids="i",
        image_date="2018-07-01,2018-08-31", class_name="slump", today=TODAY,
    )  # fmt: skip
    labels = inventory.labels
    assert labels["region"].tolist() == ["Lena", "Yana"]
    assert labels["image_date"].tolist() == [pd.Timestamp("2019-07-03"), pd.Timestamp("2018-07-01")]
    assert labels["image_date_end"].tolist() == [pd.Timestamp("2019-07-03"), pd.Timestamp("2018-08-31")]
    assert labels[["class_name", "creator", "site", "image_ids"]].iloc[1].tolist() == ["slump", "me", "s", "i"]
    assert inventory.report.columns["table 0"] == {"region": "where", "image_date": "date"}


def test_classes_by_their_values():
    raw = table(square(), square(lat=73), square(lat=74), label=[1, 2, 1])
    labels = standardise_labels(raw, class_name={1: "slump", 2: "pond"}).labels
    assert labels["class_name"].tolist() == ["slump", "pond", "slump"]
    assert standardise_labels(raw).labels["class_name"].tolist() == ["rts", "2", "rts"]
    with pytest.raises(LabelError, match="has the class '2', which class_name does not name"):
        standardise_labels(raw, class_name={1: "slump"})


YES, NO = "rts", "negative"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([True, False], [YES, NO]),
        (["TRUE", "FALSE"], [YES, NO]),
        ([1.0, 0.0], [YES, NO]),
        (["1.0", "0.0"], [YES, NO]),
        (["1", "0"], [YES, NO]),
        (["2.0", "3"], ["2", "3"]),
        (pd.array([1, None], dtype="Int64"), [YES, YES]),
        (pd.array([False, None], dtype="boolean"), [NO, YES]),
        (pd.Categorical(["Positive", "Negative"]), [YES, NO]),
        (["Yes ", " NO"], [YES, NO]),
        (["RTS", " rts"], [YES, YES]),
        (["Lake", "lake"], ["Lake", "Lake"]),
        (["nan", "<NA>"], [YES, YES]),
        (["null", ""], [YES, YES]),
        (["rts", "none"], [YES, "none"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["memory", "shp", "gpkg", "geojson", "csv", "parquet"])
def test_classes_as_they_are_written(tmp_path, given, expected, ending):
    raw = table(square(), square(lat=73), **{"class": given})
    path = tmp_path / f"raw.{ending}"
    if ending == "csv":
        raw.to_csv(path, index=False)
    elif ending == "parquet":
        raw.to_parquet(path)
    elif ending != "memory":
        raw.astype({"class": str} if isinstance(given, pd.Categorical) else {}).to_file(path)
    crs = "EPSG:4326" if ending == "csv" else None
    read = standardise_labels(raw if ending == "memory" else path, crs=crs).labels
    assert read["class_name"].tolist() == expected


def test_names_that_read_like_nothing_are_names():
    """Nan is a given name, Null a surname."""
    raw = table(square(), square(lat=73), creator=["Nan", " "], source_id=["null", "NA"], region=["NaT", np.nan])
    labels = standardise_labels(raw).labels
    assert labels["creator"].tolist() == ["Nan", None]
    assert labels["source_id"].tolist() == ["null", "NA"]
    assert labels["region"].tolist() == ["NaT", None]


def test_classes_of_a_mapping_in_any_capitals():
    raw = table(square(), square(lat=73), square(lat=74), label=["SLUMP", "FALSE", "Slump"])
    named = {"slump": "rts", "False": "negative", "Slump": "old"}
    assert standardise_labels(raw, class_name=named).labels["class_name"].tolist() == ["rts", "negative", "old"]


def test_a_table_in_memory_is_not_changed():
    raw = table(square(), None, label=[1, 1])
    raw.index = [7, 9]
    before = raw.copy()
    standardise_labels(raw)
    pd.testing.assert_frame_equal(raw, before)


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:32652", "EPSG:3857", "EPSG:3571", "ESRI:54034", "EPSG:3995"])
def test_any_crs_gives_the_same_place_and_area(crs):
    outline = square(lon=129.3, lat=71.8, size=0.004)
    plain = standardise_labels(table(outline)).labels
    moved = standardise_labels(table(outline).to_crs(crs)).labels
    distance = np.hypot(
        *(plain[["centroid_lon", "centroid_lat"]].to_numpy() - moved[["centroid_lon", "centroid_lat"]].to_numpy()).T
    )
    assert distance.max() < 1e-8
    assert moved["area_m2"].iloc[0] == pytest.approx(plain["area_m2"].iloc[0], rel=1e-5)


def belt(latitude):
    """One degree of the WGS84 ellipsoid from the equator to a latitude, m²."""
    semi_minor, e = 6_356_752.314245179, 0.08181919084262149
    sine = np.sin(np.radians(latitude))
    return np.pi * semi_minor**2 * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e) / 360


def test_areas_are_geodesic():
    labels = standardise_labels(table(square(lat=0, size=1), square(lat=60, size=1))).labels
    assert labels["area_m2"].tolist() == pytest.approx([belt(1) - belt(0), belt(61) - belt(60)], rel=1e-7)


def test_holes_are_not_part_of_areas():
    whole, hole = square(size=0.03), shapely.box(124.01, 72.01, 124.02, 72.02)
    with_hole, without = standardise_labels(table(whole.difference(hole), whole)).labels["area_m2"]
    assert without - with_hole == pytest.approx(standardise_labels(table(hole)).labels["area_m2"].iloc[0])


class TestGeometry:
    def test_ground_that_is_enclosed_twice_stays(self):
        loop = shapely.Polygon([(124, 72), (124.04, 72), (124.04, 72.04), (124.02, 72.04), (124.02, 71.99), (124.03, 71.99), (124.03, 72.05), (124, 72.05)])  # fmt: skip
        inventory = standardise_labels(table(loop))
        assert shapely.contains_xy(inventory.labels.geometry[0], 124.025, 72.02)
        assert "Self-intersection" in inventory.report.findings[0].detail
        assert "m², now" in inventory.report.findings[0].detail

    def test_parts_that_overlap_are_united(self):
        overlapping = shapely.MultiPolygon([square(), square(lon=124.005)])
        assert not overlapping.is_valid
        fixed = standardise_labels(table(overlapping)).labels.geometry[0]
        assert fixed.area == pytest.approx(0.01 * 0.015)

    def test_what_collapses_is_dropped(self):
        flat = shapely.Polygon([(124, 72), (124.1, 72.1), (124, 72)])
        inventory = standardise_labels(table(flat, square()))
        assert problems(inventory.report) == [(0, "invalid geometry", "dropped")]

    def test_multipolygons_stay_and_those_of_one_part_become_polygons(self):
        both = shapely.MultiPolygon([square(), square(lat=73)])
        kinds = standardise_labels(table(both, shapely.MultiPolygon([square(lat=74)]))).labels.geom_type
        assert kinds.tolist() == ["MultiPolygon", "Polygon"]

    def test_polygons_come_out_of_collections(self):
        collection = shapely.GeometryCollection([square(), shapely.Point(0, 0), shapely.MultiPolygon([square(lat=73)])])
        inventory = standardise_labels(table(collection))
        assert inventory.labels.geometry[0].geom_type == "MultiPolygon"
        assert "2 polygons kept, 1 lines or points left out" in inventory.report.findings[0].detail

    def test_numbers_that_are_none(self):
        with np.errstate(invalid="ignore"):
            broken = shapely.Polygon([(124, 72), (np.nan, 72), (124, 73)])
        inventory = standardise_labels(table(broken, square()))
        assert problems(inventory.report) == [(0, "coordinates that are no numbers", "dropped")]

    def test_heights_are_left_out(self):
        labels = standardise_labels(table(shapely.force_3d(square(), 12.0))).labels
        assert not labels.has_z.any()

    def test_no_polygon_at_all(self):
        with pytest.raises(LabelError, match="None of the 2 rows of table 0 can be a label; the first is a Point"):
            standardise_labels(table(shapely.Point(0, 0), shapely.LineString([(0, 0), (1, 1)])))

    def test_no_row_at_all(self):
        inventory = standardise_labels(table())
        assert len(inventory.labels) == 0
        assert list(inventory.labels.columns) == [*LABEL_COLUMNS, "geometry"]


class TestDuplicates:
    def test_the_same_slump_on_another_date_or_by_another_is_none(self):
        raw = table(
            *[square()] * 4,
            image_date=["2019-07-01", "2019-07-01", "2018-07-01", "2019-07-01"],
            creator=["a", "a", "a", "b"],
        )
        inventory = standardise_labels(raw, today=TODAY)
        assert problems(inventory.report) == [(1, "duplicate", "dropped")]
        assert "the same as table 0/0" in inventory.report.findings[0].detail

    def test_another_class_or_image_is_none(self):
        raw = table(*[square()] * 3, image_id=["x", "y", "x"], TrainClass=["Positive", "Positive", "Negative"])
        assert standardise_labels(raw).report.is_clean

    def test_near_ones(self):
        near, less = square(size=0.0101), square(size=0.0104)
        inventory = standardise_labels(table(square(), near, less))
        assert problems(inventory.report) == [(1, "near duplicate", "dropped")]
        assert "IoU 0.980 with table 0/0" in inventory.report.findings[0].detail

    def test_several_sources_become_one_table(self):
        first, second = table(square(), square(lat=73)), table(square(lat=73), square(lat=74)).to_crs("EPSG:3413")
        inventory = standardise_labels([first, second])
        assert inventory.labels["label_id"].tolist() == ["table 0/0", "table 0/1", "table 1/1"]
        (finding,) = inventory.report.findings
        assert (finding.source, finding.row, finding.action) == ("table 1", 0, "dropped")
        assert "duplicate" in finding.problem
        assert "4 rows read from 2 sources, 3 labels" in str(inventory.report)

    def test_tables_in_the_schema_keep_where_they_are_from(self, tmp_path):
        first = standardise_labels(table(square(), None, square(lat=73), name=["a", "b", "c"])).labels
        path = write_labels(first, tmp_path / "first.parquet")
        inventory = standardise_labels([path, table(square(), square(lat=74))])
        assert inventory.labels["label_id"].tolist() == ["table 0/0", "table 0/2", "table 1/1"]
        assert inventory.labels["source_row"].tolist() == [0, 2, 1]
        assert inventory.report.rows == {"first.parquet": 2, "table 1": 2}
        assert problems(inventory.report) == [(0, "duplicate", "dropped")]
        assert inventory.report.findings[0].source == "table 1"
        assert inventory.report.unused["first.parquet"] == ()

    def test_ids_that_two_tables_in_the_schema_have(self):
        one, other = (standardise_labels(table(square(lat=lat))).labels for lat in (72, 73))
        assert standardise_labels([one, other]).labels["label_id"].tolist() == [
            "table 0/table 0/0",
            "table 1/table 0/0",
        ]

    def test_one_name_in_two_formats(self, tmp_path):
        for number, name in enumerate(("slumps.gpkg", "slumps.geojson")):
            table(square(lat=72 + number)).to_file(tmp_path / name)
        labels = standardise_labels([tmp_path / "slumps.gpkg", tmp_path / "slumps.geojson"]).labels
        assert labels["label_id"].tolist() == ["slumps.gpkg/slumps/0", "slumps.geojson/slumps/0"]

    def test_a_column_that_one_of_the_sources_has(self):
        both = table(square(), where=["Lena"]), table(square(lat=73), region=["Yana"])
        assert standardise_labels(both, columns={"region": "where"}).labels["region"].tolist() == ["Lena", "Yana"]
        with pytest.raises(LabelError, match="none of the 2 sources has"):
            standardise_labels(both, columns={"region": "place"})

    def test_sources_of_one_name(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            table(square()).to_file(tmp_path / folder / "slumps.gpkg")
        with pytest.raises(LabelError, match=r"Several sources are called 'slumps\.gpkg'"):
            standardise_labels(sorted(tmp_path.glob("*/slumps.gpkg")))


class TestPlace:
    def test_latitude_first_is_told_and_mended(self):
        swapped = shapely.transform(square(lon=124), lambda xy: xy[:, ::-1])
        also = shapely.transform(
            square(lon=49, lat=69), lambda xy: xy[:, ::-1]
        )  # proves nothing, but is of the same file
        inventory = standardise_labels(table(swapped, also))
        assert problems(inventory.report) == [(0, "wrong axis order", "repaired"), (1, "wrong axis order", "repaired")]
        assert inventory.labels["centroid_lat"].tolist() == pytest.approx([72.005, 69.005])

    def test_what_rows_say_of_their_centre_tells(self):
        swapped = shapely.transform(square(lon=49, lat=69), lambda xy: xy[:, ::-1])
        inventory = standardise_labels(table(swapped, CentroidLat=[69.005], CentroidLon=[49.005]))
        assert problems(inventory.report) == [(0, "wrong axis order", "repaired")]
        assert inventory.labels["centroid_lat"].iloc[0] == pytest.approx(69.005)

    def test_a_doubt_changes_nothing(self):
        swapped = shapely.transform(square(lon=49, lat=69), lambda xy: xy[:, ::-1])
        inventory = standardise_labels(table(swapped))
        assert inventory.report.is_clean
        assert "if latitude came first" in inventory.report.notes[0]
        assert inventory.labels["centroid_lat"].iloc[0] == pytest.approx(49.005)

    def test_rows_that_contradict_are_taken_one_by_one(self):
        right, wrong = square(lon=124), shapely.transform(square(lon=125), lambda xy: xy[:, ::-1])
        inventory = standardise_labels(table(right, wrong, square(lon=49, lat=69)))
        assert problems(inventory.report) == [(1, "wrong axis order", "repaired"), (2, "doubtful axis order", "kept")]
        assert inventory.labels["centroid_lat"].tolist() == pytest.approx([72.005, 72.005, 69.005])

    def test_northing_first(self):
        utm = table(square(lon=129.3, lat=71.8)).to_crs("EPSG:32652")
        swapped = utm.set_geometry(shapely.transform(utm.geometry.array, lambda xy: xy[:, ::-1]), crs="EPSG:32652")
        inventory = standardise_labels(swapped)
        assert problems(inventory.report) == [(0, "wrong axis order", "repaired")]
        assert inventory.labels["centroid_lat"].iloc[0] == pytest.approx(71.805)

    def test_far_from_the_area_of_the_crs(self):
        inventory = standardise_labels(table(square(lon=160)).to_crs("EPSG:32652"))
        assert problems(inventory.report) == [(0, "far from the area of its CRS", "kept")]
        assert "is made for Between 126°E and 132°E" in inventory.report.findings[0].detail

    def test_each_row_is_told_by_a_vertex_of_its_own(self):
        good = shapely.box(500_000, 7.9e6, 500_100, 7.9001e6)
        nowhere = [shapely.box(x, 5e7, x + 100, 6e7) for x in (5e7, 7e7)]
        inventory = standardise_labels(table(nowhere[0], good, nowhere[1], crs="EPSG:32652"))
        assert [(one.row, one.detail.split(",")[0]) for one in inventory.report.findings] == [
            (0, "x = 5.00001e+07"),
            (2, "x = 7.00001e+07"),
        ]

    def test_no_place_on_earth(self):
        metres = shapely.box(5e7, 5e7, 6e7, 6e7)
        inventory = standardise_labels(table(metres, shapely.box(500_000, 7.9e6, 500_100, 7.9001e6), crs="EPSG:32652"))
        assert problems(inventory.report) == [(0, "no place on Earth", "dropped")]
        polar = table(shapely.box(-1915450, -489398, -1915400, -489300))
        with pytest.raises(LabelError, match=r"No row of table 0 has a place on Earth.*is that its CRS.*say crs='EPSG"):
            standardise_labels(polar)
        told = standardise_labels(polar, crs="EPSG:3413").labels
        expected = polar.set_crs("EPSG:3413", allow_override=True).to_crs("EPSG:4326").geometry[0]
        assert told.geometry[0].centroid.distance(expected.centroid) < 1e-6

    def test_the_centre_of_what_is_cut_lies_in_it(self):
        outlines = shapely.box(179.99, 65.0, 180.03, 65.01), shapely.box(-180.03, 65.0, -179.99, 65.01)
        labels = standardise_labels(table(*outlines)).labels
        assert labels["centroid_lon"].tolist() == pytest.approx([-179.99, 179.99])
        assert labels["centroid_lat"].tolist() == pytest.approx([65.005, 65.005])

    @pytest.mark.parametrize("style", ["jumping", "beyond"])
    def test_across_the_antimeridian(self, style):
        jumping = shapely.Polygon([(179.99, 65.0), (-179.99, 65.0), (-179.99, 65.01), (179.99, 65.01)])
        inventory = standardise_labels(
            table(jumping if style == "jumping" else shapely.box(179.99, 65.0, 180.01, 65.01))
        )
        assert sorted(part.bounds for part in inventory.labels.geometry[0].geoms) == [
            pytest.approx((-180.0, 65.0, -179.99, 65.01)), pytest.approx((179.99, 65.0, 180.0, 65.01)),
        ]  # fmt: skip
        assert [one.problem for one in inventory.report.findings] == ["drawn around the world"] * (style == "jumping")
        expected = standardise_labels(table(shapely.box(10, 65.0, 10.02, 65.01))).labels["area_m2"].iloc[0]
        assert inventory.labels["area_m2"].iloc[0] == pytest.approx(expected)

    def test_across_the_antimeridian_in_a_projection(self):
        polar = table(shapely.box(179.99, 65.0, 180.01, 65.01)).to_crs("EPSG:3571")
        inventory = standardise_labels(polar)
        assert inventory.report.is_clean
        assert len(inventory.labels.geometry[0].geoms) == 2

    def test_around_a_pole(self):
        inventory = standardise_labels(
            table(shapely.box(-5e4, -5e4, 5e4, 5e4), shapely.box(1e6, 1e6, 1.001e6, 1.001e6), crs="EPSG:3413")
        )
        assert problems(inventory.report) == [(0, "around a pole", "dropped")]

    def test_long_edges_are_followed(self):
        long = shapely.box(1e6, 1e6, 1.1e6, 1.001e6)
        labels = standardise_labels(table(long, crs="EPSG:3413")).labels
        assert shapely.get_num_coordinates(labels.geometry[0]) > 400

    def test_no_crs(self):
        with pytest.raises(LabelError, match=r"does not say in which CRS.*look like degrees.*say crs="):
            standardise_labels(table(square(), crs=None))
        assert len(standardise_labels(table(square(), crs=None), crs="EPSG:4326").labels) == 1

    def test_another_crs_than_the_source_says(self):
        with pytest.raises(LabelError, match=r"says that it is in EPSG:4326, and crs= says EPSG:3413"):
            standardise_labels(table(square()), crs="EPSG:3413")

    def test_a_crs_that_is_none(self):
        with pytest.raises(LabelError, match=r"is no CRS that pyproj knows"):
            standardise_labels(table(square(), crs=None), crs="nonsense")
        local = 'LOCAL_CS["site grid",UNIT["metre",1]]'
        with pytest.raises(LabelError, match="no longitude and latitude"):
            standardise_labels(table(square(), crs=local))

    def test_a_vertical_datum_changes_nothing(self):
        labels = standardise_labels(table(square(), crs="EPSG:4326+5773")).labels
        assert labels["centroid_lat"].iloc[0] == pytest.approx(72.005)


class TestGeocentric:
    def geocentric(self, outlines, *, flat):
        from pyproj import Transformer

        to = Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)

        def move(xyz):
            return np.column_stack(to.transform(xyz[:, 0], xyz[:, 1], xyz[:, 2]))

        moved = shapely.transform(shapely.force_3d(outlines, 0.0), move, include_z=True)
        return table(*(shapely.force_2d(moved) if flat else moved), crs="EPSG:4978")

    def test_with_heights_it_is_exact(self):
        inventory = standardise_labels(self.geocentric([square(), square(lat=-72)], flat=False))
        assert inventory.report.is_clean
        assert inventory.labels["centroid_lat"].tolist() == pytest.approx([72.005, -71.995])

    def test_without_heights_the_hemisphere_has_to_be_told(self):
        flat = self.geocentric([square()], flat=True)
        with pytest.raises(
            LabelError, match=r"1 of 1 labels lie in EPSG:4978, which is geocentric.*hemisphere='north'"
        ):
            standardise_labels(flat)
        for hemisphere, latitude in (("north", 72.005), ("south", -72.005)):
            inventory = standardise_labels(flat, hemisphere=hemisphere)
            assert inventory.labels["centroid_lat"].iloc[0] == pytest.approx(latitude)
            assert problems(inventory.report) == [(0, "height missing", "repaired")]

    def test_what_lies_off_the_ground_is_dropped(self):
        flat = self.geocentric([square()], flat=True)
        both = pd.concat([flat, table(shapely.box(7e6, 0, 7.1e6, 1e5), crs="EPSG:4978")], ignore_index=True)
        assert problems(standardise_labels(both, hemisphere="north").report)[1] == (1, "no place on Earth", "dropped")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"regoin": "a"}}, r"'regoin' is none of them. Did you mean 'region'"),
        (
            {"columns": {"region": "lable"}},
            r"column 'lable', which is not there; there are label. Did you mean 'label'",
        ),
        ({"image_date": "03.07.2018"}, "image_date is a day such as.*is no date"),
        ({"image_date": "1969-01-01,1968-01-01"}, "ends before it begins"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(LabelError, match=message):
        standardise_labels(table(square(), label=[1]), **options)


def test_refuses_nothing():
    with pytest.raises(LabelError, match="at least one source"):
        standardise_labels([])


class TestReading:
    @pytest.mark.parametrize("ending", ["shp", "gpkg", "geojson", "fgb", "parquet"])
    def test_any_format(self, tmp_path, ending):
        raw = table(
            square(),
            square(lat=73),
            RegionName=["Lena"] * 2,
            image_date=["2019-07-01"] * 2,
            TrainClass=["Positive"] * 2,
        )
        path = tmp_path / f"raw.{ending}"
        raw.to_parquet(path) if ending == "parquet" else raw.to_file(path)
        labels = read_labels(path)
        validate_labels(labels)
        assert labels["region"].tolist() == ["Lena"] * 2
        assert labels["image_date"].tolist() == [pd.Timestamp("2019-07-01")] * 2
        assert labels["source_file"].tolist() == [path.name] * 2

    @pytest.mark.filterwarnings("ignore:Column names longer", "ignore:Normalized/laundered")
    def test_a_shapefile_keeps_the_end_of_a_period(self, tmp_path):
        labels = standardise_labels(table(square()), image_date="2018-07-01,2018-08-31").labels
        labels.astype({"image_date": str, "image_date_end": str}).to_file(tmp_path / "ours.shp")
        again = standardise_labels(tmp_path / "ours.shp").labels
        assert again["image_date_end"].tolist() == [pd.Timestamp("2018-08-31")]

    @pytest.mark.parametrize("folder", ["", "data/", "data/2018/"])
    @pytest.mark.parametrize("ending", ["shp", "geojson", "gpkg", "kml"])
    def test_in_an_archive(self, tmp_path, folder, ending):
        raw = table(square(), square(lat=73), TrainClass=["Positive", "Negative"])
        raw.to_file(tmp_path / f"raw.{ending}", driver="KML" if ending == "kml" else None)
        path = tmp_path / ("raw.kmz" if ending == "kml" else "raw.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for part in tmp_path.glob("raw.*"):
                if part != path:
                    archive.write(part, f"{folder}{part.name}")
            archive.writestr("__MACOSX/data/._raw.shp", b"")
        assert read_labels(path)["class_name"].tolist() == ["rts", "negative"]
        assert read_labels(path)["source_file"].tolist() == [path.name] * 2

    @pytest.mark.parametrize("missing", [".dbf", ".shx"])
    @pytest.mark.parametrize("folder", ["", "data/"])
    def test_an_archive_without_a_part(self, tmp_path, folder, missing):
        table(square(), TrainClass=["Negative"]).to_file(tmp_path / "raw.shp")
        with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
            for part in tmp_path.glob("raw.*"):
                if part.suffix not in (missing, ".zip"):
                    archive.write(part, f"{folder}{part.name}")
        with pytest.raises(
            LabelError, match=rf"raw\.shp is one of several files of a shapefile, and \{missing} is not"
        ):
            read_labels(tmp_path / "raw.zip")

    def test_an_archive_of_several_files(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
            for name in ("north", "south"):
                archive.writestr(f"{name}/slumps.geojson", table(square()).to_json())
        with pytest.raises(
            LabelError, match=r"Name the one that is meant: (/vsizip/\S+south/slumps\.geojson)"
        ) as refused:
            read_labels(tmp_path / "raw.zip")
        assert len(read_labels(str(refused.value).split()[-1].rstrip("."))) == 1

    @pytest.mark.parametrize("column", ["geometry", "geom", "the_geom", "wkt_geom", "WKT"])
    def test_a_table_of_text(self, tmp_path, column):
        text = pd.DataFrame({column: [square().wkt], "label": [1]})
        text.to_csv(tmp_path / "raw.csv", index=False)
        with pytest.raises(LabelError, match=r"raw\.csv does not say in which CRS .* perhaps EPSG:4326"):
            read_labels(tmp_path / "raw.csv")
        assert read_labels(tmp_path / "raw.csv", crs="EPSG:4326").geometry[0].equals(square())

    def test_parquet_without_its_geometry(self, tmp_path):
        pd.DataFrame({"geometry": [square().wkb]}).to_parquet(tmp_path / "raw.parquet")
        with pytest.raises(LabelError, match=r"Parquet that does not say which of its columns is a geometry"):
            read_labels(tmp_path / "raw.parquet")

    def test_surfaces_that_are_no_polygons(self, tmp_path):
        (tmp_path / "raw.csv").write_text('WKT,a\n"TIN(((0 0,1 0,1 1,0 0)))",1\n')
        with pytest.raises(LabelError, match=r"surfaces of a kind that is no polygon .* ogr2ogr -nlt MULTIPOLYGON"):
            read_labels(tmp_path / "raw.csv", crs="EPSG:4326")

    @pytest.mark.parametrize("ending", ["parquet", "gpkg", "fgb"])
    def test_what_is_written_comes_back(self, tmp_path, ending):
        raw = table(square(), shapely.MultiPolygon([square(lat=73), square(lat=74)]), RegionName=["Lena", None])
        labels = standardise_labels(raw, image_date="2019", creator="me").labels
        path = write_labels(labels, tmp_path / f"labels.{ending}")
        again = read_labels(path).sort_values("source_row", ignore_index=True)
        assert again.geometry.geom_equals(labels.geometry).all()
        pd.testing.assert_frame_equal(
            pd.DataFrame(again[list(LABEL_COLUMNS)]), pd.DataFrame(labels[list(LABEL_COLUMNS)])
        )
        if ending == "parquet":
            assert list(geopandas.read_parquet(path).columns) == [*LABEL_COLUMNS, "geometry"]

    def test_a_table_in_the_schema_is_returned_as_it_is(self):
        labels = standardise_labels(table(square())).labels
        extra = labels.assign(note="kept")
        pd.testing.assert_frame_equal(pd.DataFrame(read_labels(labels)), pd.DataFrame(labels))
        assert read_labels(extra)["note"].tolist() == ["kept"]
        with pytest.raises(LabelError, match="label_id 'table 0/0' is repeated"):
            read_labels(pd.concat([extra, extra], ignore_index=True))

    def test_mixed_geometry_types_are_refused(self):
        with pytest.raises(
            LabelError,
            match=r"1 of 2 rows of table 0 cannot be labels; the first is row 1: not a polygon, is a Point.*rtsx labels",
        ):
            read_labels(table(square(), shapely.Point(0, 0)))

    def test_repetitions_are_not_refused(self):
        assert len(read_labels(table(square(), square()))) == 1

    def test_dates_that_are_left_empty_are_said(self):
        raw = table(square(), square(lat=73), square(lat=74), BaseMapDate=["01.07.2020", "2020-07-01", "13.13.2020"])
        with pytest.warns(
            LabelDateWarning, match=r"2 of 3 rows of table 0 .*'BaseMapDate'.* row 0: '01\.07\.2020' is no date such as"
        ) as warned:
            labels = read_labels(raw)
        assert warned[0].filename == __file__
        assert labels["image_date"].isna().tolist() == [True, False, True]

    def test_text_in_a_table_of_the_schema_is_not_guessed(self):
        labels = standardise_labels(table(square(), square(lat=73)), image_date="2020-07-01").labels
        days = ["01.07.2020", "2020-07-01"]
        with pytest.warns(
            LabelDateWarning, match=r"1 of 2 rows of table 0 .*'image_date'.* row 0: '01\.07\.2020'"
        ) as warned:
            again = read_labels(labels.assign(image_date=days, image_date_end=days))
        assert warned[0].filename == __file__
        assert again["image_date"].isna().tolist() == [True, False]
        assert again["image_date"][1] == pd.Timestamp("2020-07-01")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.shp is none"):
            read_labels(tmp_path / "none.shp")

    def test_a_broken_file(self, tmp_path):
        path = tmp_path / "broken.gpkg"
        path.write_bytes(b"SQLite format 3\0 no more")
        with pytest.raises(LabelError, match="cannot be read as labels"):
            read_labels(path)

    def test_a_table_without_geometry(self, tmp_path):
        path = tmp_path / "plain.csv"
        path.write_text("a,b\n1,2\n")
        with pytest.raises(LabelError, match="a table without geometry"):
            read_labels(path)

    def test_several_layers(self, tmp_path):
        path = tmp_path / "two.gpkg"
        table(square()).to_file(path, layer="a")
        table(square(lat=73), square(lat=74)).to_file(path, layer="b")
        with pytest.raises(LabelError, match="several layers: a, b"):
            read_labels(path)
        assert len(standardise_labels(path, layer="b").labels) == 2
        with pytest.raises(LabelError, match="no layer 'c'; there are a, b"):
            standardise_labels(path, layer="c")

    def test_a_shapefile_without_its_crs(self, tmp_path):
        table(square()).to_file(tmp_path / "raw.shp")
        (tmp_path / "raw.prj").unlink()
        with pytest.raises(LabelError, match=r"raw\.shp does not say in which CRS"):
            read_labels(tmp_path / "raw.shp")
        assert len(read_labels(tmp_path / "raw.shp", crs="EPSG:4326")) == 1


class TestWriting:
    labels = standardise_labels(table(square())).labels

    def test_what_is_there_stays(self, tmp_path):
        path = tmp_path / "labels.parquet"
        path.write_text("mine")
        with pytest.raises(OutputExistsError, match="exists already"):
            write_labels(self.labels, path)
        assert path.read_text() == "mine"
        write_labels(self.labels, path, overwrite=True)
        assert len(read_labels(path)) == 1
        assert [one.name for one in tmp_path.iterdir()] == ["labels.parquet"]

    def test_refuses_other_endings(self, tmp_path):
        with pytest.raises(LabelError, match=r"ends in '\.shp'"):
            write_labels(self.labels, tmp_path / "labels.shp")

    def test_refuses_what_is_not_in_the_schema(self, tmp_path):
        with pytest.raises(LabelError, match="need the columns label_id"):
            write_labels(table(square()), tmp_path / "labels.parquet")

    def test_needs_a_folder(self, tmp_path):
        with pytest.raises(OutputNotWritableError, match="must exist and be writable"):
            write_labels(self.labels, tmp_path / "none" / "labels.parquet")


class TestReport:
    report = standardise_labels(table(square(), None, shapely.Point(0, 0), *[None] * 6)).report

    def test_as_csv(self, tmp_path):
        path = self.report.write(tmp_path / "report.csv")
        assert pd.read_csv(path)["problem"].value_counts().to_dict() == {"empty geometry": 7, "not a polygon": 1}

    def test_as_json(self, tmp_path):
        document = json.loads(self.report.write(tmp_path / "report.json").read_text())
        assert (document["read"], document["written"], document["dropped"]) == (9, 1, 8)
        assert document["findings"][0]["detail"] == "has no geometry"

    def test_for_people(self):
        assert "7 dropped: empty geometry" in str(self.report)
        assert "and 2 more" in str(self.report)
        assert self.report.counts == {("empty geometry", "dropped"): 7, ("not a polygon", "dropped"): 1}

    def test_refuses(self, tmp_path):
        with pytest.raises(LabelError, match=r"\.csv or a \.json"):
            self.report.write(tmp_path / "report.txt")
        (tmp_path / "report.csv").touch()
        with pytest.raises(OutputExistsError, match="exists already"):
            self.report.write(tmp_path / "report.csv")
        with pytest.raises(OutputNotWritableError, match="cannot be written"):
            self.report.write(tmp_path / "none" / "report.csv")


def test_short_words_for_yes_and_no():
    found = geopandas.GeoDataFrame(
        {"TrainClass": ["Pos", "neg", "t", "F", "Y", "n"]},
        geometry=[shapely.box(lon, 69, lon + 0.01, 69.01) for lon in range(6)],
        crs="EPSG:4326",
    )
    assert read_labels(found)["class_name"].tolist() == ["rts", "negative"] * 3


def test_a_label_that_numbers_rows_is_no_class():
    boxes = [shapely.box(lon, 69, lon + 0.01, 69.01) for lon in range(3)]
    numbered = geopandas.GeoDataFrame({"label": [7, 8, 9]}, geometry=boxes, crs="EPSG:4326")
    inventory = standardise_labels(numbered)
    assert inventory.labels["class_name"].tolist() == ["rts"] * 3
    assert inventory.report.unused == {"table 0": ("label",)}
    assert read_labels(numbered.assign(label=[1, 1, 0]))["class_name"].tolist() == ["rts", "rts", "negative"]
    assert read_labels(numbered, columns={"class_name": "label"})["class_name"].tolist() == ["7", "8", "9"]


def test_a_year_counts_where_no_date_is_known():
    boxes = [shapely.box(lon, 69, lon + 0.01, 69.01) for lon in range(2)]
    found = geopandas.GeoDataFrame({"date": [pd.NaT, pd.NaT], "year": [2023, 2024]}, geometry=boxes, crs="EPSG:4326")
    assert read_labels(found)["image_date"].dt.year.tolist() == [2023, 2024]
    assert read_labels(found, columns={"image_date": "date"})["image_date"].isna().all()


def test_what_is_no_year_in_a_column_of_years_says_nothing():
    boxes = [shapely.box(lon, 69, lon + 0.01, 69.01) for lon in range(4)]
    found = geopandas.GeoDataFrame({"Year": ["2018", "unknown", "3", "-9999"]}, geometry=boxes, crs="EPSG:4326")
    inventory = standardise_labels(found, image_date="2020-07-01")
    assert inventory.report.findings == ()
    assert inventory.labels["image_date"].dt.strftime("%Y-%m-%d").tolist() == ["2018-01-01", *["2020-07-01"] * 3]
    assert inventory.report.notes == (
        "table 0: the years of the column 'Year' count, and the date that is given in rows without one",
    )
    assert standardise_labels(found.assign(Year=[1, 2, 3, 1]), image_date="2020-07-01").report.notes == ()


def test_a_label_in_words_marks_what_is_none_of_the_target():
    boxes = [shapely.box(lon, 69, lon + 0.01, 69.01) for lon in range(2)]
    found = geopandas.GeoDataFrame({"label": ["Negative", "rts"]}, geometry=boxes, crs="EPSG:4326")
    assert marked_absent(found)[1].tolist() == [True, False]
    assert marked_absent(found.assign(label=[0, 1]))[0] is None
