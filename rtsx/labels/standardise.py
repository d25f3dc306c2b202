"""Bring one inventory into the one schema, step by step."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import LabelError
from rtsx.geometry.crs import LONLAT, crs_text, geodesic_measures
from rtsx.labels.io import LabelInput, read_table
from rtsx.labels.repair import (
    Hemisphere,
    axis_order,
    from_geocentric,
    lonlat_centroids,
    only_polygons,
    outlines_to_lonlat,
    repaired,
    valid_lonlat,
)
from rtsx.labels.schema import (
    CENTROID_COLUMNS,
    LABEL_COLUMNS,
    Days,
    Issue,
    conform,
    find_column,
    is_of_years,
    match_columns,
    read_days,
)

NEGATIVE = "negative"
"""Class of outlines of what the target is not, as ARTS has them."""

_PRESENT = ("", "1", "true", "t", "yes", "y", "positive", "pos")
ABSENT = ("0", "false", "f", "no", "n", "negative", "neg")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSource:
    """A table with columns of any name, its CRS, and what holds for all of its rows."""

    name: str
    """File name, or what a table in memory is called."""
    table: geopandas.GeoDataFrame
    """Rows numbered from 0."""
    crs: CRS
    """Horizontal part of its CRS."""
    columns: Mapping[str, str]
    """Which of its columns is which of ours (ours: theirs)."""

    @classmethod
    def of(
        cls, name: str, table: geopandas.GeoDataFrame, *, columns: Mapping[str, str | None], crs: str | None
    ) -> "LabelSource":
        """Look at a table.

        Raises
        ------
        LabelError
            It has no geometry, no CRS or one that is no place on Earth, or `columns` names what is not there.
        """
        try:
            geometry = table.geometry
        except AttributeError as error:
            raise LabelError(
                f"{name} has no geometry column. Give a file of outlines; in Python, set_geometry(...) says which column has them."
            ) from error
        names = [str(column) for column in table.columns if column != geometry.name]
        plain = table.rename(columns=str).reset_index(drop=True)
        matched = match_columns(names, columns)
        dated = matched.get("image_date")
        if (
            dated is not None and "image_date" not in columns and plain[dated].isna().all()
        ):  # as of footprints that know their year alone
            matched |= {
                ours: theirs
                for ours, theirs in match_columns([one for one in names if one != dated], columns).items()
                if ours == "image_date"
            }
        said = matched.get("class_name", "")
        if said.lower() == "label" and "class_name" not in columns and _numbers_rows(plain[said]):
            del matched["class_name"]
        return cls(name=name, table=plain, crs=_crs(name, table, crs), columns=matched)

    @property
    def unused(self) -> tuple[str, ...]:
        """Columns that have no place in the schema."""
        used = {*self.columns.values(), self.table.geometry.name, *self._centroids, *LABEL_COLUMNS}
        return tuple(name for name in self.table.columns if name not in used)

    def texts(self, ours: str) -> list[str | None]:
        """Return one of our columns as strings; None where a row says nothing."""
        theirs = self.columns.get(ours)
        return [None] * len(self.table) if theirs is None else [_text(value) for value in self.table[theirs]]

    def resolutions(self) -> tuple[NDArray[np.float64], list[Issue]]:
        """Return the pixels of the imagery in m, also of such as "3 m" and "50 cm"; NaN where a row says nothing, or what is found to be none."""
        texts = self.texts("image_resolution_m")
        metres, findings = np.full(len(texts), np.nan), []
        for row, text in enumerate(texts):
            if text is None or text.lower() in _NOTHING:
                continue
            if (found := _LENGTH.fullmatch(text)) is not None:
                metres[row] = float(found[1]) * (0.01 if (found[2] or "").lower() == "cm" else 1.0)
            else:
                detail = f"{text!r} is no length in metres, such as 3 or 3 m"
                findings.append(Issue(row=row, problem="no resolution", action="kept", detail=detail))
        return metres, findings

    def stated_centroids(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the latitudes and longitudes that rows say they lie at; NaN where they do not."""
        lat, lon = map(self._floats, self._centroids)
        return lat, lon

    def days(self, *, today: date) -> Days:
        """Return the days of the imagery; what a column of years has that is no year says nothing."""
        theirs, ends = self.columns.get("image_date"), self.columns.get("image_date_end")
        values, others = (None if name is None else list(self.table[name]) for name in (theirs, ends))
        days = read_days(values or [None] * len(self.table), others, today=today)
        return replace(days, findings=()) if theirs is not None and is_of_years(theirs) else days

    def classes(self, class_name: str | Mapping[Any, str] | None, *, default: str) -> list[str]:
        """Return the class of each row.

        Raises
        ------
        LabelError
            `class_name` is a mapping that lacks a value of the column.
        """
        # Text of a table that had numbers once.
        found = [re.sub(r"^(-?\d+)\.0+$", r"\1", text or "") for text in self.texts("class_name")]
        found = ["" if text.lower() in _NOTHING else text for text in found]
        if isinstance(class_name, Mapping):
            texts = {_text(value) or "": name for value, name in class_name.items()}
            named = {"" if text.lower() in _NOTHING else text: name for text, name in texts.items()}
            found = spelled_alike(found, known=named)
            unknown = sorted(set(found) - set(named))
            if unknown:
                raise LabelError(
                    f"{self.name} has the class {unknown[0]!r}, which class_name does not name; it names "
                    f"{', '.join(repr(text) for text, name in named.items() if name != NEGATIVE and text)}. Add it."
                )
            return [named[text] for text in found]
        target = default if class_name is None else class_name
        classes = [
            target if text.lower() in _PRESENT else NEGATIVE if text.lower() in ABSENT else text for text in found
        ]
        return spelled_alike(classes, known=(target,))

    @property
    def _centroids(self) -> list[str | None]:
        found = [find_column(map(str, self.table.columns), (one,)) for one in CENTROID_COLUMNS]
        # Cut short by a shapefile, centroid_lat and centroid_lon cannot be told apart.
        return found if found[0] != found[1] else [None, None]

    def _floats(self, theirs: str | None) -> NDArray[np.float64]:
        if theirs is None:
            return np.full(len(self.table), np.nan)
        return np.asarray(pd.to_numeric(self.table[theirs], errors="coerce"), np.float64)


def _numbers_rows(column: pd.Series) -> bool:
    """Test whether a column numbers its rows, as `label` of many files does, instead of naming classes."""
    numbers = pd.to_numeric(column, errors="coerce")
    return len(numbers) > 2 and bool(numbers.notna().all()) and numbers.is_unique  # two could be 0 and 1


def marked_absent(table: geopandas.GeoDataFrame) -> tuple[str | None, "pd.Series[bool]", "pd.Series[bool]"]:
    """Find which rows of a table of any schema its column of classes marks as none of the target, as ARTS does.

    Returns
    -------
    tuple
        The column, None where there is none (`label` with numbers is none, by which many files number their rows); which rows it marks; and
        which are of class 0 with all others, as of a detector that numbers its only class from 0, and count.
    """
    said = match_columns([str(name) for name in table.columns if name != table.geometry.name], {}).get("class_name")
    is_number = (
        said is not None and said.lower() == "label" and pd.to_numeric(table[said], errors="coerce").notna().any()
    )
    if said is None or is_number:
        none = pd.Series(False, table.index)
        return None, none, none
    classes = table[said].astype(str).str.strip().str.lower().str.replace(r"\.0+$", "", regex=True)
    is_only = pd.Series(bool((classes == "0").all()), table.index)
    return said, classes.isin(ABSENT) & ~is_only, is_only


def _crs(name: str, table: geopandas.GeoDataFrame, given: str | None) -> CRS:
    if table.crs is None and given is None:
        west, south, east, north = table.total_bounds if len(table) else (np.nan,) * 4
        is_degrees = max(abs(west), abs(east)) <= 360 and max(abs(south), abs(north)) <= 360
        hint = " They look like degrees: perhaps EPSG:4326." if is_degrees else ""
        raise LabelError(
            f"{name} does not say in which CRS its coordinates are (x from {west:.6g} to {east:.6g}, y from {south:.6g} to "
            f"{north:.6g}).{hint} Ask who made it, then say crs='EPSG:...'."
        )
    is_wrong = table.crs is not None and CRS(table.crs).is_geographic and not _are_degrees(table)
    if table.crs is not None and given is not None and not is_wrong and not _crs_of(given).equals(CRS(table.crs)):
        raise LabelError(
            f"{name} says that it is in {crs_text(CRS(table.crs))}, and crs= says {given}. crs= is for sources that do not "
            "say, or that cannot lie where they say. If the source is wrong, correct it with table.set_crs(..., allow_override=True)."
        )
    crs = CRS.from_user_input(table.crs) if given is None else _crs_of(given)
    while crs.is_bound or crs.is_compound:
        inner = crs.source_crs if crs.is_bound else crs.sub_crs_list[0]
        assert inner is not None  # a bound CRS is one that is bound
        crs = inner
    if not (crs.is_geographic or crs.is_projected or crs.is_geocentric):
        raise LabelError(
            f"{name} lies in {crs_text(crs)}, a {crs.type_name}, which has no longitude and latitude. Ask who made it for a "
            "file with a CRS."
        )
    return crs


def _crs_of(given: str) -> CRS:
    try:
        return CRS.from_user_input(given)
    except Exception as error:  # pyproj has several, of no common kind
        raise LabelError(f"crs={given!r} is no CRS that pyproj knows ({error}). Write it like 'EPSG:32608'.") from error


def _are_degrees(table: geopandas.GeoDataFrame) -> bool:
    """Test whether coordinates can be degrees: GeoJSON is in EPSG:4326 by its standard, and in metres all the same."""
    return not len(table) or not np.abs(table.total_bounds).max() > 540


def spelled_alike(texts: Sequence[str], *, known: Iterable[str]) -> list[str]:
    """Return texts, those that differ by capitals alone in one spelling: that of `known`, else the first."""
    exact = dict.fromkeys(known)
    spellings: dict[str, str] = {}
    for text in (*exact, *texts):
        spellings.setdefault(text.lower(), text)
    return [text if text in exact else spellings[text.lower()] for text in texts]


_LENGTH = re.compile(r"(\d+\.?\d*(?:e[-+]?\d+)?)\s*(cm|m|met(?:re|er)s?)?", re.IGNORECASE)
_NOTHING = ("", "nan", "nat", "<na>", "null")
"""What software writes where a class says nothing; in other columns they can be names."""


def _text(value: object) -> str | None:
    """Return a value as text; None where it says nothing, whole numbers without a point."""
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip() or None


DEFAULT_CLASS = "rts"
"""Class of labels whose source does not say what they are: retrogressive thaw slumps."""


@dataclass(frozen=True, kw_only=True, eq=False)
class InventoryInfo:
    """What the caller says of all sources."""

    columns: Mapping[str, str | None]
    """Ours to theirs, where names are not enough."""
    class_name: str | Mapping[Any, str] | None
    """Class of the target, or a class for each value."""
    fill: Mapping[str, str]
    """By our columns: what holds for rows that say nothing."""
    days: tuple[np.datetime64, np.datetime64] | None
    """First and last day of the imagery of rows that say nothing."""
    crs: str | None
    """CRS of sources that say none."""
    hemisphere: Hemisphere | None
    """Where geocentric outlines without Z lie."""
    layer: str | None
    """Layer of files that have several."""
    today: date
    """No image is younger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standardised:
    """One source in the schema."""

    source: LabelSource
    labels: geopandas.GeoDataFrame
    """In EPSG:4326; a source that is in the schema already keeps its ids and where they are from."""
    rows: NDArray[np.int64]
    """Number of the row in the source that each label is, `(label,)`."""
    findings: list[Issue]
    """By row."""
    notes: list[str]
    """Doubts about the source."""


def standardise(given: LabelInput, facts: InventoryInfo, *, number: int, is_alone: bool) -> Standardised:
    """Bring one source into the schema.

    Parameters
    ----------
    given : str, pathlib.Path or geopandas.GeoDataFrame
        The source.
    facts : InventoryInfo
        What holds for it.
    number : int
        Tells tables in memory, which have no name, apart.
    is_alone : bool
        Whether there is no other source, which could have the columns that this one lacks.

    Raises
    ------
    LabelError
        It cannot be read, or no row of it could be a label.
    """
    name = f"table {number}" if isinstance(given, geopandas.GeoDataFrame) else Path(given).name
    table = given if isinstance(given, geopandas.GeoDataFrame) else read_table(given, layer=facts.layer)
    wanted = {ours: one for ours, one in facts.columns.items() if is_alone or one is None or one in table.columns}
    source = LabelSource.of(name, table, columns=wanted, crs=facts.crs)
    outlines, findings, notes = _outlines(source, facts)
    days = source.days(today=facts.today)
    dated = source.columns.get("image_date")
    if facts.days is not None and dated is not None and is_of_years(dated) and not np.isnat(days.first).all():
        notes.append(f"{name}: the years of the column {dated!r} count, and the date that is given in rows without one")
    kept = np.flatnonzero(shapely.is_geometry(outlines)).tolist()
    columns: dict[str, object] = {
        name: [values[row] for row in kept] for name, values in _attributes(source, days, facts).items()
    }
    columns["area_m2"] = geodesic_measures(outlines[kept])[0]
    columns["centroid_lat"], columns["centroid_lon"] = lonlat_centroids(outlines[kept])
    columns |= {
        "label_id": [f"{Path(name).stem}/{row}" for row in kept],
        "source_file": [name] * len(kept),
        "source_row": kept,
    }
    if set(LABEL_COLUMNS) <= set(source.table.columns):
        columns |= {ours: source.table[ours].to_numpy()[kept] for ours in ("label_id", "source_file", "source_row")}
    labels = conform(columns, geopandas.GeoSeries(outlines[kept], crs=LONLAT))
    said = (*days.findings, *source.resolutions()[1])
    findings += [one for one in said if outlines[one.row] is not None]
    ids = source.texts("source_id")
    named = [replace(one, source=name, source_id=ids[one.row]) for one in sorted(findings, key=lambda one: one.row)]
    return Standardised(source=source, labels=labels, rows=np.array(kept, np.int64), findings=named, notes=notes)


def _outlines(source: LabelSource, facts: InventoryInfo) -> tuple[NDArray[np.object_], list[Issue], list[str]]:
    """Return outlines in EPSG:4326, `(row,)`, None where there is none; and what was found on the way."""
    outlines, findings = only_polygons(np.array(source.table.geometry.array, np.object_))
    if len(outlines) and not shapely.is_geometry(outlines).any():
        raise LabelError(
            f"None of the {len(outlines)} rows of {source.name} can be a label; the first {findings[0].detail}. Labels are "
            "polygons: give the file that has them."
        )
    crs = source.crs
    if crs.is_geocentric:
        outlines, more = from_geocentric(outlines, crs, hemisphere=facts.hemisphere)
        findings, crs = [*findings, *more], LONLAT
    order = axis_order(shapely.force_2d(outlines), crs, stated=source.stated_centroids())
    outlines, placed = valid_lonlat(order.outlines, crs)
    if len(outlines) and not shapely.is_geometry(outlines).any():
        cure = " If it lies in another one than it says, as GeoJSON in metres does, say crs='EPSG:...'."
        raise LabelError(
            f"No row of {source.name} has a place on Earth; the first: {[*placed, *findings][0].detail}{cure * (facts.crs is None)}"
        )
    outlines, mended = repaired(outlines, crs)
    outlines, moved = outlines_to_lonlat(outlines, crs)
    outlines, mended_again = repaired(outlines, LONLAT)
    notes = [] if order.doubt is None else [f"{source.name}: {order.doubt}"]
    return outlines, [*findings, *order.findings, *placed, *mended, *moved, *mended_again], notes


def _attributes(source: LabelSource, days: Days, facts: InventoryInfo) -> dict[str, Sequence[Any]]:
    """Return columns of the schema that do not depend on outlines, `(row,)` each."""
    columns: dict[str, Sequence[Any]] = {
        name: [facts.fill.get(name) if value is None else value for value in source.texts(name)]
        for name in ("region", "site", "image_ids", "image_source", "creator", "source_id")
    }
    first, last = days.first.copy(), days.last.copy()
    if facts.days is not None:
        silent = np.isnat(first)
        silent[[one.row for one in days.findings]] = False  # their date was wrong, not missing
        first[silent], last[silent] = facts.days
    numbers = {"image_resolution_m": source.resolutions()[0], "image_date": first, "image_date_end": last}
    return columns | {
        **{name: list(values) for name, values in numbers.items()},
        "class_name": source.classes(facts.class_name, default=DEFAULT_CLASS),
    }
