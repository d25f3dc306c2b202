"""The times of a cube: the date or year that each means, and what the map of a year was made with."""

import json
import re
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["COVERAGE", "FACTS", "image_years", "times_of", "with_facts", "years_of"]

FACTS = "year_facts"
"""Attribute of the map of several years: JSON text of what each was made with, by year."""

COVERAGE = ("time_coverage_start", "time_coverage_end")
"""Attributes of a cube without times: the first and last day of its images."""

_DATE = re.compile(r"([1-9]\d{3})(?:-?(\d\d)(?:-?(\d\d))?)?(?!\d)")
_WHOLE = re.compile(r"([1-9]\d{3})(?:\.0)?")


def times_of(cube: xr.Dataset) -> list[np.datetime64]:
    """Return the date of each time of a cube, to the year where no more is known; NaT where it means none.

    Dates, years as whole numbers from 1000 to 9999, and text that begins with one of both have a year; other numbers
    count something.

    Examples
    --------
    >>> [str(time) for time in times_of(xr.Dataset(coords={"time": [2023, 7]}))]
    ['2023', 'NaT']
    """
    if "time" not in cube.coords:
        return []
    values = np.atleast_1d(cube["time"].values)
    return list(values) if values.dtype.kind == "M" else [_date(one) for one in values.tolist()]


def years_of(cube: xr.Dataset) -> list[int | None]:
    """Return the year of each time of a cube; None where a time means none, and no year where there is no time.

    Examples
    --------
    >>> years_of(xr.Dataset(coords={"time": np.array(["2024-08-01", "NaT"], "datetime64[ns]")})), years_of(xr.Dataset())
    ([2024, None], [])
    """
    return [None if np.isnat(time) else int(str(time)[:4]) for time in times_of(cube)]


def image_years(cube: xr.Dataset) -> list[int]:
    """Return the years of the images that a cube is made of, first and last among them; none where nothing states them.

    Examples
    --------
    >>> made = {"time_coverage_start": "2022-07-01", "time_coverage_end": "2024-08-31"}
    >>> image_years(xr.Dataset(attrs=made)), image_years(xr.Dataset(coords={"time": 2024}, attrs=made))
    ([2022, 2024], [2024])
    """
    stated = xr.Dataset(coords={"time": [str(cube.attrs.get(name, "")) for name in COVERAGE]})
    found = ({year for year in years_of(one) if year is not None} for one in (cube, stated))
    return sorted(next(filter(None, found), set()))


def with_facts(pred: xr.Dataset) -> xr.Dataset:
    """Return a map with what its year was made with in its attributes, where it is of one year.

    Examples
    --------
    >>> several = xr.Dataset(coords={"time": [2023, 2024]}, attrs={"year_facts": '{"2024": {"threshold": "0.5"}}'})
    >>> with_facts(several.isel(time=1)).attrs["threshold"]
    '0.5'
    """
    years = {*years_of(pred)}
    if FACTS not in pred.attrs or len(years) != 1:
        return pred
    attrs = dict(pred.attrs)
    facts: dict[str, Any] = json.loads(attrs.pop(FACTS))
    one = pred.copy()
    one.attrs = attrs | facts.get(str(years.pop()), {})
    return one


def _date(value: object) -> np.datetime64:
    found = _DATE.match(value) if isinstance(value, str) else _WHOLE.fullmatch(str(value))
    with suppress(ValueError):  # a month or day that no calendar has
        if found is not None:
            return np.datetime64("-".join(part for part in found.groups() if part))
    return np.datetime64("NaT", "D")
