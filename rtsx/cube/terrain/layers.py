"""The terrain layers of the field."""

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.circle import half_widths
from rtsx.cube.terrain import numba as compiled
from rtsx.cube.terrain.ground import Ground
from rtsx.cube.terrain.layer import terrain_layer

__all__ = [
    "aspect",
    "curvature",
    "dem",
    "hillshade",
    "plan_curvature",
    "profile_curvature",
    "relative_elevation",
    "slope",
]

Heights = NDArray[np.float32]

_CIRCLE_M = 100.0
"""Radius over which relative elevation takes its mean."""


@terrain_layer("dem", units="m", long_name="elevation")
def dem(heights: Heights, ground: Ground) -> Heights:
    """The heights as they are."""
    return heights


@terrain_layer("relative_elevation", units="m", long_name="elevation above the mean within 100 m", halo_m=_CIRCLE_M)
def relative_elevation(heights: Heights, ground: Ground) -> Heights:
    """Height minus the mean of the valid heights in a circle of radius 100 m, the middle included.

    A pixel belongs to the circle where its centre is at most 100 m away. Missing pixels are left out of the mean.
    """
    circle = half_widths(_CIRCLE_M, heights_m=ground.heights_m(), widths_m=ground.widths_m())
    return compiled.minus_circle_mean(heights, circle)


@terrain_layer("slope", units="degree", long_name="slope", halo_px=1, limits=(0, 90))
def slope(heights: Heights, ground: Ground) -> Heights:
    """Angle to the horizontal in degrees, 0-90, after Horn (1981)."""
    return compiled.slope(heights, *_steps(ground))


@terrain_layer("aspect", units="degree", long_name="aspect, clockwise from true north", halo_px=1, is_angle=True)
def aspect(heights: Heights, ground: Ground) -> Heights:
    """Downhill direction in degrees clockwise from true north, 0 up to 360; 0 where the ground is level.

    Level ground is 0 instead of NaN, because NaN is invalid, and lakes are not.
    """
    return compiled.aspect(heights, *_steps(ground), ground.true_north())


@terrain_layer("hillshade", units="1", long_name="hillshade", halo_px=1, limits=(0, 1))
def hillshade(heights: Heights, ground: Ground) -> Heights:
    """Cosine of the angle between the sun and the ground's normal, 0-1; 0 on slopes turned away. No cast shadows."""
    sun = (float(ground.sun_azimuth), float(ground.sun_elevation))
    return compiled.hillshade(heights, *_steps(ground), ground.true_north(), sun)


@terrain_layer("curvature", units="0.01 m-1", long_name="total curvature, above 0 where convex", halo_px=1)
def curvature(heights: Heights, ground: Ground) -> Heights:
    """Total curvature, -2 (D + E) of Zevenbergen & Thorne (1987), in hundredths of 1/m; above 0 where convex.

    It is what ArcGIS and xarray-spatial call curvature, and has their unit. Flat beside a missing neighbour.
    """
    return compiled.curvatures(heights, *_steps(ground), 0)


@terrain_layer("profile_curvature", units="0.01 m-1", long_name="curvature along the slope", halo_px=1)
def profile_curvature(heights: Heights, ground: Ground) -> Heights:
    """Curvature along the line of steepest descent, after Zevenbergen & Thorne (1987); 0 on level ground.

    Total curvature is profile minus plan curvature.
    """
    return compiled.curvatures(heights, *_steps(ground), 1)


@terrain_layer("plan_curvature", units="0.01 m-1", long_name="curvature across the slope", halo_px=1)
def plan_curvature(heights: Heights, ground: Ground) -> Heights:
    """Curvature across the line of steepest descent, after Zevenbergen & Thorne (1987); 0 on level ground."""
    return compiled.curvatures(heights, *_steps(ground), 2)


def _steps(ground: Ground) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres from row to row and column to column, each row, signed like the axes of the CRS."""
    return np.copysign(ground.heights_m(), ground.pixel[0]), np.copysign(ground.widths_m(), ground.pixel[1])
