"""Outlines that are polygons and valid, and what had to be done for that."""

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.labels.pyproj import areas_m2, transformed
from rtsx.labels.report import Finding

__all__ = ["only_polygons", "repaired"]

Geometries = NDArray[np.object_]
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7


def only_polygons(outlines: Geometries) -> tuple[Geometries, list[Finding]]:
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
            findings.append(Finding(row=row, problem="not a polygon", action="repaired", detail=detail))
        else:
            detail = f"is a {outline.geom_type}, which encloses nothing"
            findings.append(_dropped(row, "not a polygon", detail))
    return _simple(kept), findings


def repaired(outlines: Geometries, crs: CRS) -> tuple[Geometries, list[Finding]]:
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
        before, after = areas_m2(transformed(np.array([outlines[row], valid[row]]), crs, CRS.from_epsg(4326)))
        detail = f"{reason}; area {before:.1f} m², now {after:.1f} m² ({after - before:+.1f} m²)"
        findings.append(Finding(row=row, problem="invalid geometry", action="repaired", detail=detail))
    return valid, findings


def _simple(outlines: Geometries) -> Geometries:
    """Outlines with MultiPolygons of one part as Polygons."""
    single = (shapely.get_type_id(outlines) == _MULTIPOLYGON) & (shapely.get_num_geometries(outlines) == 1)
    outlines[single] = shapely.get_geometry(outlines[single], 0)
    return outlines


def _flat(geometry: shapely.Geometry) -> list[shapely.Geometry]:
    """All single geometries in a collection, however deep."""
    parts = list(shapely.get_parts(geometry))
    return [one for part in parts for one in (_flat(part) if hasattr(part, "geoms") else [part])]


def _polygons_of(geometry: shapely.Geometry) -> list[shapely.Polygon]:
    return [one for one in _flat(geometry) if one.geom_type == "Polygon" and one.area > 0]


def _dropped(row: int, problem: str, detail: str) -> Finding:
    return Finding(row=row, problem=problem, action="dropped", detail=detail)
