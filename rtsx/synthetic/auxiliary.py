"""Layers that come with a scene: elevation and trends, each read from the ground on its own grid."""

from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rtsx.synthetic.ground import Ground
from rtsx.synthetic.rasterio import write_cog
from rtsx.synthetic.sampling import ground_positions, sample
from rtsx.synthetic.terrain import COARSE

__all__ = ["DEM_CRS", "TCVIS_CRS", "TCVIS_STEP_DEG", "heights", "write_dem", "write_tcvis"]

DEM_CRS = "EPSG:3413"
"""CRS of ArcticDEM."""
DEM_NODATA = -9999.0
"""Missing height."""
TCVIS_CRS = "EPSG:4326"
"""CRS of the published trends."""
TCVIS_STEP_DEG = 0.000269494585
"""Pixel of the published trends, degrees."""
TREND_BANDS = ("tc_brightness", "tc_greenness", "tc_wetness")
"""Bands of the trends, in order."""
TAGS = {"AREA_OR_POINT": "Area", "SYNTHETIC": "rtsx"}
"""Tags of both files."""


def heights(ground: Ground, transform: Affine, *, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Elevation (y, x) on a grid in `DEM_CRS`, m; `DEM_NODATA` beyond the ground."""
    positions = ground_positions(ground.spec, crs=DEM_CRS, transform=transform, shape=shape)
    return np.nan_to_num(sample(ground.elevation, positions, cell=1), nan=DEM_NODATA)


def write_dem(path: Path, height: NDArray[np.float32], *, transform: Affine) -> None:
    """Write ArcticDEM-like elevation (y, x)."""
    write_cog(path, height[None], crs=DEM_CRS, transform=transform, nodata=DEM_NODATA, names=("dem",), tags=TAGS)


def write_tcvis(path: Path, *, ground: Ground, transform: Affine, shape: tuple[int, int]) -> None:
    """Write trends of the tasselled-cap index on a grid in `TCVIS_CRS`; nodata beyond the ground."""
    positions = ground_positions(ground.spec, crs=TCVIS_CRS, transform=transform, shape=shape)
    trends = np.stack([sample(trend, positions, cell=COARSE) for trend in ground.trends])
    stored = np.nan_to_num(np.clip(np.round(trends), 1, 255), nan=0).astype(np.uint8)
    write_cog(path, stored, crs=TCVIS_CRS, transform=transform, nodata=0, names=TREND_BANDS, tags=TAGS)
