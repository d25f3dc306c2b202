from datetime import date, datetime

import numpy as np
import pandas as pd
import pytest

from rtsx.labels.schema import read_days

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
        (" 2018-07 , 2018-08 ", "2018-07-01", "2018-08-31"),
        (date(2018, 7, 3), "2018-07-03", "2018-07-03"),
        (datetime(2018, 7, 3, 12), "2018-07-03", "2018-07-03"),
        (pd.Timestamp("2018-07-03", tz="UTC"), "2018-07-03", "2018-07-03"),
        (np.datetime64("2018-07-03"), "2018-07-03", "2018-07-03"),
        (None, "NaT", "NaT"),
        (np.nan, "NaT", "NaT"),
        (pd.NaT, "NaT", "NaT"),
        (np.datetime64("NaT"), "NaT", "NaT"),
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
