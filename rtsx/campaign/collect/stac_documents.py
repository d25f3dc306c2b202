"""STAC documents of a campaign's products: plain JSON values, links and hrefs relative, so that an output can be moved."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from rtsx.campaign.cell_table import Address
from rtsx.campaign.collect.states import CellState
from rtsx.campaign.layout import MAP, YearLayout
from rtsx.campaign.plan import CampaignPlan
from rtsx.grid.cell import cell_id

__all__ = [
    "COG",
    "PARQUET",
    "ZARR",
    "asset",
    "bounding_box",
    "branch_document",
    "collection_document",
    "collection_id",
    "item_document",
    "item_id",
    "link",
    "root_document",
]

STAC_VERSION = "1.1.0"
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
PARQUET = "application/vnd.apache.parquet"
ZARR = "application/vnd.zarr; version=3"
_JSON, _GEOJSON = "application/json", "application/geo+json"
_DECIMALS = 7
"""Of longitudes and latitudes: a centimetre."""
_TITLES = {
    "probability": "Probability of the target",
    "binary": "Where the target was found",
}

Document = dict[str, Any]
Box = tuple[float, float, float, float]


def collection_id(plan: CampaignPlan) -> str:
    """Id of the collection of a year."""
    return f"{plan.name}-{plan.year}"


def item_id(plan: CampaignPlan, cell: Address) -> str:
    """Id of the item of a cell."""
    return f"{collection_id(plan)}-{cell_id(*cell)}"


def item_document(plan: CampaignPlan, cell: Address, state: CellState, *, key: str) -> Document:
    """The item of a finished cell that lies at `key`."""
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
        "geometry": _geojson(ground),
        "bbox": list(bounding_box([ground])),
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


def branch_document(plan: CampaignPlan, name: str, items: Sequence[Address], *, key: str, box: Box) -> Document:
    """The catalog of a partition, at `key`.

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
    plan: CampaignPlan, branches: Sequence[str], assets: Mapping[str, Document], *, key: str, box: Box
) -> Document:
    """The collection of a year, at `key`."""
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": collection_id(plan),
        "title": f"{plan.name} {plan.year}",
        "description": (
            f"Map of {', '.join(plan.prediction.classes)} of {plan.year} on {plan.grid.crs} at {plan.grid.resolution:g} "
            "units per pixel, and its outlines."
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


def root_document(name: str, collections: Mapping[int, str]) -> Document:
    """The catalog of all years, beside the map; collections by the year, as keys."""
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
    """An asset of the document at the key `beside`."""
    href = posixpath.relpath(key, posixpath.dirname(beside))
    return {"href": href, "type": media_type, "title": title, "roles": list(roles)}


def link(rel: str, href: str, *, media_type: str = _JSON, title: str | None = None) -> dict[str, str]:
    """A STAC link."""
    return {"rel": rel, "href": href, "type": media_type} | ({"title": title} if title else {})


def bounding_box(grounds: Sequence[BaseGeometry]) -> Box:
    """West, south, east, north in degrees.

    Ground on both sides of the antimeridian goes around the whole Earth, as readers take it that know nothing of it.
    """
    west, south, east, north = (round(float(edge), _DECIMALS) for edge in shapely.total_bounds(list(grounds)))
    return west, south, east, north


def _extent(year: int, box: Box) -> Document:
    stated = _year(year)
    interval = [stated["start_datetime"], stated["end_datetime"]]
    return {"spatial": {"bbox": [list(box)]}, "temporal": {"interval": [interval]}}


def _year(year: int) -> Document:
    return {
        "datetime": None,
        "start_datetime": f"{year}-01-01T00:00:00Z",
        "end_datetime": f"{year}-12-31T23:59:59Z",
    }


def _bands(variable: str, plan: CampaignPlan) -> list[Document]:
    """Bands of a GeoTIFF: one for each class where there are several."""
    several = len(plan.prediction.classes) > 1
    names = [f"{variable} {name}" for name in plan.prediction.classes] if several else [variable]
    scaled = {"raster:scale": 0.01, "raster:offset": 0.0} if variable == "probability" else {}
    return [{"name": name, "data_type": "uint8", "nodata": 255, **scaled} for name in names]


def _geojson(ground: BaseGeometry) -> Document:
    """GeoJSON, rings anticlockwise as the standard has it."""
    parts = [shapely.geometry.polygon.orient(part) for part in getattr(ground, "geoms", [ground])]
    rings = [
        [shapely.get_coordinates(ring).round(_DECIMALS).tolist() for ring in (part.exterior, *part.interiors)]
        for part in parts
    ]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}
