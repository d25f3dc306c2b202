"""Level 1, one set of footprints per image; level 2, one set per year."""

from collections.abc import Mapping, Sequence

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from rtsx.errors import FootprintError
from rtsx.footprints.merge import concat, sort, union_rows
from rtsx.footprints.schema import reorder, validate_footprints


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
    """Return how many images of the year have the outline's inner point on their ground."""
    if images.crs is None or not {"date", "year"} & set(images.columns):
        raise FootprintError(
            f"images have a CRS and a column 'date' or 'year', but came with the CRS {images.crs} and the columns "
            f"{', '.join(map(str, images.columns))}: add them"
        )
    dated = "date" in images.columns
    year = pd.to_datetime(images["date"]).dt.year if dated else pd.to_numeric(images["year"], errors="coerce")
    if year.isna().any():
        raise FootprintError(f"every image has a year, but row {year.index[year.isna()][0]} of images has none: set it")
    ground = np.asarray(images.geometry.to_crs(rows.crs).array, np.object_)
    points = shapely.point_on_surface(np.asarray(rows.geometry.array, np.object_))
    row, image = shapely.STRtree(ground).query(points, predicate="within")
    same = rows["year"].to_numpy(np.int64)[row] == year.to_numpy(np.int64)[image]
    return np.bincount(row[same], minlength=len(rows))
