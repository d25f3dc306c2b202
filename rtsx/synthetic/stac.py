"""Static STAC 1.1 catalogs of synthetic data, as those of PlanetScope, ArcticDEM and TCVIS would be.

A folder with a catalog can be moved. `catalog_items` turns its items into what a server is loaded with.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from pystac.stac_io import DefaultStacIO

from rtsx.storage import write_whole
from rtsx.storage.stac import COG, PROJECTION, RASTER, bounding_box, geojson
from rtsx.synthetic.scene import UDM2_BANDS, Scene, footprint_polygon
from rtsx.synthetic.spec import PIXEL_M


def write_catalog(
    folder: Path, items: Sequence[pystac.Item], *, collections: Sequence[pystac.Collection], name: str, description: str
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
    catalog = pystac.Catalog(name, description, catalog_type=pystac.CatalogType.SELF_CONTAINED)
    for key, members in groupby(items, key=lambda item: item.collection_id):
        collection = known[str(key)]
        collection.add_items(members)
        collection.update_extent_from_items()
        catalog.add_child(collection)
    catalog.normalize_hrefs(str(folder.resolve()))
    catalog.make_all_asset_hrefs_relative()
    # The catalog itself comes last, and is what tells a finished run from an interrupted one.
    catalog.save(stac_io=_WholeFiles())
    return folder / "catalog.json"


class _WholeFiles(DefaultStacIO):
    """Writes documents whole or not at all."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        """Write one document."""
        write_whole(Path(href), f"{txt}\n".encode())


def catalog_items(catalog: Path) -> list[dict[str, Any]]:
    """Return items of a static catalog as a server takes them, in the catalog's order: absolute hrefs, and no links.

    But for the link to the collection: without one, the schema does not let an item name its collection.
    """
    found = []
    for item in pystac.Catalog.from_file(str(catalog.resolve())).get_items(recursive=True):
        item.make_asset_hrefs_absolute()
        link = item.get_single_link("collection")
        found.append({**item.to_dict(), "links": [{**link.to_dict(), "href": link.absolute_href}] if link else []})
    return found


def document_paths(folder: Path, items: Iterable[tuple[str, str]]) -> tuple[Path, ...]:
    """Name every file that `write_catalog` makes for pairs of collection and item, the catalog first."""
    pairs = list(items)
    collections = [f"{name}/collection.json" for name in dict.fromkeys(collection for collection, _ in pairs)]
    return tuple(
        folder / name for name in ("catalog.json", *collections, *(f"{one}/{item}/{item}.json" for one, item in pairs))
    )


def make_item(
    name: str,
    assets: Mapping[str, pystac.Asset],
    *,
    collection: str,
    geometry: shapely.Polygon,
    time: dt.datetime | tuple[dt.datetime, dt.datetime],
    pixel_m: float,
    properties: Mapping[str, object] | None = None,
    extensions: Sequence[str] = (),
) -> pystac.Item:
    """Describe one image, or one piece of a mosaic; the grid is read from its files.

    Parameters
    ----------
    name
        Unique within the collection; also the name of its folder.
    assets
        By key, all on one grid; see `make_asset`.
    collection
        Id of its collection.
    geometry
        Ground that holds data, in longitude and latitude.
    time
        When it was taken; first and last for what was made from many images.
    pixel_m
        Pixel of the grid on the ground, m.
    properties
        More properties.
    extensions
        URIs of the extensions that these properties and the assets' fields belong to.
    """
    ((crs, transform, shape),) = {_grid(Path(asset.href)) for asset in assets.values()}
    start, end = time if isinstance(time, tuple) else (None, None)
    return pystac.Item(
        name,
        geojson(geometry),
        bounding_box([geometry]),
        None if isinstance(time, tuple) else time,
        {
            "gsd": pixel_m,
            **(properties or {}),
            "proj:code": crs,
            "proj:shape": list(shape),
            "proj:transform": list(transform)[:6],
        },
        start_datetime=start,
        end_datetime=end,
        stac_extensions=[PROJECTION, RASTER, *extensions],
        collection=collection,
        assets=dict(assets),
    )


def make_asset(
    path: Path,
    *,
    title: str,
    pixel_m: float,
    roles: Sequence[str] = ("data",),
    bands: Mapping[str, Mapping[str, object]] | None = None,
    fields: Mapping[str, object] | None = None,
) -> pystac.Asset:
    """Describe one file of an item; dtype, nodata and scale are read from it, and each band says all about itself.

    Parameters
    ----------
    path
        COG that `write_cog` has written.
    title
        What people are shown.
    pixel_m
        Pixel on the ground, m.
    roles
        STAC roles.
    bands
        More fields of a band, by its name in the file.
    fields
        More fields of the asset.
    """
    with rasterio.open(path) as raster:
        dtype, nodata, scale, names = raster.dtypes[0], raster.nodata, raster.scales[0], raster.descriptions
    values: dict[str, object] = {"data_type": dtype, "raster:spatial_resolution": pixel_m}
    if nodata is not None:
        values["nodata"] = int(nodata) if np.dtype(dtype).kind in "iu" else nodata
    if scale != 1:
        values |= {"raster:scale": scale, "raster:offset": 0.0}
    described = [{"name": name, **values, **(bands or {}).get(name, {})} for name in names]
    extra = {**(fields or {}), "bands": described}
    return pystac.Asset(str(path.resolve()), title, media_type=COG, roles=list(roles), extra_fields=extra)


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


def collections(*, dem_resolution_m: int) -> tuple[pystac.Collection, ...]:
    """Make the three collections; `write_catalog` finds their extent."""
    described = (
        (
            PLANETSCOPE,
            "PlanetScope-like scenes",
            "Synthetic scenes in the format of PlanetScope surface reflectance with usable data masks.",
        ),
        (
            dem_collection_id(dem_resolution_m),
            f"ArcticDEM-like mosaic, {dem_resolution_m} m",
            "Synthetic elevation in the format of the tiles of the ArcticDEM mosaic.",
        ),
        (TCVIS, "TCVIS-like trends", "Synthetic trends of the Landsat tasselled-cap index over twenty years."),
    )
    return tuple(make_collection(name, description, title=title) for name, title, description in described)


def make_collection(name: str, description: str, *, title: str | None = None) -> pystac.Collection:
    """Make a collection; `write_catalog` finds its extent."""
    anywhere = pystac.Extent(pystac.SpatialExtent([-180.0, -90.0, 180.0, 90.0]), pystac.TemporalExtent([None, None]))
    return pystac.Collection(name, description, anywhere, title=title, license="CC0-1.0")


def dem_collection_id(resolution_m: int) -> str:
    """Return the id of the elevation's collection.

    Examples
    --------
    >>> dem_collection_id(10)
    'arcticdem-mosaic-10m'
    """
    return f"arcticdem-mosaic-{resolution_m}m"


def scene_item(scene: Scene, *, image: Path, udm2: Path) -> pystac.Item:
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
    return make_item(
        spec.image_id,
        {
            "ortho_analytic_4b_sr": make_asset(
                image,
                title="Surface reflectance",
                pixel_m=PIXEL_M,
                roles=("data", "reflectance"),
                bands=optical,
                fields={"pl:asset_type": "ortho_analytic_4b_sr"},
            ),
            "ortho_udm2": make_asset(
                udm2, title="Usable data mask", pixel_m=PIXEL_M, fields={"pl:asset_type": "ortho_udm2"}
            ),
        },
        collection=PLANETSCOPE,
        geometry=lonlat_outline(footprint, scene.transform, crs=spec.crs),
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
        extensions=(EO, VIEW),
    )


def dem_item(path: Path, *, name: str, resolution_m: int) -> pystac.Item:
    """Describe a tile of elevation; its geometry is the whole tile, as in the published catalog."""
    pixel_m = float(resolution_m)
    return make_item(
        name,
        {"dem": make_asset(path, title="Elevation", pixel_m=pixel_m, bands={"dem": {"unit": "m"}})},
        collection=dem_collection_id(resolution_m),
        geometry=raster_outline(path),
        time=years(DEM_YEARS),
        pixel_m=pixel_m,
    )


def tcvis_item(path: Path, *, name: str) -> pystac.Item:
    """Describe a file of trends."""
    return make_item(
        name,
        {"tcvis": make_asset(path, title="Trends of the tasselled-cap index", pixel_m=30.0)},
        collection=TCVIS,
        geometry=raster_outline(path),
        time=years(TCVIS_YEARS),
        pixel_m=30.0,
    )


def years(first_and_last: tuple[int, int]) -> tuple[dt.datetime, dt.datetime]:
    """Return first and last second of some years."""
    first, last = first_and_last
    return dt.datetime(first, 1, 1, tzinfo=dt.UTC), dt.datetime(last, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


def raster_outline(path: Path) -> shapely.Polygon:
    """Return the outline of a file in longitude and latitude."""
    crs, transform, (height, width) = _grid(path)
    return lonlat_outline(shapely.box(0, 0, width, height), transform, crs=crs)


def _grid(path: Path) -> tuple[str, Affine, tuple[int, int]]:
    """Return CRS, transform and shape: read instead of remembered, so that metadata made from them cannot differ from the file."""
    with rasterio.open(path) as raster:
        return f"EPSG:{raster.crs.to_epsg()}", raster.transform, raster.shape


def lonlat_outline(polygon: shapely.Polygon, transform: Affine, *, crs: str) -> shapely.Polygon:
    """Turn a polygon in px into longitude and latitude, with points between its corners."""
    dense = polygon.segmentize(polygon.length / 4 / DENSITY)
    column, row = shapely.get_coordinates(dense.exterior).T
    x, y = transform.c + transform.a * column, transform.f + transform.e * row
    longitude, latitude = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return shapely.Polygon(np.stack([longitude, latitude], axis=1))
