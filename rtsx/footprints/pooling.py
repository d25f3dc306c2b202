"""The attributes of outlines that become one."""

from collections.abc import Callable, Sequence
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.footprints.pieces import Pieces, format_counts, parse_counts
from rtsx.footprints.pyproj import centroids, measure
from rtsx.footprints.schema import COLUMNS, OPTIONAL
from rtsx.footprints.shapely import unite_on_ground

__all__ = ["pool"]

_LISTED = ("scene_id", "bundle_id", "bundle_digest", "images")
"""Columns whose entries are put together as a list separated by commas, where they differ."""

_STATISTICS = ("n_pixels", "prob_min", "prob_max", "prob_mean", "prob_median", "prob_std")

Columns = dict[str, NDArray[Any]]
Members = NDArray[np.int64]


def pool(
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
    geometry[:] = [unite_on_ground(outlines[members], tolerance=tolerance) for members in groups]
    crs = CRS.from_user_input(rows.crs)
    area, perimeter = measure(geometry, crs)
    lat, lon = centroids(geometry, crs)
    # Arrays, instead of a table for each group, which would cost a millisecond.
    columns: Columns = {name: rows[name].to_numpy() for name in rows.columns if name != "geometry"}
    described = [
        _describe({name: column[members] for name, column in columns.items()}, outlines[members], united)
        for members, united in zip(groups, geometry, strict=True)
    ]
    pooled: dict[str, Any] = {
        "footprint_id": columns["footprint_id"][list(first)],
        "area_m2": area,
        "perimeter_m": perimeter,
        "centroid_lat": lat,
        "centroid_lon": lon,
    }
    pooled |= {name: [one[name] for one in described] for name in columns if name not in pooled}
    table = pd.DataFrame({name: pd.Series(pooled[name], dtype=_dtype(rows, name)) for name in columns})
    return geopandas.GeoDataFrame(table, geometry=geometry, crs=rows.crs)


def _dtype(rows: geopandas.GeoDataFrame, name: str) -> Any:
    """Return the dtype of a united column: for further ones object, because some of it may be missing."""
    return rows[name].dtype if name in COLUMNS or name in OPTIONAL else np.dtype(object)


def _describe(columns: Columns, outlines: NDArray[np.object_], united: shapely.Geometry) -> dict[str, object]:
    """Return the attributes of one group, but for its id, place and measures."""
    seen_once = float(shapely.area(united) / shapely.area(outlines).sum())
    if seen_once > 1 - 1e-9:
        seen_once = 1.0
    attributes: dict[str, Any] = {name: _agreed(column) for name, column in columns.items()}
    attributes |= {name: _listed(columns[name]) for name in _LISTED if name in columns}
    for name, take in _EXTREMES.items():
        if name in columns:
            known = columns[name][~pd.isna(columns[name])]
            attributes[name] = take(known) if len(known) else pd.NaT
    attributes["touches_edge"] = _touches_edge(columns["touches_edge"], outlines)
    if "cut" in columns:
        attributes["cut"] = bool(columns["cut"].any())
    exact = _exact(columns) if seen_once == 1.0 else None
    attributes |= _pooled(columns, seen_once=seen_once) if exact is None else exact
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


def _exact(columns: Columns) -> dict[str, object] | None:
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
    nothing = np.zeros(1, bool)
    pieces = Pieces(
        geometry=np.full(1, None, np.object_),
        first=np.zeros(1, np.int64),
        touches_edge=nothing,
        cut=nothing,
        n_water=np.zeros(1, np.int64),
        owner=np.zeros(len(level), np.int64),
        level=level,
        count=count,
    )
    outlines = pieces.finish(levels)
    statistics: dict[str, object] = {name: getattr(outlines, name)[0] for name in _STATISTICS}
    return statistics | {"prob_counts": format_counts(level, count, levels=levels)}


def _pooled(columns: Columns, *, seen_once: float) -> dict[str, object]:
    """Return statistics by the pixels of each part; the median is the mean of medians."""
    weight = columns["n_pixels"] / columns["n_pixels"].sum()
    mean = float((weight * columns["prob_mean"]).sum())
    # Variance within the parts plus variance between them.
    variance = float((weight * (columns["prob_std"] ** 2 + (columns["prob_mean"] - mean) ** 2)).sum())
    low, high = columns["prob_min"].min(), columns["prob_max"].max()
    return {
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
