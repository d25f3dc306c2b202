"""Ground as it is ordered and paid for: longitude and latitude on an equal-area plane around a region."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from shapely import (
    LineString,
    MultiPolygon,
    Polygon,
    difference,
    get_coordinates,
    get_parts,
    make_valid,
    segmentize,
    set_precision,
    union_all,
)
from shapely.geometry.base import BaseGeometry

from rtsx.errors import OrderError
from rtsx.grid.lonlat import lonlat_polygon

__all__ = ["EqualAreaPlane"]

_EDGE = 0.02
"""Longest piece in degrees that an edge is cut into, because an edge that is straight in degrees is curved here; the
chord of such a piece is within 5 cm of it at 60 degrees."""
_PIECES = 4000
"""Pieces at most along the longest side of a ring, so that an outline of the whole Arctic stays small."""
_PRECISION_M = 0.01
"""Lattice that vertices are snapped to, so that two scenes that share an edge leave no sliver of rounding between them."""


@dataclass(frozen=True)
class EqualAreaPlane:
    """A Lambert azimuthal equal-area projection (WGS 84) whose centre is the middle of a region.

    Areas on it are true at any distance from the centre, and neither the antimeridian nor a pole is an edge of it.

    Examples
    --------
    >>> from shapely import box
    >>> plane = EqualAreaPlane.around(box(-180, 80, 180, 90))
    >>> plane.lat
    90.0
    >>> round(plane.place(box(-180, 80, 180, 90)).area / 1e12, 2)
    3.91
    """

    lon: float
    """Longitude of the centre in degrees."""
    lat: float
    """Latitude of the centre in degrees."""

    @classmethod
    def around(cls, region: BaseGeometry) -> "EqualAreaPlane":
        """The plane around a region given in longitude and latitude.

        Raises
        ------
        OrderError
            The region holds no ground.
        """
        lon, lat = np.radians(get_coordinates(segmentize(_polygons(region), 5.0))).T
        if not len(lon):
            raise OrderError("A region has to be a polygon with an area; got an empty geometry. Check the file.")
        x, y, z = (np.cos(lat) * np.cos(lon)).mean(), (np.cos(lat) * np.sin(lon)).mean(), np.sin(lat).mean()
        level = float(np.hypot(x, y))
        if level < 0.1 * abs(z) or level < 1e-3:  # around a pole, or around the globe: there is no middle longitude
            return cls(0.0, 90.0 if z >= 0 else -90.0)
        # Rounded, because only the place matters and not the digits, which differ between machines.
        return cls(round(float(np.degrees(np.arctan2(y, x))), 2), round(float(np.degrees(np.arctan2(z, level))), 2))

    @property
    def crs(self) -> str:
        """The projection as pyproj reads it."""
        return f"+proj=laea +lat_0={self.lat} +lon_0={self.lon} +datum=WGS84 +units=m +no_defs"

    def place(self, region: BaseGeometry) -> BaseGeometry:
        """A region on the plane, in metres.

        Longitudes are taken as they stand (RFC 7946): what crosses the antimeridian is split there, or runs on beyond 180.
        """
        return self._placed(region, unwrap=False)

    def place_footprint(self, footprint: BaseGeometry) -> BaseGeometry:
        """The outline of an image on the plane, in metres; also one that catalogs forgot to split at the antimeridian.

        A ring takes the short way from vertex to vertex, because no image is wider than half the globe.

        Examples
        --------
        >>> unsplit = Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
        >>> plane = EqualAreaPlane.around(unsplit)
        >>> 8e9 < plane.place_footprint(unsplit).area < 9e9
        True
        """
        return self._placed(footprint, unwrap=True)

    def lonlat(self, ground: BaseGeometry) -> Polygon | MultiPolygon:
        """Ground on the plane in longitude and latitude, split at the antimeridian."""
        parts = []
        for part in get_parts(_polygons(set_precision(ground, _PRECISION_M))):  # which drops slivers of rounding
            # Made valid, because a ring that touches itself at a point may cross itself there in degrees.
            holes = [make_valid(lonlat_polygon(Polygon(ring), self.crs)) for ring in part.interiors]
            outline = make_valid(lonlat_polygon(Polygon(part.exterior), self.crs))
            parts.append(difference(outline, union_all(holes)))
        return _polygons(union_all(parts))

    def _placed(self, geometry: BaseGeometry, *, unwrap: bool) -> BaseGeometry:
        parts = [
            make_valid(
                Polygon(
                    self._ring(get_coordinates(part.exterior), unwrap=unwrap),
                    [self._ring(get_coordinates(ring), unwrap=unwrap) for ring in part.interiors],
                )
            )
            for part in get_parts(_polygons(geometry))
        ]
        return _polygons(set_precision(union_all([part for part in parts if np.isfinite(part.area)]), _PRECISION_M))

    def _ring(self, ring: NDArray[np.float64], *, unwrap: bool) -> NDArray[np.float64]:
        lon = np.unwrap(ring[:, 0], period=360) if unwrap else ring[:, 0]
        path = LineString(np.column_stack([lon, ring[:, 1]]))
        west, south, east, north = path.bounds
        fine = get_coordinates(segmentize(path, max(_EDGE, (east - west) / _PIECES, (north - south) / _PIECES)))
        return np.column_stack(self._transformer.transform(fine[:, 0], fine[:, 1]))

    @cached_property
    def _transformer(self) -> Transformer:
        return Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)


def _polygons(geometry: BaseGeometry) -> MultiPolygon:
    """The parts of a geometry that have an area."""
    parts = [
        part
        for whole in get_parts(geometry)
        for part in get_parts(whole)  # a collection may hold multi-polygons
        if isinstance(part, Polygon) and not part.is_empty
    ]
    return MultiPolygon(parts)
