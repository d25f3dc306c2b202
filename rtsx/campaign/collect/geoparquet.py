"""Tables of outlines as the bytes of a GeoParquet file, in one schema whatever the rows are."""

import io
from collections.abc import Mapping

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rtsx.errors import CampaignError
from rtsx.footprints.schema import COLUMNS, OPTIONAL, conform
from rtsx.footprints.writing import as_written

__all__ = ["empty_outlines", "joined_outlines", "parquet_bytes", "plainly_typed", "read_outlines", "read_parquet_bytes"]


def parquet_bytes(table: geopandas.GeoDataFrame) -> bytes:
    """GeoParquet 1.1 with a column `bbox` for spatial filters; equal tables give equal bytes."""
    buffer = io.BytesIO()
    plainly_typed(table).to_parquet(
        buffer, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0"
    )
    return buffer.getvalue()


def read_parquet_bytes(content: bytes) -> geopandas.GeoDataFrame:
    """The table of such bytes."""
    return geopandas.read_parquet(io.BytesIO(content))


def read_outlines(content: bytes, *, name: str) -> geopandas.GeoDataFrame:
    """Footprints of such bytes, with the columns and dtypes that they were made with.

    Raises
    ------
    CampaignError
        They are none; names where they come from.
    """
    try:
        return as_written(read_parquet_bytes(content))
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(name, error) from error


def joined_outlines(contents: Mapping[str, bytes], *, crs: str) -> tuple[geopandas.GeoDataFrame, NDArray[np.int64]]:
    """Footprints of many small files as one table, and for each row the number of its file.

    Joined before they become a table, because making one takes a hundred times as long as reading its bytes.

    Parameters
    ----------
    contents
        GeoParquet by the name that it is called by in errors.
    crs
        In which all of them are.

    Raises
    ------
    CampaignError
        One of them is no GeoParquet.
    """
    tables = []
    for name, content in contents.items():
        try:
            table = pq.read_table(io.BytesIO(content))
            tables.append(table.drop_columns([*({"bbox"} & set(table.column_names))]).replace_schema_metadata())
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(name, error) from error
    if not tables:
        return empty_outlines(crs, "cut", "prob_counts"), np.empty(0, np.int64)
    numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    # Permissive, because a column of nothing but missing values has no type of its own.
    joined = pa.concat_tables(tables, promote_options="permissive")
    outlines = shapely.from_wkb(joined["geometry"].to_numpy())
    rows = joined.drop_columns(["geometry"]).to_pandas()
    return as_written(geopandas.GeoDataFrame(rows, geometry=outlines, crs=crs)), numbers


def plainly_typed(table: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """The table with text where columns hold text or nothing.

    Because a column of nothing but missing values has no type of its own, and the files of one table would not fit
    together.
    """
    texts = table.columns[table.dtypes.map(pd.api.types.is_object_dtype)].difference([table.geometry.name])
    return table.astype(dict.fromkeys(texts, pd.StringDtype("pyarrow"))).reset_index(drop=True)


def empty_outlines(crs: str, *further: str) -> geopandas.GeoDataFrame:
    """Footprints without a row, with some of the optional columns."""
    columns: dict[str, object] = {name: [] for name in (*COLUMNS, *(name for name in OPTIONAL if name in further))}
    return conform(columns, geopandas.GeoSeries([], crs=crs))


def _unreadable(name: str, error: Exception) -> CampaignError:
    return CampaignError(
        f"{name} cannot be read as outlines ({error}): verify the campaign, which tells the cells that are damaged."
    )
