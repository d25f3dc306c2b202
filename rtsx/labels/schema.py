"""The one table that inventories become: its columns, dates and checks; and what was found in them and done about it, row by row."""

import json
import re
from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import LabelError, OutputNotWritableError
from rtsx.geometry.crs import LONLAT
from rtsx.names import did_you_mean
from rtsx.storage import local_path, staged

Action = Literal["repaired", "dropped", "kept"]

_SHOWN = 5
"""Findings of one kind that `str(report)` names."""


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One thing that is wrong with one row."""

    row: int
    """Number of the row in its source, from 0."""
    problem: str
    """What is wrong, in a few words that are the same for all rows that have it."""
    action: Action
    """``repaired``: the label is in the table, changed. ``dropped``: it is not. ``kept``: it is, as it was."""
    detail: str
    """What is wrong with this row in particular, and what was done."""
    source: str = ""
    """File that the row is from."""
    source_id: str | None = None
    """What the source calls the row."""


@dataclass(frozen=True, kw_only=True)
class LabelReport:
    """Every row that is not in the table as it came, and why; `str()` of it is for people."""

    rows: Mapping[str, int]
    """Rows of each source, by its name."""
    written: int
    """Rows of the table: all rows less those that were dropped."""
    findings: tuple[Issue, ...] = field(default=(), repr=False)
    """In the order of sources and rows."""
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """By source: which of its columns became which of ours (ours: theirs)."""
    unused: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """By source: columns that have no place in the schema."""
    notes: tuple[str, ...] = ()
    """Doubts about a source as a whole; they change nothing."""

    @property
    def is_clean(self) -> bool:
        """Whether every row is in the table as it came."""
        return not self.findings

    @property
    def counts(self) -> dict[tuple[str, Action], int]:
        """How many findings there are of each problem and action, the most frequent first."""
        return dict(Counter((one.problem, one.action) for one in self.findings).most_common())

    @property
    def dropped(self) -> tuple[Issue, ...]:
        """The rows that are not in the table."""
        return tuple(one for one in self.findings if one.action == "dropped")

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each finding."""
        names = ["source", "row", "source_id", "problem", "action", "detail"]
        return pd.DataFrame([asdict(one) for one in self.findings], columns=names)

    def to_json(self) -> str:
        """Return the whole report as JSON."""
        document = asdict(self) | {"read": sum(self.rows.values()), "dropped": len(self.dropped)}
        return json.dumps(document, indent=2, ensure_ascii=False)

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the findings as ``.csv``, or the whole report as ``.json``.

        Raises
        ------
        LabelError
            Another ending.
        OutputExistsError
            Something is there, and `overwrite` is False.
        OutputNotWritableError
            The folder is missing or cannot be written to.
        """
        target = local_path(path)
        if target.suffix.lower() not in (".csv", ".json"):
            raise LabelError(f"A report is a .csv or a .json file; got {target.name!r}. Change the ending.")
        if not target.parent.is_dir():
            raise OutputNotWritableError(f"{target} cannot be written: create its folder, or choose another.")
        text = self.to_json() if target.suffix.lower() == ".json" else self.to_frame().to_csv(index=False)
        with staged(target, overwrite=overwrite) as draft:
            draft.write_text(text, encoding="utf-8")
        return target

    def __str__(self) -> str:
        """Counts, then the first rows of each problem."""
        read = sum(self.rows.values())
        lines = [f"{read} rows read from {len(self.rows)} source{'s' * (len(self.rows) != 1)}, {self.written} labels"]
        if self.is_clean:
            lines.append("nothing to repair, nothing dropped")
        several = len(self.rows) > 1
        for (problem, action), count in self.counts.items():
            lines.append(f"{count} {action}: {problem}")
            same = [one for one in self.findings if (one.problem, one.action) == (problem, action)]
            lines += [f"    {f'{one.source} ' * several}row {one.row}: {one.detail}" for one in same[:_SHOWN]]
            lines += [f"    and {count - _SHOWN} more"] * (count > _SHOWN)
        lines += [f"doubt: {note}" for note in self.notes]
        for source, names in self.unused.items():
            if names:
                lines.append(f"not in the schema{f' ({source})' * several}: {', '.join(names)}")
        return "\n".join(lines)


LABEL_COLUMNS = {
    "label_id": "object",
    "class_name": "object",
    "region": "object",
    "site": "object",
    "image_date": "datetime64[ms]",
    "image_date_end": "datetime64[ms]",
    "image_ids": "object",
    "image_source": "object",
    "image_resolution_m": "float64",
    "creator": "object",
    "area_m2": "float64",
    "centroid_lat": "float64",
    "centroid_lon": "float64",
    "source_file": "object",
    "source_row": "int64",
    "source_id": "object",
}
"""Columns of labels, in order, and their pandas dtypes; "object" holds strings or None. `geometry` comes last.

`label_id` is unique. `class_name` is what was outlined; what an inventory marks as not being it is ``negative``.
`image_date` to `image_date_end` are the days of the imagery, equal where it is one image. `image_ids` are joined by commas.
`area_m2` is geodesic. `source_file`, `source_row` (counted from 0) and `source_id` lead back to where a label is from."""

EARLIEST = date(1930, 1, 1)
"""No label was outlined on an older image: there are no systematic air photographs of the Arctic before."""

_REQUIRED = ("label_id", "class_name", "source_file")


def conform(
    table: Mapping[str, object], geometry: geopandas.GeoSeries, *, dtypes: Mapping[str, str] = LABEL_COLUMNS
) -> geopandas.GeoDataFrame:
    """Return a table of columns by name, those that are not given empty; dtypes are set, also where there is no row."""
    columns: dict[str, pd.Series] = {}
    for name, dtype in dtypes.items():
        column = pd.Series(table.get(name), index=geometry.index, dtype=dtype)
        # Files and pandas have several words for nothing.
        columns[name] = column.where(column.notna(), None) if dtype == "object" else column
    return geopandas.GeoDataFrame(columns, geometry=geometry, crs=geometry.crs)


def validate_labels(labels: geopandas.GeoDataFrame) -> None:
    """Check that a table is one of labels, as `standardise_labels` makes them.

    Parameters
    ----------
    labels : geopandas.GeoDataFrame
        Must have the columns of `LABEL_COLUMNS` (further ones are welcome), unique ids, a class in every row, dates that can
        be, and valid Polygons or MultiPolygons in EPSG:4326. No rows is fine.

    Raises
    ------
    LabelError
        Says what is wrong, where, and how to mend it.
    """
    if not isinstance(labels, geopandas.GeoDataFrame):
        raise LabelError(
            f"Labels are a geopandas.GeoDataFrame, not {type(labels).__name__}. Read them with rtsx.read_labels."
        )
    missing = [name for name in LABEL_COLUMNS if name not in labels.columns]
    if missing:
        raise LabelError(
            f"Labels need the columns {', '.join(missing)}, which are not there; there are "
            f"{', '.join(map(str, labels.columns))}. Bring the table into the schema with rtsx.standardise_labels."
        )
    if (name := wrong_dtype(labels, LABEL_COLUMNS)) is not None:
        raise LabelError(
            f"Column {name!r} of labels has dtype {LABEL_COLUMNS[name]}, not {labels[name].dtype}. "
            f"Convert it, for example with labels.astype({{{name!r}: {LABEL_COLUMNS[name]!r}}})."
        )
    _check_values(labels)
    _check_outlines(labels)


def wrong_dtype(table: geopandas.GeoDataFrame, dtypes: Mapping[str, str]) -> str | None:
    """Return the first column of a table that does not hold what the dtype of a schema stands for; None where all do."""
    for name, dtype in dtypes.items():
        if name not in table.columns:
            continue  # an optional one
        column = table[name]
        is_right = {
            "object": pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column),
            "datetime64[ms]": pd.api.types.is_datetime64_any_dtype(column),
            "bool": pd.api.types.is_bool_dtype(column),
        }.get(dtype, pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))
        if not is_right:
            return name
    return None


def _check_values(labels: geopandas.GeoDataFrame) -> None:
    for name in _REQUIRED:
        column = labels[name]
        empty = column.isna() | (column == "")
        if empty.any():
            raise LabelError(f"Every label has a {name}, but row {empty.index[empty][0]} has none. Give it one.")
    repeated = labels["label_id"].duplicated()
    if repeated.any():
        raise LabelError(
            f"Every label has an id of its own, but label_id {labels.loc[repeated, 'label_id'].iloc[0]!r} is repeated. "
            "Standardise all sources in one call: rtsx.standardise_labels([...])."
        )
    for name in ("image_date", "image_date_end"):
        wrong = labels[name].dropna()
        wrong = wrong[wrong < pd.Timestamp(EARLIEST)]
        if len(wrong):
            raise LabelError(
                f"{name} of labels is not before {EARLIEST}, but row {wrong.index[0]} has {wrong.iloc[0].date()}. "
                "Correct it, or leave it empty."
            )
    backward = labels["image_date_end"] < labels["image_date"]
    if backward.any():
        raise LabelError(f"image_date_end is not before image_date, but in row {backward.index[backward][0]} it is.")
    small = ~(labels["area_m2"] > 0)
    if small.any():
        raise LabelError(
            f"area_m2 of labels is above 0, but not in row {small.index[small][0]}. Measure it, or drop it."
        )


def _check_outlines(labels: geopandas.GeoDataFrame) -> None:
    if labels.crs is None or not CRS.from_user_input(labels.crs).equals(LONLAT, ignore_axis_order=True):
        raise LabelError(
            f"Labels are in EPSG:4326, but these are in {labels.crs}. Bring them there with rtsx.standardise_labels, which "
            "keeps long edges in place and cuts at the antimeridian."
        )
    outlines = np.asarray(labels.geometry.array, np.object_)
    if (broken := broken_outline(outlines)) is not None:
        _, position, what = broken
        raise LabelError(
            f"Labels are valid Polygons or MultiPolygons, but row {labels.index[position]} is not: {what}. "
            "Repair it with rtsx.standardise_labels."
        )
    west, south, east, north = shapely.bounds(outlines).reshape(-1, 4).T
    off = (west < -180) | (east > 180) | (south < -90) | (north > 90)
    if off.any():
        raise LabelError(
            f"Labels lie between -180 and 180 degrees of longitude and -90 and 90 of latitude, but row "
            f"{labels.index[int(np.argmax(off))]} does not. Bring it there with rtsx.standardise_labels."
        )


def broken_outline(outlines: NDArray[np.object_]) -> tuple[int, int, str] | None:
    """Return how many geometries are no valid outlines with an area, the place of the first, and what it is; None where all are."""
    good = np.isin(shapely.get_type_id(outlines), (3, 6)) & ~shapely.is_empty(outlines) & shapely.is_valid(outlines)
    if good.all():
        return None
    first = int(np.argmin(good))
    found = outlines[first]
    if found is None:
        what = "nothing"
    elif not found.is_valid:
        what = f"{found.geom_type}: {shapely.is_valid_reason(found)}"
    else:
        what = f"empty {found.geom_type}" if found.is_empty else found.geom_type
    return int((~good).sum()), first, what


_KNOWN = {
    "class_name": ("classname", "class", "trainclass", "label"),
    "region": ("region", "regionname"),
    "site": ("site", "sitename", "studysite"),
    "image_date": ("imagedate", "basemapdate", "acquisitiondate", "acquired", "acqdate", "date", "imageyear", "year"),
    "image_date_end": ("imagedateend",),
    "image_ids": ("imageids", "imageid", "basemapid", "sceneids", "sceneid", "itemids", "itemid"),
    "image_source": ("imagesource", "basemapsource", "sensor", "satellite"),
    "image_resolution_m": ("imageresolutionm", "basemapresolution", "resolution"),
    "creator": ("creator", "creatorlab", "createdby", "digitizer", "digitiser", "annotator"),
    "source_id": ("sourceid", "uid", "slumpid", "rtsid", "labelid", "id", "fid", "objectid"),
}
"""Ours, and what others call it, without case and punctuation, the better one first: ARTS (`RegionName`, `CreatorLab`,
`BaseMapDate`, `BaseMapID`, `TrainClass`, `UID`, ...), Nitze et al. (`image_id`, `image_date`, `region`, `site`, `label`, `id`),
Huang et al. (`Slump_ID`, `Created_by`), Runge et al. (`label`, `id`)."""

_EXACT = frozenset(other for others in _KNOWN.values() for other in others)

CENTROID_COLUMNS = ("centroidlat", "centroidlon")
"""Latitude and longitude that a row says it lies at; nothing of ours, but they tell the order of axes."""

_DBASE = 10
"""Length that names of columns are cut to in shapefiles."""


def match_columns(names: Iterable[str], columns: Mapping[str, str | None]) -> dict[str, str]:
    """Find which column of an inventory is which of ours.

    Parameters
    ----------
    names : iterable of str
        Its columns.
    columns : mapping
        Ours to theirs, where the choice is not left to the names; None leaves ours empty.

    Returns
    -------
    dict
        Ours to theirs; those that nothing fits are left out.

    Raises
    ------
    LabelError
        `columns` names one of ours or theirs that does not exist.

    Examples
    --------
    >>> match_columns(["Slump_ID", "BaseMapDat", "Notes"], {"region": None})
    {'image_date': 'BaseMapDat', 'source_id': 'Slump_ID'}
    """
    theirs = list(names)
    for ours, given in columns.items():
        if ours not in _KNOWN:
            raise LabelError(
                f"columns= says what the source calls one of {', '.join(_KNOWN)}; {ours!r} is none of them."
                + did_you_mean(ours, _KNOWN)
            )
        if given is not None and given not in theirs:
            raise LabelError(
                f"columns= takes {ours} from the column {given!r}, which is not there; there are "
                f"{', '.join(theirs) or 'none'}." + did_you_mean(given, theirs)
            )
    found: dict[str, str] = {}
    for ours, others in _KNOWN.items():
        if ours in columns:
            if (given := columns[ours]) is not None:
                found[ours] = given
        elif (fitting := find_column(theirs, others)) is not None and fitting not in columns.values():
            found[ours] = fitting
    assert set(found) <= set(LABEL_COLUMNS)
    return found


def find_column(names: Iterable[str], known: Iterable[str]) -> str | None:
    """Return the column that has the first of some names, in any spelling and perhaps cut short by a shapefile.

    A shapefile cuts ``image_date_end`` to ``image_da_1``, because ``image_date`` is there.
    """
    plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in reversed(list(names))}
    for other in known:
        for name, spelled in plain.items():
            begins = spelled[:-1] if len(other) >= _DBASE and re.fullmatch(r".{8}_\d", name) else spelled
            is_cut = len(name) == _DBASE and other.startswith(begins) and spelled not in _EXACT
            if spelled == other or is_cut:
                return name
    return None


def is_of_years(name: str) -> bool:
    """Test whether a column has years by its name, and nothing finer."""
    return find_column([name], ("imageyear", "year")) is not None


_DAY = re.compile(r"(\d{4})(?:([-/.]?)(\d{2})(?:\2(\d{2}))?)?(?:[T ]\d{2}:?\d{2}.*)?")
_ZERO = date(1970, 1, 1)
IMPOSSIBLE_DATE = "impossible date"
"""What a report calls a date that cannot be."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Days:
    """Days of the imagery that labels were outlined on."""

    first: NDArray[np.datetime64]
    """`(row,)` in ms; NaT where it is not known."""
    last: NDArray[np.datetime64]
    """`(row,)` in ms; equal to `first` where it is one day."""
    findings: tuple[Issue, ...]
    """Dates that cannot be; those labels have none."""


def read_days(values: Iterable[object], ends: Iterable[object] | None, *, today: date) -> Days:
    """Read dates, periods of two dates with a comma or slash between, months and years.

    Parameters
    ----------
    values : iterable
        Dates of any kind, strings in ISO order (``2018-07-03``, ``20180703``, ``2018/07/03``, ``2018-07``, ``2018``, with a time
        of day or not, ``2018-07-01,2018-08-31``, ``2016-2018``), numbers such as 20180703, or nothing.
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
    first = np.full(len(given), np.datetime64("NaT", "ms"))
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
            dates = repr(str(value)) if other is None else f"{str(value)!r} to {str(other)!r}"
            detail = f"{dates} {error}: left without a date"
            findings.append(Issue(row=row, problem=IMPOSSIBLE_DATE, action="repaired", detail=detail))
    return Days(first=first, last=last, findings=tuple(findings))


def _period(value: Any) -> tuple[date, date] | None:
    """Return the first and last day of what a field says; None where it says nothing."""
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
    if not text or text.lower() in ("none", "nan", "nat", "null", "<na>"):
        return None
    parts = [part.strip() for part in re.sub(r"^(\d{4})\s*-\s*(\d{4})$", r"\1,\2", text).split(",")]
    if len(parts) == 1 and text.count("/") == 1:
        parts = [part.strip() for part in text.split("/")]
    if len(parts) > 2:
        raise ValueError("is no date or pair of dates such as 2018-07-03")
    spans = [_span(part) for part in parts]
    return spans[0][0], spans[-1][1]


def _span(text: str) -> tuple[date, date]:
    """Return the first and last day of a day, month or year."""
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
