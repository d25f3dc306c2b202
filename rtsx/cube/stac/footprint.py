"""Where an image holds data, in longitude and latitude, also across the antimeridian and around a pole."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import MultiPolygon, Polygon, box, get_parts, make_valid, union_all
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from rtsx.cube.stac.item import ItemDict, item_name
from rtsx.errors import CubeError
from rtsx.grid.lonlat import lonlat_polygon

__all__ = ["extent_of", "item_footprint", "lies_on", "raster_footprint", "with_native_edges"]

_PLAIN = 1.05
"""Area of a hull by that of its outline up to which the difference is bent edges, and not a bay."""


def item_footprint(item: ItemDict) -> BaseGeometry | None:
    """The item's geometry, split at the antimeridian and made valid; None where it has none that covers any ground.

    An outline that jumps by more than 180 degrees between two vertices was meant to cross the antimeridian: GeoJSON asks
    to cut it there, and many items do not. Longitudes beyond 180 are brought back. Holes of such outlines are filled.

    Raises
    ------
    CubeError
        The geometry is no GeoJSON.

    Examples
    --------
    >>> ring = [[179, 66], [-179, 66], [-179, 67], [179, 67], [179, 66]]
    >>> item_footprint({"geometry": {"type": "Polygon", "coordinates": [ring]}}).area
    2.0
    """
    if not item.get("geometry"):
        return None
    try:
        geometry = shape(item["geometry"])
        if not (np.abs(geometry.bounds) <= (540, 90.01, 540, 90.01)).all() and not geometry.is_empty:
            raise ValueError(f"its bounds {geometry.bounds} are no degrees of longitude and latitude")
        parts = [_cut(part) for part in getattr(geometry, "geoms", [geometry]) if isinstance(part, Polygon)]
        ground = union_all([part for part in parts if not part.is_empty])
        # Without lines and points, which is what degenerate rings become.
        footprint = union_all([part for part in get_parts(get_parts(ground)) if isinstance(part, Polygon)])
    except (ShapelyError, AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise CubeError(
            f"Item {item_name(item)} has a geometry that is no GeoJSON: {error}. Correct it, or set it to null, so that "
            "the raster's own outline counts."
        ) from error
    return footprint if footprint.area > 0 else None


def extent_of(bbox: Sequence[float]) -> BaseGeometry:
    """A STAC bbox of 4 or 6 numbers as polygon; one whose west is east of its east crosses the antimeridian.

    Examples
    --------
    >>> extent_of([178, 65, -179, 66]).area
    3.0
    """
    west, south, east, north = [*bbox[:2], *bbox[3:5]] if len(bbox) == 6 else bbox
    if west > east:
        return MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
    return _cut(box(west, south, east, north))


def raster_footprint(geobox: GeoBox) -> BaseGeometry:
    """All ground of a raster, split at the antimeridian."""
    return lonlat_polygon(geobox.extent.geom, _wkt(geobox))


def with_native_edges(footprint: BaseGeometry, geobox: GeoBox) -> BaseGeometry:
    """A footprint widened so that it also holds its outline with edges that are straight on the raster's grid.

    Items give the corners of a scene, and its edges run straight in the scene's projection: between the corners of a
    Sentinel-2 tile that is hundreds of metres beside the straight line in degrees, and that ground would be missed.
    """
    pixel = max(map(abs, (geobox.affine.a, geobox.affine.b)))
    native = [Polygon(ring) for ring in _native_rings(footprint, geobox)]
    # Buffered there and back, so that the parts of an outline that was cut at the antimeridian meet again.
    joined = union_all([part.buffer(pixel, join_style="mitre") for part in native if part.is_valid])
    joined = joined.buffer(-pixel, join_style="mitre")
    outlines = []
    for part in getattr(joined, "geoms", [joined]):
        if part.is_empty:
            continue
        # A cut puts vertices on the bent line; the hull does without them. Not where an outline really has bays.
        is_plain = part.convex_hull.area <= _PLAIN * part.area
        outlines.append(part.convex_hull if is_plain else Polygon(part.exterior))
    widened = [lonlat_polygon(outline, _wkt(geobox)) for outline in outlines]
    return union_all([make_valid(piece) for piece in (footprint, *widened)])


def lies_on(footprint: BaseGeometry, geobox: GeoBox) -> bool:
    """Whether a footprint and a raster share ground, judged by their boxes on the raster's own grid."""
    bounds = geobox.boundingbox
    for native in _native_rings(footprint, geobox):
        (west, south), (east, north) = native.min(axis=0), native.max(axis=0)
        if west <= bounds.right and east >= bounds.left and south <= bounds.top and north >= bounds.bottom:
            return True
    return False


def _native_rings(footprint: BaseGeometry, geobox: GeoBox) -> Iterator[NDArray[np.float64]]:
    """Corners of the outlines in the raster's projection, but for those that it does not reach."""
    transformer = _to_native(_wkt(geobox))
    for part in getattr(footprint, "geoms", [footprint]):
        ring = np.asarray(part.exterior.coords)[:, :2]
        native = np.column_stack(transformer.transform(ring[:, 0], ring[:, 1]))
        if np.isfinite(native).all():
            yield native


@lru_cache(maxsize=64)
def _to_native(crs: str) -> Transformer:
    """Kept, because making one takes a millisecond and all items of a search share a few projections."""
    return Transformer.from_crs("EPSG:4326", crs, always_xy=True)


def _wkt(geobox: GeoBox) -> str:
    assert geobox.crs is not None  # every geobox here was made with one
    return str(geobox.crs.to_wkt())


def _cut(polygon: Polygon) -> BaseGeometry:
    """A polygon with longitudes in [-180, 180]; itself where it is that already."""
    ring = np.asarray(polygon.exterior.coords, dtype=float)[:, :2]
    if not _crosses(ring[:, 0]):
        return make_valid(polygon)
    lon = np.unwrap(ring[:, 0], period=360)
    if abs(lon[-1] - lon[0]) < 180:
        return make_valid(lonlat_polygon(Polygon(np.column_stack([lon, ring[:, 1]])), "EPSG:4326"))
    polar = "EPSG:3413" if ring[:, 1].mean() > 0 else "EPSG:3031"  # once around the pole: only there is it a plane ring
    x, y = Transformer.from_crs("EPSG:4326", polar, always_xy=True).transform(ring[:, 0], ring[:, 1])
    return make_valid(lonlat_polygon(Polygon(np.column_stack([x, y])), polar))


def _crosses(lon: NDArray[np.float64]) -> bool:
    """Whether an outline leaves [-180, 180] or jumps over the antimeridian; the edge of the whole world does neither."""
    jumps = np.abs(np.diff(lon))
    is_world_edge = (np.abs(lon[1:]) == 180) & (np.abs(lon[:-1]) == 180)
    return bool((np.abs(lon) > 180).any() or ((jumps > 180) & ~is_world_edge).any())
