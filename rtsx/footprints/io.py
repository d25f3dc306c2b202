"""Read and write footprints and tracks: GeoParquet, GeoPackage and FlatGeobuf."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import shapely
from pandas.api.types import is_object_dtype, is_string_dtype
from pyproj import CRS

from rtsx.errors import FootprintError, LabelError
from rtsx.footprints.geometry import repeats
from rtsx.footprints.schema import COLUMNS, check_geometry, coerce, known_dtypes, validate_footprints
from rtsx.footprints.tracks import check_tracks
from rtsx.geometry.crs import densified, transformed
from rtsx.labels.io import read_table, require_format, without_layer, write_table
from rtsx.labels.schema import match_columns, read_days
from rtsx.labels.standardise import marked_absent, spelled_alike
from rtsx.storage import local_path


def write_footprints(footprints: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write footprints to one file, complete or not at all.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        What `extract_footprints` gives, also without rows.
    path : str or pathlib.Path
        The ending chooses the format: `.parquet` (GeoParquet 1.1, zstd, with bounding boxes for spatial filters),
        `.gpkg` (GeoPackage) or `.fgb` (FlatGeobuf). GeoPackage and FlatGeobuf hold every outline as a MultiPolygon.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    FootprintError
        The ending is unknown, or `footprints` is not what `validate_footprints` expects.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = _target(path)
    validate_footprints(footprints)
    return write_table(footprints, target, overwrite=overwrite, what="footprints")


def write_tracks(tracks: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write tracks to one file, complete or not at all.

    Parameters
    ----------
    tracks : geopandas.GeoDataFrame
        What `track_footprints` gives.
    path : str or pathlib.Path
        As in `write_footprints`.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    FootprintError
        The ending is unknown, or `tracks` has not the columns of tracks.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = _target(path)
    check_tracks(tracks)
    return write_table(tracks, target, overwrite=overwrite, what="tracks")


def read_footprints(path: str | Path) -> geopandas.GeoDataFrame:
    """Read footprints that `write_footprints` wrote, with the columns and dtypes they had.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.parquet`, `.gpkg` or `.fgb` file; `slumps.gpkg|layername=north` is one layer of several.

    Returns
    -------
    geopandas.GeoDataFrame
        Footprints; MultiPolygons of one part are Polygons again.

    Raises
    ------
    FootprintError
        The ending is unknown, or the file holds something else.
    InputNotFoundError
        There is no such file.
    """
    source, _ = without_layer(path)
    if not Path(source).is_dir():  # which says better what is in it
        require_format(Path(source), what="footprints", error=FootprintError)
    try:
        table = read_table(path, what="footprints")
    except LabelError as error:
        raise FootprintError(str(error)) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise FootprintError(
            f"{source} holds no footprints of rtsx: the columns {', '.join(missing)} are missing; "
            "read other outlines with geopandas"
        )
    return to_serialisable(table)


def to_serialisable(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return footprints as they were before a file made something else of their columns and dtypes."""
    geometry = table.geometry
    parts = shapely.get_num_geometries(geometry.array)
    single = shapely.get_geometry(geometry.array, 0)
    geometry = geopandas.GeoSeries(
        [one if count == 1 else whole for one, whole, count in zip(single, geometry, parts, strict=True)],
        index=table.index,
        crs=table.crs,
    )
    if "flags" in table.columns:
        table["flags"] = table["flags"].fillna("")  # no format tells empty from missing for certain
    footprints = coerce({**table, **_of_text(table)}, geometry)
    extra = [name for name in table.columns if name not in {*footprints.columns, table.geometry.name}]
    return footprints.join(table[extra]) if extra else footprints


def _of_text(table: geopandas.GeoDataFrame) -> dict[str, pd.Series]:
    """Return the columns of yes and no and of dates that a file has as text, of which pandas would make True, and guess the order of day and month.

    Raises
    ------
    FootprintError
        A word is neither yes nor no, or a date is not written as 2020-07-01.
    """
    read: dict[str, pd.Series] = {}
    for name, dtype in known_dtypes(table.columns).items():
        if name not in table.columns or not (is_object_dtype(table[name]) or is_string_dtype(table[name])):
            continue
        text = table[name].astype(object).map(lambda one: str(one).strip().lower(), na_action="ignore")
        if dtype == "bool":
            read[name], strange = text.isin(YES), ~text.isin((*YES, *NO))
        elif dtype.startswith("datetime"):
            moments = pd.to_datetime(
                text.str.upper().str.replace("/", "-"), format="ISO8601", errors="coerce", utc=True
            )
            read[name], strange = moments.dt.tz_localize(None), text.notna() & (text != "") & moments.isna()
        else:
            continue
        if strange.any():
            expected = "true or false" if dtype == "bool" else "a date such as 2020-07-01"
            raise FootprintError(
                f"{name} of footprints is {expected}; got {text[strange].iloc[0]!r}: correct the column"
            )
    return read


YES, NO = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


def _target(path: str | Path) -> Path:
    target = local_path(path)
    require_format(target, what="footprints", error=FootprintError)
    return target


def read_years(files: Mapping[int, str | Path]) -> dict[int, geopandas.GeoDataFrame]:
    """Read outlines of several years for `track_footprints`: footprints, labels, or whatever was drawn or published.

    Footprints of rtsx keep all of their columns. Of other files there remain `class_name`, `year` and `footprint_id`: the
    column of that name, else `label_id`, else the number of the row, from 0. Rows of theirs that a column of classes says to be none
    of the target, as in ARTS, and rows that repeat another one are left out. A class 0 of all rows of a file is that of a detector
    that numbers its only class from 0: they stay.

    Parameters
    ----------
    files : mapping of int to str or pathlib.Path
        A vector file of each year: GeoParquet, or any format that GDAL reads.

    Returns
    -------
    dict of int to geopandas.GeoDataFrame
        In one CRS: that of the first file that is in a projected one, else of the first. Where a file says no class and all
        others say the same, it is of that class too.

    Raises
    ------
    FootprintError
        There is no file, or one cannot be read, says no CRS, or holds something else than valid polygons; names the file.
    InputNotFoundError
        There is no such file.

    Warns
    -----
    RuntimeWarning
        Rows are left out, are of another year by their dates, or are all of class 0.
    """
    if not files:
        raise FootprintError("outlines are read from the file of at least one year, but none came: give {2024: path}")
    tables = {}
    for year, path in files.items():  # no comprehension: in Python 3.11 it is a frame, and warnings would point here
        tables[year] = _outlines(Path(path), year=year)
    systems = [CRS.from_user_input(table.crs) for table in tables.values()]
    target = next((crs for crs in systems if crs.is_projected), systems[0])
    names = [*dict.fromkeys(str(name) for table in tables.values() for name in table["class_name"].dropna())]
    alike = dict(zip(names, spelled_alike(names, known=()), strict=True))
    known = {*alike.values()}
    for year, table in tables.items():
        table["class_name"] = pd.Series([alike.get(name) for name in table["class_name"]], table.index, dtype=object)
        if len(known) == 1 and table["class_name"].isna().all():
            table["class_name"] = pd.Series(next(iter(known)), index=table.index, dtype=object)
        if CRS.from_user_input(table.crs) != target:
            tables[year] = _moved(table, target, path=files[year])
    return tables


def _outlines(path: Path, *, year: int) -> geopandas.GeoDataFrame:
    try:
        table = read_table(path)
    except LabelError as error:
        raise FootprintError(f"{path} cannot be tracked: {error}") from error
    try:
        check_geometry(table)
    except FootprintError as error:
        raise FootprintError(f"{path}: {error}; or make a file of it with: rtsx labels standardise") from error
    if set(COLUMNS) <= set(table.columns):
        return to_serialisable(table)
    table = _targets(table.reset_index(drop=True), path, year=year)
    given = next((name for name in ("footprint_id", "label_id") if name in table.columns), None)
    names = table.index.to_series() if given is None else table[given]
    columns = {"footprint_id": _texts(names)}
    columns["class_name"] = _texts(table.get("class_name", pd.Series(None, index=table.index, dtype=object)))
    if "year" in table.columns:
        columns["year"] = table["year"]
    outlines = shapely.force_2d(np.asarray(table.geometry.array, np.object_))
    return geopandas.GeoDataFrame(columns, geometry=outlines, crs=table.crs)


_SAME = 0.5
"""Intersection over union from which on two outlines of one file are taken for one object."""


def _targets(table: geopandas.GeoDataFrame, path: Path, *, year: int) -> geopandas.GeoDataFrame:
    """Leave out rows that are marked as none of the target, and those that repeat another one; warn of them, and of other years."""
    columns = match_columns([str(name) for name in table.columns if name != table.geometry.name], {})
    said, absent, is_only = marked_absent(table)
    classes = pd.Series("", table.index) if said is None else table[said].astype(str).str.strip().str.lower()
    shapes = shapely.to_wkb(shapely.normalize(np.asarray(table.geometry.array, np.object_)))
    again = pd.DataFrame({"shape": shapes, "class": classes}, table.index).duplicated() & ~absent
    dated, ends = (columns.get(name) for name in ("image_date", "image_date_end"))
    has_year = "year" in table.columns  # which `check_years` looks at
    if dated == "year":
        dated = None
    days = read_days(
        [None] * len(table) if dated is None else table[dated],
        None if ends is None else table[ends],
        today=datetime.now(UTC).date(),
    )
    first, last = (pd.Series(one).dt.year for one in (days.first, days.last))
    of_others = ((first > year) | (last < year)).to_numpy() & ~absent.to_numpy()
    overlapping = (
        pd.Series(repeats(np.asarray(table.geometry.array, np.object_), iou=_SAME), table.index) & ~again & ~absent
    )
    for rows, what in (
        (absent, f"say in the column {said!r} that they are none of the target: left out"),
        (
            is_only,
            f"are of class 0 by their column {said!r}: taken for the target. If they are none of it, delete them",
        ),
        (again, "repeat another one: left out"),
        (
            overlapping,
            (
                f"lie on another one with an IoU of {_SAME} or more, as of several authors or dates: their ground counts more than once in areas and "
                "growth. Give one set of outlines"
            ),
        ),
        (
            of_others,
            f"are of another year than {year} by their column {dated!r}{'; their column year counts' if has_year else ''}",
        ),
    ):
        if rows.any():
            text = f"{int(rows.sum())} of {len(table)} outlines of {path} {what}."
            warnings.warn(text, RuntimeWarning, stacklevel=4)
    return table[~absent & ~again]


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).map(str, na_action="ignore")


def _moved(table: geopandas.GeoDataFrame, target: CRS, *, path: str | Path) -> geopandas.GeoDataFrame:
    """Return outlines in another CRS, long edges followed."""
    source, outlines = CRS.from_user_input(table.crs), np.asarray(table.geometry.array, np.object_)
    try:
        moved = transformed(densified(outlines, source), source, target)
    except LabelError as error:
        raise FootprintError(f"{path} cannot be tracked beside files in {target.name!r}: {error}") from error
    return table.set_geometry(geopandas.GeoSeries(moved, index=table.index, crs=target))
