"""Terrain layers from elevation: those of the field, how a user adds one, and all of them as a raster that is read by windows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.derived import register_layer
from rtsx.cube.encoding import is_representable
from rtsx.cube.erosion import disk_half_widths
from rtsx.cube.recipe import TerrainLayer
from rtsx.cube.resample.readers import WindowReader
from rtsx.cube.terrain import kernels as compiled
from rtsx.cube.terrain.grid import SUN_AZIMUTH, SUN_ELEVATION, TerrainGrid
from rtsx.errors import CubeError
from rtsx.names import did_you_mean

TerrainKernel = Callable[[NDArray[np.float32], TerrainGrid], NDArray[np.float32]]


TERRAIN: dict[str, TerrainLayer] = {}
"""Terrain layers by name: ours, and those that `terrain_layer` added."""


def terrain_layer(
    name: str,
    *,
    units: str,
    long_name: str = "",
    halo_m: float = 0.0,
    halo_px: int = 0,
    is_angle: bool = False,
    limits: tuple[float, float] | None = None,
) -> Callable[[TerrainKernel], TerrainKernel]:
    """Return a decorator that makes a function a terrain layer which recipes and YAML files can name.

    Parameters
    ----------
    name, units, long_name, halo_m, halo_px, is_angle, limits
        Fields of `TerrainLayer`.

    Returns
    -------
    callable
        Takes a kernel, registers it, and returns it as it is, so that it stays a function that can be pickled.

    Raises
    ------
    CubeError
        Another function has that name already.

    Examples
    --------
    >>> @terrain_layer("drop", units="m", halo_px=1)
    ... def drop(dem, ground):
    ...     return dem - np.roll(dem, 1, axis=0)
    >>> get_terrain("drop").units
    'm'
    >>> TERRAIN.pop("drop").halo_px  # and it is gone again
    1
    """

    def register(kernel: TerrainKernel) -> TerrainKernel:
        layer = TerrainLayer(
            name=name,
            units=units,
            kernel=kernel,
            long_name=long_name or name.replace("_", " "),
            halo_m=halo_m,
            halo_px=halo_px,
            is_angle=is_angle,
            limits=limits,
        )
        register_layer(TERRAIN, layer, what="Terrain layer")
        return kernel

    return register


def get_terrain(layer: str | TerrainLayer) -> TerrainLayer:
    """Return the terrain layer of a name; a layer itself passes.

    Raises
    ------
    CubeError
        There is none.
    """
    if isinstance(layer, TerrainLayer):
        return layer
    if layer not in TERRAIN:
        raise CubeError(
            f"Known terrain layers are {sorted(TERRAIN)}; got {layer!r}.{did_you_mean(layer, TERRAIN)} In Python, "
            f"@terrain_layer({layer!r}, units=...) adds one."
        )
    return TERRAIN[layer]


def terrain_halo(layers: Iterable[str | TerrainLayer], ground: TerrainGrid) -> int:
    """Return pixels on each side of a window that its terrain layers look at.

    Examples
    --------
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> ground = TerrainGrid.from_geobox(GeoBox((50, 50), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413"))
    >>> terrain_halo(["slope"], ground), terrain_halo(["slope", "relative_elevation"], ground)
    (1, 50)
    """
    return max((max(get_terrain(layer).halo(ground)) for layer in layers), default=0)


Heights = NDArray[np.float32]

_CIRCLE_M = 100.0
"""Radius over which relative elevation takes its mean."""


@terrain_layer("dem", units="m", long_name="elevation")
def dem(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the heights as they are."""
    return heights


@terrain_layer("relative_elevation", units="m", long_name="elevation above the mean within 100 m", halo_m=_CIRCLE_M)
def relative_elevation(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the height minus the mean of the valid heights in a circle of radius 100 m, the middle included.

    A pixel belongs to the circle where its centre is at most 100 m away. Missing pixels are left out of the mean.
    """
    circle = disk_half_widths(_CIRCLE_M, heights_m=ground.heights_m(), widths_m=ground.widths_m())
    return compiled.minus_circle_mean(heights, circle)


@terrain_layer("slope", units="degree", long_name="slope", halo_px=1, limits=(0, 90))
def slope(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the angle to the horizontal in degrees, 0-90, after Horn (1981)."""
    return compiled.slope_kernel(heights, *_steps(ground))


@terrain_layer("aspect", units="degree", long_name="aspect, clockwise from true north", halo_px=1, is_angle=True)
def aspect(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the downhill direction in degrees clockwise from true north, 0 up to 360; 0 where the ground is level.

    Level ground is 0 instead of NaN, because NaN is invalid, and lakes are not.
    """
    return compiled.aspect_kernel(heights, *_steps(ground), ground.true_north())


@terrain_layer("hillshade", units="1", long_name="hillshade", halo_px=1, limits=(0, 1))
def hillshade(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the cosine of the angle between the sun and the ground's normal, 0-1; 0 on slopes turned away. No cast shadows."""
    sun = (float(ground.sun_azimuth), float(ground.sun_elevation))
    return compiled.hillshade_kernel(heights, *_steps(ground), ground.true_north(), sun)


@terrain_layer("curvature", units="0.01 m-1", long_name="total curvature, above 0 where convex", halo_px=1)
def curvature(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the total curvature, -2 (D + E) of Zevenbergen & Thorne (1987), in hundredths of 1/m; above 0 where convex.

    It is what ArcGIS and xarray-spatial call curvature, and has their unit. Flat beside a missing neighbour.
    """
    return compiled.curvatures(heights, *_steps(ground), 0)


@terrain_layer("profile_curvature", units="0.01 m-1", long_name="curvature along the slope", halo_px=1)
def profile_curvature(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the curvature along the line of steepest descent, after Zevenbergen & Thorne (1987); 0 on level ground.

    Total curvature is profile minus plan curvature.
    """
    return compiled.curvatures(heights, *_steps(ground), 1)


@terrain_layer("plan_curvature", units="0.01 m-1", long_name="curvature across the slope", halo_px=1)
def plan_curvature(heights: Heights, ground: TerrainGrid) -> Heights:
    """Return the curvature across the line of steepest descent, after Zevenbergen & Thorne (1987); 0 on level ground."""
    return compiled.curvatures(heights, *_steps(ground), 2)


def _steps(ground: TerrainGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the metres from row to row and column to column, each row, signed like the axes of the CRS."""
    return np.copysign(ground.heights_m(), ground.pixel[0]), np.copysign(ground.widths_m(), ground.pixel[1])


def terrain_block(
    dem: NDArray[Any], valid: NDArray[np.bool_], *, ground: TerrainGrid, layers: Sequence[str | TerrainLayer], halo: int
) -> NDArray[np.float32]:
    """Return the terrain layers of the middle of a block.

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
    >>> ground = TerrainGrid.from_geobox(GeoBox((3, 4), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413"))
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
        layer = get_terrain(named)
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


@dataclass(frozen=True)
class TerrainReader(WindowReader):
    """A raster whose bands are terrain layers of another raster's first band.

    A window is the same however it is cut: its halo is read from `dem`, up to the edge of that raster. Values, not
    handles; as safe between threads as `dem` is.

    Examples
    --------
    >>> from affine import Affine
    >>> from rtsx.cube.resample.readers import ArrayReader
    >>> box = GeoBox((4, 4), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413")
    >>> plane = ArrayReader(np.tile(np.arange(4) * 2.0, (1, 4, 1)), box, nodata=-9999)
    >>> TerrainReader(plane, ["slope", "dem"]).read(slice(0, 1), slice(1, 3))
    array([[[45., 45.]],
           [[ 2.,  4.]]], dtype=float32)
    """

    dem: WindowReader
    """Heights in its first band."""
    layers: Sequence[str | TerrainLayer]
    """What its bands are, in order."""
    sun_azimuth: float = field(default=SUN_AZIMUTH, kw_only=True)
    """Degrees clockwise from true north."""
    sun_elevation: float = field(default=SUN_ELEVATION, kw_only=True)
    """Degrees above the horizon."""
    scale_factor: float = field(default=1.0, kw_only=True)
    """Metres per stored unit of `dem`."""
    add_offset: float = field(default=0.0, kw_only=True)
    """Metres at stored 0."""

    def __post_init__(self) -> None:
        """Look up the layers by name, and refuse a sun below the horizon."""
        object.__setattr__(self, "layers", tuple(get_terrain(layer) for layer in self.layers))
        if not self.layers:
            raise CubeError("A terrain reader has at least one layer; got none.")
        self._ground()

    @property
    def geobox(self) -> GeoBox:
        """That of the elevation."""
        return self.dem.geobox

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype(np.float32)

    @property
    def nodata(self) -> float:
        """NaN."""
        return float("nan")

    def read(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the layers (layer, y, x) of a window that lies within the raster, NaN where invalid."""
        height, width = self.geobox.shape
        whole = self._ground()
        halos = [get_terrain(layer).halo(whole.window(rows, columns)) for layer in self.layers]
        y, x = (max(halo) for halo in zip(*halos, strict=True))
        outer_rows = slice(max(rows.start - y, 0), min(rows.stop + y, height))
        outer_columns = slice(max(columns.start - x, 0), min(columns.stop + x, width))
        stored = self.dem.read(outer_rows, outer_columns)[0]
        valid = is_representable(stored, self.dem.nodata)
        heights = stored
        if (self.scale_factor, self.add_offset) != (1.0, 0.0):
            heights = stored * self.scale_factor + self.add_offset
        ground = whole.window(outer_rows, outer_columns)
        layers = terrain_block(heights, valid, ground=ground, layers=self.layers, halo=0)
        top, left = rows.start - outer_rows.start, columns.start - outer_columns.start
        # Copied, because the caller owns it, and a view would keep the halo alive.
        return layers[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start].copy()

    def overview_for(self, factor: float) -> Self:
        """Return itself: the slope of coarse heights is another layer than the slope, coarse."""
        return self

    def _ground(self) -> TerrainGrid:
        return TerrainGrid.from_geobox(self.geobox, sun_azimuth=self.sun_azimuth, sun_elevation=self.sun_elevation)
