""""""

from datetime import date, datetime

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from rtsx.errors import LabelError
from rtsx.labels import LABEL_COLUMNS, standardise_labels, validate_labels
from rtsx.labels.schema import match_columns, read_days

SQUARE = shapely.box(124, 72, 124.01, 72.01)
LABELS = standardise_labels(
    geopandas.GeoDataFrame({"image_date": ["2019", "2020"]}, geometry=[SQUARE, SQUARE], crs="EPSG:4326")
).labels


def test_the_table_has_the_documented_columns():
    assert list(LABELS.columns) == [*LABEL_COLUMNS, "geometry"]
    assert {name: str(LABELS[name].dtype) for name in LABEL_COLUMNS} == LABEL_COLUMNS
    validate_labels(LABELS)
    validate_labels(LABELS.iloc[:0])
    validate_labels(LABELS.assign(note="welcome"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pd.DataFrame(LABELS), "not DataFrame"),
        (LABELS.drop(columns="creator"), "need the columns creator"),
        (LABELS.assign(image_date="2019"), "'image_date' of labels has dtype datetime64"),
        (LABELS.assign(area_m2="1"), "'area_m2' of labels has dtype float64"),
        (LABELS.assign(label_id="a"), "label_id 'a' is repeated"),
        (LABELS.assign(class_name=[None, "a"]), "Every label has a class_name, but row 0"),
        (LABELS.assign(class_name=["a", ""]), "Every label has a class_name, but row 1"),
        (LABELS.assign(image_date=pd.Timestamp("1900-01-01")), "not before 1930-01-01, but row 0"),
        (LABELS.assign(image_date_end=pd.Timestamp("2018-01-01")), "image_date_end is not before"),
        (LABELS.assign(area_m2=0.0), "above 0, but not in row 0"),
        (LABELS.to_crs("EPSG:3413"), "are in EPSG:4326, but these are in EPSG:3413"),
        (LABELS.set_geometry([SQUARE, shapely.Point(0, 0)], crs="EPSG:4326"), "row 1 is not: Point"),
        (LABELS.set_geometry([None, SQUARE], crs="EPSG:4326"), "row 0 is not: nothing"),
        (LABELS.set_geometry([SQUARE, shapely.Polygon()], crs="EPSG:4326"), "row 1 is not: empty Polygon"),
        (LABELS.set_geometry([shapely.box(179, 0, 181, 1)] * 2, crs="EPSG:4326"), "between -180 and 180"),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(LabelError, match=message):
        validate_labels(wrong)


TODAY = date(2026, 1, 1)


def read(value, end=None):
    days = read_days([value], None if end is None else [end], today=TODAY)
    said = tuple(str(one[0].astype("datetime64[D]")) for one in (days.first, days.last))
    return said, [one.detail for one in days.findings]


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("2018-07-03", "2018-07-03", "2018-07-03"),
        ("20180703", "2018-07-03", "2018-07-03"),
        (20180703, "2018-07-03", "2018-07-03"),
        (20180703.0, "2018-07-03", "2018-07-03"),
        ("2018/07/03", "2018-07-03", "2018-07-03"),
        ("2018.07.03", "2018-07-03", "2018-07-03"),
        ("2018-07-03T19:25:59Z", "2018-07-03", "2018-07-03"),
        ("2018-07-03 19:25", "2018-07-03", "2018-07-03"),
        ("2018-07", "2018-07-01", "2018-07-31"),
        ("2016-02", "2016-02-01", "2016-02-29"),
        ("2018", "2018-01-01", "2018-12-31"),
        (2018, "2018-01-01", "2018-12-31"),
        ("2018-07-01,2018-08-31", "2018-07-01", "2018-08-31"),
        ("2018-07-01/2018-08-31", "2018-07-01", "2018-08-31"),
        ("2016-2018", "2016-01-01", "2018-12-31"),
        (" 2018-07 , 2018-08 ", "2018-07-01", "2018-08-31"),
        (date(2018, 7, 3), "2018-07-03", "2018-07-03"),
        (datetime(2018, 7, 3, 12), "2018-07-03", "2018-07-03"),
        (pd.Timestamp("2018-07-03", tz="UTC"), "2018-07-03", "2018-07-03"),
        (np.datetime64("2018-07-03"), "2018-07-03", "2018-07-03"),
        (None, "NaT", "NaT"),
        (np.nan, "NaT", "NaT"),
        (pd.NaT, "NaT", "NaT"),
        (np.datetime64("NaT", "D"), "NaT", "NaT"),
        ("", "NaT", "NaT"),
        ("None", "NaT", "NaT"),
    ],
)
def test_dates_as_they_are_written(value, first, last):
    assert read(value) == ((first, last), [])


def test_last_days_of_their_own():
    assert read("2018-07-03", "2018-08")[0] == ("2018-07-03", "2018-08-31")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("03.07.2018", "is no date"),
        ("07/03/2018", "is no date"),
        ("summer", "is no date"),
        ("2018-02-30", "is no day of the calendar"),
        ("2018-13", "is no day of the calendar"),
        ("1899-12-30", "lies before 1930-01-01"),
        ("1970-01-01", "software makes of an empty field"),
        ("2026-01-02", "lies after 2026-01-01"),
        ("2018-08-31,2018-07-01", "ends before it begins"),
        ("2018-07-01,2018-07-02,2018-07-03", "no date or pair of dates"),
        ("2018-07-01,2091-08-31", "ends after 2026"),
        (float("inf"), "is no date"),
    ],
)
def test_dates_that_cannot_be(value, why):
    said, details = read(value)
    assert said == ("NaT", "NaT")
    assert why in details[0]
    assert details[0].endswith("left without a date")


def test_a_year_that_is_not_over_is_possible():
    assert read("2025-06,2026") == (("2025-06-01", "2026-12-31"), [])


def test_ends_that_cannot_be():
    assert "has an end and no beginning" in read(None, "2018-07-03")[1][0]
    assert "'2018-07-03' to '2017' ends before it begins" in read("2018-07-03", "2017")[1][0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["image_id", "image_date", "region", "site", "id_ds", "label", "id"],
            {"class_name": "label", "region": "region", "site": "site", "image_date": "image_date", "image_ids": "image_id", "source_id": "id"},
        ),
        (["Id", "Notes", "Slump_ID"], {"source_id": "Slump_ID"}),
        (["Id", "Notes", "Updated", "Created_by", "Confirmed"], {"creator": "Created_by", "source_id": "Id"}),
        (["id", "label", "Area (m2)"], {"class_name": "label", "source_id": "id"}),
        (
            ["CentroidLa", "RegionName", "CreatorLab", "BaseMapDat", "BaseMapSou", "BaseMapRes", "BaseMapID", "TrainClass", "UID"],
            {
                "class_name": "TrainClass", "region": "RegionName", "image_date": "BaseMapDat", "image_ids": "BaseMapID",
                "image_source": "BaseMapSou", "image_resolution_m": "BaseMapRes", "creator": "CreatorLab", "source_id": "UID",
            },
        ),
    ],
)  # fmt: skip
def test_names_of_the_field(names, expected):
    assert match_columns(names, {}) == expected


def test_what_the_caller_has_given_away_is_not_taken_again():
    assert match_columns(["label", "id"], {"source_id": "label"}) == {"source_id": "label"}
