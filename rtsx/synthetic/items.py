"""What the catalogs of the real products would say about our files: PlanetScope, ArcticDEM, TCVIS."""

import datetime as dt
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer

from rtsx.synthetic.auxiliary import DEM_CRS, TCVIS_CRS
from rtsx.synthetic.image import footprint_polygon
from rtsx.synthetic.rasterio import read_info
from rtsx.synthetic.scene import Scene
from rtsx.synthetic.sky import UDM2_BANDS
from rtsx.synthetic.spec import PIXEL_M
from rtsx.synthetic.stac import Asset, Collection, Item

__all__ = ["collections", "dem_collection_id", "dem_item", "scene_item", "tcvis_item"]

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
