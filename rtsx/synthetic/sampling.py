"""The ground seen on another grid: every layer is read at the positions of its own pixel centres."""

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from scipy import ndimage

from rtsx.synthetic.spec import PIXEL_M, GroundSpec

__all__ = ["covering_grid", "grid_north_deg", "ground_positions", "sample"]

KNOT = 16
"""Pixels between two positions that are projected exactly; in between they are interpolated (off by millimetres)."""


def linear_matrix(length: int) -> NDArray[np.float64]:
    """Weights (length, knots) of linear interpolation between knots every `KNOT` px."""
    at = np.arange(length) / KNOT
    knots = int(at[-1]) + 2
    return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(knots)), 0, 1), np.float64)


def ground_positions(spec: GroundSpec, *, crs: str, transform: Affine, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Row and column (2, y, x) on the ground's lattice of every pixel centre of a north-up grid; 0, 0 is the first's centre.

    Examples
    --------
    >>> spec = GroundSpec(seed=0, crs="EPSG:32608", left=0, top=300, size=256)
    >>> same = ground_positions(spec, crs="EPSG:32608", transform=Affine(3, 0, 6, 0, -3, 300), shape=(2, 2))
    >>> same[:, 0, 0].tolist()
    [0.0, 2.0]
    """
    down, across = (linear_matrix(length) for length in shape)
    row, column = np.mgrid[0 : down.shape[1], 0 : across.shape[1]] * KNOT + 0.5
    x, y = transform.c + transform.a * column, transform.f + transform.e * row
    if crs != spec.crs:
        x, y = Transformer.from_crs(crs, spec.crs, always_xy=True).transform(x, y)
    knots = np.stack([(spec.top - y) / PIXEL_M - 0.5, (x - spec.left) / PIXEL_M - 0.5])
    return np.asarray(down @ knots @ across.T, np.float32)


def sample(field: NDArray[np.floating], positions: NDArray[np.float32], *, cell: int) -> NDArray[np.float32]:
    """Bilinear value (y, x) of a field whose cells are `cell` lattice px wide; NaN beyond the ground."""
    at = (positions + np.float32(0.5)) / cell - np.float32(0.5)
    size = field.shape[0]
    # Half a cell at the rim has no neighbour to interpolate with and takes the outermost cell's value.
    inside = ((at >= -0.5) & (at <= size - 0.5)).all(axis=0)
    values = ndimage.map_coordinates(field, at, order=1, mode="nearest", prefilter=False, output=np.float32)
    return np.asarray(np.where(inside, values, np.float32("nan")), np.float32)


def covering_grid(
    bounds: tuple[float, float, float, float], *, source: str, target: str, step: float, margin: int
) -> tuple[Affine, tuple[int, int]]:
    """Transform and shape of the grid of `step` in CRS `target`, pixels on multiples of it, that covers `bounds`."""
    left, bottom, right, top = Transformer.from_crs(source, target, always_xy=True).transform_bounds(
        *bounds, densify_pts=21
    )
    first_x, first_y = int(np.floor(left / step)) - margin, int(np.ceil(top / step)) + margin
    columns = int(np.ceil(right / step)) + margin - first_x
    rows = first_y - int(np.floor(bottom / step)) + margin
    return Affine(step, 0, first_x * step, 0, -step, first_y * step), (rows, columns)


def grid_north_deg(crs: str, place: tuple[float, float]) -> float:
    """Direction of grid north at a longitude and latitude, degrees clockwise from true north.

    Examples
    --------
    >>> round(grid_north_deg("EPSG:32608", (-132, 67.4)), 2), round(grid_north_deg("EPSG:32609", (-132, 67.4)), 2)
    (2.77, -2.77)
    """
    to_grid = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_grid.transform(*place)
    longitudes, latitudes = to_grid.transform([x, x], [y, y + 100], direction="INVERSE")
    azimuth, _, _ = Geod(ellps="WGS84").inv(longitudes[0], latitudes[0], longitudes[1], latitudes[1])
    return float(azimuth)
