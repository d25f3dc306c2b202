"""Track objects over years: checks of the tables, links between years, and lines of descent."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.arguments import typed
from rtsx.errors import FootprintError
from rtsx.footprints.geometry import components, measure
from rtsx.footprints.schema import check_geometry
from rtsx.geometry.antimeridian import split_at_antimeridian, unwrap
from rtsx.geometry.crs import crs_text, period_of


def check_years(yearly: Mapping[int, geopandas.GeoDataFrame]) -> dict[int, geopandas.GeoDataFrame]:
    """Return the tables by ascending year, each of them fit to be tracked.

    Raises
    ------
    FootprintError
        There is no year, or one is no whole number; a table is none of footprints, or of another year or CRS.
    """
    if not isinstance(yearly, Mapping) or not yearly:
        kind = "an empty one" if isinstance(yearly, Mapping) else type(yearly).__name__
        raise FootprintError(
            f"tracks need footprints by year, such as {{2023: before, 2024: now}}, not {kind}: "
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
    systems = {year: CRS.from_user_input(table.crs) for year, table in years.items()}
    first, *_ = years
    for year, crs in systems.items():
        if crs != systems[first]:
            raise FootprintError(
                f"footprints of all years are in one CRS, but those of {first} are in {crs_text(systems[first])} and those "
                f"of {year} in {crs_text(crs)}: convert them, for example with footprints.to_crs(...)"
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
    if "year" not in footprints.columns:
        return
    said = pd.to_numeric(footprints["year"], errors="coerce")
    other = said[said.notna() & (said != year)]
    if len(other):
        raise FootprintError(
            f"the footprints given for {year} say in their column 'year' that row {other.index[0]} is of "
            f"{other.iloc[0]:.0f}: give them under their own year, or correct the column"
        )


BATCH = 2_000
"""Pairs whose common ground is computed at once, so that memory does not grow with the number of outlines."""

Geometries = NDArray[np.object_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Links:
    """Pairs of outlines of different years on common ground, sorted by the later and then the earlier one."""

    earlier: Numbers
    """`(link,)` number of the outline of the earlier year."""
    later: Numbers
    """`(link,)` number of the outline of the later year."""
    shared: NDArray[np.float64]
    """`(link,)` their common ground, in square units of the CRS; above 0."""

    def __len__(self) -> int:
        return len(self.earlier)

    @classmethod
    def concatenate(cls, parts: Sequence["Links"]) -> "Links":
        """Return all links of all parts, sorted."""
        earlier = np.concatenate([np.empty(0, np.int64), *(part.earlier for part in parts)])
        later = np.concatenate([np.empty(0, np.int64), *(part.later for part in parts)])
        shared = np.concatenate([np.empty(0), *(part.shared for part in parts)])
        order = np.lexsort((earlier, later))
        return cls(earlier=earlier[order], later=later[order], shared=shared[order])


def link_outlines(
    outlines: Geometries, kinds: Numbers, *, starts: Sequence[int], min_overlap: float, max_gap: int
) -> Links:
    """Link outlines of different years that share ground.

    Two outlines are linked if what they share is at least `min_overlap` of the smaller of the two, instead of a least
    intersection over union, because a small piece of a slump that fell apart has a low one with the whole. Years next
    to each other are linked first. Over a gap, an outline is linked only if it is still without a link in that
    direction: one that has a successor next year needs none in the year after.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons in one CRS, year by year.
    kinds : numpy.ndarray
        `(n,)` int64; only outlines of one kind are linked.
    starts : sequence of int
        Where each year begins in `outlines`, and `n` at the end.
    min_overlap : float
        Share of the smaller outline, above 0 and at most 1.
    max_gap : int
        Years that may lie between the two of a link.

    Returns
    -------
    Links
        Numbers are positions in `outlines`. The shares are ratios of areas in the CRS: at one place a projection
        stretches both alike.
    """
    years = [np.arange(start, stop) for start, stop in pairwise(starts)]
    trees = [shapely.STRtree(outlines[members]) for members in years]
    area = shapely.area(outlines)
    found: list[Links] = []
    has_later, has_earlier = np.zeros(len(outlines), bool), np.zeros(len(outlines), bool)
    for gap in range(min(max_gap, max(len(years) - 2, 0)) + 1):
        now: list[Links] = []
        for first in range(len(years) - 1 - gap):
            second = first + 1 + gap
            one, other = _meeting(outlines[years[first]], trees[second])
            one, other = years[first][one], years[second][other]
            wanted = (kinds[one] == kinds[other]) & ~(has_later[one] & has_earlier[other])
            now.append(_share(outlines, (one[wanted], other[wanted]), area=area, min_overlap=min_overlap))
        for links in now:
            has_later[links.earlier] = True
            has_earlier[links.later] = True
        found += now
    return Links.concatenate(found)


def _meeting(outlines: Geometries, tree: shapely.STRtree) -> tuple[Numbers, Numbers]:
    if len(outlines) == 0 or len(tree) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one, other = tree.query(outlines, predicate="intersects")
    return one.astype(np.int64), other.astype(np.int64)


def _share(
    outlines: Geometries, pairs: tuple[Numbers, Numbers], *, area: NDArray[np.float64], min_overlap: float
) -> Links:
    one, other = pairs

    def common(start: int) -> NDArray[np.float64]:
        part = slice(start, start + BATCH)
        return np.asarray(shapely.area(shapely.intersection(outlines[one[part]], outlines[other[part]])))

    # In threads, because shapely lets go of the interpreter's lock, and this is most of the work.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        shared = np.concatenate([np.empty(0), *pool.map(common, range(0, len(one), BATCH))])
    # A rounding error less, so that an outline on itself shares all of it.
    enough = (shared > 0) & (shared >= (min_overlap - 1e-9) * np.minimum(area[one], area[other]))
    return Links(earlier=one[enough], later=other[enough], shared=shared[enough])


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The track and the family of every outline; both are named by the number of their first outline."""

    track: Numbers
    """`(n,)` first outline of the track."""
    family: Numbers
    """`(n,)` first outline of everything that is linked with this one, however often removed."""
    n_parents: Numbers
    """`(n,)` outlines of earlier years that this one is linked to."""
    is_split: NDArray[np.bool_]
    """`(n,)` True where an outline it comes from has several successors in this outline's year."""
    is_merge: NDArray[np.bool_]
    """`(n,)` True where it comes from several outlines of one year."""
    ended: Numbers
    """`(merger,)` tracks that end because their ground goes on in another track."""
    taken_by: Numbers
    """`(merger,)` the outline of that other track which has most of the ground."""


def trace_lineage(links: Links, *, starts: Sequence[int]) -> Lineage:
    """Follow outlines through the years.

    An outline continues the track with which it shares most ground; all pieces of an outline that fell apart
    therefore stay in its track. Where tracks run together, the one with most common ground goes on (of equal ones the
    oldest) and the others end there, unless another outline carries them on. An outline without predecessors begins a
    track. What a year brings depends on earlier years alone, so that later ones never rename a track.

    Parameters
    ----------
    links : Links
        As `link_outlines` gives them.
    starts : sequence of int
        Where each year begins among the outlines, and their number at the end.
    """
    count = starts[-1]
    track = np.arange(count)
    for start, stop in pairwise(starts):
        low, high = np.searchsorted(links.later, (start, stop))
        later, of, weight = _sum_by(links.later[low:high], track[links.earlier[low:high]], links.shared[low:high])
        outline, chosen = _largest(later, of, weight)
        track[outline] = chosen
    ended, taken_by = _mergers(links, track, year=np.repeat(np.arange(len(starts) - 1), np.diff(starts)))
    component = components(links.earlier, links.later, count=count)
    oldest = np.full(count, count)
    np.minimum.at(oldest, component, np.arange(count))
    is_split, is_merge = _branchings(links, starts=starts)
    return Lineage(
        track=track,
        family=oldest[component],
        n_parents=np.bincount(links.later, minlength=count),
        is_split=is_split,
        is_merge=is_merge,
        ended=ended,
        taken_by=taken_by,
    )


def _sum_by(one: Numbers, other: Numbers, weight: NDArray[np.float64]) -> tuple[Numbers, Numbers, NDArray[np.float64]]:
    """Return the pairs that occur, sorted, each once, with the sums of their weights."""
    order = np.lexsort((other, one))
    one, other, weight = one[order], other[order], weight[order]
    fresh = np.flatnonzero((np.diff(one, prepend=-1) != 0) | (np.diff(other, prepend=-1) != 0))
    return one[fresh], other[fresh], np.add.reduceat(weight, fresh) if len(fresh) else weight


def _largest(key: Numbers, value: Numbers, weight: NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    """Return every key with the value of its largest weight; of equal ones the smallest value."""
    order = np.lexsort((value, -weight, key))
    best = order[np.flatnonzero(np.diff(key[order], prepend=-1))]
    return key[best], value[best]


def _mergers(links: Links, track: Numbers, *, year: Numbers) -> tuple[Numbers, Numbers]:
    """Return the tracks that end in another one, and the outline there with most of their ground."""
    last = np.zeros(len(track), np.int64)
    np.maximum.at(last, track, year)
    source = track[links.earlier]
    ends = (source != track[links.later]) & (year[links.later] > last[source])
    return _largest(*_sum_by(source[ends], links.later[ends], links.shared[ends]))


def _branchings(links: Links, *, starts: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each outline is one of several successors, and whether it has several predecessors, of one year."""
    count, years = starts[-1], len(starts) - 1
    year = np.repeat(np.arange(years), np.diff(starts))
    is_split, is_merge = np.zeros(count, bool), np.zeros(count, bool)
    _, sibling, siblings = np.unique(links.earlier * years + year[links.later], return_inverse=True, return_counts=True)
    is_split[links.later[siblings[sibling] > 1]] = True
    _, partner, partners = np.unique(links.later * years + year[links.earlier], return_inverse=True, return_counts=True)
    is_merge[links.later[partners[partner] > 1]] = True
    return is_split, is_merge


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


@typed(FootprintError, but=("yearly",))
def track_footprints(
    yearly: Mapping[int, geopandas.GeoDataFrame], *, min_overlap: float = 0.2, max_gap: int = 1
) -> geopandas.GeoDataFrame:
    """Follow objects over years, through splits and merges.

    An outline continues the track of earlier outlines with which it shares most ground. The pieces of an object that
    fell apart stay in its track; where several objects run together, the track with most of the ground goes on, and
    the others end in it. The result depends neither on the order of rows or years nor on how the maps were cut up, and
    a year that is added later renames no track.

    Parameters
    ----------
    yearly : mapping of int to geopandas.GeoDataFrame
        The footprints of each year that was mapped, all in one CRS; a year in which nothing was found is given as a
        table without rows. Needs `footprint_id`, unique within a year and without commas, and valid Polygons or
        MultiPolygons; `area_m2` is measured on the ellipsoid where it is not there. Only outlines of one `class_name`
        are linked, capitals apart; a year that names none is of the only class of the others. Use one set per year, such as `level2_footprints` makes.
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
    outlines = _in_one_turn(np.asarray(rows.geometry.array, np.object_), CRS.from_user_input(rows.crs))
    kinds = _kinds(rows["class_name"], rows["year"])
    links = link_outlines(outlines, kinds, starts=starts, min_overlap=min_overlap, max_gap=int(max_gap))
    tracks = _tabulate(rows, links, lineage=trace_lineage(links, starts=starts))
    tracks.attrs["years"] = list(years)
    return tracks


def _kinds(names: "pd.Series[str]", year: "pd.Series[int]") -> Numbers:
    """Return numbers of classes, capitals apart; a year that names none is of the only class of the others."""
    plain = names.map(lambda name: str(name).lower(), na_action="ignore")
    if plain.nunique() == 1:
        is_named = plain.notna().groupby(year).transform("any")
        plain = plain.where(is_named, plain.dropna().iloc[0])
    # Missing names, because those are of one kind too: that of a map which does not say.
    return pd.factorize(plain, use_na_sentinel=False)[0].astype(np.int64)


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


def _in_one_turn(outlines: Geometries, crs: CRS) -> Geometries:
    """Return outlines of a CRS that goes around the world with x from -180 to 180 degrees; others as they are.

    Files of two years may well write one place as -139 and as 221 degrees.
    """
    period = period_of(crs)
    if period is None or not len(outlines):
        return outlines
    parts, owner = shapely.get_parts(outlines, return_index=True)
    degrees = unwrap(shapely.transform(parts, lambda xy: xy * (360 / period, 1)), 360.0)
    west, _, east, _ = shapely.bounds(degrees).reshape(-1, 4).T
    outside = np.unique(owner[(west < -180) | (east > 180)])
    turned = outlines.copy()
    for place in outside:
        pieces = [split_at_antimeridian(one, west=-180.0, inset=0.0) for one in degrees[owner == place]]
        turned[place] = shapely.multipolygons(np.concatenate(pieces))
    turned[outside] = shapely.transform(turned[outside], lambda xy: xy * (period / 360, 1))
    return turned


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
