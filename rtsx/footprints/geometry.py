"""Polygons in pixel coordinates: unions along seams, the way to map coordinates and to degrees, and lengths and areas on the ellipsoid."""

from collections.abc import Iterator
from dataclasses import dataclass

import geopandas
import numpy as np
import odc.geo.xr  # noqa: F401  registers the accessor .odc
import scipy.sparse
import scipy.sparse.csgraph
import shapely
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rtsx.cube.georeference import require_ground, stated_geobox
from rtsx.errors import CubeError, FootprintError
from rtsx.footprints.schema import validate_footprints
from rtsx.geometry.antimeridian import split_at_antimeridian, unwrap_ring
from rtsx.geometry.crs import geodesic_measures, longest_edge, lonlat_transformer

Geometries = NDArray[np.object_]


def union(pieces: Geometries, groups: NDArray[np.int64]) -> Geometries:
    """Unite the pieces of each group into the outline that an undivided raster gives.

    Parameters
    ----------
    pieces : numpy.ndarray
        `(piece,)` polygons in whole pixel coordinates; those of one group share edges or corners and do not overlap.
    groups : numpy.ndarray
        `(piece,)` int64; number of the object, 0 to n - 1, each at least once.

    Returns
    -------
    numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons with vertices at corners only.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(pieces[order], starts[1:]) if len(starts) else []
    united = np.empty(len(members), np.object_)
    for number, member in enumerate(members):
        united[number] = member[0] if len(member) == 1 else shapely.union_all(member)
    several = np.array([len(member) > 1 for member in members], bool)
    united[several] = _corners_only(united[several])
    return united


def to_map_crs(outlines: Geometries, transform: Affine) -> Geometries:
    """Move outlines from pixel to ground coordinates; rings, parts and starts in shapely's normal order."""
    scale, shift = (transform.a, transform.e), (transform.c, transform.f)
    moved: Geometries = shapely.transform(outlines, lambda pixel: pixel * scale + shift)
    return np.asarray(shapely.normalize(moved), np.object_)


def to_pixel_coordinates(outlines: Geometries, transform: Affine) -> Geometries:
    """Move outlines from ground to pixel coordinates."""
    scale, shift = (transform.a, transform.e), (transform.c, transform.f)
    moved: Geometries = shapely.transform(outlines, lambda ground: (ground - shift) / scale)
    return np.asarray(moved, np.object_)


def _corners_only(outlines: Geometries) -> Geometries:
    """Drop the vertices at which an outline goes straight on: the ends of seams.

    Written out, instead of `simplify(0)`, because that keeps the first vertex of a ring even on a straight edge.
    """
    if len(outlines) == 0:
        return outlines
    _, coordinates, offsets = shapely.to_ragged_array([*outlines.tolist(), shapely.MultiPolygon()])
    rings, polygons, multipolygons = offsets
    length = np.diff(rings) - 1  # without the closing vertex
    closing = np.zeros(len(coordinates), bool)
    closing[rings[1:] - 1] = True
    vertices = coordinates[~closing]
    starts = np.concatenate(([0], np.cumsum(length)))
    following = np.arange(len(vertices)) + 1
    following[starts[1:] - 1] = starts[:-1]
    ahead = vertices[following] - vertices
    behind = np.empty_like(ahead)
    behind[following] = ahead
    corner = ahead[:, 0] * behind[:, 1] != ahead[:, 1] * behind[:, 0]
    ring = np.repeat(np.arange(len(length)), length)[corner]
    kept = vertices[corner]
    ends = np.cumsum(np.bincount(ring, minlength=len(length)))
    first = np.concatenate(([0], ends[:-1]))
    closed = np.insert(kept, ends, kept[first], axis=0)
    closed_offsets = np.concatenate(([0], ends + np.arange(1, len(length) + 1)))
    kind = shapely.GeometryType.MULTIPOLYGON
    cleaned = shapely.from_ragged_array(kind, closed, (closed_offsets, polygons, multipolygons))[:-1]
    single = shapely.get_num_geometries(cleaned) == 1
    cleaned[single] = shapely.get_geometry(cleaned[single], 0)
    return np.asarray(cleaned, np.object_)


def intersecting(outlines: Geometries, *, distance: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of outlines that overlap or are at most `distance` apart; the first number is the smaller."""
    if len(outlines) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one, other = shapely.STRtree(outlines).query(outlines, predicate="dwithin", distance=distance)
    ordered = one < other
    return one[ordered].astype(np.int64), other[ordered].astype(np.int64)


def repeats(outlines: Geometries, *, iou: float) -> NDArray[np.bool_]:
    """Tell which outlines lie on an earlier one with at least an intersection over union, `(n,)`.

    Examples
    --------
    >>> repeats(np.array([shapely.box(0, 0, 4, 4), shapely.box(0, 0, 3, 4), shapely.box(4, 0, 8, 4)]), iou=0.5).tolist()
    [False, True, False]
    """
    area = shapely.area(outlines)
    later, earlier = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    ratio = np.minimum(area[later], area[earlier]) / np.maximum(area[later], area[earlier])
    possible = (earlier < later) & (ratio >= iou)
    later, earlier = later[possible], earlier[possible]
    shared = shapely.area(shapely.intersection(outlines[later], outlines[earlier]))
    found = np.zeros(len(outlines), bool)
    found[later[shared >= iou * (area[later] + area[earlier] - shared)]] = True
    return found


def dissolve(pieces: Geometries, *, tolerance: float) -> shapely.Geometry:
    """Unite outlines in ground coordinates that touch or overlap.

    Coordinates that differ by `tolerance` or less along an axis become one, the smallest of them: instead of snapping
    vertices to each other, because the corners of two cells lie on the same lines, but seldom on each other.

    Returns
    -------
    shapely.Geometry
        Polygon or MultiPolygon in shapely's normal order, with vertices at corners only.
    """
    coordinates = shapely.get_coordinates(pieces)
    agreed = np.column_stack([_agree(axis, tolerance=tolerance) for axis in coordinates.T])
    moved = shapely.set_coordinates(pieces.copy(), agreed)
    if not np.array_equal(agreed, coordinates):
        moved = np.array(
            [one if shapely.is_valid(one) else _areas(shapely.make_valid(one)) for one in moved], np.object_
        )
    united = _areas(shapely.union_all(moved))
    return shapely.normalize(_corners_only(np.array([united], np.object_))[0])


def _agree(values: NDArray[np.float64], *, tolerance: float) -> NDArray[np.float64]:
    """Return the smallest value of each run of near ones; wider runs stay, because no line of a pixel grid is in them."""
    distinct, inverse = np.unique(values, return_inverse=True)
    start = np.flatnonzero(np.diff(distinct, prepend=-np.inf) > tolerance)
    length = np.diff(np.append(start, len(distinct)))
    first = np.repeat(distinct[start], length)
    is_narrow = np.repeat(distinct[start + length - 1] - distinct[start] <= tolerance, length)
    return np.asarray(np.where(is_narrow, first, distinct)[inverse], np.float64)


def _areas(geometry: shapely.Geometry) -> shapely.Geometry:
    """Return the polygons of a geometry, without the lines and points that repairs leave behind."""
    if geometry.geom_type in ("Polygon", "MultiPolygon"):
        return geometry
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def components(one: NDArray[np.int64], other: NDArray[np.int64], *, count: int) -> NDArray[np.int64]:
    """Return for each of `count` outlines the number of its group: those that the pairs `one`, `other` link, however far."""
    links = scipy.sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return np.asarray(scipy.sparse.csgraph.connected_components(links, directed=False)[1], np.int64)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The step from pixels to ground coordinates, checked to be free of rotation."""

    crs: CRS
    """Coordinate reference system of the raster."""
    transform: Affine
    """Pixel (column, row) to ground (x, y); no rotation and no shear, but pixels need not be square."""
    shape: tuple[int, int]
    """Rows and columns of the raster, both at least one."""
    row: int
    """Row of the raster's first pixel on the pixel grid."""
    column: int
    """Column of the raster's first pixel on the pixel grid."""

    @classmethod
    def of(cls, pred: xr.Dataset) -> "Placement":
        """Read the placement of a prediction from its coordinates.

        Parameters
        ----------
        pred : xarray.Dataset
            With dimensions `y` and `x`, their coordinates, and a grid mapping (`spatial_ref`). The attribute
            `lattice_origin` (x, y) says where the pixel grid's pixel (0, 0) begins; without it, CRS coordinates (0, 0).

        Raises
        ------
        FootprintError
            Without pixels, coordinates or CRS, or with a rotated grid.
        """
        shape = (pred.sizes.get("y", 0), pred.sizes.get("x", 0))
        if 0 in shape:
            raise FootprintError(
                f"a prediction has pixels along 'y' and 'x', but its sizes are {dict(pred.sizes)}: "
                "select a part that is not empty, or rename the dimensions"
            )
        if not {"y", "x"} <= set(pred.coords):
            raise FootprintError(
                f"a prediction has coordinates 'y' and 'x', but came with {sorted(map(str, pred.coords))}: "
                "take them over from the cube with pred.assign_coords(y=cube.y, x=cube.x)"
            )
        mappings = {
            places.get("grid_mapping")
            for each in (pred, *pred.data_vars.values())
            for places in (each.attrs, each.encoding)
        }
        for name in mappings - {None, *pred.coords}:
            raise FootprintError(
                f"the CRS of the prediction is said to be in the coordinate {name!r}, but that is not there: "
                "attach one with pred.rio.write_crs(...)"
            )
        try:
            geobox = pred.odc.geobox
        except ValueError as error:
            raise FootprintError(f"the coordinates of the prediction make no regular grid: {error}") from error
        if geobox is None or geobox.crs is None:
            raise FootprintError("a prediction has a CRS, but came without: attach one with pred.rio.write_crs(...)")
        try:
            require_ground(geobox, "the prediction", cure="pred.rio.write_crs('EPSG:...')")
            crs, geobox = geobox.crs, stated_geobox(pred, geobox)
        except CubeError as error:
            raise FootprintError(str(error)) from error
        transform = Affine(*geobox.affine[:6])
        if transform.b or transform.d:
            raise FootprintError(
                f"outlines need a grid whose rows run along x, but the transform {tuple(transform[:6])} is rotated: "
                "warp the prediction to an upright grid first, for example with pred.rio.reproject(pred.rio.crs)"
            )
        for name, first, step in (("y", transform.f, transform.e), ("x", transform.c, transform.a)):
            off = np.abs((pred[name].values - first) / step - np.arange(pred.sizes[name]) - 0.5) > 0.01
            if off.any():
                raise FootprintError(
                    f"the coordinate {name!r} of a prediction goes on in equal steps of {step}, but pixel "
                    f"{np.argmax(off)} of it does not: select neighbouring pixels only, or warp to a regular grid"
                )
        x, y = pred.attrs.get("lattice_origin", (0.0, 0.0))
        return cls(
            crs=CRS.from_user_input(crs.to_wkt()),
            transform=transform,
            shape=shape,
            row=round((transform.f - y) / transform.e),
            column=round((transform.c - x) / transform.a),
        )

    def lattice_names(self, first: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
        """Return a name for each pixel, given as row * columns + column: its row and column on the pixel grid."""
        rows, columns = np.divmod(first, self.shape[1])
        return [f"y{row}x{column}" for row, column in zip(rows + self.row, columns + self.column, strict=True)]


Floats = NDArray[np.float64]


def measure(outlines: NDArray[np.object_], crs: CRS) -> tuple[Floats, Floats]:
    """Measure area and perimeter of outlines on the WGS84 ellipsoid.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` Polygons or MultiPolygons in `crs`; holes are taken off the area and add to the perimeter. Outlines
        across the antimeridian and around a pole are measured like any other.
    crs : pyproj.CRS
        Projected or geographic; edges are straight in it.

    Returns
    -------
    tuple of numpy.ndarray
        Area in m² and perimeter in m, `(n,)` float64.

    Raises
    ------
    FootprintError
        An outline lies where `crs` has no longitude and latitude.
    """
    dense = shapely.segmentize(outlines, longest_edge(crs))
    return geodesic_measures(shapely.transform(dense, lambda xy: points_to_lonlat(xy, crs)))


def centroids(outlines: NDArray[np.object_], crs: CRS) -> tuple[Floats, Floats]:
    """Return latitude and longitude, from -180 to 180 degrees, of the outlines' centres of mass in `crs`."""
    lon, lat = points_to_lonlat(shapely.get_coordinates(shapely.centroid(outlines)), crs).T
    return lat, np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)


def measured_columns(outlines: NDArray[np.object_], crs: CRS) -> dict[str, Floats]:
    """Return the columns of footprints that are measured of outlines in `crs`, by name."""
    (area, perimeter), (lat, lon) = measure(outlines, crs), centroids(outlines, crs)
    return {"area_m2": area, "perimeter_m": perimeter, "centroid_lat": lat, "centroid_lon": lon}


def largest_pixel_m2(placement: Placement) -> float:
    """Return an upper bound of the ground area of one pixel, in m²; infinite where it cannot be known.

    The largest of a pixel grid of 17 by 17 pixels over the raster and five per cent, because scale changes slowly.
    """
    rows, columns = (np.unique(np.linspace(0, length - 1, 17).astype(int)) for length in placement.shape)
    column, row = (axis.ravel() for axis in np.meshgrid(columns, rows))
    scale, shift = (placement.transform.a, placement.transform.e), (placement.transform.c, placement.transform.f)
    pixels = shapely.transform(shapely.box(column, row, column + 1, row + 1), lambda pixel: pixel * scale + shift)
    try:
        area, _ = measure(pixels, placement.crs)
    except FootprintError:
        return float("inf")
    return float(area.max()) * 1.05


def points_to_lonlat(points: Floats, crs: CRS) -> Floats:
    """Convert points `(n, 2)` in `crs` to WGS84 longitude and latitude in degrees, no farther than a pole."""
    lonlat = np.column_stack(lonlat_transformer(crs).transform(points[:, 0], points[:, 1]))
    strange = ~np.isfinite(lonlat).all(axis=1) | (np.abs(lonlat[:, 1]) > 90 + _BEYOND)
    if strange.any():
        x, y = points[np.argmax(strange)]
        raise FootprintError(
            f"the point x = {x}, y = {y} has no longitude and latitude in {crs.name!r}: "
            "is the CRS of the prediction the right one?"
        )
    lonlat[:, 1] = np.clip(lonlat[:, 1], -90, 90)
    return lonlat


_BEYOND = 1.0
"""Degrees that the outer pixels of a raster of the whole Earth may reach beyond a pole, where the outermost lie on it."""


def to_geographic(footprints: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Convert footprints to EPSG:4326, split at the antimeridian.

    Instead of `to_crs(4326)`, because that draws an outline across longitude 180 as a band around the whole Earth, and
    one around the pole as a line. Long edges get further vertices, so that they stay where they are on the ground.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        Footprints in any CRS.

    Returns
    -------
    geopandas.GeoDataFrame
        The same columns; geometry in EPSG:4326, longitudes from -180 to 180, outlines across the antimeridian as
        MultiPolygons.

    Raises
    ------
    FootprintError
        `footprints` is not what `validate_footprints` expects.
    """
    validate_footprints(footprints)
    crs = CRS.from_user_input(footprints.crs)
    outlines = np.asarray(footprints.geometry.array)
    dense = shapely.segmentize(outlines, longest_edge(crs))
    moved = shapely.transform(dense, lambda xy: points_to_lonlat(xy, crs))
    west, south, east, north = shapely.bounds(moved).reshape(-1, 4).T
    # No outline is 90 degrees wide unless it crosses the antimeridian or lies at a pole; a few more do no harm.
    careful = (east - west > 90) | (east > 180) | (west < -180) | (north > 89.99) | (south < -89.99)
    for index in np.flatnonzero(careful):
        moved[index] = _cut(outlines[index], crs)
    return footprints.set_geometry(geopandas.GeoSeries(moved, index=footprints.index, crs="EPSG:4326"))


def _cut(outline: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """Convert one outline that meets the antimeridian or a pole."""
    for pole in _poles(crs):
        # A vertex at the pole, instead of an edge that runs through it and whose longitude jumps by 180 degrees.
        outline = shapely.snap(outline, pole, tolerance=1e-6 * longest_edge(crs))
    edge = min(longest_edge(crs), shapely.length(outline) / 512)
    regions = []
    for part in shapely.get_parts(shapely.segmentize(outline, edge)):
        shell, *holes = (
            _fold(points_to_lonlat(shapely.get_coordinates(ring), crs)) for ring in [part.exterior, *part.interiors]
        )
        regions.append(shapely.difference(shell, shapely.union_all(holes)))
    return shapely.normalize(shapely.union_all(regions))


def _poles(crs: CRS) -> Iterator[shapely.Point]:
    """Yield the poles that have a place in a projected CRS."""
    if crs.is_geographic:
        return
    for latitude in (90.0, -90.0):
        x, y = lonlat_transformer(crs).transform(0.0, latitude, direction="INVERSE")
        if np.isfinite((x, y)).all():
            yield shapely.Point(x, y)


def _fold(ring: Floats) -> shapely.Geometry:
    """Return what a closed ring of longitudes and latitudes encloses on the map."""
    region = shapely.make_valid(unwrap_ring(ring))
    return shapely.union_all(split_at_antimeridian(region, west=-180.0, inset=0.0))
