"""A table of outlines as one file: complete or not at all, in the format that its ending names."""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import geopandas
import pyogrio.errors

from rtsx.errors import OutputExistsError, OutputNotWritableError

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
    if target.is_dir() or (target.exists() and not overwrite):
        cure = "choose another name" if target.is_dir() else "choose another name or pass overwrite=True"
        raise OutputExistsError(f"{what} go to a new file, but {target} exists already: {cure}")
    # In the same folder, instead of a temporary one, because only a rename within a file system is atomic. The ending
    # stays last, because the drivers look at it.
    draft = target.with_name(f".{target.stem}-{uuid.uuid4().hex}{target.suffix}")
    try:
        draft.touch(exist_ok=False)
        draft.unlink()
    except OSError as error:
        raise OutputNotWritableError(
            f"the folder of {target} must exist and be writable, but {error.strerror or error}: "
            "create it, change its permissions, or choose another"
        ) from error
    try:
        write(table, draft, target.stem)
        draft.replace(target)
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
        raise OutputNotWritableError(
            f"writing {len(table)} {what} to {target} failed ({error}): is the disk full?"
        ) from error
    finally:
        for leftover in target.parent.glob(f"{draft.name}*"):
            leftover.unlink()
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
