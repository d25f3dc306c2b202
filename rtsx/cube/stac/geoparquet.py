"""Rows of a GeoParquet table as items. Read with pyarrow alone, because the layout is simple and pyarrow is here anyway."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from shapely import from_wkb
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import Period
from rtsx.cube.stac.assets import located, self_href
from rtsx.cube.stac.checking import oddity_of
from rtsx.cube.stac.item import ItemDict, buffered_area
from rtsx.errors import CubeError
from rtsx.storage import absolute, file_system

_ITEM_COLUMNS = {"type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection"}
"""Columns that are fields of an item; all others are its properties."""

_NEEDED_COLUMNS = {"id", "geometry", "assets"}


def table_items(
    path: str, *, collections: tuple[str, ...], area: BaseGeometry, period: Period | None
) -> Iterator[ItemDict]:
    """Yield items of the rows whose box and date may meet an area and a period.

    Raises
    ------
    CubeError
        There is no such table, or it is no table of items.
    """
    try:
        location = absolute(path)
        filesystem, root = file_system(location, {})
        table = ds.dataset(root, filesystem=filesystem, format="parquet")
        missing = _NEEDED_COLUMNS - set(table.schema.names)
        if missing:
            raise CubeError(
                f"{path} is no table of STAC items: it has no column {sorted(missing)} among {table.schema.names[:20]}. "
                "Write it with stac-geoparquet or rustac."
            )
        rows = table.scanner(filter=_condition(table.schema, collections, area=area, period=period), use_threads=False)
        for batch in rows.to_batches():
            for row in batch.to_pylist():
                yield _item(row, location)
    except (OSError, pa.ArrowException, ImportError) as error:
        raise CubeError(
            f"The item table {path} cannot be read: {error}. Check the path; a GeoParquet file of STAC items is expected."
        ) from error


def _condition(
    schema: pa.Schema, collections: tuple[str, ...], *, area: BaseGeometry, period: Period | None
) -> pc.Expression:
    """Return what rows have to meet, so far as statistics of row groups can rule them out; never rules out too much."""
    condition = pc.scalar(True)
    if "bbox" in schema.names and pa.types.is_struct(schema.field("bbox").type):
        xmin, ymin, xmax, ymax = (pc.field("bbox", name) for name in ("xmin", "ymin", "xmax", "ymax"))
        meets = pc.scalar(False)
        outer = buffered_area(area)
        for west, south, east, north in (part.bounds for part in getattr(outer, "geoms", [outer])):
            # West of its own east is what crosses the antimeridian; compared with 0, because statistics know numbers only.
            crosses = (xmin > 0) & (xmax < 0) & ((xmin <= east) | (xmax >= west))
            meets |= (ymin <= north) & (ymax >= south) & (((xmin <= east) & (xmax >= west)) | crosses)
        condition &= meets | xmin.is_null()
    if period is not None and "datetime" in schema.names and pa.types.is_timestamp(schema.field("datetime").type):
        moment, kind = pc.field("datetime"), schema.field("datetime").type
        first, after = (
            pa.scalar(datetime.combine(day, time.min, UTC if kind.tz else None), kind)
            for day in (period.start, period.end + timedelta(days=1))
        )
        condition &= ((moment >= first) & (moment < after)) | moment.is_null()
    if collections and "collection" in schema.names:
        condition &= pc.field("collection").cast(pa.string()).isin(list(collections))
    return condition


def _item(row: Mapping[str, Any], location: str) -> ItemDict:
    row = {name: value for name, value in row.items() if value is not None}
    geometry = row.get("geometry")
    item: dict[str, Any] = {name: _without_none(row[name]) for name in _ITEM_COLUMNS - {"geometry"} if name in row}
    item["geometry"] = mapping(from_wkb(geometry)) if isinstance(geometry, bytes) else geometry
    item["properties"] = {name: _without_none(value) for name, value in row.items() if name not in _ITEM_COLUMNS}
    if isinstance(item.get("bbox"), Mapping):
        item["bbox"] = [item["bbox"][name] for name in ("xmin", "ymin", "xmax", "ymax")]
    assets = item.get("assets") or {}
    item["assets"] = assets = json.loads(assets) if isinstance(assets, str) else assets
    if oddity_of(item) is not None:
        return item
    item["assets"] = {key: asset for key, asset in assets.items() if "href" in asset}
    return located(item, self_href(item, location))


def _without_none(value: Any) -> Any:
    """Return a value without the None that a table puts wherever another row has something."""
    if isinstance(value, Mapping):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value]
    return value
