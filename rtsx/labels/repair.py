"""Geometry of inventories made valid: axis order, geocentric coordinates, CRS, polygons."""

from dataclasses import dataclass
from functools import partial
from textwrap import shorten
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rtsx.errors import LabelError
from rtsx.geometry.antimeridian import crosses_antimeridian, split_at_antimeridian, to_lonlat
from rtsx.geometry.crs import LONLAT, crs_text, geodesic_measures, lonlat_transformer, transformed
from rtsx.labels.schema import Issue

Geometries = NDArray[np.object_]
Floats = NDArray[np.float64]

_NEAR, _FAR = 0.1, 1.0
"""Degrees within which a centre is where its row says it is, and beyond which it is not."""
_AREA_MARGIN = 10.0
"""Degrees around the area that a CRS is made for in which it is used all the same."""
_HIGH_LATITUDE = 60.0
"""Where all outlines would be if swapped, and none is as it stands, a doubt is stated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AxisOrder:
    """Outlines with x first, and how that was found."""

    outlines: Geometries
    """`(row,)`; those that had y first are swapped."""
    findings: tuple[Issue, ...]
    """One for each row that was swapped, or that cannot be told."""
    doubt: str | None
    """What speaks for an order that nothing proves; None where nothing does."""


def axis_order(outlines: Geometries, crs: CRS, *, stated: tuple[Floats, Floats]) -> AxisOrder:
    """Swap coordinates that come with y (latitude, northing) first, where that is certain.

    It is certain where a row says where its centre is, and it is there only when swapped; where a latitude is beyond a pole
    as it stands and not when swapped, and then for the whole source, unless rows contradict; and in a projection, where no
    outline lies within 10 degrees of the area that it is made for as it stands, and each lies in it when swapped.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geographic or projected.
    stated : tuple of numpy.ndarray
        Latitude and longitude that rows say they lie at, `(row,)`; NaN where they say nothing.
    """
    swap = np.zeros(len(outlines), bool)
    unclear = swap.copy()
    there = np.flatnonzero(shapely.is_geometry(outlines))
    if len(there) == 0:
        return AxisOrder(outlines=outlines, findings=(), doubt=None)
    bounds = shapely.bounds(outlines[there])
    x, y = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    given, swapped = _lonlat(x, y, crs), _lonlat(y, x, crs)
    by_centre = (_apart(given, stated, there) > _FAR) & (_apart(swapped, stated, there) < _NEAR)
    swap[there] = by_centre
    why = "its centre lies there only when they are swapped"
    doubt = None
    if crs.is_geographic and not by_centre.any():
        beyond, wide = np.abs(bounds[:, [1, 3]]).max(axis=1) > 90, np.abs(bounds[:, [0, 2]]).max(axis=1) > 90
        proven = beyond & ~wide
        is_whole = bool(proven.any() and not (wide & ~beyond).any())
        swap[there] = ~wide if is_whole else proven
        unclear[there] = ~beyond & ~wide & (bool(proven.any()) and not is_whole)
        why = "latitudes of this source are beyond the poles otherwise"
        if not (beyond | wide).any():
            doubt = _doubt(given[1], swapped[1])
    elif crs.is_projected and not by_centre.any():
        misplaced = ~in_area(*given, crs, margin=_AREA_MARGIN) & in_area(*swapped, crs, margin=0.0)
        swap[there] = misplaced.all()
        why = "all labels of this source lie far outside the area of its CRS otherwise"
    turned = outlines.copy()
    turned[swap] = shapely.transform(outlines[swap], lambda xy: xy[:, ::-1])
    return AxisOrder(outlines=turned, findings=_findings(swap, unclear, why), doubt=doubt)


def in_area(lon: Floats, lat: Floats, crs: CRS, *, margin: float) -> NDArray[np.bool_]:
    """Test whether places lie in the area that a CRS is made for, or within some degrees of it; True where it has none."""
    area = crs.area_of_use
    if area is None:
        return np.isfinite(lat)
    width = (area.east - area.west) % 360 or 360.0
    with np.errstate(invalid="ignore"):
        east_of = (lon - area.west + margin) % 360
        return np.asarray(
            (east_of <= width + 2 * margin) & (lat >= area.south - margin) & (lat <= area.north + margin), bool
        )


def _findings(swap: NDArray[np.bool_], unclear: NDArray[np.bool_], why: str) -> tuple[Issue, ...]:
    swapped = partial(Issue, problem="wrong axis order", action="repaired", detail=f"x and y swapped: {why}")
    detail = "other rows have latitude first, this one may have either: left as it is"
    doubtful = partial(Issue, problem="doubtful axis order", action="kept", detail=detail)
    return tuple(
        one(row=row) for one, rows in ((swapped, swap), (doubtful, unclear)) for row in np.flatnonzero(rows).tolist()
    )


def _doubt(given: Floats, swapped: Floats) -> str | None:
    if (np.abs(given) < _HIGH_LATITUDE).all() and (np.abs(swapped) >= _HIGH_LATITUDE).all():
        return (
            f"all labels lie between {given.min():.2f} and {given.max():.2f} degrees of latitude, and between "
            f"{swapped.min():.2f} and {swapped.max():.2f} if latitude came first; nothing proves that it does, so they stay"
        )
    return None


def _lonlat(x: Floats, y: Floats, crs: CRS) -> tuple[Floats, Floats]:
    lon, lat = lonlat_transformer(crs).transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def _apart(place: tuple[Floats, Floats], stated: tuple[Floats, Floats], there: NDArray[np.int64]) -> Floats:
    lat, lon = (one[there] for one in stated)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.maximum(np.abs(place[1] - lat), np.abs((place[0] - lon + 180) % 360 - 180)), np.float64)


Hemisphere = Literal["north", "south"]

_HIGHEST_M = 20_000.0
"""Metres off the ellipsoid beyond which nothing lies on the ground."""


def from_geocentric(outlines: Geometries, crs: CRS, *, hemisphere: Hemisphere | None) -> tuple[Geometries, list[Issue]]:
    """Bring outlines in metres from the Earth's centre to longitude and latitude.

    Geocentric coordinates are three: with X, Y and Z they are exact. Software that writes plane polygons loses Z. Then X and
    Y tell the longitude, and how far the axis is; on the ellipsoid that leaves two places, one in each hemisphere, and the
    caller has to say which. Heights cannot be told any more: a place 1000 m above the ellipsoid comes out up to
    1000 m / tan(latitude) too far from its pole.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geocentric.
    hemisphere : "north", "south" or None
        Where outlines without Z lie.

    Returns
    -------
    tuple
        `(row,)` in EPSG:4326, None where the ground has no such place; and what was found.

    Raises
    ------
    LabelError
        There are outlines without Z, and `hemisphere` is None.
    """
    there = shapely.is_geometry(outlines)
    flat = there & ~shapely.has_z(outlines)
    if flat.any() and hemisphere is None:
        raise LabelError(
            f"{int(flat.sum())} of {int(there.sum())} labels lie in {crs_text(crs)}, which is geocentric: metres from the Earth's centre along "
            "three axes. Z is missing, without which a place in the north and one in the south look the same. Use a file in "
            "another CRS, or say hemisphere='north' or 'south' (--hemisphere): labels are then taken to lie on the ellipsoid."
        )
    transformer = Transformer.from_crs(crs, CRS.from_epsg(4979), always_xy=True)
    moved = np.full(len(outlines), None, np.object_)
    findings = []
    for row in np.flatnonzero(there):
        coordinates = shapely.get_coordinates(outlines[row], include_z=True)
        x, y, z = coordinates.T
        if flat[row]:
            z = _z_on_ellipsoid(np.hypot(x, y), crs) * (1 if hemisphere == "north" else -1)
        lon, lat, height = transformer.transform(x, y, z)
        if not np.isfinite(lat).all() or np.abs(height).max() > _HIGHEST_M:
            detail = f"X = {x[0]:.0f} m, Y = {y[0]:.0f} m is no place on the ground in {crs_text(crs)}"
            findings.append(Issue(row=int(row), problem="no place on Earth", action="dropped", detail=detail))
            continue
        lonlat = np.column_stack((lon, lat))
        moved[row] = shapely.transform(shapely.force_2d(outlines[row]), lambda _, lonlat=lonlat: lonlat)
        if flat[row]:
            detail = f"geocentric without Z: taken to lie on the ellipsoid, in the {hemisphere}"
            findings.append(Issue(row=int(row), problem="height missing", action="repaired", detail=detail))
    return moved, findings


def _z_on_ellipsoid(radius: Floats, crs: CRS) -> Floats:
    """Return Z of points of the ellipsoid whose distance from the axis is given, m; NaN where there is none."""
    assert crs.ellipsoid is not None  # a geocentric CRS has one
    a, b = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    inside = 1 - (radius / a) ** 2
    return np.asarray(b * np.sqrt(np.where(inside >= 0, inside, np.nan)), np.float64)


_OFF_M = 1.0
"""Metres by which a vertex may miss its own place on the way to longitude and latitude and back."""
_WARNING_MARGIN = 10.0
"""Degrees around the area that a CRS is made for within which nothing is said."""


def valid_lonlat(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Issue]]:
    """Drop outlines whose CRS gives them no longitude and latitude, and tell of those far from where it is made for.

    A vertex has a place when it comes back to within 1 m from longitude and latitude: projections answer something for
    numbers that they are not made for.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Geographic or projected.
    """
    kept = outlines.copy()
    findings = []
    there = np.flatnonzero(shapely.is_geometry(outlines))
    vertices, owner = shapely.get_coordinates(outlines[there], return_index=True)
    placeless, far = _strange(vertices, crs)
    strange = np.unique(owner[placeless | far])
    starts, stops = (np.searchsorted(owner, strange, side=side) for side in ("left", "right"))
    for position, start, stop in zip(strange, starts, stops, strict=True):
        row = int(there[position])
        mine = slice(start, stop)
        x, y = vertices[mine][np.argmax((placeless if placeless[mine].any() else far)[mine])]
        if placeless[mine].any():
            kept[row] = None
            detail = f"x = {x:.6g}, y = {y:.6g} has no longitude and latitude in {crs_text(crs)}: is that its CRS?"
            findings.append(Issue(row=row, problem="no place on Earth", action="dropped", detail=detail))
        else:
            area = crs.area_of_use
            made_for = shorten(area.name, width=80, placeholder=" ...") if area else "elsewhere"
            detail = f"{crs_text(crs)} is made for {made_for}: is that its CRS?"
            findings.append(Issue(row=row, problem="far from the area of its CRS", action="kept", detail=detail))
    return kept, findings


def outlines_to_lonlat(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Issue]]:
    """Convert outlines to EPSG:4326, long edges followed, longitudes from -180 to 180, cut at the antimeridian.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` valid Polygons, MultiPolygons or None, which `valid_lonlat` has passed.
    crs : pyproj.CRS
        Geographic or projected.
    """
    there = np.flatnonzero(shapely.is_geometry(outlines))
    parts, owner = shapely.get_parts(outlines[there], return_index=True)
    lonlat, across = to_lonlat(parts, crs)
    polar = crosses_antimeridian(lonlat, 360.0) if len(lonlat) else np.zeros(0, bool)
    west, _, east, _ = shapely.bounds(lonlat).reshape(-1, 4).T
    pieces: list[list[shapely.Polygon]] = [[] for _ in there]
    for position, part in enumerate(lonlat):
        inside = west[position] >= -180 and east[position] <= 180
        pieces[owner[position]] += [part] if inside else split_at_antimeridian(part, west=-180.0, inset=0.0).tolist()
    moved = np.full(len(outlines), None, np.object_)
    findings = []
    for place, mine in zip(there, pieces, strict=True):
        moved[place] = mine[0] if len(mine) == 1 else shapely.multipolygons(mine)
    for position in np.unique(owner[polar]):
        moved[there[position]] = None
        detail = "goes around a pole, where longitude and latitude enclose nothing"
        row = int(there[position])
        findings.append(Issue(row=row, problem="around a pole", action="dropped", detail=detail))
    for position in np.setdiff1d(owner[across], owner[polar]):
        detail = "had an edge from 180 to -180 degrees, around the world: cut at the antimeridian"
        row = int(there[position])
        findings.append(Issue(row=row, problem="drawn around the world", action="repaired", detail=detail))
    return moved, findings


def lonlat_centroids(outlines: Geometries) -> tuple[Floats, Floats]:
    """Return latitude and longitude of the centres of outlines that are cut at the antimeridian, `(row,)` degrees."""
    west, _, east, _ = shapely.bounds(outlines).reshape(-1, 4).T
    joined = outlines.copy()
    across = (west <= -180) & (east >= 180)
    joined[across] = shapely.transform(outlines[across], lambda lonlat: lonlat + 360 * (lonlat < 0) * (1, 0))
    lon, lat = shapely.get_coordinates(shapely.centroid(joined)).T
    return lat, np.where(lon > 180, lon - 360, lon)


def _strange(vertices: NDArray[np.float64], crs: CRS) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Test whether vertices have no place, and whether they have one far from the area that the CRS is made for."""
    transformer = lonlat_transformer(crs)
    x, y = vertices.T
    lon, lat = (np.asarray(one) for one in transformer.transform(x, y))
    if crs.is_geographic:
        placeless = ~np.isfinite(lat) | (np.abs(lat) > 90 + 1e-9) | (np.abs(lon) > 540)
        return placeless, ~placeless & ~in_area(lon, lat, crs, margin=_WARNING_MARGIN)
    back_x, back_y = (np.asarray(one) for one in transformer.transform(lon, lat, direction="INVERSE"))
    with np.errstate(invalid="ignore"):
        off = np.hypot(back_x - x, back_y - y) * crs.axis_info[0].unit_conversion_factor
        # The two ends of a cylinder are one meridian, which comes back at either.
        placeless = ~(off <= _OFF_M) & ~((np.abs(np.abs(lon) - 180) < 1e-6) & np.isfinite(off))
    return placeless, ~placeless & ~in_area(lon, lat, crs, margin=_WARNING_MARGIN)


_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7


def only_polygons(outlines: Geometries) -> tuple[Geometries, list[Issue]]:
    """Keep Polygons and MultiPolygons, and the polygons of collections.

    Returns
    -------
    tuple
        `(row,)`, None where there is no polygon; MultiPolygons of one part become Polygons. And what was found.
    """
    kept = np.full(len(outlines), None, np.object_)
    kinds = shapely.get_type_id(outlines)
    findings = []
    for row, outline in enumerate(outlines):
        if outline is None or outline.is_empty:
            what = "no geometry" if outline is None else f"an empty {outline.geom_type}"
            findings.append(_dropped(row, "empty geometry", f"has {what}"))
        elif not np.isfinite(shapely.get_coordinates(outline)).all():
            findings.append(_dropped(row, "coordinates that are no numbers", "has a vertex that is NaN or infinite"))
        elif kinds[row] in (_POLYGON, _MULTIPOLYGON):
            kept[row] = outline
        elif kinds[row] == _COLLECTION and (polygons := _polygons_of(outline)):
            kept[row] = shapely.multipolygons(polygons)
            others = len(_flat(outline)) - len(polygons)
            detail = f"is a GeometryCollection: {len(polygons)} polygons kept, {others} lines or points left out"
            findings.append(Issue(row=row, problem="not a polygon", action="repaired", detail=detail))
        else:
            detail = f"is a {outline.geom_type}, which encloses nothing"
            findings.append(_dropped(row, "not a polygon", detail))
    single = (shapely.get_type_id(kept) == _MULTIPOLYGON) & (shapely.get_num_geometries(kept) == 1)
    kept[single] = shapely.get_geometry(kept[single], 0)
    return kept, findings


def repaired(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Issue]]:
    """Make outlines valid, and tell by how much their area changed.

    What an outline encloses, once or several times, stays enclosed; spikes and lines go. By `make_valid` with the method
    ``structure``, instead of ``linework``, because that takes ground that an outline goes around twice for a hole.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(row,)` Polygons, MultiPolygons or None.
    crs : pyproj.CRS
        Theirs; for the areas.

    Returns
    -------
    tuple
        `(row,)`, None where nothing remains; and what was found.
    """
    valid = outlines.copy()
    findings = []
    for row in np.flatnonzero(shapely.is_geometry(outlines) & ~shapely.is_valid(outlines)).tolist():
        reason = shapely.is_valid_reason(outlines[row])
        whole = shapely.make_valid(outlines[row], method="structure")
        polygons = _polygons_of(whole)
        if not polygons:
            valid[row] = None
            findings.append(_dropped(row, "invalid geometry", f"{reason}: it encloses nothing"))
            continue
        valid[row] = polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
        both = transformed(np.array([outlines[row], valid[row]]), crs, LONLAT)
        (before, after), _ = geodesic_measures(both)
        detail = f"{reason}; area {before:.1f} m², now {after:.1f} m² ({after - before:+.1f} m²)"
        findings.append(Issue(row=row, problem="invalid geometry", action="repaired", detail=detail))
    return valid, findings


def _flat(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    """Return all single geometries in a collection, however deep."""
    parts = list(shapely.get_parts(geometry))
    return [one for part in parts for one in (_flat(part) if hasattr(part, "geoms") else [part])]


def _polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    return [one for one in _flat(geometry) if one.geom_type == "Polygon" and one.area > 0]


def _dropped(row: int, problem: str, detail: str) -> Issue:
    return Issue(row=row, problem=problem, action="dropped", detail=detail)
