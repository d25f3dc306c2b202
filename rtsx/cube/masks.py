"""Quality data to trust: named rules as NumPy kernels, and their lazy use."""

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.dask import lazy_bands
from rtsx.cube.georeference import describe_geobox, geobox_of
from rtsx.cube.rasterio import read_header
from rtsx.errors import CubeError

__all__ = ["MASK_RULES", "MaskRule", "apply_mask", "quality_level"]

_INVALID, _LOW, _GOOD = 0, 1, 2
_UDM2_CLEAR, _UDM2_SNOW, _UDM2_SHADOW, _UDM2_LIGHT_HAZE = 0, 1, 2, 3
_UDM2_HEAVY_HAZE, _UDM2_CLOUD, _UDM2_UNUSABLE = 4, 5, 7
_SCL_INVALID, _SCL_LOW = (0, 1), (3, 8, 9, 11)


@dataclass(frozen=True)
class MaskRule:
    """One way to read quality data."""

    name: str
    """Name under which `apply_mask` knows it."""
    bands: int
    """Number of bands of the quality data."""
    quality: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """Kernel from (band, y, x) to the level of each pixel (y, x): 0 invalid, 1 low quality, 2 good."""


def _tss_v1(udm2: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clear and none of snow, shadow, heavy haze, cloud, unusable; light haze is kept."""
    bad = (udm2[[_UDM2_SNOW, _UDM2_SHADOW, _UDM2_HEAVY_HAZE, _UDM2_CLOUD, _UDM2_UNUSABLE]] != 0).any(axis=0)
    return np.where((udm2[_UDM2_CLEAR] != 0) & ~bad, np.uint8(_GOOD), np.uint8(_INVALID))


def _darts_v2(udm2: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Unusable is invalid; snow, shadow, any haze and cloud are low quality; the rest is good."""
    low = (udm2[_UDM2_SNOW : _UDM2_CLOUD + 1] != 0).any(axis=0)
    quality = np.where(low, np.uint8(_LOW), np.uint8(_GOOD))
    quality[udm2[_UDM2_UNUSABLE] != 0] = _INVALID
    return quality


def _sentinel2_scl(scl: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scene classes 0 and 1 are invalid; 3, 8, 9 and 11 low quality; the rest good."""
    quality = np.full(scl.shape[1:], _GOOD, np.uint8)
    quality[np.isin(scl[0], _SCL_LOW)] = _LOW
    quality[np.isin(scl[0], _SCL_INVALID)] = _INVALID
    return quality


MASK_RULES = {
    rule.name: rule
    for rule in (
        MaskRule("tss-v1", 8, _tss_v1),
        MaskRule("darts-v2", 8, _darts_v2),
        MaskRule("sentinel2-scl", 1, _sentinel2_scl),
    )
}
"""Rules by name: two for the eight bands of PlanetScope's UDM2, one for the scene classification of Sentinel-2."""


def quality_level(data: NDArray[np.uint8], rule: str) -> NDArray[np.uint8]:
    """Level of each pixel by a named rule.

    Parameters
    ----------
    data
        Quality data (band, y, x), uint8.
    rule
        ``"tss-v1"`` or ``"darts-v2"`` (UDM2, 8 bands), ``"sentinel2-scl"`` (1 band).

    Returns
    -------
    ndarray
        (y, x) uint8: 0 invalid, 1 low quality, 2 good. ``tss-v1`` knows no level 1.

    Raises
    ------
    CubeError
        Unknown rule, or the wrong number of bands.

    Examples
    --------
    >>> udm2 = np.zeros((8, 1, 3), np.uint8)
    >>> udm2[0], udm2[3, 0, 1], udm2[7, 0, 2] = 1, 1, 1  # all clear; light haze; unusable
    >>> quality_level(udm2, "darts-v2")
    array([[2, 1, 0]], dtype=uint8)
    """
    found = _rule(rule)
    if data.ndim != 3 or data.shape[0] != found.bands:
        raise CubeError(f"Rule {rule!r} reads data (band, y, x) with {found.bands} bands; got shape {data.shape}.")
    return found.quality(data)


def apply_mask(
    cube: xr.Dataset, data: str | PathLike[str] | xr.DataArray, *, rule: str, keep_low: bool = False
) -> xr.Dataset:
    """The cube with `valid`: True where quality data calls a pixel good; lazy.

    Where the cube has a `valid` already, a pixel has to be valid in both. Nodata of the layers is not looked at here:
    every reader of a cube takes it from the layers themselves.

    Parameters
    ----------
    cube
        Any cube.
    data
        UDM2 or scene classification on the cube's own pixels: path of a raster file, or an array on ([band,] y, x).
    rule
        Name in `MASK_RULES`.
    keep_low
        Trust low quality too.

    Raises
    ------
    CubeError
        Unknown rule, wrong number of bands, or data that is not on the cube's pixels.
    """
    found = _rule(rule)
    geobox = geobox_of(cube)
    bands = _array_bands(data, geobox, found) if isinstance(data, xr.DataArray) else _file_bands(str(data), cube, found)
    blocks = bands.rechunk({0: -1})
    valid = da.map_blocks(
        _valid_block,
        blocks,
        dtype=bool,
        drop_axis=0,
        meta=np.empty((0, 0), bool),
        rule=rule,
        least=_LOW if keep_low else _GOOD,
    )
    variable = xr.DataArray(
        valid, dims=("y", "x"), coords={name: cube.coords[name] for name in ("y", "x", "spatial_ref")}
    )
    variable.attrs = {"long_name": "True where a pixel can be trusted", "mask_rule": rule}
    variable.variable.encoding["grid_mapping"] = "spatial_ref"
    if "valid" in cube:
        variable = (cube["valid"] & variable).assign_attrs(variable.attrs)
    return cube.assign(valid=variable)


def _rule(name: str) -> MaskRule:
    if name not in MASK_RULES:
        raise CubeError(f"Known mask rules are {sorted(MASK_RULES)}; got {name!r}.")
    return MASK_RULES[name]


def _valid_block(block: NDArray[Any], *, rule: str, least: int) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = MASK_RULES[rule].quality(block) >= least
    return valid


def _array_bands(data: xr.DataArray, geobox: GeoBox, rule: MaskRule) -> da.Array:
    stacked = data if data.ndim == 3 else data.expand_dims("band")
    if stacked.dims[1:] != ("y", "x") or stacked.shape != (rule.bands, *geobox.shape):
        raise CubeError(
            f"Rule {rule.name!r} needs quality data on the cube's pixels, ({rule.bands}, {geobox.shape[0]}, "
            f"{geobox.shape[1]}); got {dict(data.sizes)}."
        )
    bands: da.Array = da.asarray(stacked.data)
    return bands


def _file_bands(path: str, cube: xr.Dataset, rule: MaskRule) -> da.Array:
    header = read_header(path)
    if header.count != rule.bands:
        raise CubeError(f"Rule {rule.name!r} reads {rule.bands} bands; {path} has {header.count}.")
    geobox = geobox_of(cube)
    rows, columns = _place(header.geobox, geobox, path)
    sizes = {dim: lengths[0] for dim, lengths in cube.chunksizes.items() if dim in ("y", "x")}
    chunk = (sizes.get("y", geobox.shape[0]), sizes.get("x", geobox.shape[1]))
    return lazy_bands(header, (rows, columns), bands=tuple(range(1, rule.bands + 1)), chunk=chunk)


def _place(source: GeoBox, wanted: GeoBox, path: str) -> tuple[slice, slice]:
    """Rows and columns of `source` that are the pixels of `wanted`."""
    row = (source.affine.f - wanted.affine.f) / -source.affine.e
    column = (wanted.affine.c - source.affine.c) / source.affine.a
    same_pixels = (
        source.crs == wanted.crs
        and max(abs(source.affine.a / wanted.affine.a - 1), abs(source.affine.e / wanted.affine.e - 1)) < 1e-6
        and max(abs(row - round(row)), abs(column - round(column))) < 0.01
    )
    rows = slice(round(row), round(row) + wanted.shape[0])
    columns = slice(round(column), round(column) + wanted.shape[1])
    is_inside = min(rows.start, columns.start) >= 0 and rows.stop <= source.shape[0] and columns.stop <= source.shape[1]
    if not (same_pixels and is_inside):
        raise CubeError(
            f"Quality data has to cover the cube on the same pixels: {path} has "
            f"{describe_geobox(source)}, the cube {describe_geobox(wanted)}. "
            "Warp it first with nearest neighbour, e.g. with gdalwarp -r near."
        )
    return rows, columns
