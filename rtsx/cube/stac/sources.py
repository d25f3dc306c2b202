"""Sources of STAC items: a search of an API, a static catalog, items at hand, a GeoParquet table."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pystac
from annotated_types import Ge, Gt, Le
from shapely import from_wkb
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import BandRequest, Image, ImageSource, Period
from rtsx.cube.stac.assets import Sign, Signer, absolute_href, located, self_href, sibling_href
from rtsx.cube.stac.client import (
    HttpAccess,
    check_query,
    meets_query,
    oddity_of,
    read_document,
    searched_items,
    sound_items,
)
from rtsx.cube.stac.item import ItemDict, bounds_of, buffered_area
from rtsx.errors import CubeError
from rtsx.parsing import STRICT, ConfigDict, Several, wrap_damage
from rtsx.storage import absolute, file_system, is_url, local_path


class _ItemSource(ImageSource):
    """What sources of items have in common: images are taken among them by area, period and cloud cover."""

    max_cloud_cover: float | None
    sign: str | Signer | None

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return images by time, then id; see `ImageSource`."""
        from rtsx.cube.stac.images import selected_images  # here, because orders of scenes read none

        return selected_images(
            self.found_items(area, period),
            wanted,
            area=area,
            period=period,
            max_cloud_cover=self.max_cloud_cover,
            sign=self.sign,
        )

    def found_items(self, area: BaseGeometry, period: Period | None) -> Iterator[ItemDict]:
        """Yield sound items that may show the area within the period."""
        raise NotImplementedError


@dataclass(frozen=True)
class StacSearch(_ItemSource):
    """A search of a STAC API: what it finds in an area and a period are the images.

    `max_cloud_cover` and `query` are sent where the server says that it understands them, and always applied again to
    what comes back, because servers exist that ignore them without a word. `filter` cannot be checked that way: a server
    that does not say that it understands it is refused.

    Raises
    ------
    CubeError
        A filter or query that no server could understand, or numbers out of range.

    Examples
    --------
    >>> search = StacSearch("https://stac.example.org", ("sentinel-2-l2a",), max_cloud_cover=20)
    >>> search.max_cloud_cover
    20
    """

    # Nothing is required for editors, because the sensor of a source fills in what is left out.
    __pydantic_config__ = STRICT | ConfigDict(json_schema_extra=lambda schema: schema.pop("required", None))

    url: str
    """Address of the API's landing page."""
    collections: Several[str]
    """Ids of the collections to search; an empty list for all."""
    max_cloud_cover: Annotated[float, Ge(0), Le(100)] | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; any if left out."""
    ids: Several[str] = field(default=(), kw_only=True)
    """Ids of the items that count; all if left out."""
    query: Mapping[str, Any] | None = field(default=None, kw_only=True)
    """Conditions on properties, such as ``{"platform": {"eq": "sentinel-2a"}}``."""
    filter: Mapping[str, Any] | str | None = field(default=None, kw_only=True)
    """Condition in CQL2, as JSON or as text; text needs the package ``cql2``."""
    sign: Sign = field(default=None, kw_only=True)
    """Signing hook for the hrefs, such as ``planetary-computer``; called when images are found."""
    outline: bool = field(default=True, kw_only=True)
    """Send the outline of the area; its box where the server takes no polygons."""
    page: Annotated[int, Gt(0)] = field(default=100, kw_only=True)
    """Items per page that the server is asked for."""
    access: HttpAccess = field(default=HttpAccess(), kw_only=True)
    """Headers, time-outs and retries."""

    def __post_init__(self) -> None:
        """Check what can be checked without the server."""
        object.__setattr__(self, "collections", _names(self.collections, "collections"))
        object.__setattr__(self, "ids", _names(self.ids, "ids"))
        if not self.url.startswith(("http://", "https://")):
            raise CubeError(f"StacSearch asks a server at http:// or https://; got {self.url!r}. Files: StacCatalog.")
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:
            raise CubeError(f"max_cloud_cover is in percent, 0 to 100, such as 20; got {self.max_cloud_cover}.")
        if self.page < 1:
            raise CubeError(f"page is a number of items, at least 1; got {self.page}.")
        if self.query is not None:
            check_query(self.query)

    def found_items(self, area: BaseGeometry, period: Period | None) -> Iterator[ItemDict]:
        """Yield what the server gives, whole, in its order."""
        for item in sound_items(searched_items(self, area=area, period=period), self.url):
            is_wanted = not self.collections or item.get("collection") in self.collections
            if is_wanted and (not self.ids or item.get("id") in self.ids) and meets_query(item, self.query or {}):
                yield item


def _names(names: Sequence[str], what: str) -> tuple[str, ...]:
    if isinstance(names, str):
        raise CubeError(f"{what} is a list of ids; got the text {names!r}. Write [{names!r}].")
    return tuple(names)


_DOCUMENTS_AT_ONCE = 8
"""Items that are read at the same time, because each one from a server is a wait."""


@dataclass(frozen=True)
class StacCatalog(_ItemSource):
    """A static catalog, collection, item, item collection, or a folder of items, as an image source.

    Links are followed when `find` is called, and only into collections whose stated extent meets area and period. A
    folder is read by its ``catalog.json`` or ``collection.json``; where it has neither, by every item in it and below.

    Examples
    --------
    >>> StacCatalog("scenes/catalog.json", collections=("planetscope",)).collections
    ('planetscope',)
    """

    __pydantic_config__ = STRICT

    path: str
    """Path or URL of the document or the folder."""
    collections: Several[str] = field(default=(), kw_only=True)
    """Ids of the collections whose items count; all if left out."""
    max_cloud_cover: Annotated[float, Ge(0), Le(100)] | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; any if left out."""
    prefer_local: bool = field(default=False, kw_only=True)
    """Take the file that lies beside a local item under an asset's name instead of the address that the item states, as
    after a download."""
    sign: Sign = field(default=None, kw_only=True)
    """Signing hook for the hrefs: its name, or a function."""
    access: HttpAccess = field(default=HttpAccess(), kw_only=True)
    """Headers, time-outs and retries."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def found_items(self, area: BaseGeometry, period: Period | None) -> Iterator[ItemDict]:
        """Yield sound items that may show the area within the period."""
        return sound_items(_Walk(self, area, period).items(), self.path)


class _Walk:
    """One walk through a catalog. Not a value: it remembers where it has been."""

    def __init__(self, catalog: StacCatalog, area: BaseGeometry, period: Period | None) -> None:
        self.catalog = catalog
        self.area = buffered_area(area)
        self.period = period
        self.seen: set[str] = set()

    def items(self) -> Iterator[object]:
        """Yield items that may count, as they are."""
        path = self.catalog.path
        folder = None if is_url(path) else local_path(path)
        if folder is None or not folder.is_dir():
            yield from self._at(path)
            return
        roots = [folder / name for name in ("catalog.json", "collection.json") if (folder / name).is_file()]
        yield from self._at(str(roots[0])) if roots else self._folder(folder)

    def _folder(self, folder: Path) -> Iterator[object]:
        """Yield every item below a folder; other JSON, such as a scene's metadata, is passed over."""
        found = False
        for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.geojson")]):
            try:
                document = json.loads(file.read_text(encoding="utf-8-sig"))
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict) and _is_item_or_list(document):
                found = True
                yield from self._document(document, str(file))
        if not found:
            raise CubeError(
                f"The folder {folder} holds no STAC item. Give the path of a catalog, or of a folder of items."
            )

    def _at(self, href: str) -> Iterator[object]:
        if href not in self.seen:
            self.seen.add(href)
            yield from self._document(self._read(href), href)

    def _read(self, href: str) -> dict[str, Any]:
        return read_document(href, self.catalog.access, home=self.catalog.path)

    def _document(self, document: Mapping[str, Any], href: str) -> Iterator[object]:
        kind = document.get("type")
        if kind == "FeatureCollection" and isinstance(document.get("features"), list):
            for item in document["features"]:
                yield from self._document(item, href) if isinstance(item, Mapping) else [item]
        elif kind == "Feature":
            if not self.catalog.collections or document.get("collection") in self.catalog.collections:
                yield self._located(document, href) if oddity_of(document) is None else document
        elif "links" in document and ("id" in document or "stac_version" in document):
            with wrap_damage(href, CubeError):
                yield from self._linked(document, href)
        else:
            raise CubeError(
                f"{href} is no STAC document: its type is {kind!r}. Catalog, Collection, Feature or FeatureCollection "
                "were expected."
            )

    def _linked(self, document: Mapping[str, Any], href: str) -> Iterator[object]:
        """Yield what a catalog or collection links to."""
        relations = {link.get("rel") for link in document["links"]}
        if "conformsTo" in document and "search" in relations and not relations & {"child", "item"}:
            raise CubeError(f"{href} is a STAC API, not a static catalog. Use StacSearch({href!r}, ...).")
        if not self._may_hold(document):
            return
        names = self.catalog.collections
        # What says that it is a catalog only groups, even where it states an extent, as collections have to.
        is_collection = "extent" in document and document.get("type") != "Catalog"
        is_left_out = bool(names) and is_collection and document.get("id") not in names
        targets = {
            relation: [absolute_href(link["href"], href) for link in document["links"] if link.get("rel") == relation]
            for relation in ("item", "child")
        }
        # A collection that does not count may still hold collections that do.
        for target in targets["child"]:
            yield from self._at(target)
        if not is_left_out:
            fresh = [target for target in dict.fromkeys(targets["item"]) if target not in self.seen]
            self.seen.update(fresh)
            with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE) as pool:
                documents = pool.map(self._read, fresh)
                for target, item in zip(fresh, documents, strict=True):
                    yield from self._document(item, target)

    def _may_hold(self, document: Mapping[str, Any]) -> bool:
        """Test whether the stated extent of a collection meets area and period; catalogs state none, and what is odd rules out nothing."""
        extent = document.get("extent") or {}
        boxes = (extent.get("spatial") or {}).get("bbox") or ()
        is_plain = all(isinstance(value, int | float) and isfinite(value) for bbox in boxes for value in bbox)
        whole = (bounds_of(bbox) for bbox in boxes if len(bbox) in (4, 6))
        if boxes and is_plain and not any(bounds.intersects(self.area) for bounds in whole):
            return False
        intervals = (extent.get("temporal") or {}).get("interval") or ()
        return not intervals or self.period is None or any(_overlap(interval, self.period) for interval in intervals)

    def _located(self, item: Mapping[str, Any], href: str) -> ItemDict:
        """Return the item with hrefs that count from where it was found, instead of from where it says that it lies."""
        if self.catalog.prefer_local:
            assets = {
                key: {**asset, "href": sibling_href(str(asset.get("href") or ""), href)}
                for key, asset in (item.get("assets") or {}).items()
            }
            item = {**item, "assets": assets}
        return located(item, href)


def _is_item_or_list(document: Mapping[str, Any]) -> bool:
    if document.get("type") == "FeatureCollection":
        features = document.get("features")
        return isinstance(features, list) and any(isinstance(one, Mapping) and "assets" in one for one in features)
    return document.get("type") == "Feature" and "assets" in document


def _overlap(interval: Sequence[str | None], period: Period) -> bool:
    """Test whether a stated interval, open where it says null, shares a day with a period."""
    start, end = (_day(moment) for moment in (*interval, None, None)[:2])
    return (start is None or start <= period.end) and (end is None or period.start <= end)


def _day(moment: str | None) -> date | None:
    """Return the day of a stated moment; None where it is open, or no date, since then nothing can be ruled out."""
    try:
        found = datetime.fromisoformat(moment) if moment else None
        return None if found is None else (found.astimezone(UTC) if found.tzinfo else found).date()
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass(frozen=True)
class StacItems(_ItemSource):
    """STAC items, given one by one, as an image source.

    Raises
    ------
    CubeError
        There is something else among them than pystac items, or items as JSON has them.

    Examples
    --------
    >>> StacItems([{"type": "Feature", "id": "a", "assets": {}}]).items[0]["id"]
    'a'
    """

    items: "Iterable[pystac.Item | ItemDict]"
    """All of them, as JSON has them once they are here."""
    max_cloud_cover: float | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; any if left out."""
    sign: str | Signer | None = field(default=None, kw_only=True)
    """Signing hook for the hrefs: its name, or a function."""

    def __post_init__(self) -> None:
        """Take the items as JSON."""
        object.__setattr__(self, "items", tuple(_plain(item) for item in self.items))

    def found_items(self, area: BaseGeometry, period: Period | None) -> Iterator[ItemDict]:
        """Yield sound items that may show the area within the period."""
        return sound_items(self.items, "The list of items")


def _plain(item: object) -> ItemDict:
    if isinstance(item, pystac.Item):
        # As they are, because pystac would rewrite hrefs to be relative to the item.
        item = item.to_dict(include_self_link=True, transform_hrefs=False)
    if isinstance(item, dict) and "assets" in item:
        with suppress(AttributeError, TypeError):  # one that is odd is told of with the others
            # Made absolute here, because it may be read from another working folder, and by somebody with another home.
            assets = {
                key: {**asset, "href": absolute(asset["href"])} if str(asset.get("href")).startswith("~") else asset
                for key, asset in item["assets"].items()
            }
            return located({**item, "assets": assets}, absolute(self_href(item) or "item.json"))
        return item
    raise CubeError(
        f"Items are pystac items or their JSON with 'assets'; got {type(item).__name__} {str(item)[:80]!r}."
    )


@dataclass(frozen=True)
class ItemTable(_ItemSource):
    """A GeoParquet table of STAC items (the stac-geoparquet layout) as an image source.

    Box and dates are pushed down: row groups that cannot hold anything are not read.

    Examples
    --------
    >>> ItemTable("/data/items.parquet", max_cloud_cover=30).path
    '/data/items.parquet'
    """

    __pydantic_config__ = STRICT

    path: str
    """Path or URL of a Parquet file, or of a folder of them."""
    collections: Several[str] = field(default=(), kw_only=True)
    """Ids of the collections whose items count; all if left out."""
    max_cloud_cover: Annotated[float, Ge(0), Le(100)] | None = field(default=None, kw_only=True)
    """Percent under cloud, at most; any if left out."""
    sign: Sign = field(default=None, kw_only=True)
    """Signing hook for the hrefs: its name, or a function."""

    def __post_init__(self) -> None:
        """Make the path mean the same in every working folder."""
        object.__setattr__(self, "path", absolute(self.path))

    def found_items(self, area: BaseGeometry, period: Period | None) -> Iterator[ItemDict]:
        """Yield sound items that may show the area within the period."""
        return sound_items(table_items(self.path, collections=self.collections, area=area, period=period), self.path)


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
        if missing := _NEEDED_COLUMNS - set(table.schema.names):
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
