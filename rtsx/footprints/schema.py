"""What a table of footprints must have."""

import re
from collections.abc import Iterable

import geopandas
import numpy as np
import pandas as pd
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.labels.schema import conform, wrong_dtype

COLUMNS = {
    "footprint_id": "object",
    "class_name": "object",
    "date": "datetime64[ms]",
    "year": "Int32",
    "scene_id": "object",
    "area_m2": "float64",
    "perimeter_m": "float64",
    "centroid_lat": "float64",
    "centroid_lon": "float64",
    "prob_min": "float64",
    "prob_max": "float64",
    "prob_mean": "float64",
    "prob_median": "float64",
    "prob_std": "float64",
    "n_pixels": "int64",
    "touches_edge": "bool",
    "bundle_id": "object",
    "bundle_digest": "object",
}
"""Columns of footprints, in order, and their pandas dtypes; "object" holds strings or None. `geometry` comes last."""

OPTIONAL = {
    "nodata_fraction": "float64",
    "water_fraction": "float64",
    "area_outlined_m2": "float64",
    "flags": "object",
    "confidence_class": "object",
    "n_images": "Int32",
    "n_images_possible": "Int32",
    "first_date": "datetime64[ms]",
    "last_date": "datetime64[ms]",
    "cut": "bool",
    "prob_counts": "object",
}
"""Columns that some footprints have, and their pandas dtypes: `nodata_fraction`, `water_fraction`, `cut` and `prob_counts`
from `extract_footprints`, `area_outlined_m2` from `simplify_footprints`, `flags` from `clean_footprints`, `confidence_class` from
`ConfidenceRule.apply`, the others from
`level2_footprints`."""

_AREA_COLUMN = re.compile(r"area_m2_t(\d+)")


def area_columns(names: Iterable[object]) -> dict[str, float]:
    """Return those of some columns that are areas by probability, and their least probabilities (0-1), ascending.

    Examples
    --------
    >>> area_columns(["area_m2_t65", "area_m2", "area_m2_t45"])
    {'area_m2_t45': 0.45, 'area_m2_t65': 0.65}
    """
    found = [match for name in names if (match := _AREA_COLUMN.fullmatch(str(name)))]
    return {match[0]: int(match[1]) / 100 for match in sorted(found, key=lambda match: int(match[1]))}


def stated_years(footprints: geopandas.GeoDataFrame) -> set[int]:
    """Return the years that outlines state, by `year` or else `date`; none where they state none."""
    return {int(year) for year in years_by_row(footprints).dropna()}


def years_by_row(footprints: geopandas.GeoDataFrame) -> pd.Series:
    """Return the year of each outline, by `year` or else `date`; missing where it states none."""
    none = pd.Series(np.nan, footprints.index)
    year: pd.Series = pd.to_numeric(footprints.get("year", none), errors="coerce").astype("float64")
    stated: pd.Series = year.where(np.isfinite(year)).fillna(dates_of(footprints, "date").dt.year)
    return stated


def dates_of(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column of dates, or of text that is one; missing where it is something else, such as a number, or there is no column."""
    column = table.get(name)
    if column is None or pd.api.types.is_numeric_dtype(column):
        column = pd.Series(pd.NaT, table.index)
    dates: pd.Series = pd.to_datetime(column, errors="coerce", utc=True, format="mixed")
    return dates


def known_dtypes(names: Iterable[object]) -> dict[str, str]:
    """Return the pandas dtypes of all columns that footprints may have, in order; areas by probability are those among `names`."""
    return COLUMNS | dict.fromkeys(area_columns(names), "float64") | OPTIONAL


FLAGS = ("small", "edge", "water", "weak")
"""What can speak against an outline; `clean_footprints` says when."""


def coerce(table: dict[str, object], geometry: geopandas.GeoSeries) -> geopandas.GeoDataFrame:
    """Return footprints of columns by name; dtypes are set, also where there is no row."""
    return conform(
        table,
        geometry,
        dtypes={name: dtype for name, dtype in known_dtypes(table).items() if name in (*COLUMNS, *table)},
    )


def reorder(footprints: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return footprints with known columns in their order, then further ones, then the geometry."""
    known = [name for name in known_dtypes(footprints.columns) if name in footprints.columns]
    geometry = footprints.geometry.name
    further = [name for name in footprints.columns if name not in known and name != geometry]
    return footprints[[*known, *further, geometry]]


def validate_footprints(footprints: geopandas.GeoDataFrame) -> None:
    """Check that a table is one of footprints.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        Must have a CRS, the columns that `extract_footprints` gives (further ones are welcome), unique and present
        `footprint_id`, valid Polygons or MultiPolygons, areas above 0 and probabilities between 0 and 1. No rows is
        fine. Columns that cleaning, simplification and levels add are checked where they are.

    Raises
    ------
    FootprintError
        Says what is wrong, where, and how to mend it.
    """
    if not isinstance(footprints, geopandas.GeoDataFrame):
        raise FootprintError(
            f"footprints are a geopandas.GeoDataFrame, not {type(footprints).__name__}: "
            "read them with rtsx.footprints.read_footprints or make them with rtsx.extract_footprints"
        )
    missing = [name for name in COLUMNS if name not in footprints.columns]
    if missing:
        raise FootprintError(
            f"footprints need the columns {', '.join(missing)}, which are not there; there are "
            f"{', '.join(map(str, footprints.columns))}: make footprints with rtsx.extract_footprints, or add the columns"
        )
    _check_columns(footprints)
    check_geometry(footprints)


def _check_columns(footprints: geopandas.GeoDataFrame) -> None:
    dtypes = known_dtypes(footprints.columns)
    if (name := wrong_dtype(footprints, dtypes)) is not None:
        raise FootprintError(
            f"column {name!r} of footprints has dtype {dtypes[name]}, not {footprints[name].dtype}: "
            f"convert it, for example with footprints.astype({{{name!r}: {dtypes[name]!r}}})"
        )
    identity = footprints["footprint_id"]
    if identity.isna().any() or identity.duplicated().any():
        wrong = identity[identity.isna() | identity.duplicated()].iloc[0]
        raise FootprintError(
            f"every footprint has an id of its own, but footprint_id {wrong!r} is missing or repeated: when joining "
            "footprints of several predictions, put the prediction's name before the id"
        )
    for name, dtype in dtypes.items():
        if dtype == "float64" and name in footprints:
            _check_range(footprints[name])
    _check_flags(footprints)
    _check_images(footprints)


def _check_range(column: "pd.Series[float]") -> None:
    name = str(column.name)
    if name.startswith(("prob_", "water_")):
        low, high, expected = 0.0, 1.0, "between 0 and 1"
    elif name == "nodata_fraction":  # missing where an outline was cut, and these where tables of several kinds are one
        column, low, high, expected = column.dropna(), 0.0, 1.0, "between 0 and 1, or missing"
    elif _AREA_COLUMN.fullmatch(name):
        column, low, high, expected = column.dropna(), 0.0, np.inf, "at least 0, or missing"
    elif name.startswith("area_"):
        low, high, expected = np.nextafter(0.0, 1.0), np.inf, "above 0"
    else:
        return
    wrong = column[~column.between(low, high)]
    if len(wrong):
        raise FootprintError(
            f"{name} of footprints is {expected}, but row {wrong.index[0]} has {wrong.iloc[0]}: drop or correct that row"
        )


def _check_flags(footprints: geopandas.GeoDataFrame) -> None:
    if "flags" not in footprints.columns:
        return
    for row, listed in footprints["flags"].items():
        words = listed.split(",") if isinstance(listed, str) and listed else []
        if not isinstance(listed, str) or not set(words) <= set(FLAGS):
            raise FootprintError(
                f"flags of footprints are some of {', '.join(FLAGS)}, separated by commas, or empty, but row {row} has "
                f"{listed!r}: set them with rtsx.footprints.clean_footprints"
            )


def _check_images(footprints: geopandas.GeoDataFrame) -> None:
    if "n_images" not in footprints.columns:
        return
    wrong = ~(footprints["n_images"] >= 1).fillna(value=False).astype(bool)
    if "n_images_possible" in footprints.columns:
        wrong |= (footprints["n_images_possible"] < footprints["n_images"]).fillna(value=False).astype(bool)
    if wrong.any():
        row = wrong.index[wrong][0]
        raise FootprintError(
            f"n_images of footprints is at least 1 and at most n_images_possible, but row {row} has "
            f"{footprints.loc[row, 'n_images']}: make yearly sets with rtsx.footprints.level2_footprints"
        )


def check_geometry(footprints: geopandas.GeoDataFrame) -> None:
    """Check that a table has a CRS and valid outlines.

    Raises
    ------
    FootprintError
        Says which row has none, or no area, or crosses itself.
    """
    try:
        geometry = footprints.geometry
    except AttributeError as error:
        raise FootprintError(
            "footprints have an active geometry column, but none is set: call footprints.set_geometry(...)"
        ) from error
    if footprints.crs is None:
        raise FootprintError("footprints have a CRS, but it is None: set it with footprints.set_crs(...)")
    CRS.from_user_input(footprints.crs)
    is_area = geometry.geom_type.isin(["Polygon", "MultiPolygon"]) & ~geometry.is_empty
    if not is_area.all():
        row = is_area.index[~is_area][0]
        kind = "nothing" if geometry[row] is None else geometry[row].geom_type
        raise FootprintError(
            f"outlines are Polygons or MultiPolygons with an area, but row {row} has {kind}: drop it, or take the "
            "polygons out of collections with footprints.explode()"
        )
    broken = ~geometry.is_valid
    if broken.any():
        row = broken.index[broken][0]
        raise FootprintError(
            f"outlines are valid geometries, but that of row {row} is not ({geometry.is_valid_reason()[row]}): "
            "repair it with footprints.make_valid()"
        )
