"""The quads of a basemap as STAC items: the table of those that are there, which cubes search."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from shapely import box, to_wkb

from rtsx.ordering.basemap import Mosaic, QuadRange
from rtsx.ordering.quads import QuadLedger
from rtsx.storage import staged

_GROUP_ROWS = 4096
_BANDS = {
    ("uint8", 3): ("red", "green", "blue"),
    ("uint8", 4): ("red", "green", "blue", "alpha"),
    ("uint16", 4): ("blue", "green", "red", "nir"),
    ("uint16", 5): ("blue", "green", "red", "nir", "alpha"),
}
"""Bands of Planet's visual and analytic mosaics, by dtype and number."""
_SCHEMA = pa.schema(
    {
        "type": pa.string(),
        "stac_version": pa.string(),
        "id": pa.string(),
        "collection": pa.string(),
        "geometry": pa.binary(),
        "bbox": pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]),
        "datetime": pa.timestamp("us", "UTC"),
        "start_datetime": pa.timestamp("us", "UTC"),
        "end_datetime": pa.timestamp("us", "UTC"),
        "assets": pa.string(),
    },
    metadata={
        "geo": json.dumps(
            {
                "version": "1.1.0",
                "primary_column": "geometry",
                "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
            }
        )
    },
)


def _item(mosaic: Mosaic, quad: QuadRange, name: str, *, asset: str) -> dict[str, Any]:
    bounds = mosaic.bounds(quad)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": mosaic.name,
        "geometry": to_wkb(box(*bounds)),
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
        "datetime": mosaic.start
        + (mosaic.end - mosaic.start) / 2,  # of a quarter its middle, because one day is asked for
        "start_datetime": mosaic.start,
        "end_datetime": mosaic.end,
        "assets": json.dumps({"data": json.loads(asset)}),
    }


def write_items(ledger: QuadLedger, path: Path, mosaic: Mosaic) -> None:
    """Write the quads that are there as a GeoParquet table of STAC items, neighbours together."""
    with staged(path, overwrite=True) as stage, pq.ParquetWriter(stage, _SCHEMA) as table:
        rows = ledger.there()
        while some := list(islice(rows, _GROUP_ROWS)):
            items = [_item(mosaic, QuadRange(y, x, y + 1, x + 1), name, asset=asset) for y, x, name, asset in some]
            table.write_table(pa.Table.from_pylist(items, _SCHEMA))


def with_band_names(asset: dict[str, Any]) -> dict[str, Any]:
    """The asset of a quad with the names of its bands, where the file does not tell them."""
    stored = asset["raster:bands"]
    names = _BANDS.get((stored[0]["data_type"], len(stored)))
    if "eo:bands" not in asset and names is not None:
        asset["eo:bands"] = [{"name": name} | ({"common_name": name} if name != "alpha" else {}) for name in names]
    asset["type"] = "image/tiff; application=geotiff; profile=cloud-optimized"
    return asset
