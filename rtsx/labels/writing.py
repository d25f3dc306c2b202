"""Labels on disk."""

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import geopandas
import pyogrio.errors

from rtsx.errors import LabelError, OutputExistsError, OutputNotWritableError
from rtsx.labels.schema import LABEL_COLUMNS, validate_labels

__all__ = ["LABEL_SUFFIXES", "write_labels"]

Writer = Callable[[geopandas.GeoDataFrame, Path, str], None]


def write_labels(labels: geopandas.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write labels to one file, complete or not at all.

    Parameters
    ----------
    labels : geopandas.GeoDataFrame
        In the one schema, as `standardise_labels` gives them; also without rows.
    path : str or pathlib.Path
        The ending chooses the format: ``.parquet`` (GeoParquet 1.1, zstd, with bounding boxes for spatial filters), which keeps
        every dtype, ``.gpkg`` (GeoPackage) or ``.fgb`` (FlatGeobuf).
    overwrite : bool
        Replace a file that is there; until the new one is complete, the old one stays.

    Returns
    -------
    pathlib.Path
        Where they are.

    Raises
    ------
    LabelError
        The ending is unknown, or `labels` are not what `validate_labels` expects.
    OutputExistsError
        The path is taken and `overwrite` is False.
    OutputNotWritableError
        The folder is missing or cannot be written to.
    """
    target = Path(path)
    if target.suffix.lower() not in _WRITERS:
        raise LabelError(
            f"Labels are kept in .parquet (GeoParquet), .gpkg (GeoPackage) or .fgb (FlatGeobuf) files, but {target.name!r} "
            f"ends in {target.suffix or 'nothing'!r}. Change the ending."
        )
    validate_labels(labels)
    if target.is_dir() or (target.exists() and not overwrite):
        raise OutputExistsError(f"{target} exists already. Choose another path, or replace a file with overwrite=True.")
    # In the same folder, because only a rename within a file system is atomic. The ending stays, drivers look at it.
    draft = target.with_name(f".{target.stem}-{uuid.uuid4().hex}{target.suffix}")
    ordered = labels[[*LABEL_COLUMNS, *(name for name in labels.columns if name not in LABEL_COLUMNS)]]
    try:
        _WRITERS[target.suffix.lower()](ordered, draft, target.stem)
        draft.replace(target)
    except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
        raise OutputNotWritableError(
            f"Writing {len(labels)} labels to {target} failed ({error}). Is its folder there and writable, and the disk not full?"
        ) from error
    finally:
        for leftover in target.parent.glob(f"{draft.name}*"):
            leftover.unlink()
    return target


def _write_parquet(labels: geopandas.GeoDataFrame, path: Path, layer: str) -> None:
    """Write GeoParquet, which has no layers and therefore no use for `layer`."""
    labels.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")


def _write_ogr(labels: geopandas.GeoDataFrame, path: Path, layer: str, *, driver: str) -> None:
    labels.to_file(
        path, driver=driver, layer=layer, engine="pyogrio", promote_to_multi=True, geometry_type="MultiPolygon"
    )


_WRITERS: dict[str, Writer] = {
    ".parquet": _write_parquet,
    ".gpkg": partial(_write_ogr, driver="GPKG"),
    ".fgb": partial(_write_ogr, driver="FlatGeobuf"),
}

LABEL_SUFFIXES = tuple(_WRITERS)
"""Endings of files that labels are written to."""
