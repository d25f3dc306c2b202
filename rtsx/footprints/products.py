"""Level 1, one set of footprints per image; level 2, one set per year; and one row per track: when it was seen, how it grew, what became of it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dask.array as da
import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube.encoding import as_mask
from rtsx.cube.georeference import geobox_of
from rtsx.cube.times import image_years
from rtsx.errors import FootprintError
from rtsx.footprints.merge import concat, sort, union_rows
from rtsx.footprints.schema import reorder, validate_footprints
from rtsx.footprints.tracks import check_tracks
from rtsx.geometry.crs import apply_affine, crs_text

if TYPE_CHECKING:
    import xarray as xr


def level1_footprints(footprints: geopandas.GeoDataFrame) -> dict[str, geopandas.GeoDataFrame]:
    """Take footprints of several images apart: one set per image, with its time.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        What `extract_footprints` gives for a prediction with a time dimension, or several such tables joined.

    Returns
    -------
    dict of str to geopandas.GeoDataFrame
        By `scene_id`, in the order of dates; where rows have none, by their date.

    Raises
    ------
    FootprintError
        A row has no date, so that its image has no time; or one image has several.
    """
    validate_footprints(footprints)
    undated = footprints["date"].isna()
    if undated.any():
        raise FootprintError(
            f"level 1 is one set per image with its time, but row {undated.index[undated][0]} has no date: predict on a "
            "cube with the coordinate 'time', or set footprints['date']"
        )
    named = footprints["scene_id"].where(footprints["scene_id"].notna(), footprints["date"].astype(str))
    dates = footprints["date"].groupby(named).agg(["min", "max"])
    several = dates.index[dates["min"] != dates["max"]]
    if len(several):
        raise FootprintError(
            f"an image has one time, but {several[0]!r} has {dates.loc[several[0], 'min']} and "
            f"{dates.loc[several[0], 'max']}: give each image its own scene_id"
        )
    images = dates.sort_values("min", kind="stable").index
    return {str(image): footprints[named == image].reset_index(drop=True) for image in images}


def level2_footprints(
    level1: Sequence[geopandas.GeoDataFrame] | Mapping[str, geopandas.GeoDataFrame],
    *,
    images: geopandas.GeoDataFrame | None = None,
) -> dict[int, geopandas.GeoDataFrame]:
    """Make one set per year of the sets of its images: outlines of one class that meet in a year become one.

    Parameters
    ----------
    level1 : sequence or mapping of geopandas.GeoDataFrame
        The sets of all images, of any years, in one CRS.
    images : geopandas.GeoDataFrame, optional
        What every image could see, also those in which nothing was found: a column `date` or `year`, and the ground
        with valid data as polygons in any CRS. Without, nobody knows which images could have seen an outline.

    Returns
    -------
    dict of int to geopandas.GeoDataFrame
        By ascending year. Outlines are united, and attributes put together, as `merge_footprints` says, with

        - date: missing, because an outline of a year has none; first_date and last_date: of the images that show it;
        - scene_id: the images that show it, sorted and separated by commas; n_images: how many they are;
        - n_images_possible: how many images of the year have a point inside the outline, or n_images if that is more;
          missing without `images`.

    Raises
    ------
    FootprintError
        A row has neither date nor year, tables are in several CRS, or `images` lacks a year, CRS or ground.
    """
    rows = concat(list(level1.values()) if isinstance(level1, Mapping) else level1)
    year = rows["year"].astype("Int32").fillna(rows["date"].dt.year.astype("Int32"))
    if year.isna().any():
        raise FootprintError(
            f"level 2 is one set per year, but footprint_id {rows.loc[year.isna(), 'footprint_id'].iloc[0]!r} has neither "
            "a date nor a year: set footprints['year']"
        )
    rows = rows.assign(
        year=year,
        first_date=rows["date"],
        last_date=rows["date"],
        date=pd.Series(pd.NaT, index=rows.index, dtype=rows["date"].dtype),
        # A row that names no scene stands for one image all the same: that of its date.
        images=rows["scene_id"].where(rows["scene_id"].notna(), rows["date"].astype(str)),
    )
    united = union_rows(rows, period="year")
    seen = united.pop("images").str.split(",").map(lambda listed: len(set(listed))).astype("Int32")
    united["n_images"] = seen
    united["n_images_possible"] = pd.array([pd.NA] * len(united), dtype="Int32")
    if images is not None:
        possible = pd.Series(_possible(united, images), index=united.index, dtype="Int32")
        short = int((possible < seen).sum())
        if short:
            warnings.warn(
                f"{short} of {len(united)} outlines were found in more images than lie on them by the table of images. Is that of another "
                "place or year, or in another CRS than it says? Their n_images_possible is n_images.",
                RuntimeWarning,
                stacklevel=2,
            )
        united["n_images_possible"] = possible.where(possible >= seen, seen)
    united = reorder(sort(united.drop(columns=["cut", "prob_counts"], errors="ignore")))
    repeated = united.duplicated(["year", "footprint_id"])
    if repeated.any():
        raise FootprintError(
            f"footprint_id {united.loc[repeated, 'footprint_id'].iloc[0]!r} stands for outlines of one year that do not "
            "meet: when joining predictions of several grids, put the prediction's name before the id"
        )
    return {int(one): table.reset_index(drop=True) for one, table in united.groupby("year", sort=True)}


def _possible(rows: geopandas.GeoDataFrame, images: geopandas.GeoDataFrame) -> NDArray[np.int64]:
    """Return how many images of the year have the outline's inner point on their ground; one that is listed twice is one."""
    if images.crs is None or not {"date", "year"} & set(images.columns):
        crs = None if images.crs is None else crs_text(CRS.from_user_input(images.crs))
        raise FootprintError(
            f"images have a CRS and a column 'date' or 'year', but came with the CRS {crs} and the columns "
            f"{', '.join(map(str, images.columns))}: add them"
        )
    # By a year alone, several images of one ground cannot be told apart.
    known = [name for name in ("scene_id", "date") if name in images.columns]
    if known:
        ground = shapely.to_wkb(np.asarray(images.geometry.array, np.object_))
        images = images[~images[known].astype(str).assign(ground=ground).duplicated().to_numpy()]
    dated = "date" in images.columns
    year = (
        pd.to_datetime(images["date"], errors="coerce").dt.year
        if dated
        else pd.to_numeric(images["year"], errors="coerce")
    )
    if year.isna().any():
        raise FootprintError(f"every image has a year, but row {year.index[year.isna()][0]} of images has none: set it")
    ground = np.asarray(images.geometry.to_crs(rows.crs).array, np.object_)
    points = shapely.point_on_surface(np.asarray(rows.geometry.array, np.object_))
    row, image = shapely.STRtree(ground).query(points, predicate="within")
    same = rows["year"].to_numpy(np.int64)[row] == year.to_numpy(np.int64)[image]
    return np.bincount(row[same], minlength=len(rows))


STATUSES = ("new", "growing", "stable", "shrinking", "gone", "unseen", "merged")
"""What can become of a track; `track_summary` says how it is found."""

Floats = NDArray[np.float64]


def track_summary(
    tracks: pd.DataFrame,
    *,
    years: Sequence[int] | None = None,
    stable_within: float = 0.1,
    last_map: "xr.Dataset | None" = None,
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
    last_map : xarray.Dataset, optional
        Map of the last year on (y, x), whose `valid` tells ground that was seen without an outline from ground that was not seen,
        as under cloud. Read at one point within each outline; tracks then need their geometry.

    Returns
    -------
    pandas.DataFrame
        Sorted by track_id, with the columns

        - track_id, family_id, class_name;
        - first_seen, last_seen, n_years (years in which it was seen), n_outlines;
        - status: "merged" (its ground goes on in `merged_into`), "gone" (not seen in the last year), "unseen" (neither was its
          ground, by `last_map`: no outline of it has its point on a valid pixel), "new" (seen in
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
        `tracks` is no table of tracks, a number is out of its range, `years` lacks one that occurs, or `last_map` is no map of one
        time with `valid`.

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
    summary = _tabulate(tracks, (names, track), area=area, into=into, mapped=mapped, stable_within=stable_within)
    if last_map is not None:
        is_gone = summary["status"].to_numpy() == "gone"
        newest = pd.Series(year).groupby(track).transform("max").to_numpy()
        rows = np.flatnonzero(is_gone[track] & (year == newest))
        is_seen = np.zeros(len(names), bool)
        is_seen[track[rows[_is_valid(tracks.iloc[rows], last_map, year=int(mapped[-1]))]]] = True
        summary.loc[is_gone & ~is_seen, "status"] = "unseen"
    return summary


def _is_valid(tracks: pd.DataFrame, last_map: "xr.Dataset", *, year: int) -> NDArray[np.bool_]:
    """Test of each outline whether a point within it lies on a valid pixel of a map of a year."""
    variables = getattr(last_map, "data_vars", {})
    if "valid" not in variables or set(variables["valid"].dims) != {"y", "x"}:
        found = {name: one.dims for name, one in variables.items()} or type(last_map).__name__
        raise FootprintError(
            f"last_map is a Dataset of one time, whose `valid` on (y, x) says which pixels were seen; got {found}: select the last year, such "
            "as with isel(time=-1)"
        )
    stated = image_years(last_map)
    if stated and not min(stated) <= year <= max(stated):
        raise FootprintError(
            f"last_map is of {min(stated)}, and the last year of the tracks is {year}: give the map of that year"
        )
    if not len(tracks):
        return np.zeros(0, bool)
    if not isinstance(tracks, geopandas.GeoDataFrame):
        raise FootprintError(
            "where tracks lie is known by their geometry only: give them with it, or leave last_map out"
        )
    geobox = geobox_of(last_map)
    points = tracks.geometry.representative_point().to_crs(str(geobox.crs))
    columns, rows = apply_affine(~geobox.affine, points.x.to_numpy(), points.y.to_numpy())
    is_seen = (
        (columns >= 0) & (rows >= 0) & (columns < geobox.shape.x) & (rows < geobox.shape.y)
    )  # of no geometry it is not
    valid = as_mask(last_map["valid"]).transpose("y", "x").data
    valid = valid.vindex if isinstance(valid, da.Array) else valid
    is_seen[is_seen] = np.asarray(valid[rows[is_seen].astype(np.int64), columns[is_seen].astype(np.int64)])
    return is_seen


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
