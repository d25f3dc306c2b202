"""Outlines of several years from files of any vector format, fit to be tracked."""

from collections.abc import Mapping
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from rtsx.errors import FootprintError, LabelError
from rtsx.footprints.schema import COLUMNS, check_geometry
from rtsx.footprints.writing import as_written
from rtsx.labels.pyproj import densified, transformed
from rtsx.labels.reading import read_table

__all__ = ["read_years"]


def read_years(files: Mapping[int, str | Path]) -> dict[int, geopandas.GeoDataFrame]:
    """Read outlines of several years for `track_footprints`: footprints, labels, or whatever was drawn or published.

    Footprints of rtsx keep all of their columns. Of other files there remain `class_name`, `year` and `footprint_id`: the
    column of that name, else `label_id`, else the number of the row, from 0.

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
    """
    if not files:
        raise FootprintError("outlines are read from the file of at least one year, but none came: give {2024: path}")
    tables = {year: _outlines(Path(path)) for year, path in files.items()}
    systems = [CRS.from_user_input(table.crs) for table in tables.values()]
    target = next((crs for crs in systems if crs.is_projected), systems[0])
    known = {str(name) for table in tables.values() for name in table["class_name"].dropna()}
    for year, table in tables.items():
        if len(known) == 1 and table["class_name"].isna().all():
            table["class_name"] = pd.Series(next(iter(known)), index=table.index, dtype=object)
        if CRS.from_user_input(table.crs) != target:
            tables[year] = _moved(table, target, path=files[year])
    return tables


def _outlines(path: Path) -> geopandas.GeoDataFrame:
    try:
        table = read_table(path)
    except LabelError as error:
        raise FootprintError(f"{path} cannot be tracked: {error}") from error
    try:
        check_geometry(table)
    except FootprintError as error:
        raise FootprintError(f"{path}: {error}; or make a file of it with: rtsx labels standardise") from error
    if set(COLUMNS) <= set(table.columns):
        return as_written(table)
    given = next((name for name in ("footprint_id", "label_id") if name in table.columns), None)
    names = pd.Series(range(len(table)), index=table.index) if given is None else table[given]
    columns = {"footprint_id": _texts(names)}
    columns["class_name"] = _texts(table.get("class_name", pd.Series(None, index=table.index, dtype=object)))
    if "year" in table.columns:
        columns["year"] = table["year"]
    outlines = shapely.force_2d(np.asarray(table.geometry.array, np.object_))
    return geopandas.GeoDataFrame(columns, geometry=outlines, crs=table.crs)


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
