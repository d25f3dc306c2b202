"""Tables of outlines as the bytes of a GeoParquet file, in one schema whatever the rows are."""

import io

import geopandas
import pandas as pd

from rtsx.errors import CampaignError
from rtsx.footprints.schema import COLUMNS, OPTIONAL, conform
from rtsx.footprints.writing import as_written

__all__ = ["empty_outlines", "parquet_bytes", "plainly_typed", "read_outlines", "read_parquet_bytes"]


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
        raise CampaignError(
            f"{name} cannot be read as outlines ({error}): verify the campaign, which tells the cells that are damaged."
        ) from error


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
