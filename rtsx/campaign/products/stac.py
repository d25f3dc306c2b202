"""The STAC catalog of an output: a collection per year, a catalog per partition, an item per cell; all hrefs relative."""

import io
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.licenses._spdx import LICENSES  # which it shows nowhere else
from pyproj import CRS as PROJ_CRS
from shapely import box

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.ledger import map_in_threads
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.rasters import RasterFile
from rtsx.campaign.products.tables import (
    WORKERS,
    CellStates,
    FinishedCell,
    Record,
    Records,
    digest_of,
    group_by_partition,
    mapped_cells,
)
from rtsx.errors import CampaignError
from rtsx.geometry.antimeridian import lonlat_polygon
from rtsx.geometry.crs import crs_code, length_text
from rtsx.grid.grid import cell_id
from rtsx.names import did_you_mean
from rtsx.storage.object_store import ObjectStore
from rtsx.storage.stac import COG, PROJECTION, RASTER, bounding_box, geojson

STAC_VERSION = "1.1.0"
PARQUET = "application/vnd.apache.parquet"
ZARR = "application/vnd.zarr; version=3"
_JSON, _GEOJSON = "application/json", "application/geo+json"
_TITLES = {
    "probability": "Probability of the target",
    "binary": "Where the target was found",
    "spread": "Standard deviation of the probabilities of the members of the ensemble",
}
SPREAD = _TITLES["spread"]

Document = dict[str, Any]


def collection_id(plan: CampaignPlan) -> str:
    """Return the id of the collection of a year."""
    return f"{plan.name}-{plan.year}"


def item_id(plan: CampaignPlan, cell: Address) -> str:
    """Return the id of the item of a cell."""
    return f"{collection_id(plan)}-{cell_id(*cell)}"


def item_document(plan: CampaignPlan, cell: Address, state: FinishedCell, *, key: str) -> Document:
    """Return the item of a finished cell that lies at `key`."""
    geobox, ground = plan.grid[cell].geobox, plan.grid[cell].lonlat
    layout = YearLayout(plan.year)
    assets = {"map": asset(MAP, beside=key, media_type=ZARR, title="Map of all cells and years", roles=("data",))}
    if state.outlines:
        assets["outlines"] = asset(
            layout.outline(cell), beside=key, media_type=PARQUET, title="Outlines of this cell, cut at its borders"
        )
    for variable in state.cogs:
        title = _TITLES.get(variable, variable)
        assets[variable] = asset(layout.cog(cell, variable), beside=key, media_type=COG, title=title)
        assets[variable]["bands"] = _bands(variable, plan)
    folder = posixpath.dirname(key)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, RASTER],
        "id": item_id(plan, cell),
        "collection": collection_id(plan),
        "geometry": geojson(ground),
        "bbox": bounding_box([ground]),
        "properties": {
            **_year(plan.year),
            "updated": state.finished,
            # A CRS without a code is written out.
            "proj:wkt2" if "[" in plan.grid.crs else "proj:code": plan.grid.crs,
            "proj:shape": list(geobox.shape.yx),
            "proj:transform": [float(value) for value in tuple(geobox.affine)[:6]],
            "rtsx:cell": cell_id(*cell),
            "rtsx:n_valid": state.n_valid,
            "rtsx:n_outlines": state.n_outlines,
            "rtsx:bundles": list(plan.prediction.members),
        },
        "links": [
            link("root", posixpath.relpath("catalog.json", folder)),
            link("parent", "./catalog.json"),
            link("collection", "../collection.json"),
        ],
        "assets": assets,
    }


def branch_document(
    plan: CampaignPlan, name: str, items: Sequence[Address], *, key: str, box: Sequence[float]
) -> Document:
    """Return the catalog of a partition, at `key`.

    It states an extent, as only collections have to, so that a search passes over partitions elsewhere.
    """
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": f"{collection_id(plan)}-{name}",
        "description": f"Cells of {plan.name} in {plan.year}, partition {name}.",
        "extent": _extent(plan.year, box),
        "links": [
            link("root", posixpath.relpath("catalog.json", posixpath.dirname(key))),
            link("parent", "../collection.json"),
            *(link("item", f"./{cell_id(*cell)}.json", media_type=_GEOJSON) for cell in items),
        ],
    }


def collection_document(
    plan: CampaignPlan, branches: Sequence[str], assets: Mapping[str, Document], *, key: str, box: Sequence[float]
) -> Document:
    """Return the collection of a year, at `key`."""
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": collection_id(plan),
        "title": f"{plan.name} {plan.year}",
        "description": (
            f"Map of {', '.join(plan.prediction.classes)} of {plan.year} on {plan.grid.crs} at "
            f"{length_text(plan.grid.resolution, plan.grid.crs)} per pixel, and its outlines."
        ),
        "license": "other",
        "extent": _extent(plan.year, box),
        "links": [
            link("root", posixpath.relpath("catalog.json", posixpath.dirname(key))),
            link("parent", posixpath.relpath("catalog.json", posixpath.dirname(key))),
            *(link("child", f"./{name}/catalog.json") for name in branches),
        ],
        "assets": dict(assets),
    }


_NO_SPDX = ("other", "proprietary")
"""Licences of STAC that are none of SPDX."""


def checked_licence(given: str) -> str:
    """Return a licence as STAC has it: an identifier or expression of SPDX in its own letters, or `other` or `proprietary`.

    Raises
    ------
    CampaignError
        It is none of them.

    Examples
    --------
    >>> checked_licence("cc-by-4.0"), checked_licence("other")
    ('CC-BY-4.0', 'other')
    """
    if given in _NO_SPDX:
        return given
    try:
        return str(canonicalize_license_expression(given))
    except InvalidLicenseExpression as error:
        known = [*_NO_SPDX, *(one["id"] for one in LICENSES.values())]
        raise CampaignError(
            f"A licence is an identifier of SPDX such as CC-BY-4.0, or proprietary or other; got {given!r}.{did_you_mean(given, known)} "
            "All are listed at https://spdx.org/licenses."
        ) from error


def year_collection(
    plan: CampaignPlan,
    box: Sequence[float],
    *,
    files: Mapping[str, tuple[str, str]],
    licence: str,
    providers: Mapping[str, str],
    summaries: Mapping[str, Any],
    crs: str,
    variables: Sequence[str],
) -> Document:
    """Return a collection that stands alone, beside its files.

    Parameters
    ----------
    plan
        Of the year.
    box
        West, south, east, north of the cells with a map, degrees.
    files
        Media type and title by key.
    licence
        SPDX identifier, or ``other``.
    providers
        Addresses by name; empty where there is none.
    summaries
        Values by the name of what they are.
    crs
        Of the GeoTIFFs.
    variables
        Assets of each item.
    """
    key = "collection.json"
    document = collection_document(plan, (), {}, key=key, box=box)
    projected = PROJ_CRS.from_user_input(crs)
    code = crs_code(projected)
    summaries = {**summaries, **({"proj:code": code} if code else {"proj:wkt2": projected.to_wkt()})}
    return document | {
        "stac_extensions": [PROJECTION, RASTER],
        "license": licence,
        "keywords": [*plan.prediction.classes],
        "providers": [
            {"name": name, "roles": ["producer", "licensor"]} | ({"url": address} if address else {})
            for name, address in providers.items()
        ],
        "summaries": {name: value if isinstance(value, list | dict) else [value] for name, value in summaries.items()},
        "links": [link("root", f"./{key}")],
        "assets": {
            name: asset(
                name,
                beside=key,
                media_type=media_type,
                title=title,
                roles=(_ROLES.get(posixpath.splitext(name)[1], "data"),) if name != ITEMS else ("collection-mirror",),
            )
            for name, (media_type, title) in files.items()
        },
        "item_assets": {
            name: {"type": COG, "roles": ["data"], "title": _TITLES[name], "bands": _bands(name, plan)}
            for name in variables
        },
    }


ITEMS = "items.parquet"
"""Table of the items of a delivery."""
_ROLES = dict.fromkeys((".md", ".html", ".json", ".csv", ".qgz"), "metadata") | {".png": "thumbnail"}
_AT_ONCE = 10_000
"""Items that are in memory at a time."""


def item_table(plan: CampaignPlan, files: Sequence[RasterFile], *, variables: Sequence[str]) -> bytes:
    """Write an item for each raster as stac-geoparquet: one object, where hundreds of thousands of files are more than archives take.

    Parameters
    ----------
    plan
        Of the year.
    files
        Each with an asset for every variable.
    variables
        Folders of the files.
    """
    crs = PROJ_CRS.from_user_input(str(files[0].geobox.crs))
    code, collection = crs_code(crs), collection_id(plan)
    year = {name: None if value is None else datetime.fromisoformat(value) for name, value in _year(plan.year).items()}
    links = [link("collection", "./collection.json"), link("parent", "./collection.json")]

    def row(file: RasterFile) -> Document:
        outline = lonlat_polygon(box(*file.geobox.boundingbox.bbox), str(file.geobox.crs))
        return {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": [PROJECTION],
            "id": f"{collection}-{file.name.replace('/', '-')}",
            "geometry": shapely.to_wkb(outline),
            "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounding_box([outline]), strict=True)),
            "links": links,
            "assets": {
                name: asset(f"{name}/{file.name}.tif", beside=ITEMS, media_type=COG, title=_TITLES[name])
                for name in variables
            },
            "collection": collection,
            **year,
            "proj:code": code,
            "proj:wkt2": None if code else crs.to_wkt(),
            "proj:shape": list(file.geobox.shape.yx),
            "proj:transform": [float(value) for value in tuple(file.geobox.affine)[:6]],
        }

    text, moment = pa.string(), pa.timestamp("us", "UTC")
    asset_type = pa.struct({"href": text, "type": text, "title": text, "roles": pa.list_(text)})
    types = {
        **dict.fromkeys(("type", "stac_version", "id", "collection", "proj:code", "proj:wkt2"), text),
        **dict.fromkeys(("datetime", "start_datetime", "end_datetime"), moment),
        "stac_extensions": pa.list_(text),
        "geometry": pa.binary(),
        "bbox": pa.struct(dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), pa.float64())),
        "links": pa.list_(pa.struct({"rel": text, "href": text, "type": text})),
        "assets": pa.struct(dict.fromkeys(variables, asset_type)),
        "proj:shape": pa.list_(pa.int64()),
        "proj:transform": pa.list_(pa.float64()),
    }
    del types["proj:wkt2" if code else "proj:code"]
    covering = {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}}
    column = {"encoding": "WKB", "geometry_types": ["MultiPolygon", "Polygon"], "covering": covering}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    schema = pa.schema(types, metadata={"geo": json.dumps(geo), "stac-geoparquet": '{"version": "1.1.0"}'})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for start in range(0, len(files), _AT_ONCE):
            writer.write_table(pa.Table.from_pylist([row(file) for file in files[start : start + _AT_ONCE]], schema))
    return buffer.getvalue()


def root_document(name: str, collections: Mapping[int, str]) -> Document:
    """Return the catalog of all years, beside the map; collections by the year, as keys."""
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": f"Maps and outlines of the campaign {name}, a collection for each year.",
        "links": [
            link("root", "./catalog.json"),
            *(link("child", f"./{key}", title=str(year)) for year, key in sorted(collections.items())),
        ],
    }


def asset(key: str, *, beside: str, media_type: str, title: str, roles: Sequence[str] = ("data",)) -> Document:
    """Return an asset of the document at the key `beside`."""
    href = posixpath.relpath(key, posixpath.dirname(beside))
    return {"href": href, "type": media_type, "title": title, "roles": list(roles)}


def link(rel: str, href: str, *, media_type: str = _JSON, title: str | None = None) -> dict[str, str]:
    """Return a STAC link."""
    return {"rel": rel, "href": href, "type": media_type} | ({"title": title} if title else {})


def _extent(year: int, box: Sequence[float]) -> Document:
    stated = _year(year)
    interval = [stated["start_datetime"], stated["end_datetime"]]
    return {"spatial": {"bbox": [list(box)]}, "temporal": {"interval": [interval]}}


def _year(year: int) -> Document:
    return {"datetime": None, "start_datetime": f"{year}-01-01T00:00:00Z", "end_datetime": f"{year}-12-31T23:59:59Z"}


def _bands(variable: str, plan: CampaignPlan) -> list[Document]:
    """Return bands of a GeoTIFF: one for each class where there are several."""
    several = len(plan.prediction.classes) > 1
    names = [f"{variable} {name}" for name in plan.prediction.classes] if several else [variable]
    scaled = {"raster:scale": 0.01, "raster:offset": 0.0} if variable != "binary" else {}
    return [{"name": name, "data_type": "uint8", "nodata": 255, **scaled} for name in names]


CATALOG = "catalog.json"
"""The catalog of all years, in the root of the output."""


def collection_key(layout: YearLayout) -> str:
    """Return the key of the collection of a year."""
    return f"{layout.products}/stac/collection.json"


_UNKNOWN = "?"
"""Recorded of an item that is being written: no digest, so that it is written again after a stop."""


@dataclass(frozen=True, kw_only=True)
class CollectedStac:
    """What became of the documents of a year."""

    n_items: int
    rewritten: tuple[str, ...]
    """Keys that were written."""
    removed: tuple[str, ...]
    """Keys that were removed."""


def collect_stac(
    objects: ObjectStore, plan: CampaignPlan, states: CellStates, *, assets: Mapping[str, Any], years: list[int]
) -> CollectedStac:
    """Bring the STAC documents up to date: items of cells whose mark changed, and what lists them.

    Parameters
    ----------
    objects
        The objects of the output.
    plan
        Of the year.
    states
        Finished cells; those without any image have no item.
    assets
        Of the collection, as STAC has them.
    years
        Years that the map has; those with a collection are listed in the catalog.
    """
    writer = _Writer(objects=objects, plan=plan, states=states)
    before = writer.records.read()
    parts = group_by_partition(mapped_cells(states))
    done = list(
        map_in_threads(lambda name: writer.refresh(name, parts[name], before.get(name)), sorted(parts), threads=WORKERS)
    )
    boxes = [record["bbox"] for record, _ in done]
    keys = [key for _, written in done for key in written]
    keys += writer.write_collection(sorted(parts), boxes, assets=assets)
    keys += writer.write_catalog(years)
    # After nothing leads there any more, and whatever a call that was stopped has left.
    removed = writer.remove_all_but(parts, set(before) - set(parts))
    return CollectedStac(n_items=len(mapped_cells(states)), rewritten=tuple(sorted(keys)), removed=removed)


@dataclass(frozen=True, kw_only=True)
class _Writer:
    """Writes the documents of one year."""

    objects: ObjectStore
    plan: CampaignPlan
    states: CellStates

    @cached_property
    def layout(self) -> YearLayout:
        """Keys of the year."""
        return YearLayout(self.plan.year)

    @cached_property
    def records(self) -> Records:
        """From which marks the items of a partition were made."""
        return Records(self.objects, f"{self.layout.products}/collected/stac")

    @cached_property
    def there(self) -> frozenset[str]:
        """Keys of the documents that were there before."""
        return frozenset(found.key for found in self.objects.list(f"{self.layout.products}/stac"))

    def refresh(self, name: str, cells: list[Address], before: Record | None) -> tuple[Record, list[str]]:
        """Bring a partition up to date; its record, and the keys that were written."""
        marks = {
            cell_id(*cell): digest_of([self.plan.digest, self.plan.name, self.states[cell].mark]) for cell in cells
        }
        recorded = before["marks"] if before else {}
        old = {cell: mark for cell, mark in recorded.items() if self._item(name, cell) in self.there}
        if before is not None and old == marks and self._branch(name) in self.there:
            return before, []
        changed = [cell for cell in cells if old.get(cell_id(*cell)) != marks[cell_id(*cell)]]
        box = bounding_box([self.plan.grid[cell].lonlat for cell in cells])
        # Unknown until they are written.
        self.records.put(name, {"marks": old | {cell_id(*cell): _UNKNOWN for cell in changed}, "bbox": box})
        written = []
        for cell in changed:
            key = self._item(name, cell_id(*cell))
            written.append(self._put(key, item_document(self.plan, cell, self.states[cell], key=key)))
        key = self._branch(name)
        written += self._put_if_new(key, branch_document(self.plan, name, cells, key=key, box=box))
        record: Record = {"marks": marks, "bbox": box}
        self.records.put(name, record)
        return record, written

    def remove_all_but(self, parts: Mapping[str, Sequence[Address]], gone: Iterable[str]) -> tuple[str, ...]:
        """Remove documents of other cells than these, and records of partitions that are gone; keys of the documents, sorted."""
        kept = {collection_key(self.layout), *(self._branch(name) for name in parts)}
        kept |= {self._item(name, cell_id(*cell)) for name, cells in parts.items() for cell in cells}
        removed = tuple(sorted(self.there - kept))
        for name in gone:
            self.records.take_back(name)
        for key in removed:
            self.objects.delete(key)
        return removed

    def write_collection(
        self, names: list[str], boxes: Sequence[Sequence[float]], *, assets: Mapping[str, Any]
    ) -> list[str]:
        """Write the collection if it differs; the keys that were written."""
        edges = list(zip(*boxes, strict=True)) or [(-180.0,), (-90.0,), (180.0,), (90.0,)]
        box = (min(edges[0]), min(edges[1]), max(edges[2]), max(edges[3]))
        key = collection_key(self.layout)
        return self._put_if_new(key, collection_document(self.plan, names, assets, key=key, box=box))

    def write_catalog(self, years: list[int]) -> list[str]:
        """Write the catalog of all years if it differs; the keys that were written."""
        keys = ((year, collection_key(YearLayout(year))) for year in years)
        there = {year: key for year, key in keys if self.objects.get(key) is not None}
        return self._put_if_new(CATALOG, root_document(self.plan.name, there))

    def _put_if_new(self, key: str, document: Mapping[str, Any]) -> list[str]:
        return [] if self.objects.get(key) == _content(document) else [self._put(key, document)]

    def _put(self, key: str, document: Mapping[str, Any]) -> str:
        self.objects.put(key, _content(document))
        return key

    def _item(self, name: str, cell: str) -> str:
        return f"{self.layout.products}/stac/{name}/{cell}.json"

    def _branch(self, name: str) -> str:
        return f"{self.layout.products}/stac/{name}/catalog.json"


def _content(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()
