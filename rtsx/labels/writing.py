"""Labels on disk."""

from pathlib import Path

import geopandas

from rtsx.errors import LabelError
from rtsx.labels.schema import LABEL_COLUMNS, validate_labels
from rtsx.labels.table_file import format_hint, write_table
from rtsx.storage import local_path

__all__ = ["write_labels"]


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
    target = local_path(path)
    hint = format_hint(target, what="labels")
    if hint is not None:
        raise LabelError(hint)
    validate_labels(labels)
    ordered = labels[[*LABEL_COLUMNS, *(name for name in labels.columns if name not in LABEL_COLUMNS)]]
    return write_table(ordered, target, overwrite=overwrite, what="labels")
