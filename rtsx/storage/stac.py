"""What all STAC documents that are written share: extensions, media types, GeoJSON and bounding boxes."""

from collections.abc import Sequence
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v2.0.0/schema.json"
"""Not from pystac, whose own is version 1: its bands are not those of STAC 1.1."""
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
"""Media type of a cloud-optimised GeoTIFF."""
_DECIMALS = 7
"""Of longitudes and latitudes: a centimetre."""


def bounding_box(polygons: Sequence[BaseGeometry]) -> list[float]:
    """Return west, south, east, north in degrees.

    What lies on both sides of the antimeridian goes around the whole Earth, as readers take it that know nothing of it.

    Examples
    --------
    >>> bounding_box([shapely.box(10, 60, 11, 61), shapely.box(12, 62, 13, 63)])
    [10.0, 60.0, 13.0, 63.0]
    """
    return [round(float(edge), _DECIMALS) for edge in shapely.total_bounds(list(polygons))]


def geojson(polygon: BaseGeometry) -> dict[str, Any]:
    """Return GeoJSON of one or several polygons in degrees, rings anticlockwise as the standard has it."""
    parts = [shapely.geometry.polygon.orient(part) for part in shapely.get_parts(polygon)]
    rings = [
        [shapely.get_coordinates(ring).round(_DECIMALS).tolist() for ring in (part.exterior, *part.interiors)]
        for part in parts
    ]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}
