"""Checks on the footprints of several years, before any of them is compared."""

from collections.abc import Mapping

import geopandas
import numpy as np
import pandas as pd
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.schema import check_geometry

__all__ = ["check_years"]


def check_years(yearly: Mapping[int, geopandas.GeoDataFrame]) -> dict[int, geopandas.GeoDataFrame]:
    """Return the tables by ascending year, each of them fit to be tracked.

    Raises
    ------
    FootprintError
        There is no year, or one is no whole number; a table is none of footprints, or of another year or CRS.
    """
    if not isinstance(yearly, Mapping) or not yearly:
        raise FootprintError(
            f"tracks need footprints by year, such as {{2023: before, 2024: now}}, not {_kind(yearly)}: "
            "give a mapping with at least one year"
        )
    for year in yearly:
        if isinstance(year, bool) or not isinstance(year, (int, np.integer)):
            raise FootprintError(
                f"years are whole numbers such as 2024, but {year!r} ({type(year).__name__}) came: "
                "give {int(year): footprints}"
            )
    years = {int(year): yearly[year] for year in sorted(yearly)}
    for year, footprints in years.items():
        _check_table(footprints, year=year)
    first, *others = years
    for year in others:
        if CRS.from_user_input(years[year].crs) != CRS.from_user_input(years[first].crs):
            raise FootprintError(
                f"footprints of all years are in one CRS, but those of {first} are in {_name(years[first])} and those "
                f"of {year} in {_name(years[year])}: convert them, for example with footprints.to_crs(...)"
            )
    return years


def _check_table(footprints: geopandas.GeoDataFrame, *, year: int) -> None:
    if not isinstance(footprints, geopandas.GeoDataFrame):
        raise FootprintError(
            f"the footprints of {year} are a geopandas.GeoDataFrame, not {type(footprints).__name__}: "
            "read them with rtsx.footprints.read_footprints"
        )
    if "footprint_id" not in footprints.columns:
        raise FootprintError(
            f"the footprints of {year} need the column footprint_id, but have "
            f"{', '.join(map(str, footprints.columns)) or 'none'}: name the outlines, for example with "
            "footprints.assign(footprint_id=[...])"
        )
    identity = footprints["footprint_id"]
    wrong = identity[identity.isna() | identity.duplicated()]
    if len(wrong):
        raise FootprintError(
            f"every footprint of a year has an id of its own, but in {year} footprint_id {wrong.iloc[0]!r} is missing "
            "or repeated: unite maps of one year with rtsx.footprints.merge_footprints or level2_footprints first"
        )
    listed = identity[identity.astype(str).str.contains(",", regex=False)]
    if len(listed):
        raise FootprintError(
            f"footprint_id has no commas, because tracks list ids, but in {year} there is {listed.iloc[0]!r}: "
            "replace them, for example with footprint_id.str.replace(',', '-')"
        )
    try:
        check_geometry(footprints)
    except FootprintError as error:
        raise FootprintError(f"in the footprints of {year}: {error}") from error
    _check_year(footprints, year=year)


def _check_year(footprints: geopandas.GeoDataFrame, *, year: int) -> None:
    if "year" not in footprints.columns:
        return
    said = pd.to_numeric(footprints["year"], errors="coerce")
    other = said[said.notna() & (said != year)]
    if len(other):
        raise FootprintError(
            f"the footprints given for {year} say in their column 'year' that row {other.index[0]} is of "
            f"{other.iloc[0]:.0f}: give them under their own year, or correct the column"
        )


def _name(footprints: geopandas.GeoDataFrame) -> str:
    crs = CRS.from_user_input(footprints.crs)
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def _kind(given: object) -> str:
    return "an empty one" if isinstance(given, Mapping) else type(given).__name__
