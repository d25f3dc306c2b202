"""Inventories of any CRS and schema as one table, nothing lost on the way, and labels for training and evaluation."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.errors import LabelDateWarning, LabelError
from rtsx.geometry.crs import LONLAT
from rtsx.labels.io import LabelInput, read_table
from rtsx.labels.repair import Hemisphere
from rtsx.labels.schema import IMPOSSIBLE_DATE, LABEL_COLUMNS, Issue, LabelReport, conform, read_days, validate_labels
from rtsx.labels.standardise import InventoryInfo, Standardised, standardise

NEARLY_SAME = 0.95
"""Intersection over union above which two outlines of one class, image and creator are one."""

_SAME = 1 - 1e-9


def duplicates(outlines: NDArray[np.object_], keys: Sequence[Hashable], *, names: Sequence[str]) -> list[Issue]:
    """Find outlines that repeat an earlier one of the same key, exactly or nearly.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons in one CRS.
    keys : sequence
        `(n,)`, equal where two outlines can be one: class, image and creator. The same slump on another date is another.
    names : sequence of str
        `(n,)`, what the finding calls the earlier one.

    Returns
    -------
    list of Issue
        One for each outline to drop; `row` is its place in `outlines`. Of a chain of near repeats the first stays, and each
        is held to those that stay.
    """
    _, codes = np.unique([hash(key) for key in keys], return_inverse=True) if len(keys) else (None, np.empty(0, int))
    area = shapely.area(outlines)
    later, earlier = shapely.STRtree(outlines).query(outlines)
    ratio = np.minimum(area[later], area[earlier]) / np.maximum(area[later], area[earlier])
    possible = (earlier < later) & (codes[later] == codes[earlier]) & (ratio > NEARLY_SAME)
    later, earlier = later[possible], earlier[possible]
    shared = shapely.area(shapely.intersection(outlines[later], outlines[earlier]))
    overlap = shared / (area[later] + area[earlier] - shared)
    order = np.lexsort((earlier, later))
    dropped: dict[int, Issue] = {}
    for row, first, iou in zip(later[order].tolist(), earlier[order].tolist(), overlap[order].tolist(), strict=True):
        if iou > NEARLY_SAME and row not in dropped and first not in dropped and keys[row] == keys[first]:
            problem, how = "duplicate", "the same as"
            if iou <= _SAME:
                problem, how = "near duplicate", f"IoU {np.floor(1000 * iou) / 1000:.3f} with"
            detail = f"{how} {names[first]}: same class, image and creator"
            dropped[row] = Issue(row=row, problem=problem, action="dropped", detail=detail)
    return list(dropped.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Inventory:
    """Labels in the one schema, and what had to be done to their sources."""

    labels: geopandas.GeoDataFrame = field(repr=False)
    """In EPSG:4326, with the columns of `LABEL_COLUMNS`; passes `validate_labels`."""
    report: LabelReport
    """Every row that is not in `labels` as it came."""


@typed(LabelError)
def standardise_labels(
    source: LabelInput | Sequence[LabelInput],
    *,
    columns: Mapping[str, str | None] | None = None,
    class_name: str | Mapping[Any, str] | None = None,
    creator: str | None = None,
    region: str | None = None,
    site: str | None = None,
    image_date: str | date | None = None,
    image_ids: str | None = None,
    crs: str | None = None,
    hemisphere: Hemisphere | None = None,
    layer: str | None = None,
    today: date | None = None,
) -> Inventory:
    """Bring inventories of any CRS and schema into one table; repair what can be, and report all of it.

    Columns are found by the names that ARTS and the inventories in it use. Every row is in the table or in the report:
    invalid outlines are repaired, points, lines, empty outlines and repetitions are dropped, impossible dates are left
    empty, swapped coordinates are swapped back where that is certain.

    Parameters
    ----------
    source : str, pathlib.Path, geopandas.GeoDataFrame or a sequence of them
        Vector files of any format that GDAL reads, GeoParquet, or tables; several become one table.
    columns : mapping or None
        Ours to theirs, where names are not enough; None for theirs leaves ours empty. Of several sources, those that have
        the column.
    class_name : str, mapping or None
        Class of rows whose column says nothing, 1, true, yes or ``Positive``; None: ``rts``. Rows with 0, false, no or
        ``Negative`` are ``negative``; any other text is the class. Or a mapping from every value of the column to a class.
    creator, region, site, image_ids : str or None
        For rows that do not say.
    image_date : str, datetime.date or None
        Likewise: a day, or a period such as ``2018-07-01,2018-08-31``.
    crs : str or None
        CRS of sources that do not say, or that cannot lie where they say, as GeoJSON in metres; one that says another is an error.
    hemisphere : "north", "south" or None
        Where outlines in geocentric coordinates without Z lie, which cannot be told from them.
    layer : str or None
        Layer of files that have several.
    today : datetime.date or None
        No image is younger; None: the day of the call, in UTC.

    Returns
    -------
    Inventory
        `labels` and `report`.

    Raises
    ------
    LabelError
        A source cannot be read, has no CRS, or no row that could be a label; or an argument does not fit it.

    Examples
    --------
    >>> import shapely
    >>> raw = geopandas.GeoDataFrame(
    ...     {"RegionName": ["Lena"], "BaseMapDate": ["2019-07-01,2019-08-31"]},
    ...     geometry=[shapely.box(124.5, 69.0, 124.51, 69.01)],
    ...     crs="EPSG:4326",
    ... )
    >>> inventory = standardise_labels(raw, creator="me")
    >>> print(inventory.report)
    1 rows read from 1 source, 1 labels
    nothing to repair, nothing dropped
    >>> inventory.labels.loc[0, ["class_name", "region", "creator"]].tolist()
    ['rts', 'Lena', 'me']
    """
    sources = [source] if isinstance(source, str | Path | geopandas.GeoDataFrame) else list(source)
    if not sources:
        raise LabelError("standardise_labels needs at least one source, a file or a table; got none.")
    youngest = today or datetime.now(UTC).date()
    named = {"creator": creator, "region": region, "site": site, "image_ids": image_ids}
    facts = InventoryInfo(
        columns=columns or {},
        class_name=class_name,
        fill={name: value for name, value in named.items() if value is not None},
        crs=crs,
        hemisphere=hemisphere,
        layer=layer,
        days=None if image_date is None else _stated_days(image_date, today=youngest),
        today=youngest,
    )
    made = [standardise(one, facts, number=number, is_alone=len(sources) == 1) for number, one in enumerate(sources)]
    for ours, theirs in facts.columns.items():
        if theirs is not None and not any(one.source.columns.get(ours) == theirs for one in made):
            raise LabelError(
                f"columns= takes {ours} from the column {theirs!r}, which none of the {len(made)} sources has."
            )
    return _joined(made)


def _stated_days(image_date: str | date, *, today: date) -> tuple[np.datetime64, np.datetime64]:
    days = read_days([image_date], None, today=today)
    if days.findings or np.isnat(days.first[0]):
        problem = days.findings[0].detail.removesuffix(": left without a date") if days.findings else "nothing"
        raise LabelError(f"image_date is a day such as 2018-07-03, or two of them with a comma between; got {problem}.")
    return days.first[0], days.last[0]


def _joined(made: list[Standardised]) -> Inventory:
    """Return one table of all sources, without what several of them, or one of them twice, have outlined."""
    names = [one.source.name for one in made]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise LabelError(
            f"Several sources are called {sorted(repeated)[0]!r}, so that rows could not be told apart. Rename one."
        )
    together = pd.concat([one.labels for one in made], ignore_index=True)
    labels = geopandas.GeoDataFrame(together, geometry="geometry", crs=LONLAT)
    keyed = (
        labels[["class_name", "image_ids", "image_date", "creator"]].astype(object).where(lambda one: one.notna(), None)
    )
    keys = list(keyed.itertuples(index=False, name=None))
    again = duplicates(np.asarray(labels.geometry.array, np.object_), keys, names=labels["label_id"].tolist())
    findings = [finding for one in made for finding in one.findings]
    origin = [(one.source.name, int(row)) for one in made for row in one.rows]
    for finding in again:
        name, row = origin[finding.row]
        findings.append(replace(finding, source=name, row=row, source_id=labels["source_id"].iloc[finding.row]))
    place = {name: number for number, name in enumerate(names)}
    findings.sort(key=lambda one: (place[one.source], one.row))
    labels = labels.drop(index=[one.row for one in again])
    taken = labels["label_id"].duplicated(keep=False)  # in tables that were in the schema already
    # By the whole name of the file, because stems are the same where one inventory came in two formats.
    files = pd.Series([f"{name}/" for name, _ in origin], index=together.index)
    labels["label_id"] = labels["label_id"].where(~taken, files + labels["label_id"])
    labels = labels.reset_index(drop=True)
    validate_labels(labels)
    report = LabelReport(
        rows={one.source.name: len(one.source.table) for one in made},
        written=len(labels),
        findings=tuple(findings),
        columns={one.source.name: one.source.columns for one in made},
        unused={one.source.name: one.source.unused for one in made},
        notes=tuple(note for one in made for note in one.notes),
    )
    assert sum(report.rows.values()) == report.written + len(report.dropped)  # nothing is lost silently
    return Inventory(labels=labels, report=report)


@typed(LabelError)
def read_labels(
    source: LabelInput,
    *,
    columns: Mapping[str, str | None] | None = None,
    class_name: str | Mapping[Any, str] | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> geopandas.GeoDataFrame:
    """Read labels of any vector format, CRS and schema, for training and evaluation.

    A table in the schema is checked and returned as it is; any other is standardised on the way. Because that returns no
    report, it refuses a source of which rows would be dropped, other than repetitions, and warns of dates that it leaves empty.

    Parameters
    ----------
    source : str, pathlib.Path or geopandas.GeoDataFrame
        A vector file, or a table.
    columns, class_name, crs, layer
        As in `standardise_labels`.

    Returns
    -------
    geopandas.GeoDataFrame
        In EPSG:4326, with the columns of `LABEL_COLUMNS`.

    Raises
    ------
    LabelError
        What `standardise_labels` raises; or a row would be dropped.
    InputNotFoundError
        There is no such file.

    Warns
    -----
    LabelDateWarning
        Dates are impossible, such as 01.07.2020, and those labels have none.
    """
    table: geopandas.GeoDataFrame = read_table(source, layer=layer) if isinstance(source, str | Path) else source
    if set(LABEL_COLUMNS) <= set(table.columns) and columns is None and class_name is None and crs is None:
        return _checked(table, name=Path(source).name if isinstance(source, str | Path) else "table 0")
    # The file again, instead of the table, because its name is what the labels are traced back to.
    inventory = standardise_labels(source, columns=columns, class_name=class_name, crs=crs, layer=layer)
    lost = [one for one in inventory.report.dropped if "duplicate" not in one.problem]
    if lost:
        first = lost[0]
        raise LabelError(
            f"{len(lost)} of {len(table)} rows of {first.source} cannot be labels; the first is row {first.row}: "
            f"{first.problem}, {first.detail}. See all of them with rtsx labels validate, and make a file without them with "
            "rtsx labels standardise."
        )
    theirs = next(iter(inventory.report.columns.values()))
    column = theirs.get("image_date") or theirs.get("image_date_end")
    _warn_of_dates(inventory.report.findings, column=column, rows=len(table), stacklevel=4)
    return inventory.labels


def _warn_of_dates(findings: Sequence[Issue], *, column: str | None, rows: int, stacklevel: int) -> None:
    undated = [one for one in findings if one.problem == IMPOSSIBLE_DATE]
    if undated:
        first = undated[0]
        warnings.warn(
            f"{len(undated)} of {rows} rows of {first.source} are left without a date, because what the column {column!r} says "
            f"cannot be one; the first is row {first.row}: {first.detail}. Write days as 2018-07-03 and periods as "
            "2018-07-01,2018-08-31, or leave the field empty.",
            LabelDateWarning,
            stacklevel=stacklevel,
        )


def _checked(table: geopandas.GeoDataFrame, *, name: str) -> geopandas.GeoDataFrame:
    """Return a table that has the columns of the schema, with their dtypes, and whatever else it has."""
    columns = dict(table.items())
    ends = ("image_date", "image_date_end")
    # Files that have no types of their own bring dates as text, of which pandas would guess the order of day and month.
    if not all(pd.api.types.is_datetime64_any_dtype(table[one]) for one in ends):
        days = read_days(*(list(table[one]) for one in ends), today=datetime.now(UTC).date())
        columns |= {one: pd.Series(read, table.index) for one, read in zip(ends, (days.first, days.last), strict=True)}
        found = [replace(one, source=name) for one in days.findings]
        _warn_of_dates(found, column="image_date", rows=len(table), stacklevel=5)
    labels = conform(columns, table.geometry)
    validate_labels(labels)
    extra = [one for one in table.columns if one not in {*LABEL_COLUMNS, table.geometry.name}]
    return labels.join(table[extra]) if extra else labels
