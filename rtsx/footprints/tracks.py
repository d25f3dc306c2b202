"""The same object over years: footprints of several years to tracks."""

from collections.abc import Mapping
from itertools import accumulate

import geopandas
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.lineage import Lineage, trace_lineage
from rtsx.footprints.links import Links, link_outlines
from rtsx.footprints.pyproj import measure
from rtsx.footprints.yearly import check_years

__all__ = ["TRACK_COLUMNS", "check_tracks", "track_footprints"]

TRACK_COLUMNS = {
    "track_id": "object",
    "year": "int64",
    "footprint_id": "object",
    "event": "object",
    "parents": "object",
    "children": "object",
    "merged_tracks": "object",
    "family_id": "object",
    "class_name": "object",
    "area_m2": "float64",
}
"""Columns that every table of tracks has, in order, and their pandas dtypes; further ones follow, `geometry` last."""


def track_footprints(
    yearly: Mapping[int, geopandas.GeoDataFrame], *, min_overlap: float = 0.2, max_gap: int = 1
) -> geopandas.GeoDataFrame:
    """Follow objects over years, through splits and merges.

    An outline continues the track of earlier outlines with which it shares most ground. The pieces of an object that
    fell apart stay in its track; where several objects run together, the track with most of the ground goes on, and
    the others end in it. The answer depends neither on the order of rows or years nor on how the maps were cut up, and
    a year that is added later renames no track.

    Parameters
    ----------
    yearly : mapping of int to geopandas.GeoDataFrame
        The footprints of each year that was mapped, all in one CRS; a year in which nothing was found is given as a
        table without rows. Needs `footprint_id`, unique within a year and without commas, and valid Polygons or
        MultiPolygons; `area_m2` is measured on the ellipsoid where it is not there. Only outlines of one `class_name`
        are linked. Use one set per year, such as `level2_footprints` makes.
    min_overlap : float
        Two outlines are one object if what they share is at least this part (0-1) of the smaller one.
    max_gap : int
        Mapped years in a row in which an object may be missed without losing its track; 0 for none. Years that are
        not given were not mapped, and count for nothing.

    Returns
    -------
    geopandas.GeoDataFrame
        One row per footprint and year, sorted by track, year and footprint, with the columns

        - track_id: the year and footprint_id of the track's first outline;
        - year, footprint_id;
        - event: "new" (without predecessor), "continued", "split" (one of several successors of an outline), "merge"
          (successor of several) or "split+merge";
        - parents, children: the outlines of earlier and later years it is linked to, as `year_footprint_id`, separated
          by commas; empty for none;
        - merged_tracks: tracks that end in this outline;
        - family_id: the first track of all that are connected by splits and merges; a later year can join families;
        - class_name, area_m2 (geodesic), the further columns of the footprints, and geometry.

        `attrs["years"]` lists the years given. `track_summary` makes one row per track of it.

    Raises
    ------
    FootprintError
        A year is no whole number, a table no footprints, without CRS, in another CRS, from another year, with an
        invalid outline or a repeated id; a number is out of its range.

    Examples
    --------
    >>> from shapely import box
    >>> def found(*outlines):
    ...     names = [f"y{number}x0" for number in range(len(outlines))]
    ...     return geopandas.GeoDataFrame({"footprint_id": names}, geometry=list(outlines), crs="EPSG:3413")
    >>> tracks = track_footprints({2023: found(box(0, 0, 30, 30)), 2024: found(box(0, 0, 42, 30), box(90, 0, 99, 9))})
    >>> tracks[["track_id", "year", "event", "children"]].to_dict("split")["data"]
    [['2023_y0x0', 2023, 'new', '2024_y0x0'], ['2023_y0x0', 2024, 'continued', ''], ['2024_y1x0', 2024, 'new', '']]
    """
    if not 0 < min_overlap <= 1:
        raise FootprintError(
            f"min_overlap is a part of the smaller outline, above 0 and at most 1, not {min_overlap}: the usual is 0.2"
        )
    if isinstance(max_gap, bool) or max_gap < 0 or max_gap != int(max_gap):
        raise FootprintError(f"max_gap is a whole number of years from 0, not {max_gap}: 0 allows no gap")
    years = check_years(yearly)
    rows = _stack(years)
    starts = list(accumulate((len(table) for table in years.values()), initial=0))
    outlines = np.asarray(rows.geometry.array, np.object_)
    # Missing names, because those are of one kind too: that of a map which does not say.
    kinds = pd.factorize(rows["class_name"], use_na_sentinel=False)[0].astype(np.int64)
    links = link_outlines(outlines, kinds, starts=starts, min_overlap=min_overlap, max_gap=int(max_gap))
    tracks = _tabulate(rows, links, lineage=trace_lineage(links, starts=starts))
    tracks.attrs["years"] = list(years)
    return tracks


def check_tracks(tracks: pd.DataFrame) -> None:
    """Check that a table has the columns of tracks.

    Raises
    ------
    FootprintError
        Some are missing.
    """
    missing = [name for name in TRACK_COLUMNS if name not in tracks.columns]
    if missing:
        raise FootprintError(
            f"tracks need the columns {', '.join(missing)}, which are not there: make them with rtsx.track_footprints"
        )


def _stack(years: Mapping[int, geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    """Return all rows by year and id, so that their order before means nothing, with the columns that tracks need."""
    tables = []
    for year, footprints in years.items():
        table = footprints.rename_geometry("geometry") if footprints.geometry.name != "geometry" else footprints
        table = table.assign(year=year).sort_values("footprint_id", kind="stable")
        names = table["class_name"].astype(object) if "class_name" in table.columns else pd.Series(None, table.index)
        table["class_name"] = names.astype(object).where(names.notna(), None)
        if "area_m2" not in table.columns:
            table["area_m2"], _ = measure(np.asarray(table.geometry.array), CRS.from_user_input(table.crs))
        tables.append(table)
    # Without the empty ones, because their dtypes say nothing about the columns.
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _tabulate(rows: geopandas.GeoDataFrame, links: Links, *, lineage: Lineage) -> geopandas.GeoDataFrame:
    names = (rows["year"].astype(str) + "_" + rows["footprint_id"].astype(str)).to_numpy(object)
    has_parents = lineage.n_parents > 0
    columns: dict[str, object] = {
        "track_id": names[lineage.track],
        "year": rows["year"].to_numpy(np.int64),
        "footprint_id": rows["footprint_id"].to_numpy(object),
        "event": np.select(
            [lineage.is_split & lineage.is_merge, lineage.is_split, lineage.is_merge, has_parents],
            ["split+merge", "split", "merge", "continued"],
            "new",
        ),
        "parents": _listed(names, of=links.later, members=links.earlier),
        "children": _listed(names, of=links.earlier, members=links.later),
        "merged_tracks": _listed(names, of=lineage.taken_by, members=lineage.ended),
        "family_id": names[lineage.family],
    }
    further = [name for name in rows.columns if name not in (*columns, "geometry")]
    table = pd.DataFrame({**columns, **{name: rows[name] for name in further}})
    table = table[[*TRACK_COLUMNS, *(name for name in further if name not in TRACK_COLUMNS)]].astype(TRACK_COLUMNS)
    tracks = geopandas.GeoDataFrame(table, geometry=rows.geometry.array, crs=rows.crs)
    order = np.lexsort((np.arange(len(rows)), lineage.track))
    return tracks.iloc[order].reset_index(drop=True)


def _listed(names: NDArray[np.object_], *, of: NDArray[np.int64], members: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return, for each outline, the names of its members separated by commas."""
    listed = np.full(len(names), "", np.object_)
    order = np.lexsort((members, of))
    of, members = of[order], members[order]
    start = np.flatnonzero(np.diff(of, prepend=-1))
    for first, stop in zip(start, np.append(start, len(of))[1:], strict=True):
        listed[of[first]] = ",".join(names[members[first:stop]])
    return listed
