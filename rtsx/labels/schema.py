"""The one table that inventories become."""

import difflib
from datetime import date

import geopandas
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from rtsx.errors import LabelError

__all__ = ["EARLIEST", "LABEL_COLUMNS", "conform", "validate_labels"]

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


def conform(table: dict[str, object], geometry: geopandas.GeoSeries) -> geopandas.GeoDataFrame:
    """Return labels of columns by name, those that are not given empty; dtypes are set, also where there is no row."""
    columns: dict[str, pd.Series] = {}
    for name, dtype in LABEL_COLUMNS.items():
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
    _check_dtypes(labels)
    _check_values(labels)
    _check_outlines(labels)


def nearest(name: str, known: list[str]) -> str:
    """A hint at the name that was meant, with a space before it; nothing where none is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" Is {found[0]!r} meant?" if found else ""


def _check_dtypes(labels: geopandas.GeoDataFrame) -> None:
    for name, dtype in LABEL_COLUMNS.items():
        column = labels[name]
        is_right = {
            "object": pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column),
            "datetime64[ms]": pd.api.types.is_datetime64_any_dtype(column),
        }.get(dtype, pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))
        if not is_right:
            raise LabelError(
                f"Column {name!r} of labels has dtype {dtype}, not {column.dtype}. "
                f"Convert it, for example with labels.astype({{{name!r}: {dtype!r}}})."
            )


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
    if labels.crs is None or not CRS.from_user_input(labels.crs).equals(CRS.from_epsg(4326), ignore_axis_order=True):
        raise LabelError(
            f"Labels are in EPSG:4326, but these are in {labels.crs}. Bring them there with rtsx.standardise_labels, which "
            "keeps long edges in place and cuts at the antimeridian."
        )
    outlines = np.asarray(labels.geometry.array, np.object_)
    good = np.isin(shapely.get_type_id(outlines), (3, 6)) & ~shapely.is_empty(outlines) & shapely.is_valid(outlines)
    if not good.all():
        position = int(np.argmin(good))
        found = outlines[position]
        raise LabelError(
            f"Labels are valid Polygons or MultiPolygons, but row {labels.index[position]} is "
            f"{'nothing' if found is None else f'a {found.geom_type}: {shapely.is_valid_reason(found)}'}. "
            "Repair it with rtsx.standardise_labels."
        )
    west, south, east, north = shapely.bounds(outlines).reshape(-1, 4).T
    off = (west < -180) | (east > 180) | (south < -90) | (north > 90)
    if off.any():
        raise LabelError(
            f"Labels lie between -180 and 180 degrees of longitude and -90 and 90 of latitude, but row "
            f"{labels.index[int(np.argmax(off))]} does not. Bring it there with rtsx.standardise_labels."
        )
