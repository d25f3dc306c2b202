"""Merge footprints that were cut at a seam, or seen in several scenes, with their attributes."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import geopandas
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.errors import FootprintError
from rtsx.footprints.blocks import padded_boxes
from rtsx.footprints.geometry import (
    Placement,
    components,
    dissolve,
    intersecting,
    measured_columns,
    to_pixel_coordinates,
)
from rtsx.footprints.pieces import format_counts, least_level, parse_counts, statistics
from rtsx.footprints.schema import area_columns, known_dtypes, validate_footprints
from rtsx.geometry.crs import longest_edge

_LISTED = ("scene_id", "bundle_id", "bundle_digest", "images")
"""Columns whose entries are put together as a list separated by commas, where they differ."""

Columns = dict[str, NDArray[Any]]
Members = NDArray[np.int64]


def aggregate_counts(
    rows: geopandas.GeoDataFrame, groups: Sequence[Members], *, first: Sequence[int], tolerance: float
) -> geopandas.GeoDataFrame:
    """Return one row per group: the union of its outlines, and their attributes put together.

    Parameters
    ----------
    rows : geopandas.GeoDataFrame
        Footprints; `merge_footprints` says what becomes of each column.
    groups : sequence of numpy.ndarray
        The rows of each group, by position; at least two.
    first : sequence of int
        The row of each group that gives the id.
    tolerance : float
        Coordinates this near to each other are one, in units of the CRS.
    """
    outlines = np.asarray(rows.geometry.array, np.object_)
    geometry = np.empty(len(groups), np.object_)
    geometry[:] = [dissolve(outlines[members], tolerance=tolerance) for members in groups]
    measured = measured_columns(geometry, CRS.from_user_input(rows.crs))
    # Arrays, instead of a table for each group, which would cost a millisecond.
    columns: Columns = {name: rows[name].to_numpy() for name in rows.columns if name != "geometry"}
    described = [
        _describe({name: column[members] for name, column in columns.items()}, outlines[members], united, area_m2=size)
        for members, united, size in zip(groups, geometry, measured["area_m2"].tolist(), strict=True)
    ]
    pooled: dict[str, Any] = {"footprint_id": columns["footprint_id"][list(first)], **measured}
    pooled |= {name: [one[name] for one in described] for name in columns if name not in pooled}
    known = known_dtypes(columns)  # the dtype of further ones is object, because some of it may be missing
    dtypes = {name: rows[name].dtype if name in known else np.dtype(object) for name in columns}
    table = pd.DataFrame({name: pd.Series(pooled[name], dtype=dtypes[name]) for name in columns})
    return geopandas.GeoDataFrame(table, geometry=geometry, crs=rows.crs)


def _describe(
    columns: Columns, outlines: NDArray[np.object_], united: shapely.Geometry, *, area_m2: float
) -> dict[str, object]:
    """Return the attributes of one group, but for its id, place and measures."""
    seen_once = float(shapely.area(united) / shapely.area(outlines).sum())
    if seen_once > 1 - 1e-9:
        seen_once = 1.0
    attributes: dict[str, Any] = {name: _agreed(column) for name, column in columns.items()}
    attributes |= {name: _listed(columns[name]) for name in _LISTED if name in columns}
    for name in _EXTREMES.keys() & columns.keys():
        known = columns[name][~pd.isna(columns[name])]
        attributes[name] = _EXTREMES[name](known) if len(known) else pd.NaT
    attributes["touches_edge"] = _touches_edge(columns["touches_edge"], outlines)
    if "cut" in columns:
        attributes["cut"] = bool(columns["cut"].any())
    exact = _exact(columns, area_m2=area_m2) if seen_once == 1.0 else None
    attributes |= _pooled(columns, seen_once=seen_once, area_m2=area_m2) if exact is None else exact
    # Of another box than those of the parts, and of a larger outline, of which a rule says something else.
    attributes |= {"nodata_fraction": np.nan, "confidence_class": None}
    if "water_fraction" in columns:
        attributes["water_fraction"] = _water(columns)
    if "area_outlined_m2" in columns:
        attributes["area_outlined_m2"] = float(columns["area_outlined_m2"].sum()) * seen_once
    if "n_images" in columns:
        listed = attributes["scene_id"]
        least = len(listed.split(",")) if isinstance(listed, str) else 1
        attributes["n_images"] = max(least, *columns["n_images"])
    if "n_images_possible" in columns:
        known = columns["n_images_possible"][~pd.isna(columns["n_images_possible"])]
        attributes["n_images_possible"] = max(attributes["n_images"], *known) if len(known) else None
    return attributes


_EXTREMES: dict[str, Callable[[NDArray[Any]], Any]] = {"date": np.min, "first_date": np.min, "last_date": np.max}
"""Dates, and which of several stays."""


def _agreed(column: NDArray[Any]) -> object:
    """Return what all parts have, or None."""
    missing = pd.isna(column)
    return None if missing.any() or (column != column[0]).any() else column[0]


def _listed(column: NDArray[Any]) -> str | None:
    if not pd.isna(column).any() and (column == column[0]).all():
        return str(column[0])
    words = {word for entry in column[~pd.isna(column)] for word in str(entry).split(",")}
    return ",".join(sorted(words)) or None


def _touches_edge(flags: NDArray[np.bool_], outlines: NDArray[np.object_]) -> bool:
    """Return whether a part touches the edge that does not lie, by half at least, on parts that do not touch it."""
    if flags.all() or not flags.any():
        return bool(flags.any())
    whole = shapely.union_all(outlines[~flags])
    common = shapely.area(shapely.intersection(outlines[flags], whole))
    return bool((common < 0.5 * shapely.area(outlines[flags])).any())


def _exact(columns: Columns, *, area_m2: float) -> dict[str, object] | None:
    """Return the statistics of parts whose histograms are known, else None."""
    texts = columns.get("prob_counts")
    if texts is None or any(not isinstance(text, str) for text in texts):
        return None
    parsed = [parse_counts(text) for text in texts]
    levels = parsed[0][0]
    if any(one != levels for one, _, _ in parsed):
        return None
    level, inverse = np.unique(np.concatenate([part for _, part, _ in parsed]), return_inverse=True)
    count = np.zeros(len(level), np.int64)
    np.add.at(count, inverse, np.concatenate([part for _, _, part in parsed]))
    pooled = statistics(np.zeros(len(level), np.int64), level, count, levels=levels)
    exact: dict[str, object] = {name: values[0] for name, values in pooled.items()}
    exact |= {
        name: count[level >= least_level(threshold, levels)].sum() / pooled["n_pixels"][0] * area_m2
        for name, threshold in area_columns(columns).items()
    }
    return exact | {"prob_counts": format_counts(level, count, levels=levels)}


def _pooled(columns: Columns, *, seen_once: float, area_m2: float) -> dict[str, object]:
    """Return statistics by the pixels of each part; the median is the mean of medians."""
    weight = columns["n_pixels"] / columns["n_pixels"].sum()
    mean = float((weight * columns["prob_mean"]).sum())
    # Variance within the parts plus variance between them.
    variance = float((weight * (columns["prob_std"] ** 2 + (columns["prob_mean"] - mean) ** 2)).sum())
    low, high = columns["prob_min"].min(), columns["prob_max"].max()
    areas = {name: np.minimum(area_m2, columns[name].sum() * seen_once) for name in area_columns(columns)}
    return areas | {
        "n_pixels": max(1, round(float(columns["n_pixels"].sum()) * seen_once)),
        "prob_min": low,
        "prob_max": high,
        "prob_mean": min(max(mean, low), high),
        "prob_median": min(max(float((weight * columns["prob_median"]).sum()), low), high),
        "prob_std": variance**0.5,
        "prob_counts": None,
    }


def _water(columns: Columns) -> float:
    """Return the mean by pixels; whole pixels where the parts count such, so that they add up exactly."""
    on_water = columns["water_fraction"] * columns["n_pixels"]
    whole = np.rint(on_water)
    pixels = columns["n_pixels"].sum()
    return float((np.where(np.abs(on_water - whole) < 1e-6, whole, on_water).sum()) / pixels)


SEAM_M = 0.001
"""Outlines this near to each other touch, in m: cells of one pixel grid agree to the last bits of their coordinates only."""

_PLACE = re.compile(r"y(-?\d+)x(-?\d+)$")


def merge_footprints(
    footprints: Sequence[geopandas.GeoDataFrame],
    *,
    min_area_m2: float = 0.0,
    complete: bool = True,
    valid: xr.DataArray | None = None,
    edge_distance: int = 10,
) -> geopandas.GeoDataFrame:
    """Merge the footprints of neighbouring cells and of overlapping scenes of one time.

    Outlines of one class and one day that touch, in an edge or a corner, or overlap become one, as they would on one
    map. The result depends neither on the order of tables and rows nor on how the map was cut.

    Parameters
    ----------
    footprints : sequence of geopandas.GeoDataFrame
        What `extract_footprints` gives, all in one CRS: the grid's, because EPSG:4326 is cut at the antimeridian. For
        cells give `extract_footprints` a `halo`: then the result is that of the whole map, to the last bit. Without,
        objects at the seams keep `touches_edge`, and those below `min_area_m2` on one side are lost there.
    min_area_m2 : float
        Smaller outlines are left out; geodesic area in m². Give what `extract_footprints` had: it keeps what is cut
        whatever its size.
    complete : bool
        All neighbours are here: nothing is cut any more. False keeps the columns `cut` and `prob_counts` and what is
        cut whatever its size, so that the result can be merged further.
    valid : xarray.DataArray, optional
        `valid` of the whole map, `(y, x)`, NumPy or dask: where footprints have `nodata_fraction`, that of united and cut ones
        is counted on it, because their boxes may reach into cells where nothing was found. Only these boxes are read.
        Without, it is missing.
    edge_distance : int
        What `extract_footprints` had, pixels, for the boxes.

    Returns
    -------
    geopandas.GeoDataFrame
        Sorted by time, class and first pixel. Rows that meet no other stay as they are. Of united ones:

        - footprint_id is that of the first pixel; class_name is common; date is the earliest, year common; scene_id,
          bundle_id and bundle_digest are listed, where they differ, sorted and separated by commas;
        - area_m2, perimeter_m and centroid are measured anew;
        - n_pixels is the sum; prob_min, prob_max, prob_mean and prob_std are those of all pixels; water_fraction
          is the mean by pixels; area_m2_t45 and the like are exact where every part has `prob_counts`, else their sum;
        - nodata_fraction is counted on `valid`, or missing; confidence_class is missing: apply the rule again;
        - prob_median is exact where every part has `prob_counts`. Without, medians cannot be pooled: it is their mean
          by pixels, which lies between the smallest and the largest of them;
        - ground that several scenes saw counts once for each in prob_*, and n_pixels is the sum times the united area
          over the sum of the areas;
        - touches_edge if a part does of which not at least half lies on parts that do not: another scene saw it whole;
        - further columns keep what all parts agree on, and are missing otherwise. `flags` are taken off all rows:
          clean again, because they speak of parts.

        An outline that is given twice counts once.

    Raises
    ------
    FootprintError
        There is no table, one is no footprints or in another CRS, or outlines that do not meet have one id.
    """
    if not (np.isfinite(min_area_m2) and min_area_m2 >= 0):
        raise FootprintError(f"min_area_m2 is a finite area of at least 0 m², not {min_area_m2}: 0 keeps everything")
    rows = concat(footprints)
    united = union_rows(rows, period="day")
    is_cut = united["cut"].astype(bool) if "cut" in united.columns and not complete else False
    kept = united[(united["area_m2"] >= min_area_m2) | is_cut]
    if complete:
        kept = kept.drop(columns=["cut", "prob_counts"], errors="ignore")
    merged = sort(kept)
    if valid is not None and complete and "nodata_fraction" in merged.columns:
        merged = _with_nodata(merged, valid, edge_distance=edge_distance)
    repeated = merged["footprint_id"].duplicated()
    if repeated.any():
        raise FootprintError(
            f"footprint_id {merged.loc[repeated, 'footprint_id'].iloc[0]!r} stands for outlines that do not meet: when "
            "merging predictions of several classes, times or grids, put the prediction's name before the id"
        )
    return merged


def _with_nodata(rows: geopandas.GeoDataFrame, valid: xr.DataArray, *, edge_distance: int) -> geopandas.GeoDataFrame:
    """Count the nodata of the boxes of the rows that lack it."""
    placement = Placement.of(valid.to_dataset(name="valid"))
    if CRS.from_user_input(rows.crs) != placement.crs:
        raise FootprintError(
            f"valid is in {placement.crs.name!r}, but the footprints are in {CRS.from_user_input(rows.crs).name!r}: give that of "
            "the map that they are of"
        )
    fractions = rows["nodata_fraction"].to_numpy(np.float64).copy()
    unknown = np.flatnonzero(np.isnan(fractions))
    there = valid.transpose("y", "x")

    def count(y: slice, x: slice) -> int:
        return int(np.count_nonzero(there[y, x].values == 1))

    fractions[unknown] = counted_nodata(
        np.asarray(rows.geometry.array[unknown], np.object_),
        (placement.transform, placement.shape),
        count_valid=count,
        reach=edge_distance,
    )
    return rows.assign(nodata_fraction=fractions)


def counted_nodata(
    outlines: NDArray[np.object_],
    raster: tuple[Affine, tuple[int, int]],
    *,
    count_valid: Callable[[slice, slice], int],
    reach: int,
) -> NDArray[np.float64]:
    """Return the part of the bounding box of each outline, widened by `reach` pixels, that is not valid.

    Parameters
    ----------
    outlines
        `(n,)` in the CRS of the raster.
    raster
        Its transform and shape.
    count_valid
        How many pixels of a window, rows and columns within the raster, are valid.
    reach
        Pixels.
    """
    fractions = np.empty(len(outlines), np.float64)
    transform, shape = raster
    boxes = padded_boxes(to_pixel_coordinates(outlines, transform), reach=reach)
    for number, (top, bottom, left, right) in enumerate(boxes.tolist()):
        y, x = (
            slice(min(max(start, 0), length), min(max(stop, 0), length))
            for start, stop, length in zip((top, left), (bottom, right), shape, strict=True)
        )
        size = (bottom - top) * (right - left)
        fractions[number] = (size - count_valid(y, x)) / size
    return fractions


def concat(footprints: Sequence[geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    """Return the rows of all tables in one order, each once, without flags.

    Raises
    ------
    FootprintError
        There is no table, or one is no footprints or in another CRS than the first.
    """
    tables = [footprints] if isinstance(footprints, geopandas.GeoDataFrame) else list(footprints)
    if not tables:
        raise FootprintError("footprints are merged from at least one table, but none came: give a list of tables")
    for number, table in enumerate(tables):
        try:
            validate_footprints(table)
        except FootprintError as error:
            raise FootprintError(f"table {number} of those to merge: {error}") from error
        if CRS.from_user_input(table.crs) != CRS.from_user_input(tables[0].crs):
            raise FootprintError(
                f"footprints are merged in one CRS, but table 0 is in {CRS.from_user_input(tables[0].crs).name!r} and "
                f"table {number} in {CRS.from_user_input(table.crs).name!r}: convert them, for example with "
                "footprints.to_crs(...)"
            )
    named = [
        table.rename_geometry("geometry") if table.geometry.name != "geometry" else table.reset_index(drop=True)
        for table in tables
    ]
    # Without the empty ones, because their dtypes say nothing about the columns.
    rows = pd.concat([table for table in named if len(table)] or named[:1], ignore_index=True)
    rows = _filled(rows.drop(columns="flags", errors="ignore"))
    rows = rows.assign(_shape=shapely.to_wkb(shapely.normalize(rows.geometry.array)))
    rows = rows.drop_duplicates(["footprint_id", "class_name", "date", "year", "scene_id", "_shape"])
    rows = rows.sort_values(["footprint_id", "scene_id", "bundle_digest", "_shape"], kind="stable")
    return rows.drop(columns="_shape").reset_index(drop=True)


def union_rows(rows: geopandas.GeoDataFrame, *, period: Literal["day", "year"]) -> geopandas.GeoDataFrame:
    """Unite rows of one class and period that meet; those that meet no other stay as they are.

    Parameters
    ----------
    rows : geopandas.GeoDataFrame
        As `concat` gives them.
    period : {"day", "year"}
        What one time is. Rows without a date are of one time if their year is the same, or missing likewise.
    """
    group = _groups(rows, _times(rows, period=period))
    size = np.bincount(group)
    alone = size[group] == 1
    order = np.argsort(group, kind="stable")
    several = [member for member in np.split(order, np.cumsum(size)[:-1]) if len(member) > 1]
    if not several:
        return rows
    first = [min(member, key=lambda row: _place_of(str(rows["footprint_id"].iat[row]))) for member in several]
    united = aggregate_counts(rows, several, first=first, tolerance=_seam(rows))
    return pd.concat([rows[alone], united], ignore_index=True)


def _place_of(footprint_id: str) -> tuple[float, float, str]:
    """Return row and column of the first pixel that an id names, or infinities, and the id."""
    found = _PLACE.search(footprint_id)
    row, column = (float(found[1]), float(found[2])) if found else (np.inf, np.inf)
    return row, column, footprint_id


def _seam(rows: geopandas.GeoDataFrame) -> float:
    """Return `SEAM_M` in the unit of the CRS."""
    return SEAM_M * longest_edge(CRS.from_user_input(rows.crs)) / 500.0


def _times(rows: geopandas.GeoDataFrame, *, period: Literal["day", "year"]) -> NDArray[np.int64]:
    """Return a number for each class and time."""
    year = rows["year"].astype("Int64").fillna(rows["date"].dt.year.astype("Int64")).fillna(-1)
    day = rows["date"].dt.floor("D") if period == "day" else pd.Series(pd.NaT, rows.index)
    key = pd.DataFrame({"class": rows["class_name"].fillna(""), "year": year, "day": day})
    return np.asarray(key.groupby(["class", "year", "day"], dropna=False, sort=True).ngroup(), np.int64)


def _groups(rows: geopandas.GeoDataFrame, times: NDArray[np.int64]) -> NDArray[np.int64]:
    one, other = intersecting(np.asarray(rows.geometry.array, np.object_), distance=_seam(rows))
    same = times[one] == times[other]
    return components(one[same], other[same], count=len(rows))


def _filled(rows: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return rows with plain None for every missing word, and with False where a table does not say what is cut."""
    for name in rows.select_dtypes(object).columns:
        rows[name] = rows[name].where(rows[name].notna(), None)
    if "cut" in rows.columns:
        rows["cut"] = rows["cut"].eq(other=True)
    return rows


def sort(rows: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return rows by time, class and first pixel."""
    row, column, name = zip(*map(_place_of, rows["footprint_id"]), strict=True) if len(rows) else ((), (), ())
    key = pd.DataFrame(
        {
            "date": rows["date"].to_numpy(),
            "year": rows["year"].astype("Int64").fillna(-1).to_numpy(),
            "class": rows["class_name"].fillna("").to_numpy(str),
            "row": row,
            "column": column,
            "name": name,
        }
    )
    return rows.iloc[key.sort_values(list(key.columns)).index].reset_index(drop=True)
