"""One kind of terrain layer, and how a user adds one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from math import ceil

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.terrain.ground import Ground
from rtsx.errors import CubeError

__all__ = ["TERRAIN", "TerrainKernel", "TerrainLayer", "terrain_halo", "terrain_layer", "terrain_named"]

TerrainKernel = Callable[[NDArray[np.float32], Ground], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class TerrainLayer:
    """A layer computed from elevation.

    Raises
    ------
    CubeError
        It has no name, or looks a negative way.
    """

    name: str
    """Name of the variable."""
    units: str
    """Physical unit, such as ``m`` or ``degree``; ``1`` where it has none."""
    kernel: TerrainKernel
    """From heights (y, x) in m, NaN where invalid, and the ground under them, to float32 of the same shape. Pure; may be
    called by several threads at once. A pixel may depend on nothing farther away than the halo."""
    long_name: str = ""
    """What a plot calls it."""
    halo_m: float = 0.0
    """Metres that the kernel looks around a pixel."""
    halo_px: int = 0
    """Pixels that it looks around a pixel, where that is what counts; the larger of the two holds."""
    is_angle: bool = False
    """Whether 0 and 360 are the same: resample it nearest, because the mean of 359° and 1° is no 180°."""

    limits: tuple[float, float] | None = None
    """Lowest and highest value there is; what a cubic warp overshoots is brought back to them."""

    def __post_init__(self) -> None:
        """Check name and halo."""
        if not self.name or self.halo_m < 0 or self.halo_px < 0:
            raise CubeError(
                f"A terrain layer has a name, and halo_m and halo_px of 0 or more; got {self.name!r}, {self.halo_m} "
                f"and {self.halo_px}."
            )

    def halo(self, ground: Ground) -> tuple[int, int]:
        """Pixels (y, x) around a window on `ground` that the kernel looks at."""
        if not self.halo_m:
            return self.halo_px, self.halo_px
        y, x = (ceil(self.halo_m / lengths.min()) for lengths in (ground.heights_m(), ground.widths_m()))
        return max(y, self.halo_px), max(x, self.halo_px)


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
    """Decorator that makes a function a terrain layer which recipes and YAML files can name.

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
    >>> terrain_named("drop").units
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
        before = TERRAIN.get(name)
        # A cell of a notebook that runs again, or a module that is loaded again, replaces its own function.
        if before is not None and _place(before.kernel) != _place(kernel):
            raise CubeError(
                f"Terrain layer {name!r} is taken by {'.'.join(_place(before.kernel))}; "
                f"{'.'.join(_place(kernel))} needs another name."
            )
        TERRAIN[name] = layer
        return kernel

    return register


def terrain_named(layer: str | TerrainLayer) -> TerrainLayer:
    """The terrain layer of a name; a layer itself passes.

    Raises
    ------
    CubeError
        There is none.
    """
    if isinstance(layer, TerrainLayer):
        return layer
    if layer not in TERRAIN:
        near = get_close_matches(layer, TERRAIN, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise CubeError(
            f"Known terrain layers are {sorted(TERRAIN)}; got {layer!r}. {hint}Add one with "
            f"@terrain_layer({layer!r}, units=...)."
        )
    return TERRAIN[layer]


def terrain_halo(layers: Iterable[str | TerrainLayer], ground: Ground) -> int:
    """Pixels on each side of a window that its terrain layers look at.

    Examples
    --------
    >>> from affine import Affine
    >>> from odc.geo.geobox import GeoBox
    >>> ground = Ground.from_geobox(GeoBox((50, 50), Affine(2, 0, 1000, 0, -2, 5000), "EPSG:3413"))
    >>> terrain_halo(["slope"], ground), terrain_halo(["slope", "relative_elevation"], ground)
    (1, 50)
    """
    return max((max(terrain_named(layer).halo(ground)) for layer in layers), default=0)


def _place(kernel: TerrainKernel) -> tuple[str, str]:
    return kernel.__module__, getattr(kernel, "__qualname__", repr(kernel))
