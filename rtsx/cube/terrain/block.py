"""Terrain layers of one block of heights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.terrain.ground import Ground
from rtsx.cube.terrain.layer import TerrainLayer, terrain_named
from rtsx.errors import CubeError

__all__ = ["terrain_block"]


def terrain_block(
    dem: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    ground: Ground,
    layers: Sequence[str | TerrainLayer],
    halo: int,
) -> NDArray[np.float32]:
    """Terrain layers of the middle of a block.

    Parameters
    ----------
    dem
        Heights (y, x) in m, with a halo on all four sides.
    valid
        (y, x): False where there is no height; what `dem` holds there does not matter. Neither does NaN.
    ground
        The ground under `dem`, halo included.
    layers
        Names or layers.
    halo
        Pixels to cut off each side: at least `terrain_halo` of the layers, else edges show.

    Returns
    -------
    ndarray
        (layer, y, x) float32 of the middle, NaN where invalid.

    Raises
    ------
    CubeError
        Shapes do not fit, a layer is unknown, or its kernel returns another shape.

    Examples
    --------
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> ground = Ground.from_geobox(GeoBox((3, 4), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413"))
    >>> dem = np.tile(np.arange(4) * 2.0, (3, 1))
    >>> terrain_block(dem, np.ones((3, 4), bool), ground=ground, layers=["slope"], halo=1)
    array([[[45., 45.]]], dtype=float32)
    """
    if not dem.shape == valid.shape == ground.shape:
        raise CubeError(
            f"Heights, validity and ground share one shape (y, x); got {dem.shape}, {valid.shape} and {ground.shape}."
        )
    height, width = dem.shape
    heights = np.where(valid & np.isfinite(dem), dem, np.nan).astype(np.float32)
    out = np.empty((len(layers), max(height - 2 * halo, 0), max(width - 2 * halo, 0)), np.float32)
    for index, named in enumerate(layers):
        layer = terrain_named(named)
        made = layer.kernel(heights, ground)
        if made.shape != heights.shape:
            raise CubeError(
                f"The kernel of terrain layer {layer.name!r} returns its input's shape {heights.shape}; got "
                f"{made.shape}. Leave cutting off the halo to the caller."
            )
        out[index] = made[halo : height - halo, halo : width - halo]
    # A kernel of a user may leave what it likes under the mask.
    out[:, np.isnan(heights[halo : height - halo, halo : width - halo])] = np.nan
    return out
