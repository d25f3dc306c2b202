"""One row per track: when it was seen, how it grew, what became of it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rtsx.errors import FootprintError
from rtsx.footprints.tracks import check_tracks

STATUSES = ("new", "growing", "stable", "shrinking", "gone", "merged")
"""What can become of a track; `track_summary` says how it is told."""

Floats = NDArray[np.float64]


def track_summary(
    tracks: pd.DataFrame, *, years: Sequence[int] | None = None, stable_within: float = 0.1
) -> pd.DataFrame:
    """Summarise tracks, one row each.

    Parameters
    ----------
    tracks : pandas.DataFrame
        What `track_footprints` gives, also without its geometry.
    years : sequence of int, optional
        The years that were mapped; default what `tracks.attrs["years"]` says, else the years that occur. Give them
        where tracks come from a file and nothing was found in the last year.
    stable_within : float
        A track whose area has changed by no more than this part of the first area is stable.

    Returns
    -------
    pandas.DataFrame
        Sorted by track_id, with the columns

        - track_id, family_id, class_name;
        - first_seen, last_seen, n_years (years in which it was seen), n_outlines;
        - status: "merged" (its ground goes on in `merged_into`), "gone" (not seen in the last year), "new" (seen in
          the last year for the first time, where there is more than one), else "growing", "stable" or "shrinking", by
          `growth_relative` and `stable_within`;
        - growth_m2: last area minus first area; growth_m2_per_a: slope of the least-squares line through the areas of
          all years in which it was seen, m² per year; growth_relative: growth_m2 / first area. Missing where it was
          seen in one year only;
        - n_splits, n_merges: outlines of the track that are so called; merged_from: tracks that ended in this one,
          merged_into: the one this ended in; separated by commas, empty for none;
        - area_<year>_m2, for every year: the sum of its outlines, missing where it was not seen. A track that took in
          others counts theirs, from its own first year on, so that a merger is no growth. To add up all tracks of a
          year, use the areas in `tracks` instead, because ground before a merger stands in both.

    Raises
    ------
    FootprintError
        `tracks` is no table of tracks, a number is out of its range, or `years` lacks one that occurs.

    Examples
    --------
    >>> import geopandas
    >>> from shapely import box
    >>> from rtsx.footprints import track_footprints
    >>> def found(size):
    ...     return geopandas.GeoDataFrame({"footprint_id": ["y0x0"]}, geometry=[box(0, 0, size, 30)], crs="EPSG:32608")
    >>> summary = track_summary(track_footprints({2022: found(30), 2024: found(45)}))
    >>> summary[["status", "first_seen", "last_seen"]].to_dict("split")["data"]
    [['growing', 2022, 2024]]
    >>> bool(np.isclose(summary.loc[0, "growth_m2_per_a"], summary.loc[0, "growth_m2"] / 2))
    True
    """
    if not (np.isfinite(stable_within) and stable_within >= 0):
        raise FootprintError(
            f"stable_within is a part of the first area, at least 0, not {stable_within}: 0.1 allows 10 per cent"
        )
    check_tracks(tracks)
    mapped = _mapped_years(tracks, years)
    names, track = np.unique(tracks["track_id"].to_numpy(str), return_inverse=True)
    year = np.searchsorted(mapped, tracks["year"].to_numpy())
    shape = (len(names), len(mapped))
    area, outlines = np.zeros(shape), np.zeros(shape, np.int64)
    np.add.at(area, (track, year), tracks["area_m2"].to_numpy())
    np.add.at(outlines, (track, year), 1)
    seen = outlines > 0
    into = _mergers(tracks, names, track)
    area = np.where(seen, _with_mergers(area, seen, into=into), np.nan)
    return _tabulate(tracks, (names, track), area=area, into=into, mapped=mapped, stable_within=stable_within)


def _mapped_years(tracks: pd.DataFrame, years: Sequence[int] | None) -> NDArray[np.int64]:
    given = tracks.attrs.get("years", tracks["year"]) if years is None else years
    mapped = np.unique(np.asarray(given, np.int64))
    lacking = np.setdiff1d(tracks["year"], mapped)
    if len(lacking):
        raise FootprintError(
            f"years are those that were mapped, but {lacking[0]} occurs in the tracks and not in {mapped.tolist()}: "
            "add it, or leave years out"
        )
    return mapped


def _mergers(tracks: pd.DataFrame, names: NDArray[np.str_], track: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of the track in which each one ended, or -1."""
    into = np.full(len(names), -1, np.int64)
    taking = np.flatnonzero(tracks["merged_tracks"].to_numpy(str) != "")
    for row, listed in zip(taking, tracks["merged_tracks"].iloc[taking], strict=True):
        ended = np.array(listed.split(","))
        place = np.minimum(np.searchsorted(names, ended), len(names) - 1)
        into[place[names[place] == ended]] = track[row]
    return into


def _with_mergers(area: Floats, seen: NDArray[np.bool_], *, into: NDArray[np.int64]) -> Floats:
    """Add the areas of every track to those of the one it ended in, and so on from there."""
    total = area.copy()
    # Last sightings ascending, because what a track has taken in has to be complete before it is handed on.
    last = seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    for number in np.lexsort((np.arange(len(into)), last)):
        if into[number] >= 0:
            total[into[number]] += total[number]
    return total


def _tabulate(
    tracks: pd.DataFrame,
    numbered: tuple[NDArray[np.str_], NDArray[np.int64]],
    *,
    area: Floats,
    into: NDArray[np.int64],
    mapped: NDArray[np.int64],
    stable_within: float,
) -> pd.DataFrame:
    names, track = numbered
    count = len(names)
    seen = np.isfinite(area)
    n_years = seen.sum(axis=1)
    first, last = np.argmax(seen, axis=1), seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    growth, slope, relative = _growth(area, mapped)
    row = np.zeros(count, np.int64)
    row[track[::-1]] = np.arange(len(track))[::-1]
    ended = np.flatnonzero(into >= 0)
    merged_from = [""] * count
    for number in ended:
        merged_from[into[number]] += f",{names[number]}" if merged_from[into[number]] else str(names[number])
    event = tracks["event"].to_numpy(str)
    newest = len(mapped) - 1
    status = np.select(
        [
            into >= 0,
            last < newest,
            (first == newest) & (newest > 0),
            relative > stable_within,
            relative < -stable_within,
        ],
        ["merged", "gone", "new", "growing", "shrinking"],
        "stable",
    )
    summary: dict[str, object] = {
        "track_id": names.astype(object),
        "family_id": tracks["family_id"].to_numpy(object)[row],
        "class_name": tracks["class_name"].to_numpy(object)[row],
        "first_seen": mapped[first],
        "last_seen": mapped[last],
        "n_years": n_years,
        "n_outlines": np.bincount(track, minlength=count),
        "status": status.astype(object),
        "growth_m2": growth,
        "growth_m2_per_a": slope,
        "growth_relative": relative,
        "n_splits": np.bincount(track[np.char.startswith(event, "split")], minlength=count),
        "n_merges": np.bincount(track[np.char.endswith(event, "merge")], minlength=count),
        "merged_from": merged_from,
        "merged_into": np.where(into >= 0, names.astype(object)[into], "") if count else [],
    }
    return pd.DataFrame({**summary, **{f"area_{year}_m2": area[:, number] for number, year in enumerate(mapped)}})


def _growth(area: Floats, mapped: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return last minus first area, the least-squares slope per year, and the first divided by the first area."""
    seen = np.isfinite(area)
    if area.size == 0:
        return np.empty(len(area)), np.empty(len(area)), np.empty(len(area))
    rows = np.arange(len(area))
    first = area[rows, np.argmax(seen, axis=1)]
    last = area[rows, area.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)]
    several = seen.sum(axis=1) > 1
    time = np.where(seen, mapped.astype(float), 0.0)
    count = seen.sum(axis=1, keepdims=True)
    away = np.where(seen, time - time.sum(axis=1, keepdims=True) / count, 0.0)
    filled = np.where(seen, area, 0.0)
    spread = np.where(several, (away**2).sum(axis=1), 1.0)
    slope = (away * filled).sum(axis=1) / spread
    growth, slope = np.where(several, last - first, np.nan), np.where(several, slope, np.nan)
    return growth, slope, growth / first
