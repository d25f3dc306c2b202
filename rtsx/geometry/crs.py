"""Coordinate reference systems: comparison, names, transformation of polygons with added vertices."""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError

from rtsx.errors import GridError, LabelError

if TYPE_CHECKING:
    from affine import Affine
    from odc.geo.crs import CRS

Floats = NDArray[np.float64]

LONLAT = PROJ_CRS.from_epsg(4326)
"""Longitude and latitude on the WGS84 ellipsoid, degrees."""

WGS84 = Geod(ellps="WGS84")
"""Measures along the ground between longitudes and latitudes."""

_EPSG_CONFIDENCE = 70
"""Percent above which two CRS that PROJ takes for the same EPSG code count as one: files write the names of datums and
ellipsoids in many ways."""


def apply_affine(affine: "Affine", x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return points (x, y) moved by an affine transform, such as the ground of columns and rows by that of a raster."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def transform(x: Floats, y: Floats, *, source: "CRS", target: "CRS") -> tuple[Floats, Floats]:
    """Return the points of `source` in `target`, x (longitude) first in both; infinite where `target` has no such point."""
    if same_crs(source, target):
        return x, y
    moved = cached_transformer(str(source), str(target)).transform(x, y)
    return moved[0], moved[1]


def longitude_period(crs: "CRS") -> float:
    """Return the length of once around the earth along x, in CRS units: 360 for degrees; 0 for a projected CRS.

    Examples
    --------
    >>> from odc.geo.crs import CRS
    >>> longitude_period(CRS("EPSG:4326")), longitude_period(CRS("EPSG:3413"))
    (360.0, 0.0)
    """
    return round(period_of(crs.proj) or 0.0, 9)


def same_crs(one: "CRS", other: "CRS") -> bool:
    """Test whether two CRS put a pixel on the same ground, however their names are written.

    Examples
    --------
    >>> from odc.geo.crs import CRS
    >>> same_crs(CRS("EPSG:3413"), CRS(CRS("EPSG:3413").to_wkt(version="WKT1_ESRI")))
    True
    >>> same_crs(CRS("EPSG:32608"), CRS("EPSG:32609"))
    False
    """
    # By their texts, because the hash of a CRS writes its WKT anew each time, which costs more than a small warp.
    return str(one) == str(other) or _are_same(str(one), str(other))


@lru_cache(maxsize=256)
def _are_same(one: str, other: str) -> bool:
    crs = [PROJ_CRS(text) for text in (one, other)]
    if crs[0].equals(crs[1], ignore_axis_order=True):
        return True
    codes = [each.to_epsg(min_confidence=_EPSG_CONFIDENCE) for each in crs]
    return codes[0] is not None and codes[0] == codes[1]


def without_heights(crs: PROJ_CRS) -> PROJ_CRS:
    """Return the part of a CRS that says where on the map a pixel lies; itself where it has no more than that.

    Examples
    --------
    >>> [without_heights(PROJ_CRS(f"EPSG:{code}")).to_epsg() for code in ("5498", "4979", "32608+5773", "3413")]
    [4269, 4326, 32608, 3413]
    """
    flat = crs.sub_crs_list[0] if crs.is_compound else crs
    return flat.to_2d() if (flat.is_projected or flat.is_geographic) and len(flat.axis_info) > 2 else flat


def crs_definition(crs: PROJ_CRS) -> str:
    """Return ``AUTHORITY:CODE`` where the CRS is exactly that one, else its WKT."""
    authority = crs.to_authority(min_confidence=100)
    return ":".join(authority) if authority else str(crs.to_wkt())


@lru_cache(maxsize=64)
def cached_transformer(source: str, target: str) -> Transformer:
    """Return what moves points between two CRS, x (longitude) first in both; kept, because PROJ searches long for the way.

    Raises
    ------
    GridError
        Nothing leads from one to the other, as where one is of another planet or of a building site.
    """
    # One for all threads: pyproj makes the C object behind it once per thread.
    try:
        return Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        one, other = (PROJ_CRS(crs).name for crs in (source, target))
        reason = re.sub(
            r".*proj_create_operations: |\. You may override.*|\)+$", "", str(error).rstrip("."), flags=re.DOTALL
        )
        raise GridError(
            f"Nothing leads from the CRS {one!r} to {other!r}: {reason}. Give everything in projected or geographic CRS of the Earth; where "
            "the coordinates are of one, write the file with it."
        ) from error


def lonlat_transformer(crs: PROJ_CRS) -> Transformer:
    """Return what moves points of `crs` to longitude and latitude, x first; kept, because PROJ searches long for the way."""
    return cached_transformer(crs.to_wkt(), "EPSG:4326")


Geometries = NDArray[np.object_]

LONGEST_EDGE_M = 500.0
"""An edge that is straight in its own CRS is followed in steps of this length; over 500 m an edge along a parallel at 80
degrees leaves a straight line by less than 3 cm, one in EPSG:3413 by less than 2 cm."""


def geodesic_measures(outlines: Geometries) -> tuple[Floats, Floats]:
    """Measure Polygons and MultiPolygons in longitude and latitude on the WGS84 ellipsoid: areas, m², and perimeters, m."""
    parts, owner = shapely.get_parts(outlines, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    lon, lat = shapely.get_coordinates(rings).T
    ends = np.cumsum([0, *shapely.get_num_coordinates(rings)])
    measured = [WGS84.polygon_area_perimeter(lon[i : j - 1], lat[i : j - 1]) for i, j in pairwise(ends)]
    area, perimeter = np.abs(np.reshape(measured, (-1, 2))).T
    is_shell = np.diff(part, prepend=-1) > 0
    totals = np.zeros((2, len(outlines)))
    np.add.at(totals[0], owner[part], np.where(is_shell, area, -area))
    np.add.at(totals[1], owner[part], perimeter)
    return totals[0], totals[1]


def longest_edge(crs: PROJ_CRS) -> float:
    """Return `LONGEST_EDGE_M` in the unit of `crs`: for a geographic one, degrees of latitude."""
    factor = crs.axis_info[0].unit_conversion_factor
    return float(LONGEST_EDGE_M / (factor * 6_371_000.0 if crs.is_geographic else factor))


def densified(polygons: Geometries, crs: PROJ_CRS) -> Geometries:
    """Add vertices to polygons, so that no edge is longer than `longest_edge`."""
    return np.asarray(shapely.segmentize(polygons, longest_edge(crs)))


def transformed(polygons: Geometries, source: PROJ_CRS, target: PROJ_CRS) -> Geometries:
    """Return polygons with each vertex moved from one CRS to another; x is easting or longitude in both.

    Raises
    ------
    LabelError
        A vertex has no place in `target`; names the first.
    """
    if source.equals(target, ignore_axis_order=True):
        return polygons
    return np.asarray(shapely.transform(polygons, _mover(source, target)))


def crs_code(crs: PROJ_CRS) -> str | None:
    """Return ``EPSG:CODE`` and the like; None where there is no code."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else None


def crs_text(crs: PROJ_CRS) -> str:
    """Return ``EPSG:CODE`` and the like where there is a code, else the name; for messages."""
    return crs_code(crs) or repr(crs.name)


def length_text(length: float, crs: str) -> str:
    """Return a length in CRS units with its unit.

    Examples
    --------
    >>> length_text(3.0, "EPSG:3413"), length_text(0.0001, "EPSG:4326"), length_text(10.0, "EPSG:2225")
    ('3 m', '0.0001 degrees', '10 US survey foot')
    """
    return f"{length:g} {unit_text(PROJ_CRS.from_user_input(crs))}"


def unit_text(crs: PROJ_CRS) -> str:
    """Return the unit of a CRS as people write it."""
    unit = crs.axis_info[0].unit_name
    return {"metre": "m", "degree": "degrees"}.get(unit, unit)


def period_of(crs: PROJ_CRS) -> float | None:
    """Return the full turn in the unit of a geographic CRS; None for any other."""
    return 2 * np.pi / crs.axis_info[0].unit_conversion_factor if crs.is_geographic else None


def seam_of(crs: PROJ_CRS) -> float:
    """Return the longitude, degrees, opposite of a projection's central meridian: where its plane can end."""
    operation = crs.coordinate_operation
    centres = [one.value for one in operation.params if one.name.startswith("Longitude of")] if operation else []
    return (float(centres[0]) if centres else 0.0) % 360 - 180


def has_seam(crs: PROJ_CRS, latitude: float) -> bool:
    """Test whether a projection tears neighbours across `seam_of` apart, as Mercator does and polar projections do not."""
    transformer = cached_transformer(LONLAT.to_wkt(), crs.to_wkt())
    seam = seam_of(crs)
    x, y = transformer.transform([seam - 1e-7, seam + 1e-7], [latitude, latitude])
    apart = float(np.hypot(x[1] - x[0], y[1] - y[0]))
    return not apart < 1000.0


def _mover(source: PROJ_CRS, target: PROJ_CRS) -> Callable[[Floats], Floats]:
    transformer = cached_transformer(source.to_wkt(), target.to_wkt())

    def move(coordinates: Floats) -> Floats:
        moved = np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1]))
        strange = ~np.isfinite(moved).all(axis=1)
        if strange.any():
            x, y = coordinates[np.argmax(strange)]
            raise LabelError(
                f"Labels in {crs_text(source)} have a vertex at x = {x}, y = {y}, which has no place in {crs_text(target)}. "
                "Is the CRS of the labels the right one? If it is, leave out what lies far from the raster."
            )
        return np.asarray(moved, np.float64)

    return move
