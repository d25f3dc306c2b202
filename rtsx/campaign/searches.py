"""Searches of STAC APIs that a year sends once for all its cells: their items lie beside the plan, and cells are answered from there.

The year is cut into blocks of cells that follow each other. Each block is one search, page by page, of the ground that its cells look
at; what it answers is one table, named by its digest. A cell asks the first block that holds all of its ground, by the condition that
the server has: it gets the items that the server would give, in its order. What no block holds is asked of the server.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from shapely import STRtree, box, from_wkb, prepare, set_precision, to_wkb, union_all
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.cells import widest_read
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.recipe import CampaignRecipe
from rtsx.cube import CubeRecipe
from rtsx.cube.build_state import describe_recipe
from rtsx.cube.georeference import pixel_m
from rtsx.cube.images import BandRequest, Image, ImageSource, Period
from rtsx.cube.recipe import SourceRecipe
from rtsx.cube.stac import StacSearch
from rtsx.cube.stac.assets import self_href
from rtsx.cube.stac.images import selected_images
from rtsx.cube.stac.item import ItemDict, buffered_area, item_footprint, time_of
from rtsx.errors import CampaignError, CubeError
from rtsx.geometry.antimeridian import lonlat_region
from rtsx.grid import Grid
from rtsx.parsing import AwareDatetime, parsed_json
from rtsx.redaction import has_secret, is_secret_name, redacted
from rtsx.storage import without_query
from rtsx.storage.lock import turn
from rtsx.storage.object_store import ObjectStore

_CELLS = 1024
"""Cells of a block: few searches, and items of one that a worker can hold."""
_RECTANGLES = 64
"""Of the ground of a block, at most, because servers refuse outlines of thousands of corners; cells are joined to fours for that."""
_WASTE = 4
"""Ground that is asked for, by the ground that the cells of a block look at, at most; blocks of scattered cells are halved for that."""
_FAILURES = 3
"""Searches of a source that a server may fail to answer before it is asked no more."""
_FRESH = timedelta(days=1)
"""How long answers are good for that others are still missing to."""
_PRECISION = 1e-7
"""Degrees that outlines are rounded to: a centimetre, and seams at a pole close."""
_ROW_GROUP = 64
"""Items that are read together: a cell wants some of a block."""


@dataclass(frozen=True, kw_only=True)
class ItemBlock:
    """What one search has answered."""

    area: str
    """Ground that was asked for, longitude and latitude, as WKB in hexadecimal digits."""
    table: str
    """Key of the table of its items."""
    digest: str
    """SHA-256 of the table."""
    items: int
    """How many there are."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the searches of one source have answered."""

    search: str
    """Digest of what was searched for: another search is not answered from here."""
    blocks: tuple[ItemBlock, ...]


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """Searches of a year that are answered already, so that what was interrupted goes on."""

    began: AwareDatetime
    """When the first was sent."""
    blocks: dict[str, ItemBlock] = field(default_factory=dict)
    """By a digest of search and ground."""


@dataclass(frozen=True, kw_only=True)
class AnsweredSearch(ImageSource):
    """A search that is answered from tables where they hold the ground, else by the server."""

    search: StacSearch
    period: Period | None
    """Days that were asked for."""
    blocks: tuple[ItemBlock, ...]
    objects: ObjectStore
    """Where the tables are."""

    def find(self, area: BaseGeometry, period: Period | None, wanted: Sequence[BandRequest]) -> tuple[Image, ...]:
        """Return the images that the server would give; addresses are signed now. See `ImageSource`."""
        block = self.holding(area) if period == self.period else None
        table = None if block is None else _table(self.objects, block)
        if table is None:
            return self.search.find(area, period, wanted)
        wide = buffered_area(area)
        return selected_images(
            table.meeting(wide if self.search.outline else box(*wide.bounds)),
            wanted,
            area=area,
            period=period,
            max_cloud_cover=self.search.max_cloud_cover,
            sign=self.search.sign,
        )

    def holding(self, area: BaseGeometry) -> ItemBlock | None:
        """Return the first block that holds all of an area; None where the server has to be asked."""
        return next((block for block in self.blocks if _area(block.area).covers(area)), None)


def with_answers(objects: ObjectStore, layout: YearLayout, cube: CubeRecipe) -> CubeRecipe:
    """Return the recipe with searches that are answered from the tables of a year; as it is where there are none.

    Raises
    ------
    CampaignError
        The list of the tables is damaged.
    """
    content = objects.get(layout.searches) if any(_search_of(one.images) for one in cube.sources) else None
    if content is None:
        return cube
    asked = _parsed(content, layout.searches)
    sources = []
    for source in cube.sources:
        search, known = _search_of(source.images), asked.get(source.name)
        if search is not None and known is not None and known.search == _digest_of(cube, source, search):
            answered = AnsweredSearch(search=search, period=source.period, blocks=known.blocks, objects=objects)
            source = replace(source, images=_with_search(source.images, answered))
        sources.append(source)
    return replace(cube, sources=tuple(sources))


def plan_turn(recipe: CampaignRecipe) -> AbstractContextManager[None]:
    """Be alone with planning in an output, and with asking for the images of its years."""
    return turn(f"{recipe.output.rstrip('/')}/plan", recipe.storage_options, what=f"plans a year of {recipe.output}")


def ask_searches_again(objects: ObjectStore, plan: CampaignPlan, recipe: CampaignRecipe) -> None:
    """Ask as `ask_searches` does, of a year that was planned, one process at a time: each removes the tables of others."""
    with plan_turn(recipe):
        ask_searches(objects, plan, recipe.cube)


def ask_searches(objects: ObjectStore, plan: CampaignPlan, cube: CubeRecipe) -> None:
    """Ask every search of a recipe for the ground of all cells, and store what it answers, in place of what it answered before.

    What was interrupted goes on where it was, within a day. A search whose items hold secrets, such as addresses that are signed
    already, is not stored, because those expire; nor is what a server does not answer. Cells then ask themselves.

    Warns
    -----
    RuntimeWarning
        Cells have to ask themselves, and why.
    """
    layout = YearLayout(plan.year)
    before = objects.get(layout.searches)
    if before is None and not any(_search_of(source.images) for source in cube.sources):
        return
    begun = _begun(objects.get(layout.searches_begun), layout.searches_begun)
    asked = {}
    for source in cube.sources:
        if (search := _search_of(source.images)) is not None:
            digest = _digest_of(cube, source, search)
            if blocks := _asked_blocks(objects, plan, source, search=search, digest=digest, begun=begun):
                asked[source.name] = _Asked(search=digest, blocks=blocks)
    if asked or before is not None:
        document = {name: asdict(one) for name, one in asked.items()}
        objects.put(layout.searches, json.dumps(document, indent=1).encode())
    earlier: Mapping[str, _Asked] = {}
    with suppress(CampaignError):  # which is why it is asked anew
        earlier = {} if before is None else _parsed(before, layout.searches)
    # Those of the time before are kept, because a cell that is under way may read them.
    kept = {block.table for one in (*asked.values(), *earlier.values()) for block in one.blocks}
    for old in list(objects.list(layout.items)):
        if old.key not in kept:
            objects.delete(old.key)
    objects.delete(layout.searches_begun)


def _asked_blocks(
    objects: ObjectStore, plan: CampaignPlan, source: SourceRecipe, *, search: StacSearch, digest: str, begun: _Begun
) -> tuple[ItemBlock, ...]:
    """Return what the server answers, block by block, but for what `begun` has, which goes on with it."""
    layout = YearLayout(plan.year)
    blocks, failures = [], list[CubeError]()
    for area in _areas(plan, source):
        name = sha256(f"{digest} {to_wkb(area, hex=True)}".encode()).hexdigest()
        block = begun.blocks.get(name)
        if block is None or objects.get(block.table) is None:
            try:
                block = _asked(objects, layout, source, search=search, area=area)
            except CubeError as error:
                failures.append(error)
                if len(failures) == _FAILURES:
                    break
                continue
            if block is None:
                _warn(source, "its server gives items with secrets, such as signed addresses, which are not stored.")
                return ()
            begun.blocks[name] = block
            objects.put(layout.searches_begun, json.dumps(asdict(begun), default=str).encode())
        blocks.append(block)
    if failures:
        _warn(source, f"its server does not answer {len(failures)} searches for many cells: {failures[0]}")
    return tuple(blocks)


def _warn(source: SourceRecipe, reason: str) -> None:
    text = f"Cells ask for the images of source {source.name!r} themselves, one by one, because {reason}"
    warnings.warn(redacted(text), RuntimeWarning, stacklevel=4)


def _begun(content: bytes | None, key: str) -> _Begun:
    now = datetime.now(UTC)
    with suppress(CampaignError):  # what is damaged is asked anew
        found = None if content is None else parsed_json(content, _Begun, what=key, error=CampaignError)
        if found is not None and now - found.began < _FRESH:
            return found
    return _Begun(began=now)


@lru_cache(2)
def _parsed(content: bytes, key: str) -> Mapping[str, _Asked]:
    what = f"{key}, without which each cell asks the servers itself"
    return parsed_json(content, dict[str, _Asked], what=what, error=CampaignError)


def _search_of(images: ImageSource) -> StacSearch | None:
    """Return the search that images come from, below whatever adds to them, such as a mask; None where it is none."""
    if isinstance(images, StacSearch):
        return images
    inner = getattr(images, "images", None)
    return _search_of(inner) if inner is not None and hasattr(inner, "find") else None


def _with_search(images: Any, search: ImageSource) -> ImageSource:
    """Return images that come from another search than the one that `_search_of` finds."""
    return search if isinstance(images, StacSearch) else replace(images, images=_with_search(images.images, search))


def _digest_of(cube: CubeRecipe, source: SourceRecipe, search: StacSearch) -> str:
    (described,) = describe_recipe(replace(cube, sources=(replace(source, images=search),)))["sources"]
    asked = {name: described[name] for name in ("images", "period")}
    return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _areas(plan: CampaignPlan, source: SourceRecipe) -> Iterator[BaseGeometry]:
    """Yield the ground of each block of cells in longitude and latitude, with all that a cell may look at around itself."""
    grid, side = plan.grid, plan.grid.cell_size
    for start in range(0, len(plan.cells), _CELLS):
        cells = plan.cells.addresses[start : start + _CELLS].astype(np.int64)
        row, column = map(int, cells[0])
        metres = pixel_m(grid[row, column].geobox)
        reach = 2 * source.reach_m / metres  # twice, because maps stretch
        # And a little, because edges are straight in degrees here, and on the grid there.
        margin = round(max(widest_read(plan.prediction.tiling, side=side) - side, plan.halo) + reach + side / 16) + 16
        for ground in _grounds(grid, cells, margin=margin):
            region = lonlat_region(ground, grid.crs, longest=side * grid.resolution, tolerance_m=side / 32 * metres)
            yield set_precision(region, _PRECISION)


def _grounds(grid: Grid, cells: NDArray[np.int64], *, margin: int) -> Iterator[BaseGeometry]:
    """Yield the ground of some cells on the grid: of few squares that hold them all, or else of both halves."""
    step, squares = 1, cells
    while len(squares) > _RECTANGLES:
        step *= 2
        squares = np.unique(cells // step, axis=0)
    ground = _squares(grid, squares, step=step, margin=margin)
    if ground.area <= _WASTE * _squares(grid, cells, step=1, margin=margin).area:
        yield ground
        return
    for half in np.array_split(cells, 2):
        yield from _grounds(grid, half, margin=margin)


def _squares(grid: Grid, first: NDArray[np.int64], *, step: int, margin: int) -> BaseGeometry:
    """Return the ground of squares of `step` cells, with a margin in pixels, in the grid's CRS."""
    top, left = (first * step * grid.cell_size - margin).T * grid.resolution
    side = (step * grid.cell_size + 2 * margin) * grid.resolution
    x, y = grid.origin[0] + left, grid.origin[1] - top
    return union_all(box(x, y - side, x + side, y))


def _asked(
    objects: ObjectStore, layout: YearLayout, source: SourceRecipe, *, search: StacSearch, area: BaseGeometry
) -> ItemBlock | None:
    """Ask for one block, and store its table; None where an item holds a secret."""
    buffer, count = io.BytesIO(), 0
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        found = search.found_items(area, source.period)
        # A part at a time, because twenty years of Landsat are gigabytes.
        while items := [_without_links(item) for item in islice(found, _ROW_GROUP)]:
            if any(map(_holds_secret, items)):
                return None
            writer.write_table(_rows(items))
            count += len(items)
    content = buffer.getvalue()
    digest = sha256(content).hexdigest()
    key = layout.item_table(source.name, digest)
    objects.put(key, content)
    return ItemBlock(area=to_wkb(area, hex=True), table=key, digest=digest, items=count)


def _without_links(item: ItemDict) -> ItemDict:
    """Return an item with no link but the one that its addresses count from, whose query may hold a token and counts for nothing."""
    base = self_href(item)
    return {**item, "links": [] if base is None else [{"rel": "self", "href": without_query(base)}]}


def _holds_secret(value: object) -> bool:
    """Test whether there is a secret in any text of a document, or under a telling name in options of an asset's storage."""
    if isinstance(value, Mapping):
        return any(
            _holds_secret(one)
            or (key.endswith("storage_options") and isinstance(one, Mapping) and any(map(is_secret_name, one)))
            for key, one in value.items()
        )
    if isinstance(value, list):
        return any(map(_holds_secret, value))
    return isinstance(value, str) and has_secret(value)


_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": []}},
}
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "collection": pa.string(),
        "datetime": pa.timestamp("us", "UTC"),
        "geometry": pa.binary(),
        "item": pa.string(),
    },
    metadata={"geo": json.dumps(_GEO)},
)
"""Of a table, as GeoParquet has it; `item` is all of an item, as JSON."""


def _rows(items: Sequence[ItemDict]) -> pa.Table:
    outlines = map(item_footprint, items)
    columns = [
        [str(item["id"]) for item in items],
        [item.get("collection") for item in items],
        [time_of(item) for item in items],
        [None if one is None else to_wkb(one) for one in outlines],
        [json.dumps(item) for item in items],
    ]
    return pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)


class _Table:
    """Items of one search, as they are stored, because read they are ten times that."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        outlines = from_wkb(pq.read_table(io.BytesIO(content), columns=["geometry"])["geometry"].to_pylist())
        self._tree = STRtree(outlines)
        self._silent = np.flatnonzero([one is None for one in outlines])

    def meeting(self, area: BaseGeometry) -> Iterator[ItemDict]:
        """Yield items that meet an area, or state no outline, in the order in which the server gave them."""
        rows = np.sort(np.concatenate([self._tree.query(area, predicate="intersects"), self._silent]))
        file = pq.ParquetFile(io.BytesIO(self._content))
        for group in np.unique(rows // _ROW_GROUP).tolist():
            texts = file.read_row_group(group, columns=["item"])["item"]
            for row in rows[rows // _ROW_GROUP == group] % _ROW_GROUP:
                item: dict[str, Any] = json.loads(texts[int(row)].as_py())
                yield item


_tables: dict[str, _Table] = {}
"""The tables that this process read last, by digest."""
_KEPT = 8
_one_reads = Lock()


def _table(objects: ObjectStore, block: ItemBlock) -> _Table | None:
    """Return the table of a block; None where it is gone or another one, so that the server has to be asked."""
    with _one_reads:
        if block.digest not in _tables:
            content = objects.get(block.table)
            if content is None or sha256(content).hexdigest() != block.digest:
                return None
            while len(_tables) >= _KEPT:
                del _tables[next(iter(_tables))]
            _tables[block.digest] = _Table(content)
        return _tables[block.digest]


@lru_cache(4096)
def _area(wkb: str) -> BaseGeometry:
    area = from_wkb(wkb)
    prepare(area)
    return area
