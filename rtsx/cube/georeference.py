"""Where a Dataset lies: its geobox, its lattice, and the coordinates that say so."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 - registers the `.odc` accessor
import rioxarray  # noqa: F401 - registers the `.rio` accessor
import xarray as xr
from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from rtsx.errors import CubeError

__all__ = [
    "crs_name",
    "describe_geobox",
    "geobox_of",
    "is_regular",
    "lattice_origin",
    "pixel_m",
    "window_of",
    "with_georeference",
]


def geobox_of(cube: xr.Dataset | xr.DataArray) -> GeoBox:
    """CRS, transform and shape of a georeferenced Dataset, read from its coordinates.

    Raises
    ------
    CubeError
        There is no CRS, or coordinates `y` and `x` are missing or one pixel long without a stored transform.
    """
    for name in ("y", "x"):
        if name not in cube.dims or name not in cube.coords:
            raise CubeError(
                f"A cube has dimensions y and x with coordinates of pixel centres; {name!r} is missing, there are "
                f"dimensions {dict(cube.sizes)} and coordinates {sorted(map(str, cube.coords))}. "
                "Rename them with cube.rename(...)."
            )
    if cube.odc.crs is None or "spatial_ref" not in cube.coords:
        raise CubeError(
            "A cube needs a CRS in a coordinate 'spatial_ref'. Give it with cube.rio.write_crs('EPSG:...')."
        )
    geobox: GeoBox | None = cube.odc.geobox
    if geobox is None:
        raise CubeError(
            f"The transform of this cube cannot be told from its coordinates (shape {dict(cube.sizes)}). "
            "Give it with cube.rio.write_transform(transform)."
        )
    return geobox


def lattice_origin(cube: xr.Dataset) -> tuple[float, float]:
    """Upper-left corner (x, y) of the lattice that tiles are anchored to: the attribute, else the cube's own corner."""
    if "lattice_origin" in cube.attrs:
        x, y = cube.attrs["lattice_origin"]
        return float(x), float(y)
    affine = geobox_of(cube).affine
    return float(affine.c), float(affine.f)


def with_georeference(
    variables: Mapping[str, xr.Variable] | xr.Dataset, geobox: GeoBox, *, lattice_origin: tuple[float, float]
) -> xr.Dataset:
    """A Dataset of variables on `geobox`, with coordinates `y`, `x` and `spatial_ref` that odc-geo and rioxarray read.

    Parameters
    ----------
    variables
        Data variables with dimensions (..., y, x).
    geobox
        Where their pixels lie.
    lattice_origin
        Upper-left corner (x, y) of the lattice, in CRS units.
    """
    plain = variables.copy() if isinstance(variables, xr.Dataset) else xr.Dataset(variables)
    cube = plain.assign_coords(xr_coords(geobox, always_yx=True))
    for name, variable in cube.variables.items():
        if name not in cube.coords and {"y", "x"} <= set(variable.dims):
            # In `encoding`, as rioxarray and odc-geo keep it, because arithmetic drops attributes but not the CRS.
            variable.encoding["grid_mapping"] = "spatial_ref"
    attrs: dict[str, Any] = {**cube.attrs, "lattice_origin": [float(value) for value in lattice_origin]}
    return cube.assign_attrs(attrs)


def crs_name(crs: CRS | None) -> str:
    """``EPSG:CODE`` where there is one, else WKT; for messages."""
    return f"EPSG:{crs.epsg}" if crs is not None and crs.epsg else str(crs)


def describe_geobox(geobox: GeoBox) -> str:
    """A geobox in one line; for messages."""
    affine = tuple(geobox.affine)[:6]
    return f"{crs_name(geobox.crs)}, transform {affine}, shape {geobox.shape.yx}"


def window_of(geobox: GeoBox, rows: tuple[int, int], columns: tuple[int, int], *, halo: int) -> GeoBox:
    """Geobox of half-open ranges of a raster's rows and columns and `halo` pixels around them, which may lie outside.

    Examples
    --------
    >>> from affine import Affine
    >>> window = window_of(GeoBox((9, 9), Affine(3, 0, 0, 0, -3, 0), "EPSG:3413"), (0, 4), (2, 5), halo=1)
    >>> window.shape.yx, window.affine.c, window.affine.f
    ((6, 5), 3.0, 3.0)
    """
    (top, bottom), (left, right) = rows, columns
    affine = geobox.affine * Affine.translation(left - halo, top - halo)
    return GeoBox((bottom - top + 2 * halo, right - left + 2 * halo), affine, geobox.crs)


def pixel_m(geobox: GeoBox) -> float:
    """Height of a pixel on the ground, m; in degrees by the length of a meridian, 111.2 km a degree."""
    if geobox.crs is not None and geobox.crs.geographic:
        return abs(float(geobox.affine.e)) * 111_195.0
    return abs(float(geobox.affine.e)) * float(CRS(str(geobox.crs)).proj.axis_info[0].unit_conversion_factor)


def is_regular(axis: np.ndarray, resolution: float) -> bool:
    """Whether pixel centres step by `resolution`, to a hundredth of a pixel over the whole axis.

    Examples
    --------
    >>> is_regular(np.array([1.5, 4.5, 7.5]), 3.0), is_regular(np.array([1.5, 4.5, 9.0]), 3.0)
    (True, False)
    """
    expected = axis[0] + resolution * np.arange(len(axis))
    return bool(np.all(np.abs(axis - expected) <= 0.01 * abs(resolution)))
