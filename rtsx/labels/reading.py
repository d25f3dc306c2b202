"""Vector files as tables, whatever their format."""

from pathlib import Path
from typing import TypeAlias

import geopandas
import pyogrio
import pyogrio.errors

from rtsx.errors import InputNotFoundError, LabelError
from rtsx.storage import absolute

__all__ = ["LabelInput", "read_table", "without_layer"]

LabelInput: TypeAlias = str | Path | geopandas.GeoDataFrame
"""A vector file or a table in memory."""

_OGR = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError)
# IndexError, because that is what becomes of a FlatGeobuf that ends inside its header.
_UNREADABLE = (OSError, ValueError, IndexError, *_OGR)


def read_table(path: str | Path, *, layer: str | None = None, what: str = "labels") -> geopandas.GeoDataFrame:
    """Read a vector file: GeoParquet, or anything that GDAL reads.

    Parameters
    ----------
    path : str or pathlib.Path
        A local file, or what GDAL opens; `slumps.gpkg|layername=north`, as QGIS has it, is one of its layers.
    layer : str or None
        Which of several layers; None where there is one, or where the path says it.
    what : str
        What the rows are, for messages.

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
    source, named = without_layer(path)
    if not ("://" in source or source.startswith("/vsi") or Path(source).exists()):
        raise InputNotFoundError(f"{what.capitalize()} are read from a file, but {source} is none. Check the path.")
    is_parquet = Path(source).suffix.lower() in (".parquet", ".geoparquet")
    try:
        # By the name of the file, because that is what GDAL calls the only layer of a format without layers.
        names = [Path(source).stem] if is_parquet else _layers(source)
        chosen = _layer(source, names, named if layer is None else layer)
        table = geopandas.read_parquet(source) if is_parquet else geopandas.read_file(source, layer=chosen)
    except LabelError:
        raise
    except _UNREADABLE as error:
        parts = ", with its .shx, .dbf and .prj files" if Path(source).suffix.lower() == ".shp" else ""
        raise LabelError(f"{source} cannot be read as {what} ({error}). Was it copied completely{parts}?") from error
    if not isinstance(table, geopandas.GeoDataFrame):
        raise LabelError(f"{source} is a table without geometry, and {what} are outlines. Give the file that has them.")
    return table


def without_layer(path: str | Path) -> tuple[str, str | None]:
    """The absolute path of a file, and the name of a layer that stands behind it.

    Examples
    --------
    >>> without_layer("/data/slumps.gpkg|layername=north"), without_layer("/data/slumps.shp")
    (('/data/slumps.gpkg', 'north'), ('/data/slumps.shp', None))
    """
    source, _, layer = str(path).partition("|layername=")
    return absolute(source), layer or None


def _layers(source: str) -> list[str]:
    return [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]


def _layer(source: str, names: list[str], layer: str | None) -> str | None:
    if layer is not None:
        if layer not in names:
            raise LabelError(f"{source} has no layer {layer!r}; there are {', '.join(names) or 'none'}.")
        return layer
    if len(names) > 1:
        raise LabelError(
            f"{source} has several layers: {', '.join(names)}. Name the file with the one that is meant: "
            f"'{source}|layername={names[-1]}'."
        )
    return names[0] if names else None
