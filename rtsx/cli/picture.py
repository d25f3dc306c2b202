"""The demo's picture: image, probability, and outlines over truth; the whole scene above, its busiest corner below."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube import geobox_of, packing
from rtsx.storage import staged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Scene", "busiest_window", "colour_composite", "draw", "stretch"]

_ZOOM = 512
"""Side of the lower row's window, px."""
_DRAWN = 1000
"""Pixels that a panel can show; larger rasters are thinned."""
_BANDS = ("red", "green", "blue")
_GAMMA = 0.8
"""Exponent of the stretch: below 1 brightens the dark tundra."""


Stretch = Mapping[str, tuple[float, float]]
"""Stored values of each band that are drawn black and white."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the picture shows, all on one grid."""

    cube: xr.Dataset
    """The image: `red`, `green`, `blue` on (y, x)."""
    pred: xr.Dataset
    """The prediction: `probability`, `valid`."""
    outlines: gpd.GeoDataFrame
    """What was found, in any CRS."""
    truth: gpd.GeoDataFrame
    """What is there, in any CRS."""


def draw(scene: Scene, path: Path, *, title: str) -> None:
    """Draw a scene into a PNG file."""
    # Not pyplot, because that opens a window system and keeps every figure alive.
    from matplotlib.figure import Figure  # of the extra `view`, which only the picture needs

    figure = Figure(figsize=(13.5, 9.4), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=12)
    rows, columns = scene.cube.sizes["y"], scene.cube.sizes["x"]
    everything = (slice(0, rows), slice(0, columns))
    truth = scene.truth.to_crs(geobox_of(scene.cube).crs)
    zoom = busiest_window(truth, scene.cube, side=min(_ZOOM, rows, columns))
    thinned = {"y": slice(0, rows, _step(rows)), "x": slice(0, columns, _step(columns))}
    limits = stretch(scene.cube.isel(thinned), scene.pred["valid"].isel(thinned).values)
    axes = figure.subplots(2, 3)
    for row, window in zip(axes, (everything, zoom), strict=True):
        _draw_row(row, scene, window=window, limits=limits)
    _frame(axes[0][2], scene.cube, zoom)
    for axis, name in zip(axes[0], ("image", "probability", "found (orange) over truth (blue)"), strict=True):
        axis.set_title(name, fontsize=11)
    bar = figure.colorbar(axes[0][1].images[-1], ax=axes[:, 1], location="bottom", shrink=0.7, aspect=40, pad=0.02)
    bar.set_label("probability")
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def stretch(cube: xr.Dataset, valid: NDArray[np.bool_]) -> Stretch:
    """Stored values of each band that are drawn black and white: 1st and 99th percentile of the valid pixels.

    Clouds are not valid, so they do not darken the ground; where nothing is valid, what is there counts.

    Examples
    --------
    >>> band = xr.DataArray(np.arange(101, dtype="uint16").reshape(1, -1), dims=("y", "x"))
    >>> stretch(xr.Dataset({"red": band, "green": band, "blue": band}), np.ones((1, 101), bool))["red"]
    (1.0, 99.0)
    """
    limits = {}
    for name in _BANDS:
        stored = cube[name].values
        low, high = np.percentile(stored[valid] if valid.any() else stored, (1, 99))
        limits[name] = (float(low), max(float(high), float(low) + 1e-6))
    return limits


def colour_composite(cube: xr.Dataset, limits: Stretch) -> NDArray[np.float32]:
    """True-colour image (y, x, 3) in 0-1; nodata is white."""
    bands = []
    for name in _BANDS:
        stored = cube[name].values
        nodata = packing(cube[name])["nodata"]
        present = np.isfinite(stored) if nodata is None else stored != nodata
        low, high = limits[name]
        bands.append(np.where(present, np.clip((stored.astype(np.float32) - low) / (high - low), 0, 1) ** _GAMMA, 1))
    return np.stack(bands, axis=-1).astype(np.float32)


def busiest_window(truth: gpd.GeoDataFrame, cube: xr.Dataset, *, side: int) -> tuple[slice, slice]:
    """Rows and columns of a square inside the cube with the most outlines, large ones counting more, centred on one.

    The middle of the cube where there is no outline.
    """
    geobox = geobox_of(cube)
    shape = (cube.sizes["y"], cube.sizes["x"])
    if truth.empty:
        return _square((shape[0] / 2, shape[1] / 2), shape, side=side)
    geometry = truth.geometry.to_numpy()
    centres, weights = shapely.centroid(geometry), np.sqrt(shapely.area(geometry))
    columns, rows = ~geobox.affine * (shapely.get_x(centres), shapely.get_y(centres))
    windows = [_square(middle, shape, side=side) for middle in zip(rows, columns, strict=True)]
    held = [
        weights[(rows >= y.start) & (rows < y.stop) & (columns >= x.start) & (columns < x.stop)].sum()
        for y, x in windows
    ]
    return windows[int(np.argmax(held))]


def _square(middle: tuple[float, float], shape: tuple[int, int], *, side: int) -> tuple[slice, slice]:
    starts = [
        min(max(round(centre - side / 2), 0), length - side) for centre, length in zip(middle, shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _step(side: int) -> int:
    return max(1, side // _DRAWN)


def _draw_row(axes: "NDArray[np.object_]", scene: Scene, *, window: tuple[slice, slice], limits: Stretch) -> None:
    side = max(part.stop - part.start for part in window)
    step = _step(side)
    place = {"y": slice(window[0].start, window[0].stop, step), "x": slice(window[1].start, window[1].stop, step)}
    cube, pred = scene.cube.isel(place), scene.pred.isel(place)
    extent = _extent(scene.cube, window)
    image = colour_composite(cube, limits)
    probability = np.where(pred["valid"].values, pred["probability"].values * 0.01, np.nan)
    for axis in axes:
        axis.imshow(image, extent=extent, interpolation="nearest")
    axes[1].imshow(image.mean(axis=-1), extent=extent, cmap="gray", vmin=-0.4, vmax=1)
    # Transparent where nothing is likely, so that the ground can be read beneath.
    alpha = np.nan_to_num(np.clip(probability * 3, 0, 1))
    axes[1].imshow(probability, extent=extent, cmap="inferno", vmin=0, vmax=1, alpha=alpha, interpolation="nearest")
    crs = geobox_of(scene.cube).crs
    _fill(axes[2], scene.truth.to_crs(crs))
    _outline(axes[2], scene.outlines.to_crs(crs), is_wide=side > _ZOOM)
    for axis in axes:
        axis.set_xlim(extent[0], extent[1])
        axis.set_ylim(extent[2], extent[3])
        axis.set_xticks([])
        axis.set_yticks([])
    _scale_bar(axes[0], extent)


def _extent(cube: xr.Dataset, window: tuple[slice, slice]) -> tuple[float, float, float, float]:
    affine = geobox_of(cube).affine
    left, top = affine * (window[1].start, window[0].start)
    right, bottom = affine * (window[1].stop, window[0].stop)
    return left, right, bottom, top


def _rings(table: gpd.GeoDataFrame) -> list[NDArray[np.float64]]:
    polygons = shapely.get_parts(table.geometry.to_numpy())
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(polygons)]


def _fill(axis: "Axes", table: gpd.GeoDataFrame) -> None:
    from matplotlib.collections import PolyCollection

    axis.add_collection(PolyCollection(_rings(table), facecolors=(0.1, 0.45, 0.95, 0.6), edgecolors="none"))


def _outline(axis: "Axes", table: gpd.GeoDataFrame, *, is_wide: bool) -> None:
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(_rings(table), colors="#ff8c00", linewidths=0.7 if is_wide else 1.5))


def _frame(axis: "Axes", cube: xr.Dataset, window: tuple[slice, slice]) -> None:
    left, right, bottom, top = _extent(cube, window)
    axis.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color="black", linewidth=1)


def _scale_bar(axis: "Axes", extent: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = extent
    width = right - left
    length = max(
        step for step in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000) if step <= max(width / 4, 10)
    )
    x, y = left + 0.04 * width, bottom + 0.04 * (top - bottom)
    axis.plot([x, x + length], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    label = f"{length / 1000:g} km" if length >= 1000 else f"{length} m"
    axis.annotate(label, (x, y), xytext=(0, 4), textcoords="offset points", fontsize=9)
