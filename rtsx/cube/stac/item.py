"""What an item of any STAC version states about its image: time, cloud, sun, grid, where it holds data, and its bands."""

import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely import MultiPolygon, Polygon, box, get_parts, make_valid, union_all
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from rtsx.errors import CubeError
from rtsx.geometry.antimeridian import lonlat_polygon
from rtsx.geometry.crs import cached_transformer, crs_definition, without_heights

ItemDict = Mapping[str, Any]
"""A STAC item as JSON has it. Plain mappings instead of pystac's items, because those are migrated when they are read,
cost ten times the time, and refuse documents that are odd in places nobody asks about."""

_SUN_AZIMUTH = ("view:sun_azimuth", "eo:sun_azimuth", "s2:mean_solar_azimuth", "sun_azimuth")
_SUN_ELEVATION = ("view:sun_elevation", "eo:sun_elevation", "sun_elevation")
_SUN_ZENITH = ("s2:mean_solar_zenith",)
_CLOUD_COVER = ("eo:cloud_cover",)
_CHECKSUMS = ("file:checksum", "checksum:multihash", "e-tag", "etag")


def item_name(item: ItemDict) -> str:
    """Return the id of an item for messages, with its collection where it says so.

    Examples
    --------
    >>> item_name({"id": "S2A_T01WCP", "collection": "sentinel-2-l2a"})
    'S2A_T01WCP of sentinel-2-l2a'
    """
    name = str(item.get("id", "without an id"))
    return f"{name} of {item['collection']}" if item.get("collection") else name


def time_of(item: ItemDict) -> datetime | None:
    """Return when the image was taken, in UTC: ``datetime``, or the middle of start and end; None for what has no date.

    Raises
    ------
    CubeError
        A date is there that is none.

    Examples
    --------
    >>> time_of({"id": "old", "properties": {"datetime": "2015-07-10"}})
    datetime.datetime(2015, 7, 10, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if (moment := _moment(item, "datetime")) is not None:
        return moment
    start, end = (_moment(item, key) for key in ("start_datetime", "end_datetime"))
    if start is not None and end is not None:
        return start + (end - start) / 2
    return start or end


def etag_of(item: ItemDict, asset: str) -> str:
    """Return what an item says of the content of an asset's file: its checksum or ETag, else when asset or item were changed.

    Examples
    --------
    >>> item = {"assets": {"data": {"file:checksum": "1220abcd"}, "udm2": {}}, "properties": {"updated": "2024-08-01"}}
    >>> etag_of(item, "data"), etag_of(item, "udm2"), etag_of({"assets": {"data": {}}}, "data")
    ('file:checksum=1220abcd', 'updated=2024-08-01', '')
    """
    stated = item["assets"][asset]
    for key in _CHECKSUMS:
        if stated.get(key):
            return f"{key}={stated[key]}"
    updated = stated.get("updated") or (item.get("properties") or {}).get("updated")
    return f"updated={updated}" if updated else ""


def cloud_cover_of(item: ItemDict) -> float | None:
    """Return the percent under cloud; None where the item does not say, or says what no percentage is, such as Landsat's -1."""
    percent = _number(item, _CLOUD_COVER)
    return percent if percent is not None and 0 <= percent <= 100 else None


def sun_of(item: ItemDict) -> tuple[float | None, float | None]:
    """Return the azimuth (degrees clockwise from true north) and elevation (degrees) of the sun; None where the item is silent.

    Examples
    --------
    >>> sun_of({"id": "a", "properties": {"s2:mean_solar_azimuth": 170.0, "s2:mean_solar_zenith": 38.0}})
    (170.0, 52.0)
    """
    elevation = _number(item, _SUN_ELEVATION)
    zenith = _number(item, _SUN_ZENITH)
    if elevation is None and zenith is not None:
        elevation = 90.0 - zenith
    return _number(item, _SUN_AZIMUTH), elevation


def platform_of(item: ItemDict) -> str | None:
    """Return the satellite, as the item says it; None where it does not.

    Examples
    --------
    >>> platform_of({"id": "a", "properties": {"eo:platform": "LANDSAT_8"}})
    'LANDSAT_8'
    """
    properties = item.get("properties") or {}
    found = properties.get("platform", properties.get("eo:platform"))
    return found if isinstance(found, str) and found else None


def _moment(item: ItemDict, key: str) -> datetime | None:
    text = (item.get("properties") or {}).get(key)
    if text is None:
        return None
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CubeError(
            f"Item {item_name(item)} has {key} {text!r}, which is no date; write it like 2023-07-14T20:15:00Z."
        ) from error


def _number(item: ItemDict, keys: tuple[str, ...]) -> float | None:
    """Return the first of several properties that is a finite number."""
    for key in keys:
        value = (item.get("properties") or {}).get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


_CRS_KEYS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")

_TOLERANCE = 0.5
"""Pixels by which ``proj:bbox`` may differ from transform and shape; beyond, one of them is wrong."""


def proj_geobox(item: ItemDict, key: str) -> GeoBox | None:
    """Return the CRS, transform and shape of an asset from the projection extension, of any version.

    What the asset states goes before what the item states. Transform, shape and bbox are taken from one of the two, never
    mixed, because an item often states its finest grid and leaves coarser assets to themselves. Two of the three are
    enough. None means that the file's header has to be read: nothing is stated, it contradicts itself (a ``proj:bbox``
    that is half a pixel or more elsewhere), or the transform is in another order than STAC's.

    Examples
    --------
    >>> asset = {"proj:transform": [10, 0, 300000, 0, -10, 7400040], "proj:shape": [10980, 10980]}
    >>> box = proj_geobox({"properties": {"proj:code": "EPSG:32601"}, "assets": {"red": asset}}, "red")
    >>> box.crs.to_epsg(), tuple(box.shape)
    (32601, (10980, 10980))
    """
    asset: Mapping[str, Any] = item["assets"][key]
    properties: Mapping[str, Any] = item.get("properties") or {}
    crs = _crs(asset) or _crs(properties)
    if crs is None:
        return None
    for stated in (asset, properties):
        if any(stated.get(name) for name in ("proj:transform", "proj:shape", "proj:bbox")):
            return _geobox(stated, crs)
    return None


def _crs(stated: Mapping[str, Any]) -> str | None:
    """Return what a geobox takes as its CRS: ``AUTHORITY:CODE`` where there is one, else WKT."""
    for key in _CRS_KEYS:
        value = stated.get(key)
        try:
            crs = CRS.from_user_input(value) if isinstance(value, str | int | dict) else None
        except (CRSError, ValueError, TypeError):
            continue
        if crs is None or not (crs.is_projected or crs.is_geographic):
            continue  # the file's own header then says what it is
        flat = without_heights(crs)
        if flat is crs and (key == "proj:code" or isinstance(value, int)):  # without a search of PROJ's names
            return str(value) if key == "proj:code" else f"EPSG:{value}"
        return crs_definition(flat)
    return None


def _geobox(stated: Mapping[str, Any], crs: str) -> GeoBox | None:
    affine = _affine(_numbers(stated.get("proj:transform")))
    sides = _numbers(stated.get("proj:shape"))
    shape = (round(sides[0]), round(sides[1])) if len(sides) == 2 else None
    bbox = _bbox(_numbers(stated.get("proj:bbox")))
    if stated.get("proj:transform") and affine is None:
        return None
    if affine is None and shape and bbox:
        west, south, east, north = bbox
        affine = Affine((east - west) / shape[1], 0, west, 0, (south - north) / shape[0], north)
    if shape is None and affine is not None and bbox and affine.b == affine.d == 0:
        west, south, east, north = bbox
        shape = (round((north - south) / abs(affine.e)), round((east - west) / abs(affine.a)))
    if affine is None or shape is None or min(shape) < 1:
        return None
    geobox = GeoBox(shape, affine, crs)
    return geobox if bbox is None or _agrees(geobox, bbox) else None


def _numbers(values: object) -> tuple[float, ...]:
    """Return what is a list of finite numbers; nothing for anything else."""
    if not isinstance(values, list | tuple):
        return ()
    is_plain = all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in values)
    return tuple(map(float, values)) if is_plain else ()


def _affine(values: Sequence[float]) -> Affine | None:
    """Return the transform of six or nine numbers, row by row; None for what is no grid in that order, such as GDAL's (x0, dx, 0, y0, 0, dy)."""
    if len(values) not in (6, 9):
        return None
    affine = Affine(*values[:6])
    pixel = max(abs(affine.a), abs(affine.b)), max(abs(affine.d), abs(affine.e))
    has_sane_pixels = affine.determinant != 0 and max(pixel) < 1e3 * min(pixel)
    return affine if has_sane_pixels and (affine.a != 0) == (affine.e != 0) else None


def _bbox(values: Sequence[float]) -> tuple[float, float, float, float] | None:
    if len(values) not in (4, 6):
        return None
    west, south, east, north = [*values[:2], *values[3:5]] if len(values) == 6 else values
    return (west, south, east, north) if west < east and south < north else None


def _agrees(geobox: GeoBox, bbox: tuple[float, float, float, float]) -> bool:
    pixel = max(abs(geobox.affine.a), abs(geobox.affine.b))
    return all(abs(a - b) < _TOLERANCE * pixel for a, b in zip(geobox.boundingbox, bbox, strict=True))


_PLAIN = 1.05
"""Area of a hull by that of its outline up to which the difference is bent edges, and not a bay."""


def item_footprint(item: ItemDict) -> BaseGeometry | None:
    """Return the item's geometry, split at the antimeridian and made valid; None where it has none that covers any ground.

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


def bounds_of(bbox: Sequence[float]) -> BaseGeometry:
    """Return a STAC bbox of 4 or 6 numbers as polygon; one whose west is east of its east crosses the antimeridian.

    Examples
    --------
    >>> bounds_of([178, 65, -179, 66]).area
    3.0
    """
    west, south, east, north = [*bbox[:2], *bbox[3:5]] if len(bbox) == 6 else bbox
    if west > east:
        return MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
    return _cut(box(west, south, east, north))


def raster_footprint(geobox: GeoBox) -> BaseGeometry:
    """Return all ground of a raster, split at the antimeridian."""
    return lonlat_polygon(geobox.extent.geom, _wkt(geobox))


def densify_in_source_crs(footprint: BaseGeometry, geobox: GeoBox) -> BaseGeometry:
    """Return a footprint widened so that it also holds its outline with edges that are straight on the raster's grid.

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


def overlaps(footprint: BaseGeometry, geobox: GeoBox) -> bool:
    """Test whether a footprint and a raster share ground, by their boxes on the raster's own grid."""
    bounds = geobox.boundingbox
    for native in _native_rings(footprint, geobox):
        (west, south), (east, north) = native.min(axis=0), native.max(axis=0)
        if west <= bounds.right and east >= bounds.left and south <= bounds.top and north >= bounds.bottom:
            return True
    return False


def _native_rings(footprint: BaseGeometry, geobox: GeoBox) -> Iterator[NDArray[np.float64]]:
    """Yield the corners of the outlines in the raster's projection, but for those that it does not reach."""
    native_of = cached_transformer("EPSG:4326", _wkt(geobox))
    for part in getattr(footprint, "geoms", [footprint]):
        ring = np.asarray(part.exterior.coords)[:, :2]
        native = np.column_stack(native_of.transform(ring[:, 0], ring[:, 1]))
        if np.isfinite(native).all():
            yield native


def _wkt(geobox: GeoBox) -> str:
    assert geobox.crs is not None  # every geobox here was made with one
    return str(geobox.crs.to_wkt())


def _cut(polygon: Polygon) -> BaseGeometry:
    """Return a polygon with longitudes in [-180, 180]; itself where it is that already."""
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
    """Test whether an outline leaves [-180, 180] or jumps over the antimeridian; the edge of the whole world does neither."""
    jumps = np.abs(np.diff(lon))
    is_world_edge = (np.abs(lon[1:]) == 180) & (np.abs(lon[:-1]) == 180)
    return bool((np.abs(lon) > 180).any() or ((jumps > 180) & ~is_world_edge).any())


_MARGIN = 0.02
"""Degrees by which a catalog is asked for more than the area: about 2 km, since an item's outline is straight in degrees
where the edge of its raster is bent, by some 600 m for a tile of Sentinel-2 at 66° N. What is too much is dropped again."""


def buffered_area(area: BaseGeometry) -> BaseGeometry:
    """Return the area that a catalog is asked for: a little more than the one that images have to meet."""
    return area.buffer(_MARGIN, join_style="mitre") & box(-180, -90, 180, 90)


_COMMON_NAMES = {"nearinfrared": "nir", "coastalblue": "coastal", "coastalaerosol": "coastal", "panchromatic": "pan"}
"""What some write out, by the common name that STAC gives it."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band of an asset; None for whatever the item leaves open."""

    number: int
    """Number in the file, from 1."""
    name: str | None = None
    """Name, such as ``B04`` or ``Near-Infrared``."""
    common_name: str | None = None
    """Name that all sensors share, such as ``nir``."""
    dtype: str | None = None
    """NumPy dtype that it is stored in."""
    nodata: float | None = None
    """Stored value of a missing pixel; None where the item declares none."""
    scale: float | None = None
    """Physical units per stored unit."""
    offset: float | None = None
    """Physical value of stored 0."""


def normalise_name(name: str) -> str:
    """Return a name without case, spaces and punctuation, so that ``Green I`` and ``green_i`` are one.

    Examples
    --------
    >>> normalise_name("Green I"), normalise_name("Near-Infrared")
    ('greeni', 'nearinfrared')
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def same_band_name(name: str, other: str | None) -> bool:
    """Test whether two names mean one band: they differ in case, spaces and punctuation, or one is written out.

    Examples
    --------
    >>> same_band_name("Near Infrared", "near_infrared"), same_band_name("near_infrared", "nir"), same_band_name("nir", "nir08")
    (True, True, False)
    """
    mine, theirs = (_COMMON_NAMES.get(plain, plain) for plain in (normalise_name(name), normalise_name(other or "")))
    return mine == theirs != ""


def bands_of(item: ItemDict, key: str) -> tuple[Band, ...]:
    """Return bands of an asset in file order; empty where the item does not list them.

    Read are ``bands`` (STAC 1.1), ``eo:bands`` and ``raster:bands`` (1.0), and the numbers or names in ``eo:bands``
    that point into the item's properties (0.7 to 0.9). What STAC 1.1 states once for a whole asset, or for all
    assets in the properties, counts for each band.

    Examples
    --------
    >>> asset = {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"data_type": "uint16"}]}
    >>> bands_of({"id": "a", "assets": {"red": asset}}, "red")
    (Band(number=1, name='B04', common_name='red', dtype='uint16', nodata=None, scale=None, offset=None),)
    """
    asset = _stated_of(item, key)
    if listed := asset.get("bands"):
        return tuple(_band(number, {**asset, **band}, band) for number, band in enumerate(listed, start=1))
    named = _named(item, asset)
    stored = [band for band in asset.get("raster:bands") or () if isinstance(band, Mapping)]
    if len(stored) == 1 and len(named) > 1:
        stored *= len(named)  # one statement for all bands, as some catalogs write it
    pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]] = zip_longest(named, stored, fillvalue={})
    return tuple(_band(number, {**asset, **raster}, name) for number, (name, raster) in enumerate(pairs, start=1))


_NODATA = ("nodata", "raster:nodata", "file:nodata")
"""Names of what marks missing pixels, of STAC 1.1, and as some items have it, the last of the file extension 1.0."""
_OF_ALL_ASSETS = ("data_type", *_NODATA, "raster:scale", "raster:offset")
"""What STAC 1.1 lets properties state for all assets."""


def _stated_of(item: ItemDict, key: str) -> Mapping[str, Any]:
    """Return the fields of an asset, with those of the item's properties that count for every asset."""
    properties: Mapping[str, Any] = item.get("properties") or {}
    asset: Mapping[str, Any] = item["assets"][key]
    return {name: properties[name] for name in _OF_ALL_ASSETS if name in properties} | dict(asset)


def has_classes(item: ItemDict, key: str, numbers: Container[int]) -> bool:
    """Test whether an item says that the numbers of an asset, or of one of these bands of it, counted from 1, stand for classes.

    One class alone, beside those of missing pixels, is a remark on a measurement.

    Examples
    --------
    >>> classes = [{"value": 4}, {"value": 5}]
    >>> has_classes({"id": "a", "assets": {"scl": {"classification:classes": classes}}}, "scl", {1})
    True
    """
    for one in _told_of(item, key, numbers):
        classes = [
            each
            for each in one.get("classification:classes") or ()
            if not (isinstance(each, Mapping) and each.get("nodata"))
        ]
        if len(classes) > 1 or one.get("classification:bitfields"):
            return True
    return False


def unit_of(item: ItemDict, key: str, number: int) -> str:
    """Return the physical unit that an item states of a band, counted from 1, of an asset; empty where it states none."""
    return next((str(one["unit"]) for one in _told_of(item, key, {number}) if one.get("unit")), "")


def _told_of(item: ItemDict, key: str, numbers: Container[int]) -> list[Mapping[str, Any]]:
    """Return what an item states of some bands of an asset, and of the asset itself."""
    asset = item["assets"][key]
    listed = [pair for name in ("bands", "raster:bands", "eo:bands") for pair in enumerate(asset.get(name) or (), 1)]
    return [*(band for number, band in listed if number in numbers and isinstance(band, Mapping)), asset]


def band_of_file(item: ItemDict, key: str, *, number: int, name: str | None, count: int) -> Band:
    """Return a band of an asset that only its file names, with what the item states of it, or once for the whole asset.

    Parameters
    ----------
    item, key
        The item, and the asset in it.
    number, name
        The band's number in the file, from 1, and what the file calls it.
    count
        Bands that the file has.

    Raises
    ------
    CubeError
        The item lists another number of bands, and they differ.

    Examples
    --------
    >>> asset = {"data_type": "uint16", "raster:scale": 1e-4}
    >>> band_of_file({"id": "a", "assets": {"red": asset}}, "red", number=1, name=None, count=1).scale
    0.0001
    """
    listed = bands_of(item, key)
    if not listed:
        return _band(number, _stated_of(item, key), {"name": name})
    if len(listed) != count and len({(band.dtype, band.nodata, band.scale, band.offset) for band in listed}) > 1:
        raise CubeError(
            f"Asset {key!r} of item {item_name(item)} lists {len(listed)} bands that differ in dtype, nodata, scale or offset, and "
            f"its file has {count}. Correct the item, or write nodata:, scale_factor: and add_offset: in the layer and take them "
            "out of the item."
        )
    return replace(listed[number - 1 if number <= len(listed) == count else 0], number=number, name=name)


def _named(item: ItemDict, asset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return ``eo:bands`` of an asset, looked up in the item where they are only pointers."""
    properties = item.get("properties") or {}
    known: Sequence[Mapping[str, Any]] = properties.get("eo:bands") or ()
    by_name = {band.get("name"): band for band in known if isinstance(band, Mapping)}
    named: list[Mapping[str, Any]] = []
    for band in asset.get("eo:bands") or ():
        if isinstance(band, Mapping):
            named.append(band)
        elif isinstance(band, int):
            named.append(known[band] if 0 <= band < len(known) and isinstance(known[band], Mapping) else {})
        else:
            named.append(by_name.get(band) or {"name": str(band)})
    return named


def _band(number: int, stored: Mapping[str, Any], named: Mapping[str, Any]) -> Band:
    common = named.get("eo:common_name") or named.get("common_name")
    return Band(
        number=number,
        name=named.get("name"),
        common_name=common,
        dtype=_dtype(stored.get("data_type")),
        nodata=_stated_number(_nodata(stored)),
        scale=_stated_number(stored.get("raster:scale", stored.get("scale"))),
        offset=_stated_number(stored.get("raster:offset", stored.get("offset"))),
    )


def _nodata(stored: Mapping[str, Any]) -> object:
    """Return what marks missing pixels as it is stated: a value, or a list of it alone; None where nothing is."""
    value = next((stored[name] for name in _NODATA if stored.get(name) is not None), None)
    return value[0] if isinstance(value, list) and len(set(map(repr, value))) == 1 else value


def refuse_unread_nodata(item: ItemDict, key: str) -> None:
    """Refuse an asset of which a nodata is stated that is no number.

    Raises
    ------
    CubeError
        There is one; without it, missing pixels would count.
    """
    asset = _stated_of(item, key)
    for stored in (asset, *(asset.get("bands") or ()), *(asset.get("raster:bands") or ())):
        value = _nodata(stored) if isinstance(stored, Mapping) else None
        if value is not None and _stated_number(value) is None:
            raise CubeError(
                f'Asset {key!r} of item {item_name(item)} states nodata {value!r:.80}; expected a number, or "nan". Correct the item, or '
                "write nodata: in the layer."
            )


def _dtype(name: object) -> str | None:
    """Return the NumPy dtype of a ``data_type``; None for what NumPy does not know, such as ``cint16`` or ``other``."""
    try:
        return np.dtype(name).name if isinstance(name, str) else None
    except TypeError:
        return None


def _stated_number(value: object) -> float | None:
    """Return a number; JSON has none for NaN and infinity, so that STAC writes them as text."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
