"""Pictures of a cube and of the demo."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube import geobox_of, layer_names
from rtsx.cube.conventions import validate_times
from rtsx.errors import CubeError, require_extra
from rtsx.storage import staged
from rtsx.viewer.mapview import scale_length
from rtsx.viewer.render import LAYER_COLOURS, NO_PICTURES, TRUE_COLOUR, composite, limits_of, physical

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ZOOM = 512
"""Side of the lower row's window, px."""
_DRAWN = 1000
"""Pixels that a panel can show; larger rasters are thinned."""
Stretch = Sequence[tuple[float, float]]
"""Physical values of red, green and blue that are drawn darkest and brightest."""


@dataclass(frozen=True, kw_only=True)
class PictureLayers:
    """What the picture shows, all on one grid."""

    cube: xr.Dataset
    """The image: `red`, `green`, `blue` on (y, x)."""
    pred: xr.Dataset
    """The prediction: `probability`, `valid`."""
    outlines: gpd.GeoDataFrame
    """What was found, in any CRS."""
    truth: gpd.GeoDataFrame
    """What is there, in any CRS."""


def draw(scene: PictureLayers, path: Path, *, title: str) -> None:
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
    left, right, bottom, top = _extent(scene.cube, zoom)
    frame = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
    axes[0][2].plot(*frame, color="black", linewidth=1)
    for axis, name in zip(axes[0], ("image", "probability", "found (orange) over truth (blue)"), strict=True):
        axis.set_title(name, fontsize=11)
    bar = figure.colorbar(axes[0][1].images[-1], ax=axes[:, 1], location="bottom", shrink=0.7, aspect=40, pad=0.02)
    bar.set_label("probability")
    _save(figure, path)


def stretch(cube: xr.Dataset, valid: NDArray[np.bool_] | None) -> Stretch:
    """Return the limits of true colour, which pixels that are not valid (y, x), such as clouds, leave as they are."""
    return [limits_of(physical(cube[name]), valid=valid) for name in TRUE_COLOUR]


def true_colour(cube: xr.Dataset, limits: Stretch) -> NDArray[np.uint8]:
    """Return RGBA (y, x, 4) of a cube with `red`, `green` and `blue`."""
    return composite([physical(cube[name]) for name in TRUE_COLOUR], limits)


def busiest_window(truth: gpd.GeoDataFrame, cube: xr.Dataset, *, side: int) -> tuple[slice, slice]:
    """Return rows and columns of a square inside the cube with the most outlines, large ones counting more, centred on one.

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


def _draw_row(
    axes: "NDArray[np.object_]", scene: PictureLayers, *, window: tuple[slice, slice], limits: Stretch
) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    side = max(part.stop - part.start for part in window)
    step = _step(side)
    place = {"y": slice(window[0].start, window[0].stop, step), "x": slice(window[1].start, window[1].stop, step)}
    cube, pred = scene.cube.isel(place), scene.pred.isel(place)
    extent = _extent(scene.cube, window)
    image = true_colour(cube, limits)
    grey = np.where(image[..., 3] == 0, 255, image[..., :3].mean(axis=-1))
    probability = np.where(pred["valid"].values, pred["probability"].values * 0.01, np.nan)
    for axis in axes:
        axis.imshow(image, extent=extent, interpolation="nearest")
    axes[1].imshow(grey, extent=extent, cmap="gray", vmin=-100, vmax=255)
    # Transparent where nothing is likely, so that the ground can be read beneath.
    alpha = np.nan_to_num(np.clip(probability * 3, 0, 1))
    axes[1].imshow(probability, extent=extent, cmap="inferno", vmin=0, vmax=1, alpha=alpha, interpolation="nearest")
    crs = geobox_of(scene.cube).crs
    blue, width = (0.1, 0.45, 0.95, 0.6), 0.7 if side > _ZOOM else 1.5
    axes[2].add_collection(PolyCollection(_rings(scene.truth.to_crs(crs)), facecolors=blue, edgecolors="none"))
    axes[2].add_collection(LineCollection(_rings(scene.outlines.to_crs(crs)), colors="#ff8c00", linewidths=width))
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


def _scale_bar(axis: "Axes", extent: tuple[float, float, float, float]) -> None:
    left, right, bottom, top = extent
    width = right - left
    length, label = scale_length(width)
    x, y = left + 0.04 * width, bottom + 0.04 * (top - bottom)
    axis.plot([x, x + length], [y, y], color="black", linewidth=3, solid_capstyle="butt")
    axis.annotate(label, (x, y), xytext=(0, 4), textcoords="offset points", fontsize=9)


_COLUMNS = 4
_PANEL = 3.4
"""Side of a panel, inches."""


def draw_cube(cube: xr.Dataset, path: Path, *, title: str, layers: Sequence[str] | None) -> None:
    """Draw a small cube into a PNG file, its last time step where it has several.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    CubeError
        It has no such layer.
    """
    with require_extra(NO_PICTURES):
        from matplotlib.figure import Figure  # without pyplot, which opens a window system

    known = [*layer_names(cube), *(["valid"] if "valid" in cube else [])]
    unknown = sorted(set(layers or ()) - set(known))
    if unknown:
        raise CubeError(f"Layers {unknown} are not in this cube, which has {known}. Name some of these.")
    names = list(layers) if layers is not None else known
    wanted = dict.fromkeys([*names, *TRUE_COLOUR, "valid"])
    cube = cube[[name for name in wanted if name in cube]]
    validate_times(cube)
    if "time" in cube.dims:
        # Not the last that is stored, because overviews of a campaign have its years as they were run.
        last = int(np.argsort(cube["time"].values)[-1])
        if cube.sizes["time"] > 1 and "time" in cube.coords:
            title = f"{title}, {str(cube['time'].values[last])[:10]}"
        cube = cube.isel(time=last)
    cube = cube.compute()
    panels = [*([None] if layers is None and set(TRUE_COLOUR) <= set(known) else []), *names]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_PANEL * columns, (_PANEL + 0.3) * rows + 0.4), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=12)
    axes = np.atleast_1d(np.array(figure.subplots(rows, columns))).ravel()
    valid = cube["valid"].values if "valid" in cube else None
    for axis, name in zip(axes, panels, strict=False):
        if name is None:
            axis.imshow(true_colour(cube, stretch(cube, valid)), interpolation="nearest")
            axis.set_title("true colour", fontsize=10)
        else:
            _draw_layer(axis, cube[name])
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
        # What has no colour: shows through wherever there is no data, which no map of colours has then.
        axis.patch.set(facecolor="white", edgecolor="0.55", hatch="////")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    _save(figure, path)


def _save(figure: "Figure", path: Path) -> None:
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def _draw_layer(axis: "Axes", layer: xr.DataArray) -> None:
    values = physical(layer)
    low, high = limits_of(values)
    colours = LAYER_COLOURS.get(str(layer.name), "gray")
    if colours == "RdBu_r":
        high = max(abs(low), abs(high))
        low = -high
    drawn = axis.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    units = str(layer.attrs.get("units", ""))
    axis.set_title(str(layer.name) + (f" ({units})" if units not in ("", "1") else ""), fontsize=10)
    figure: Any = axis.figure
    figure.colorbar(drawn, ax=axis, shrink=0.8, aspect=30, location="bottom", pad=0.02)
