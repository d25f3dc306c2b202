"""Footprints and tracks on disk: GeoParquet, GeoPackage and FlatGeobuf."""

from pathlib import Path

import geopandas
import shapely

from rtsx.errors import FootprintError, LabelError
from rtsx.footprints.schema import COLUMNS, conform, validate_footprints
from rtsx.footprints.tracks import check_tracks
from rtsx.labels.reading import read_table, without_layer
from rtsx.labels.table_file import format_hint, write_table
from rtsx.storage import local_path

__all__ = ["as_written", "read_footprints", "write_footprints", "write_tracks"]


def write_footprints(footprints: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write footprints to one file, complete or not at all.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        What `extract_footprints` gives, also without rows.
    path : str or pathlib.Path
        The ending chooses the format: `.parquet` (GeoParquet 1.1, zstd, with bounding boxes for spatial filters),
        `.gpkg` (GeoPackage) or `.fgb` (FlatGeobuf). GeoPackage and FlatGeobuf hold every outline as a MultiPolygon.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    FootprintError
        The ending is unknown, or `footprints` is not what `validate_footprints` expects.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = local_path(path)
    _check_format(target)
    validate_footprints(footprints)
    return write_table(footprints, target, overwrite=overwrite, what="footprints")


def write_tracks(tracks: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write tracks to one file, complete or not at all.

    Parameters
    ----------
    tracks : geopandas.GeoDataFrame
        What `track_footprints` gives.
    path : str or pathlib.Path
        As in `write_footprints`.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    FootprintError
        The ending is unknown, or `tracks` has not the columns of tracks.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = local_path(path)
    _check_format(target)
    check_tracks(tracks)
    return write_table(tracks, target, overwrite=overwrite, what="tracks")


def read_footprints(path: str | Path) -> geopandas.GeoDataFrame:
    """Read footprints that `write_footprints` wrote, with the columns and dtypes they had.

    Parameters
    ----------
    path : str or pathlib.Path
        A `.parquet`, `.gpkg` or `.fgb` file; `slumps.gpkg|layername=north` is one layer of several.

    Returns
    -------
    geopandas.GeoDataFrame
        Footprints; MultiPolygons of one part are Polygons again.

    Raises
    ------
    FootprintError
        The ending is unknown, or the file holds something else.
    InputNotFoundError
        There is no such file.
    """
    source, _ = without_layer(path)
    _check_format(Path(source))
    try:
        table = read_table(path, what="footprints")
    except LabelError as error:
        raise FootprintError(str(error)) from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise FootprintError(
            f"{source} holds no footprints of rtsx: the columns {', '.join(missing)} are missing; "
            "read other outlines with geopandas"
        )
    return as_written(table)


def as_written(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Return footprints as they were before a file made something else of their columns and dtypes."""
    geometry = table.geometry
    parts = shapely.get_num_geometries(geometry.array)
    single = shapely.get_geometry(geometry.array, 0)
    geometry = geopandas.GeoSeries(
        [one if count == 1 else whole for one, whole, count in zip(single, geometry, parts, strict=True)],
        index=table.index,
        crs=table.crs,
    )
    if "flags" in table.columns:
        table["flags"] = table["flags"].fillna("")  # no format tells empty from missing for certain
    footprints = conform(dict(table.items()), geometry)
    extra = [name for name in table.columns if name not in {*footprints.columns, table.geometry.name}]
    return footprints.join(table[extra]) if extra else footprints


def _check_format(path: Path) -> None:
    hint = format_hint(path, what="footprints")
    if hint is not None:
        raise FootprintError(hint)
