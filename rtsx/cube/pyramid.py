"""Overviews of a raster, and the GeoZarr metadata that describes them.

These are version 0.1 of the conventions kept by the zarr-conventions organisation, which replaced the tile matrix sets
of the older GeoZarr draft. They repeat what CF says in `spatial_ref` and in the coordinates, for readers that know only
the one or the other.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.resample.dtype import is_representable

Reduction = Literal["average", "max", "nearest"]

_SMALLEST_TOP_LEVEL = 1024
"""Pixels: the coarsest level is the first whose longer side is at most this long, one look on a screen."""


def reduction_of(variable: xr.DataArray) -> Reduction:
    """Return how four pixels of a variable become one.

    - ``"max"`` for masks and for `binary`, because an overview is for finding things: a slump of a few pixels has to
      stay visible, and under the mode it would be gone at the first level. Areas are not measured on overviews.
    - ``"nearest"`` for classes (those with CF ``flag_values``, and Sentinel-2's `scl`), whose numbers have no mean.
    - ``"average"`` for the rest, over the valid pixels.
    """
    if variable.dtype == bool or variable.name == "binary":
        return "max"
    if "flag_values" in variable.attrs or variable.name in ("scl", "class_index"):
        return "nearest"
    return "average"


def level_count(shape: tuple[int, int]) -> int:
    """Return the number of overview levels below full resolution.

    Examples
    --------
    >>> level_count((1024, 1000)), level_count((1025, 10)), level_count((12288, 12288))
    (0, 1, 4)
    """
    return max(0, math.ceil(math.log2(max(shape) / _SMALLEST_TOP_LEVEL)))


def halved_geobox(geobox: GeoBox) -> GeoBox:
    """Return the geobox of pixels twice as large from the same corner; an odd side is rounded up and reaches beyond the data."""
    height, width = geobox.shape
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    return GeoBox((-(-height // 2), -(-width // 2)), Affine(2 * a, 2 * b, c, 2 * d, 2 * e, f), geobox.crs)


def halve(block: NDArray[Any], *, reduction: Reduction, nodata: float | None) -> NDArray[Any]:
    """Halve the last two axes of an array; nodata counts only where all four pixels are nodata.

    Parameters
    ----------
    block
        Array (..., y, x). An odd side is completed by a pixel that counts as nodata.
    reduction
        ``"average"`` (rounded for integers), ``"max"`` or ``"nearest"`` (the upper left pixel).
    nodata
        Stored value of a missing pixel, or None; NaN is always missing.

    Returns
    -------
    ndarray
        Same dtype, sides rounded up.

    Examples
    --------
    >>> halve(np.array([[10, 255], [20, 255]], np.uint8), reduction="average", nodata=255)
    array([[15]], dtype=uint8)
    """
    if reduction == "nearest":
        return block[..., ::2, ::2]
    shape = (*block.shape[:-2], *(-(-size // 2) for size in block.shape[-2:]))
    count = np.zeros(shape, np.uint8)
    # Four pixels of 8 bits fit into 16; the rest is summed as float64, which holds every int32 sum exactly.
    dtype = block.dtype if reduction == "max" else np.uint16 if block.dtype == np.uint8 else np.float64
    reduced = np.full(shape, _lowest(block.dtype) if reduction == "max" else 0, dtype)
    for quarter in (block[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)):
        part = (..., slice(quarter.shape[-2]), slice(quarter.shape[-1]))  # smaller than the rest at an odd side
        is_data = is_representable(quarter, nodata)
        count[part] += is_data
        if reduction == "max":
            np.maximum(reduced[part], quarter, out=reduced[part], where=is_data)
        else:
            np.add(reduced[part], quarter, out=reduced[part], where=is_data)
    if reduction == "average":
        mean = reduced / np.maximum(count, 1)
        reduced = mean if block.dtype.kind == "f" else np.rint(mean)
    out: NDArray[Any] = reduced.astype(block.dtype)
    out[count == 0] = _missing_value(block.dtype, nodata)
    return out


def _lowest(dtype: np.dtype[Any]) -> float:
    if dtype.kind == "b":
        return False
    return float("-inf") if dtype.kind == "f" else np.iinfo(dtype).min


def _missing_value(dtype: np.dtype[Any], nodata: float | None) -> float:
    if nodata is not None:
        return nodata
    return math.nan if dtype.kind == "f" else 0


_CONVENTIONS = {
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
}


def spatial_attrs(geobox: GeoBox) -> dict[str, Any]:
    """Return the attributes of a group whose arrays lie on `geobox`.

    Examples
    --------
    >>> from affine import Affine
    >>> attrs = spatial_attrs(GeoBox((2, 4), Affine(3, 0, 600, 0, -3, 30), "EPSG:3413"))
    >>> attrs["proj:wkt2"][:31]
    'PROJCRS["WGS 84 / NSIDC Sea Ice'
    >>> attrs["proj:code"], attrs["spatial:transform"], attrs["spatial:bbox"]
    ('EPSG:3413', [3.0, 0.0, 600.0, 0.0, -3.0, 30.0], [600.0, 24.0, 612.0, 30.0])
    """
    crs = pyproj.CRS.from_user_input(str(geobox.crs))
    authority = crs.to_authority(min_confidence=100)
    # Both, because browsers know few codes, and polar ones are not among them.
    named = ({"proj:code": ":".join(authority)} if authority else {}) | {"proj:wkt2": crs.to_wkt()}
    return {
        "zarr_conventions": [_convention("proj"), _convention("spatial")],
        **named,
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [float(value) for value in geobox.boundingbox],
        **_placed(geobox),
        "spatial:registration": "pixel",
    }


def multiscale_attrs(levels: Sequence[tuple[str, GeoBox]]) -> dict[str, Any]:
    """Return the attributes of the root group of a pyramid.

    Parameters
    ----------
    levels
        Path of the group (``"."`` for the root itself) and geobox of each level, full resolution first, each half as
        fine as the one before it.
    """
    layout: list[dict[str, Any]] = []
    for place, (path, geobox) in enumerate(levels):
        entry: dict[str, Any] = {"asset": path, "transform": {"scale": [1.0, 1.0], "translation": [0.0, 0.0]}}
        if place:
            entry["derived_from"] = levels[place - 1][0]
            entry["transform"]["scale"] = [2.0, 2.0]
        layout.append(entry | _placed(geobox))
    root = spatial_attrs(levels[0][1])
    # With a layout, shape and transform belong to its entries alone.
    shared = {name: value for name, value in root.items() if name not in ("spatial:shape", "spatial:transform")}
    conventions = [*root["zarr_conventions"], _convention("multiscales")]
    return shared | {"zarr_conventions": conventions, "multiscales": {"layout": layout}}


def _placed(geobox: GeoBox) -> dict[str, Any]:
    return {
        "spatial:shape": [int(size) for size in geobox.shape],
        "spatial:transform": [float(value) for value in tuple(geobox.affine)[:6]],
    }


def _convention(name: str) -> dict[str, str]:
    uuid, description = _CONVENTIONS[name]
    return {
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "uuid": uuid,
        "name": name,
        "description": description,
    }
