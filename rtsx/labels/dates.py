"""Dates as inventories write them, and those that cannot be."""

import re
from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rtsx.labels.report import Finding
from rtsx.labels.schema import EARLIEST

__all__ = ["Days", "read_days"]

_DAY = re.compile(r"(\d{4})(?:([-/.]?)(\d{2})(?:\2(\d{2}))?)?(?:[T ]\d{2}:?\d{2}.*)?")
_ZERO = date(1970, 1, 1)
_PROBLEM = "impossible date"


@dataclass(frozen=True, kw_only=True, eq=False)
class Days:
    """Days of the imagery that labels were outlined on."""

    first: NDArray[np.datetime64]
    """`(row,)` in ms; NaT where it is not known."""
    last: NDArray[np.datetime64]
    """`(row,)` in ms; equal to `first` where it is one day."""
    findings: tuple[Finding, ...]
    """Dates that cannot be; those labels have none."""


def read_days(values: Iterable[object], ends: Iterable[object] | None, *, today: date) -> Days:
    """Read dates, periods of two dates with a comma or slash between, months and years.

    Parameters
    ----------
    values : iterable
        Dates of any kind, strings in ISO order (``2018-07-03``, ``20180703``, ``2018/07/03``, ``2018-07``, ``2018``, with a time
        of day or not, ``2018-07-01,2018-08-31``), numbers such as 20180703, or nothing.
    ends : iterable or None
        Last days, where they have a column of their own.
    today : datetime.date
        No image is younger.

    Notes
    -----
    A date is impossible when it is none of these, does not exist, lies after `today` or before `EARLIEST`, is 1970-01-01
    (which is what software makes of an empty field), ends before it begins or in a year to come, or has an end alone. The
    order day-month-year or month-day-year is not guessed.
    """
    given = list(values)
    others = [None] * len(given) if ends is None else list(ends)
    first = np.full(len(given), np.datetime64("NaT"), "datetime64[ms]")
    last = first.copy()
    findings = []
    for row, (value, other) in enumerate(zip(given, others, strict=True)):
        try:
            period = _period(value)
            end = _period(other)
            if period is None and end is not None:
                raise ValueError("has an end and no beginning")
            if period is not None:
                days = period[0], end[1] if end is not None else period[1]
                _check(days, today=today)
                first[row], last[row] = (np.datetime64(day, "ms") for day in days)
        except ValueError as error:
            told = repr(str(value)) if other is None else f"{str(value)!r} to {str(other)!r}"
            findings.append(
                Finding(row=row, problem=_PROBLEM, action="repaired", detail=f"{told} {error}: left without a date")
            )
    return Days(first=first, last=last, findings=tuple(findings))


def _period(value: Any) -> tuple[date, date] | None:
    """First and last day of what a field says; None where it says nothing."""
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else _period(pd.Timestamp(value))
    if isinstance(value, datetime):
        return value.date(), value.date()
    if isinstance(value, date):
        return value, value
    is_whole = isinstance(value, (int, float, np.number)) and float(value).is_integer()
    text = str(int(value) if is_whole else value).strip()
    if not text or text.lower() in ("none", "nan", "nat", "null"):
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and text.count("/") == 1:
        parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2:
        raise ValueError("is no date or pair of dates such as 2018-07-03")
    spans = [_span(part) for part in parts]
    return spans[0][0], spans[-1][1]


def _span(text: str) -> tuple[date, date]:
    """First and last day of a day, month or year."""
    found = _DAY.fullmatch(text)
    if found is None:
        raise ValueError("is no date such as 2018-07-03")
    year, _, month, day = found.groups()
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        last_month = int(month or 12)
        last = first if day else date(int(year), last_month, monthrange(int(year), last_month)[1])
    except ValueError as error:
        raise ValueError("is no day of the calendar") from error
    return first, last


def _check(days: tuple[date, date], *, today: date) -> None:
    first, last = days
    if first == _ZERO:
        raise ValueError("is what software makes of an empty field")
    if first < EARLIEST:
        raise ValueError(f"lies before {EARLIEST}")
    if first > today:
        raise ValueError(f"lies after {today}")
    if last < first:
        raise ValueError("ends before it begins")
    # By the year, because a year or month that is not over yet has a last day to come.
    if last.year > today.year:
        raise ValueError(f"ends after {today.year}")
