"""Vector files as tables, whatever their format."""

from pathlib import Path
from typing import TypeAlias

import geopandas
import pyogrio
import pyogrio.errors

from rtsx.errors import InputNotFoundError, LabelError
from rtsx.storage import local_path

__all__ = ["LabelInput", "read_table"]

LabelInput: TypeAlias = str | Path | geopandas.GeoDataFrame
"""A vector file or a table in memory."""

_OGR = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
# IndexError, because that is what becomes of a FlatGeobuf that ends inside its header.
_UNREADABLE = (OSError, ValueError, IndexError, *_OGR)


def read_table(path: str | Path, *, layer: str | None) -> geopandas.GeoDataFrame:
    """Read a vector file: GeoParquet, or anything that GDAL reads.

    Parameters
    ----------
    path : str or pathlib.Path
        A local file.
    layer : str or None
        Which of several layers; None where there is one.

    Returns
    -------
    geopandas.GeoDataFrame
        All columns as they are stored.

    Raises
    ------
    LabelError
        The file cannot be read, has no geometry, or several layers of which none is chosen.
    InputNotFoundError
        There is no such file.
    """
    source = local_path(path)
    if not source.exists():
        raise InputNotFoundError(f"Labels are read from a file, but {source} is none. Check the path.")
    try:
        if source.suffix.lower() in (".parquet", ".geoparquet"):
            table = geopandas.read_parquet(source)
        else:
            table = geopandas.read_file(source, layer=_layer(source, layer))
    except _UNREADABLE as error:
        raise LabelError(
            f"{source} cannot be read as labels ({error}). Was it copied completely, a shapefile with its .shx, .dbf and "
            ".prj files?"
        ) from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise LabelError(f"{source} is a table without geometry, and labels are outlines. Give the file that has them.")
    return table


def _layer(source: Path, layer: str | None) -> str | None:
    names = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
    if layer is not None:
        if layer not in names:
            raise LabelError(f"{source} has no layer {layer!r}; there are {', '.join(names) or 'none'}.")
        return layer
    if len(names) > 1:
        raise LabelError(f"{source} has several layers: {', '.join(names)}. Choose one with layer= (--layer).")
    return names[0] if names else None
