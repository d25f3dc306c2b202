"""Static STAC 1.1 catalogs of synthetic data, as those of PlanetScope, ArcticDEM and TCVIS would be.

A folder with a catalog can be moved. `catalog_items` turns its items into what a server is loaded with.
"""

import datetime as dt
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer

from rtsx.storage import write_whole
from rtsx.synthetic.rasterio import RasterInfo, read_info
from rtsx.synthetic.scene import DEM_CRS, TCVIS_CRS, Scene, footprint_polygon
from rtsx.synthetic.sky import UDM2_BANDS
from rtsx.synthetic.spec import PIXEL_M

__all__ = [
    "Asset",
    "Collection",
    "Item",
    "catalog_collections",
    "catalog_items",
    "collections",
    "dem_collection_id",
    "dem_item",
    "document_paths",
    "scene_item",
    "tcvis_item",
    "write_catalog",
]

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
"""Media type of a cloud-optimised GeoTIFF."""
JSON, GEOJSON = "application/json", "application/geo+json"
"""Media types of catalogs and of items."""
DECIMALS = 7
"""Of longitudes and latitudes: a centimetre."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of an item."""

    path: Path
    """COG that `write_cog` has written."""
    title: str
    """What people are shown."""
    roles: tuple[str, ...] = ("data",)
    """STAC roles."""
    bands: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """More fields of a band, by its name in the file."""
    fields: Mapping[str, object] = field(default_factory=dict)
    """More fields of the asset."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image, or one piece of a mosaic."""

    id: str
    """Unique within the collection; also the name of its folder."""
    collection: str
    """Id of its collection."""
    geometry: shapely.Polygon
    """Ground that holds data, in longitude and latitude."""
    time: dt.datetime | tuple[dt.datetime, dt.datetime]
    """When it was taken; first and last for what was made from many images."""
    assets: Mapping[str, Asset]
    """Files by key, all on one grid."""
    pixel_m: float
    """Pixel of that grid on the ground, m."""
    properties: Mapping[str, object] = field(default_factory=dict)
    """More properties."""
    extensions: tuple[str, ...] = ()
    """URIs of the extensions that these properties and the assets' fields belong to."""

    @property
    def interval(self) -> tuple[dt.datetime, dt.datetime]:
        """First and last time."""
        return self.time if isinstance(self.time, tuple) else (self.time, self.time)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Items of one kind."""

    id: str
    """Unique within the catalog; also the name of its folder."""
    title: str
    """What people are shown."""
    description: str
    """What it holds, in a sentence."""


def write_catalog(
    folder: Path, items: Sequence[Item], *, collections: Sequence[Collection], name: str, description: str
) -> Path:
    """Write ``catalog.json``, and under it a folder for each collection with a folder for each item; returns its path.

    Parameters
    ----------
    folder
        Where the catalog goes; the items' files lie anywhere, best below it.
    items
        In the order wanted, those of one collection together.
    collections
        One for each collection that the items name, in any order.
    name, description
        Id and description of the catalog.
    """
    known = {collection.id: collection for collection in collections}
    children = []
    for key, group in groupby(items, key=lambda item: item.collection):
        members = list(group)
        for item in members:
            path = folder / item_path(key, item.id)
            write_document(path, item_document(item, path))
        write_document(folder / collection_path(key), collection_document(known[key], members))
        children.append(link("child", f"./{collection_path(key)}", title=known[key].title))
    path = folder / "catalog.json"
    document = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": name,
        "description": description,
        "links": [link("root", "./catalog.json"), *children],
    }
    # Last, because it is what tells a finished run from an interrupted one.
    write_document(path, document)
    return path


def catalog_items(catalog: Path) -> list[dict[str, Any]]:
    """Items of a static catalog as a server takes them, in the catalog's order: absolute hrefs, and no links.

    But for the link to the collection: without one, the schema does not let an item name its collection.
    """
    found = []
    for collection in linked(catalog, rel="child"):
        for path in linked(collection, rel="item"):
            item = json.loads(path.read_text())
            for asset in item["assets"].values():
                asset["href"] = str((path.parent / asset["href"]).resolve())
            found.append({**item, "links": [link("collection", str(collection.resolve()))]})
    return found


def catalog_collections(catalog: Path) -> list[dict[str, Any]]:
    """Collections of a static catalog as a server takes them: no links; in the catalog's order."""
    return [{**json.loads(path.read_text()), "links": []} for path in linked(catalog, rel="child")]


def document_paths(folder: Path, items: Iterable[tuple[str, str]]) -> tuple[Path, ...]:
    """Name every file that `write_catalog` makes for pairs of collection and item, the catalog first."""
    pairs = list(items)
    names = ["catalog.json", *dict.fromkeys(collection_path(collection) for collection, _ in pairs)]
    return tuple(folder / name for name in [*names, *(item_path(*pair) for pair in pairs)])


def collection_path(collection: str) -> str:
    """Path of a collection's document below the catalog."""
    return f"{collection}/collection.json"


def item_path(collection: str, item: str) -> str:
    """Path of an item's document below the catalog."""
    return f"{collection}/{item}/{item}.json"


def item_document(item: Item, path: Path) -> dict[str, Any]:
    """Make the item that is to lie at `path`; grid, dtype, nodata and scale are read from the files."""
    infos = {key: read_info(asset.path) for key, asset in item.assets.items()}
    first = next(iter(infos.values()))
    assert all(
        (one.crs, one.transform, one.shape) == (first.crs, first.transform, first.shape) for one in infos.values()
    )
    start, end = item.interval
    one_time = start == end
    times = {"datetime": timestamp(start)} if one_time else {
        "datetime": None, "start_datetime": timestamp(start), "end_datetime": timestamp(end)
    }  # fmt: skip
    projection = {
        "proj:code": first.crs,
        "proj:shape": list(first.shape),
        "proj:transform": list(first.transform)[:6],
    }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [PROJECTION, RASTER, *item.extensions],
        "id": item.id,
        "collection": item.collection,
        "geometry": rounded(item.geometry),
        "bbox": bounding_box([item]),
        "properties": {**times, "gsd": item.pixel_m, **item.properties, **projection},
        "links": [
            link("root", "../../catalog.json"),
            link("parent", "../collection.json"),
            link("collection", "../collection.json"),
        ],
        "assets": {
            key: asset_document(asset, infos[key], beside=path, pixel_m=item.pixel_m)
            for key, asset in item.assets.items()
        },
    }


def asset_document(asset: Asset, info: RasterInfo, *, beside: Path, pixel_m: float) -> dict[str, Any]:
    """Make an asset of the item at `beside`; each band says all about itself, as most catalogs have it."""
    values: dict[str, object] = {"data_type": info.dtype, "raster:spatial_resolution": pixel_m}
    if info.nodata is not None:
        values["nodata"] = int(info.nodata) if np.dtype(info.dtype).kind in "iu" else info.nodata
    if info.scale != 1:
        values |= {"raster:scale": info.scale, "raster:offset": 0.0}
    return {
        "href": Path(os.path.relpath(asset.path, beside.parent)).as_posix(),
        "type": COG,
        "title": asset.title,
        "roles": list(asset.roles),
        **asset.fields,
        "bands": [{"name": name, **values, **asset.bands.get(name, {})} for name in info.names],
    }


def collection_document(collection: Collection, items: Sequence[Item]) -> dict[str, Any]:
    """Make a collection; its extent is that of its items."""
    first, last = min(item.interval[0] for item in items), max(item.interval[1] for item in items)
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": collection.id,
        "title": collection.title,
        "description": collection.description,
        "license": "CC0-1.0",
        "extent": {
            "spatial": {"bbox": [bounding_box(items)]},
            "temporal": {"interval": [[timestamp(first), timestamp(last)]]},
        },
        "links": [
            link("root", "../catalog.json"),
            link("parent", "../catalog.json"),
            *(link("item", f"./{item.id}/{item.id}.json", media_type=GEOJSON) for item in items),
        ],
    }


def link(rel: str, href: str, *, media_type: str = JSON, title: str | None = None) -> dict[str, str]:
    """Make a STAC link."""
    return {"rel": rel, "href": href, "type": media_type} | ({"title": title} if title else {})


def linked(document: Path, *, rel: str) -> list[Path]:
    """Files that a document links to."""
    links = json.loads(document.read_text())["links"]
    return [document.parent / entry["href"] for entry in links if entry["rel"] == rel]


def rounded(geometry: shapely.Polygon) -> dict[str, Any]:
    """GeoJSON of a polygon, anticlockwise as the standard has it."""
    ring = shapely.get_coordinates(shapely.geometry.polygon.orient(geometry).exterior).round(DECIMALS)
    return {"type": "Polygon", "coordinates": [ring.tolist()]}


def bounding_box(items: Sequence[Item]) -> list[float]:
    """West, south, east, north of all items."""
    return [round(float(edge), DECIMALS) for edge in shapely.total_bounds([item.geometry for item in items])]


def timestamp(time: dt.datetime) -> str:
    """RFC 3339, in UTC."""
    return f"{time.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_whole(path, (json.dumps(document, indent=2) + "\n").encode())


PLANETSCOPE = "planetscope"
"""Collection of scenes."""
TCVIS = "tcvis"
"""Collection of trends."""
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
VIEW = "https://stac-extensions.github.io/view/v1.0.0/schema.json"
WAVELENGTHS = {"blue": (0.490, 0.050), "green": (0.565, 0.036), "red": (0.665, 0.030), "nir": (0.865, 0.040)}
"""Centre and full width at half maximum of PlanetScope's bands as its catalog states them, micrometres."""
DEM_YEARS, TCVIS_YEARS = (2007, 2022), (2005, 2024)
"""First and last year of the images that ArcticDEM v4.1 and the latest published trends were made from."""
DENSITY = 8
"""Points on each edge of a footprint: a straight edge is not straight in longitude and latitude."""


def collections(*, dem_resolution_m: int) -> tuple[Collection, ...]:
    """Make the three collections."""
    return (
        Collection(
            id=PLANETSCOPE,
            title="PlanetScope-like scenes",
            description="Synthetic scenes in the format of PlanetScope surface reflectance with usable data masks.",
        ),
        Collection(
            id=dem_collection_id(dem_resolution_m),
            title=f"ArcticDEM-like mosaic, {dem_resolution_m} m",
            description="Synthetic elevation in the format of the tiles of the ArcticDEM mosaic.",
        ),
        Collection(
            id=TCVIS,
            title="TCVIS-like trends",
            description="Synthetic trends of the Landsat tasselled-cap index over twenty years.",
        ),
    )


def dem_collection_id(resolution_m: int) -> str:
    """Id of the elevation's collection.

    Examples
    --------
    >>> dem_collection_id(10)
    'arcticdem-mosaic-10m'
    """
    return f"arcticdem-mosaic-{resolution_m}m"


def scene_item(scene: Scene, *, image: Path, udm2: Path) -> Item:
    """Describe a scene as Planet does; the cover is counted in the mask."""
    spec = scene.spec
    seen = scene.udm2[UDM2_BANDS.index("unusable")] == 0
    percent = {
        name: round(100 * float(scene.udm2[UDM2_BANDS.index(name)][seen].mean()), 2) if seen.any() else 0.0
        for name in ("clear", "snow", "cloud")
    }
    # A pixel more on each side, because pixels whose centre lies inside of the footprint reach beyond it.
    footprint = footprint_polygon(spec).buffer(1, join_style="mitre")
    optical = {
        name: {"eo:common_name": name, "eo:center_wavelength": centre, "eo:full_width_half_max": width}
        for name, (centre, width) in WAVELENGTHS.items()
    }
    return Item(
        id=spec.image_id,
        collection=PLANETSCOPE,
        geometry=to_lonlat(footprint, scene.transform, crs=spec.crs),
        time=dt.datetime.strptime(spec.image_id[:15], "%Y%m%d_%H%M%S").replace(tzinfo=dt.UTC),
        pixel_m=PIXEL_M,
        properties={
            "constellation": "planetscope",
            "platform": spec.image_id[16:],
            "instruments": ["PSB.SD"],
            "eo:cloud_cover": percent["cloud"],
            "eo:snow_cover": percent["snow"],
            "view:sun_azimuth": round(scene.sun.azimuth_deg, 2),
            "view:sun_elevation": round(scene.sun.elevation_deg, 2),
            "pl:item_type": "PSScene",
            "pl:clear_percent": percent["clear"],
            "pl:pixel_resolution": int(PIXEL_M),
        },
        assets={
            "ortho_analytic_4b_sr": Asset(
                path=image,
                title="Surface reflectance",
                roles=("data", "reflectance"),
                bands=optical,
                fields={"pl:asset_type": "ortho_analytic_4b_sr"},
            ),
            "ortho_udm2": Asset(path=udm2, title="Usable data mask", fields={"pl:asset_type": "ortho_udm2"}),
        },
        extensions=(EO, VIEW),
    )


def dem_item(path: Path, *, name: str, resolution_m: int) -> Item:
    """Describe a tile of elevation; its geometry is the whole tile, as in the published catalog."""
    return Item(
        id=name,
        collection=dem_collection_id(resolution_m),
        geometry=raster_outline(path, crs=DEM_CRS),
        time=years(DEM_YEARS),
        pixel_m=float(resolution_m),
        assets={"dem": Asset(path=path, title="Elevation", bands={"dem": {"unit": "m"}})},
    )


def tcvis_item(path: Path, *, name: str) -> Item:
    """Describe a file of trends."""
    return Item(
        id=name,
        collection=TCVIS,
        geometry=raster_outline(path, crs=TCVIS_CRS),
        time=years(TCVIS_YEARS),
        pixel_m=30.0,
        assets={"tcvis": Asset(path=path, title="Trends of the tasselled-cap index")},
    )


def years(first_and_last: tuple[int, int]) -> tuple[dt.datetime, dt.datetime]:
    """First and last second of some years."""
    first, last = first_and_last
    return dt.datetime(first, 1, 1, tzinfo=dt.UTC), dt.datetime(last, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def raster_outline(path: Path, *, crs: str) -> shapely.Polygon:
    """Outline of a file in longitude and latitude."""
    info = read_info(path)
    height, width = info.shape
    return to_lonlat(shapely.box(0, 0, width, height), info.transform, crs=crs)


def to_lonlat(polygon: shapely.Polygon, transform: Affine, *, crs: str) -> shapely.Polygon:
    """Turn a polygon in px into longitude and latitude, with points between its corners."""
    dense = polygon.segmentize(polygon.length / 4 / DENSITY)
    column, row = shapely.get_coordinates(dense.exterior).T
    x, y = transform.c + transform.a * column, transform.f + transform.e * row
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return shapely.Polygon(np.stack([longitude, latitude], axis=1))
