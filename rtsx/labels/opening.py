"""Labels for training and evaluation, in the one schema whatever they come in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas

from rtsx.errors import LabelError
from rtsx.labels.inventory import standardise_labels
from rtsx.labels.reading import LabelInput, read_table
from rtsx.labels.schema import LABEL_COLUMNS, conform, validate_labels

__all__ = ["read_labels"]


def read_labels(
    source: LabelInput,
    *,
    columns: Mapping[str, str | None] | None = None,
    class_name: str | Mapping[Any, str] | None = None,
    crs: str | None = None,
    layer: str | None = None,
) -> geopandas.GeoDataFrame:
    """Read labels of any vector format, CRS and schema, for training and evaluation.

    A table in the schema is checked and returned as it is; any other is standardised on the way. Because that returns no
    report, it refuses a source of which rows would be dropped, other than repetitions.

    Parameters
    ----------
    source : str, pathlib.Path or geopandas.GeoDataFrame
        A vector file, or a table.
    columns, class_name, crs, layer
        As in `standardise_labels`.

    Returns
    -------
    geopandas.GeoDataFrame
        In EPSG:4326, with the columns of `LABEL_COLUMNS`.

    Raises
    ------
    LabelError
        What `standardise_labels` raises; or a row would be dropped.
    InputNotFoundError
        There is no such file.
    """
    table: geopandas.GeoDataFrame = read_table(source, layer=layer) if isinstance(source, str | Path) else source
    if set(LABEL_COLUMNS) <= set(table.columns) and columns is None and class_name is None and crs is None:
        return _checked(table)
    # The file again, instead of the table, because its name is what the labels are traced back to.
    inventory = standardise_labels(source, columns=columns, class_name=class_name, crs=crs, layer=layer)
    lost = [one for one in inventory.report.dropped if "duplicate" not in one.problem]
    if lost:
        first = lost[0]
        raise LabelError(
            f"{len(lost)} of {len(table)} rows of {first.source} cannot be labels; the first is row {first.row}: "
            f"{first.problem}, {first.detail}. See all of them with rtsx labels validate, and make a file without them with "
            "rtsx labels standardise."
        )
    return inventory.labels


def _checked(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """A table that has the columns of the schema, with their dtypes, and whatever else it has."""
    # Files that have no types of their own bring dates as text, and an empty column as one of anything.
    labels = conform(dict(table.items()), table.geometry)
    validate_labels(labels)
    extra = [name for name in table.columns if name not in {*LABEL_COLUMNS, table.geometry.name}]
    return labels.join(table[extra]) if extra else labels
