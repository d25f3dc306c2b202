"""A table of outlines as one file: complete or not at all, in the format that its ending names."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import geopandas
import pyogrio.errors

from rtsx.errors import OutputNotWritableError
from rtsx.storage import staged

__all__ = ["format_hint", "write_table"]

_Writer = Callable[[geopandas.GeoDataFrame, Path, str], None]


def write_table(table: geopandas.GeoDataFrame, target: Path, *, overwrite: bool, what: str) -> Path:
    """Write a table that has been checked, by way of a hidden draft beside it.

    Parameters
    ----------
    table : geopandas.GeoDataFrame
        Polygons and MultiPolygons.
    target : pathlib.Path
        With an ending that `format_hint` knows.
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.
    what : str
        What the rows are, for messages, such as "footprints".

    Raises
    ------
    OutputExistsError
        The path is taken and `overwrite` is False, or it is a folder.
    OutputNotWritableError
        The folder is missing or cannot be written to, or the disk is full.
    """
    write = _WRITERS[target.suffix.lower()]
    if not target.parent.is_dir():
        raise OutputNotWritableError(
            f"the folder of {target} must exist and be writable, but there is no such folder: create it, or choose another"
        )
    with staged(target, overwrite=overwrite) as draft:
        try:
            # GeoPackage takes no layer whose name begins with one of these.
            write(table, draft, target.stem.lstrip("`~!@#$%^&*()+-={}|[]\\:\";'<>?,./ ") or what)
        except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
            raise OutputNotWritableError(
                f"writing {len(table)} {what} to {target} failed ({error}): is the disk full?"
            ) from error
    return target


def format_hint(path: Path, *, what: str) -> str | None:
    """What is wrong with an ending, and what it could be; None where it is known.

    Examples
    --------
    >>> format_hint(Path("a.parquet"), what="labels") is None
    True
    """
    if path.suffix.lower() in _WRITERS:
        return None
    return (
        f"{what} are kept in .parquet (GeoParquet), .gpkg (GeoPackage) or .fgb (FlatGeobuf) files, but "
        f"{path.name!r} ends in {path.suffix or 'nothing'!r}: change the ending"
    )


def _write_parquet(table: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    """Write GeoParquet, which has no layers and therefore no use for `layer`."""
    table.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")


def _write_ogr(table: geopandas.GeoDataFrame, path: Path, layer: str, *, driver: str) -> None:
    table.to_file(
        path, driver=driver, layer=layer, engine="pyogrio", promote_to_multi=True, geometry_type="MultiPolygon"
    )


_WRITERS: dict[str, _Writer] = {
    ".parquet": _write_parquet,
    ".gpkg": partial(_write_ogr, driver="GPKG"),
    ".fgb": partial(_write_ogr, driver="FlatGeobuf"),
}
