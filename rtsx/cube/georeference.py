"""Where a Dataset lies: its geobox, its pixel grid, and the coordinates that say so."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the `.odc` accessor
import rioxarray  # noqa: F401 - registers the `.rio` accessor
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pyproj import CRS as PROJ_CRS
from pyproj import Transformer
from pyproj.exceptions import CRSError, ProjError

from rtsx.errors import CubeError, GridError
from rtsx.geometry.crs import WGS84, apply_affine, cached_transformer, crs_definition, crs_text, without_heights

GRID_MAPPING = {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}
"""Encoding of a variable on (y, x): rather than attributes, which arithmetic may drop. As a coordinate too, because without
``decode_coords="all"`` xarray opens a grid mapping that is nothing else as a data variable, in which nobody finds the CRS."""

COORDINATE_NOISE = 1e-3
"""Part of a pixel below which two coordinates are one that was rounded twice."""
_TOLERANCE = 0.05
"""Pixels by which coordinates and a stated transform may differ: files round their numbers."""


_FARTHEST_M = 1e8
"""Metres from the origin of a projection beyond which there is no ground: twice as far as 60 S in a polar one of the north."""
_FINEST_M = 0.01
"""Metres below which pixels are none of an image of the ground."""
_TRANSFORMS = {
    "transform": (0, 1, 2, 3, 4, 5),
    "spatial:transform": (0, 1, 2, 3, 4, 5),
    "GeoTransform": (1, 2, 0, 4, 5, 3),
}
"""Attributes that state a transform, and where in them the numbers a to f of an `Affine` are."""


def geobox_of(cube: xr.Dataset | xr.DataArray) -> GeoBox:
    """Return the CRS, transform and shape of a georeferenced Dataset, read from its coordinates; see `proj_geobox`.

    Raises
    ------
    CubeError
        There is no CRS or none with a place on Earth, coordinates `y` and `x` are missing or one pixel long without a stored
        transform, or a stored transform contradicts them.
    """
    for name in ("y", "x"):
        if name in cube.dims and name not in cube.coords:
            raise CubeError(
                f"A cube has coordinates of pixel centres; {name!r} is missing, and no attribute GeoTransform of 'spatial_ref' says "
                f"where pixels lie. Store them too; in Python, with cube.assign_coords({name}=...)."
            )
        if name not in cube.dims:
            raise CubeError(
                f"A cube has dimensions y and x with coordinates of pixel centres; {name!r} is missing, there are "
                f"dimensions {dict(cube.sizes)} and coordinates {sorted(map(str, cube.coords))}. "
                "Rename them with cube.rename(...)."
            )
    try:
        crs = cube.odc.crs
    except RuntimeError as error:
        raise CubeError(
            f"The CRS or transform of this cube cannot be read: {error.__cause__ or error}. "
            "Write them anew with cube = cube.drop_vars('spatial_ref').rio.write_crs('EPSG:...')."
        ) from error
    if crs is None or "spatial_ref" not in cube.coords:
        raise CubeError(
            "A cube needs a CRS in a coordinate 'spatial_ref'. Give it with cube.rio.write_crs('EPSG:...')."
        )
    geobox: GeoBox | None = cube.odc.geobox
    if geobox is None:
        raise CubeError(
            f"The transform of this cube cannot be told from its coordinates (shape {dict(cube.sizes)}). "
            "Give it with cube.rio.write_transform(transform)."
        )
    require_ground(geobox, "This cube", cure="cube.rio.write_crs('EPSG:...')")
    return stated_geobox(cube, geobox)


_CRS_WORDS = ("crs_wkt", "spatial_ref")
"""Attributes of a grid mapping that are WKT."""
_CRS_ATTRS = ("proj:code", "proj:wkt2", "crs", "crs_wkt", "epsg", "proj:epsg")
"""Attributes and coordinates that others state a CRS in; GDAL's Zarr has `_CRS`, too."""


def with_crs(cube: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with its CRS in the coordinate `spatial_ref` and nowhere else, as WKT and without heights; itself where that is so.

    It is the one of the grid mapping that the layers name; else of the only one that is there, in WKT or CF's own words; else of an
    attribute or coordinate such as ``crs``, ``proj:code`` or stackstac's ``epsg``.

    Raises
    ------
    CubeError
        Several are stated, or one that cannot be read.
    """
    layers = [layer for layer in cube.data_vars.values() if {"y", "x"} <= set(layer.dims)]
    words = [layer.encoding.get("grid_mapping") or layer.attrs.get("grid_mapping") for layer in layers]
    mappings = {str(name): crs for name, one in cube.variables.items() if (crs := _mapped_crs(one, str(name)))}
    named = {str(word).split(":")[0] for word in words if word} & set(mappings)
    chosen = {name: mappings[name] for name in named} or mappings
    first = next(iter(chosen), None)
    if any(not crs.equals(chosen[str(first)], ignore_axis_order=True) for crs in chosen.values()):
        stated = ", ".join(f"{name!r} {crs_text(crs)}" for name, crs in sorted(chosen.items()))
        raise CubeError(
            f"The layers lie in one CRS, and the variables that state it do not agree: {stated}. Store them without the wrong one; "
            f"in Python, cube.drop_vars({first!r}) leaves one out."
        )
    whole = _attribute_crs(cube) if first is None else chosen[first]
    if whole is None:
        return cube
    attrs, crs = {} if first is None else cube[first].attrs, without_heights(whole)
    if list(mappings) == ["spatial_ref"] and "spatial_ref" in cube.coords and crs is whole and "crs_wkt" in attrs:
        return cube
    placed: xr.Dataset = cube.drop_vars(list(mappings)).copy()
    for one in (placed, *placed.data_vars.values()):
        one.attrs.pop("grid_mapping", None)
        one.encoding.pop("grid_mapping", None)
    placed = placed.odc.assign_crs(crs_definition(crs))
    return placed.assign_coords(
        spatial_ref=placed["spatial_ref"].assign_attrs({key: attrs[key] for key in ("GeoTransform",) if key in attrs})
    )


def _mapped_crs(variable: xr.Variable, name: str) -> PROJ_CRS | None:
    """Return the CRS of a grid mapping; None for any other variable."""
    attrs = variable.attrs
    text = next((attrs[key] for key in _CRS_WORDS if isinstance(attrs.get(key), str) and attrs[key]), None)
    if variable.ndim or not (text or isinstance(attrs.get("grid_mapping_name"), str)):
        return None
    try:
        return PROJ_CRS.from_cf(attrs) if text is None else _parsed(text)
    except (CRSError, KeyError, TypeError, ValueError) as error:
        raise CubeError(
            f"The CRS in {name!r} cannot be read: {error}. Store it anew; in Python, with cube = cube.drop_vars({name!r}).rio.write_crs('EPSG:...')."
        ) from error


@lru_cache(maxsize=64)
def _parsed(text: str) -> PROJ_CRS:
    return PROJ_CRS(text)  # kept, because PROJ reads WKT for a millisecond, and a cube is looked at many times


def _attribute_crs(cube: xr.Dataset) -> PROJ_CRS | None:
    """Return the CRS that attributes or scalar coordinates of a Dataset without a grid mapping state."""
    scalars = {str(name): coord.item() for name, coord in cube.coords.items() if not coord.ndim and name in _CRS_ATTRS}
    own = {name: value for name, value in scalars.items() if not name.startswith("proj:")}
    # In the coordinates that stackstac makes of the properties of items, `proj:epsg` is of the items, and `epsg` of the array.
    for words in ((cube.attrs, own, *(one.attrs for one in cube.variables.values())), (scalars,)):
        found: list[PROJ_CRS] = []
        for stated in words:
            gdal = stated.get("_CRS")
            values = [stated.get(key) for key in _CRS_ATTRS]
            values += [gdal.get("wkt") or gdal.get("projjson") or gdal.get("url")] if isinstance(gdal, dict) else []
            for value in values:
                with suppress(CRSError, TypeError, ValueError):
                    if value is not None:
                        found.append(PROJ_CRS.from_user_input(value))
        flat = [without_heights(crs) for crs in found]
        if any(not crs.equals(flat[0], ignore_axis_order=True) for crs in flat):
            raise CubeError(
                f"The attributes of the cube state several CRS: {', '.join({crs_definition(crs): 0 for crs in flat})}. Give the right one "
                "with cube.rio.write_crs('EPSG:...')."
            )
        if found:
            return found[0]
    return None


def require_ground(geobox: GeoBox, what: str, *, cure: str) -> None:
    """Raise unless a raster has a place on Earth: an engineering, vertical or geocentric CRS has no map, and nothing is 1e13 m away.

    Raises
    ------
    CubeError
        Says what kind of CRS it is, or which coordinates cannot be of it.
    """
    crs = geobox.crs
    if crs is None:
        return
    if not (crs.projected or crs.geographic):
        raise CubeError(
            f"{what} has the CRS {crs.proj.name!r}, of type {crs.proj.type_name!r}; a projected or geographic one is "
            "needed, because others do not say where on Earth a pixel lies. Bring the image onto the ground with control points (gdal_translate "
            f"-gcp, then gdalwarp -t_srs EPSG:...); where its coordinates are those of a known CRS already, write it with {cure}."
        )
    try:
        cached_transformer(str(crs), "EPSG:4326")  # by its text, which is kept
    except GridError as error:
        raise CubeError(f"{what} lies nowhere on Earth. {error}") from error
    left, bottom, right, top = geobox.boundingbox
    x, y, unit = max(abs(left), abs(right)), max(abs(bottom), abs(top)), crs.proj.axis_info[0]
    odd = ""
    if crs.geographic:
        degrees, margin = np.degrees(unit.unit_conversion_factor), 1 + abs(geobox.affine.e)
        if not (x * degrees <= 540 + margin and y * degrees <= 90 + margin):
            odd = "which is nowhere on Earth. If they are metres, write"
    elif not max(x, y) * unit.unit_conversion_factor <= _FARTHEST_M:
        odd = "which is nowhere on Earth. Correct the coordinates, or write"
    elif x <= 360 and y <= 90 and abs(geobox.affine.e) * unit.unit_conversion_factor < _FINEST_M:
        odd, cure = "which are degrees by their size. If they are, write", cure.replace("EPSG:...", "EPSG:4326")
    if odd:
        raise CubeError(
            f"{what} has the CRS {crs_name(crs)}, whose unit is {unit.unit_name}, and lies at x from {left:.10g} to {right:.10g} "
            f"and y from {bottom:.10g} to {top:.10g}, {odd} the CRS that they are of, with {cure}."
        )


_KILOMETRES = frozenset({"km", "kilometer", "kilometers", "kilometre", "kilometres"})
"""How CF writes the one unit that coordinates have beside a CRS in metres."""


def in_crs_units(cube: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with `y` and `x` in the unit of its CRS, where their `units` are kilometres and that is another; else itself."""
    far = [name for name in ("y", "x") if name in cube.coords and cube[name].attrs.get("units") in _KILOMETRES]
    crs = cube.odc.crs if far and "spatial_ref" in cube.coords else None
    if crs is None or crs.geographic:
        return cube
    factor = 1000 / crs.proj.axis_info[0].unit_conversion_factor
    attrs = {name: {key: value for key, value in cube[name].attrs.items() if key != "units"} for name in far}
    axes = {name: (name, cube[name].values.astype(np.float64) * factor, attrs[name]) for name in far}
    return cube if factor == 1 else cube.assign_coords(axes)


def with_axes(cube: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with `y` and `x` of the transform that it states, where it has no such coordinates, or only float32 rounds them.

    Itself in all other cases.
    """
    if not {"y", "x"} <= set(cube.dims) or len({"y", "x"} & set(cube.coords)) == 1:
        return cube
    affine = next((affine for _, _, affine in _stated_transforms(cube) if not (affine.b or affine.d)), None)
    if affine is None:
        return cube
    axes = {}
    for name, first, step in (("y", affine.f, affine.e), ("x", affine.c, affine.a)):
        places = np.arange(cube.sizes[name]) + 0.5
        if name not in cube.coords:
            axes[name] = first + step * places
            continue
        axis = cube[name].values
        if axis.dtype.kind != "f" or axis.dtype.itemsize > 4 or not axis.size:
            continue
        exact = first + step * (places + round((float(axis[0]) - first) / step - 0.5))
        if (np.abs(axis - exact) <= np.spacing(np.abs(axis))).all():
            axes[name] = exact
    return cube.assign_coords(axes) if axes else cube


def stated_geobox(cube: xr.Dataset | xr.DataArray, geobox: GeoBox) -> GeoBox:
    """Return the geobox of coordinates, checked against `GeoTransform` and `transform` in attributes, which say the same in other words.

    A part of a raster, or one made coarser by a whole number, agrees with the transform of the whole. The corners of pixels that
    stackstac gives as coordinates are known by its attributes, and put right.

    Parameters
    ----------
    cube
        Holds the attributes.
    geobox
        What `y` and `x` say, taken for centres of pixels.

    Raises
    ------
    CubeError
        They contradict each other, by a part of a pixel or in the size of pixels.
    """
    stated = [(*one, _disagreement(geobox, one[-1])) for one in _stated_transforms(cube)]
    for owner, key, _, found in stated:
        if found == (0.5, 0.5) and key == "transform" and {"spec", "resolution", "resolution_xy"} & set(owner.attrs):
            return stated_geobox(cube, GeoBox(geobox.shape, geobox.affine * Affine.translation(0.5, 0.5), geobox.crs))
    for owner, key, _, found in stated:
        if found is None:
            continue
        what = f"cube{'' if owner is cube else f'[{owner.name!r}]'}.attrs[{key!r}]"
        cure = f"If the coordinates are right, remove the attribute: `del {what}`"
        if isinstance(found, str):
            raise CubeError(f"The coordinates y and x and {what} contradict each other: {found}. {cure}.")
        if all(other is not None for *_, other in stated):
            x, y = found[0] * geobox.affine.a, found[1] * geobox.affine.e
            cure += f"; if the transform is right, move them: `cube = cube.assign_coords(x=cube.x + {x:.10g}, y=cube.y + {y:.10g})`"
        raise CubeError(
            f"The coordinates y and x and {what} contradict each other: taken for centres of pixels, coordinates lie "
            f"({-found[0]:.3g}, {-found[1]:.3g}) pixels (x, y) beside those of the transform. {cure}."
        )
    return geobox


def _stated_transforms(cube: xr.Dataset | xr.DataArray) -> Iterator[tuple[Any, str, Affine]]:
    """Yield who states a transform, under which key, and the transform; identity is what files say that have none."""
    layers = cube.data_vars.values() if isinstance(cube, xr.Dataset) else ()
    for owner in chain([cube], layers, cube.coords.values()):
        for key, order in _TRANSFORMS.items():
            value = owner.attrs.get(key)
            words = re.findall(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?", value) if isinstance(value, str) else value
            try:
                numbers = np.asarray(() if words is None else words, np.float64).ravel()
            except (TypeError, ValueError):
                continue
            if len(numbers) in (6, 9) and np.isfinite(numbers).all():
                affine = Affine(*(float(numbers[place]) for place in order))
                if not affine.is_identity and affine.a and affine.e:
                    yield owner, key, affine


def _disagreement(geobox: GeoBox, stated: Affine) -> str | tuple[float, float] | None:
    """Return how coordinates differ from a transform: in words, or in pixels (x, y) to be added to them; None where they agree."""
    own = geobox.affine
    if own.b or own.d:
        return None  # coordinates of a rotated raster are made of its transform
    if stated.b or stated.d:
        return f"the transform {tuple(stated)[:6]} is rotated, and coordinates along y and x are not"
    off = []
    for name, step, first, size, pixel, corner in (
        ("x", own.a, own.c, geobox.shape.x, stated.a, stated.c),
        ("y", own.e, own.f, geobox.shape.y, stated.e, stated.f),
    ):
        times = abs(step / pixel)
        whole = round(times)
        if whole < 1 or abs(times - whole) * size > _TOLERANCE * whole:
            return f"coordinates along {name} step by {step:.10g}, and the transform has pixels of {pixel:.10g}"
        edge, centre = (first - corner) / pixel, (first + step / 2 - corner) / pixel - 0.5
        # Every n-th pixel has its centre on a pixel's, the mean of n pixels its edges on their edges.
        beside = min((edge - round(edge), centre - round(centre)), key=abs) if whole > 1 else edge - round(edge)
        off.append(0.0 if abs(beside) <= _TOLERANCE else -beside * pixel / step)
    if not any(off):
        return None
    # Half a pixel either way is one pixel grid; corners are the upper left ones by custom.
    x, y = (0.5 if abs(abs(one) - 0.5) <= _TOLERANCE else float(one) for one in off)
    return x, y


def with_pixel_centres(cube: xr.Dataset) -> xr.Dataset:
    """Return the same Dataset where coordinates are centres of pixels; else with those of `geobox_of`."""
    centres = geobox_of(cube)
    shift = ~cube.odc.geobox.affine * centres.affine
    if abs(shift.c) < _TOLERANCE and abs(shift.f) < _TOLERANCE:
        return cube
    affine = centres.affine
    return cube.assign_coords(
        {
            name: cube[name].copy(data=first + step * (np.arange(cube.sizes[name]) + 0.5))
            for name, first, step in (("y", affine.f, affine.e), ("x", affine.c, affine.a))
        }
    )


def lattice_origin(cube: xr.Dataset) -> tuple[float, float]:
    """Return the upper-left corner (x, y) of the pixel grid that tiles are anchored to: the attribute, else the cube's own corner."""
    if "lattice_origin" in cube.attrs:
        x, y = cube.attrs["lattice_origin"]
        return float(x), float(y)
    affine = geobox_of(cube).affine
    return float(affine.c), float(affine.f)


def with_georeference(
    variables: Mapping[str, xr.Variable] | xr.Dataset, geobox: GeoBox, *, lattice_origin: tuple[float, float]
) -> xr.Dataset:
    """Return a Dataset of variables on `geobox`, with coordinates `y`, `x` and `spatial_ref` that odc-geo and rioxarray read.

    Parameters
    ----------
    variables
        Data variables with dimensions (..., y, x).
    geobox
        Where their pixels lie.
    lattice_origin
        Upper-left corner (x, y) of the pixel grid, in CRS units.
    """
    plain = variables.copy() if isinstance(variables, xr.Dataset) else xr.Dataset(variables)
    cube = plain.assign_coords(xr_coords(geobox, always_yx=True))
    for name, variable in cube.variables.items():
        if name not in cube.coords and {"y", "x"} <= set(variable.dims):
            variable.encoding |= GRID_MAPPING
    attrs: dict[str, Any] = {**cube.attrs, "lattice_origin": [float(value) for value in lattice_origin]}
    return cube.assign_attrs(attrs)


def crs_name(crs: CRS | None) -> str:
    """Return ``EPSG:CODE`` where there is one, else WKT; for messages."""
    return f"EPSG:{crs.epsg}" if crs is not None and crs.epsg else str(crs)


def describe_geobox(geobox: GeoBox) -> str:
    """Return a geobox in one line; for messages."""
    affine = tuple(geobox.affine)[:6]
    return f"{crs_name(geobox.crs)}, transform {affine}, shape {geobox.shape.yx}"


def geobox_window(geobox: GeoBox, rows: tuple[int, int], columns: tuple[int, int], *, halo: int) -> GeoBox:
    """Return the geobox of half-open ranges of a raster's rows and columns and `halo` pixels around them, which may lie outside.

    Examples
    --------
    >>> from affine import Affine
    >>> window = geobox_window(GeoBox((9, 9), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413"), (0, 4), (2, 5), halo=1)
    >>> window.shape.yx, window.affine.c, window.affine.f
    ((6, 5), 3.0, 3.0)
    """
    (top, bottom), (left, right) = rows, columns
    affine = geobox.affine * Affine.translation(left - halo, top - halo)
    return GeoBox((bottom - top + 2 * halo, right - left + 2 * halo), affine, geobox.crs)


def corner_positions(raster: GeoBox, lattice: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return columns and rows of the four corners of a raster, row by row, in pixels of another of its CRS, counted from that one's corner."""
    height, width = raster.shape
    columns, rows = np.array([0.0, width, 0, width]), np.array([0.0, 0, height, height])
    return apply_affine(~lattice.affine, *apply_affine(raster.affine, columns, rows))


def pixels_apart(one: GeoBox, other: GeoBox) -> float:
    """Return pixels between the corners of two rasters of one CRS and shape, at most."""
    return float(np.abs(np.subtract(corner_positions(other, one), corner_positions(one, one))).max())


def ground_pixel_m(geobox: GeoBox) -> tuple[float, float]:
    """Return the height and width (y, x) in m of the pixel in the middle of a raster, along geodesics: a map may stretch them.

    Examples
    --------
    >>> mercator = GeoBox((100, 100), Affine(3, 0, -15028131, 0, -3, 10857000), "EPSG:3857")
    >>> [round(side, 2) for side in ground_pixel_m(mercator)]
    [1.06, 1.06]
    """
    crs, affine = geobox.crs, geobox.affine
    height, width = geobox.shape
    # North-south and west-east through the middle.
    columns, rows = width / 2 + np.array([0, 0, -0.5, 0.5]), height / 2 + np.array([-0.5, 0.5, 0, 0])
    x, y = apply_affine(affine, columns, rows)
    try:
        assert crs is not None  # every cube has one
        lonlat = crs.proj.geodetic_crs
        assert lonlat is not None  # a projected or geographic one has
        lon, lat = Transformer.from_crs(crs.proj, lonlat, always_xy=True).transform(x, y)
        geodesic = lonlat.get_geod() or WGS84
        lat = np.clip(lat, -90, 90)
        _, _, (along_y, along_x) = geodesic.inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    except (CRSError, ProjError):
        along_y = along_x = np.nan
    if np.isfinite([along_y, along_x]).all() and along_y > 0 and along_x > 0:
        return float(along_y), float(along_x)
    # Beyond the edge of the projection there is no ground, and the map's own unit is all there is.
    return pixel_m(geobox), pixel_m(geobox) * abs(affine.a / affine.e)


def pixel_m(geobox: GeoBox) -> float:
    """Return the height of a pixel by the map, m, the same wherever it lies; in degrees by the length of a meridian, 111.2 km a degree.

    For distances in pixels, which have to be equal in all parts of a raster; see `ground_pixel_m`.
    """
    if geobox.crs is not None and geobox.crs.geographic:
        return abs(float(geobox.affine.e)) * 111_195.0
    return abs(float(geobox.affine.e)) * float(CRS(str(geobox.crs)).proj.axis_info[0].unit_conversion_factor)


def is_regular(axis: np.ndarray, resolution: float) -> bool:
    """Test whether pixel centres step by `resolution`, to a hundredth of a pixel over the whole axis.

    Examples
    --------
    >>> is_regular(np.array([1.5, 4.5, 7.5]), 3.0), is_regular(np.array([1.5, 4.5, 9.0]), 3.0)
    (True, False)
    """
    expected = axis[0] + resolution * np.arange(len(axis))
    return bool(np.all(np.abs(axis - expected) <= 0.01 * abs(resolution)))


def rounding(axis: NDArray[Any]) -> float:
    """Return the largest step between neighbouring numbers of the dtype of an axis, 0 for integers."""
    return float(np.abs(np.spacing(axis)).max()) if axis.dtype.kind == "f" else 0.0


def validate_georeference(cube: xr.Dataset) -> None:
    """Raise unless a Dataset says where its pixels lie, north-up and in equal steps.

    Raises
    ------
    CubeError
        Dimensions, coordinates, CRS or `lattice_origin` are missing or wrong.
    """
    affine = geobox_of(cube).affine
    if affine.b or affine.d:
        raise CubeError(f"A cube has to be north-up; this one is rotated ({affine.b}, {affine.d}). Warp it first.")
    for name, step, direction in (("y", affine.e, -1), ("x", affine.a, 1)):
        axis = cube[name].values
        if axis.dtype.kind not in "iuf":
            raise CubeError(
                f"Coordinate {name!r} has to be numbers; got {axis.dtype}. Make it so with "
                f"cube.assign_coords({name}=cube.{name}.astype(float))."
            )
        if step * direction <= 0:
            raise CubeError(
                f"Coordinate {name!r} has to {'rise' if direction > 0 else 'fall'}; it goes from {axis[0]} to {axis[-1]}. "
                f"Turn the cube with cube.isel({name}=slice(None, None, -1))."
            )
        if not is_regular(axis.astype(np.float64), step):
            rounded = rounding(axis)
            cure = "Warp the cube to a grid."
            if rounded > COORDINATE_NOISE * abs(step):
                cure = (
                    f"They are {axis.dtype}, which rounds them by {rounded:.3g}. Store them as float64: where all but that is regular, "
                    f"np.linspace(first, last, {axis.size}) of the exact centres."
                )
            raise CubeError(f"Coordinate {name!r} has to step by one pixel ({step}) throughout; it does not. {cure}")
    origin = cube.attrs.get("lattice_origin", (0.0, 0.0))
    if np.shape(origin) != (2,) or not np.isfinite(np.asarray(origin, float)).all():
        raise CubeError(f"The attribute lattice_origin has to be two numbers [x, y] in CRS units; got {origin!r}.")
