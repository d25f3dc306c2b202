"""A picture of a cube: true colour, and every layer with its own scale of values."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.cli.picture import colour_composite, stretch
from rtsx.cube import layer_names, packing
from rtsx.errors import CubeError, MissingExtraError
from rtsx.storage import staged

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_cube"]

_COLUMNS = 4
_PANEL = 3.4
"""Side of a panel, inches."""
_COLOURS = {"ndvi": "RdYlGn", "relative_elevation": "RdBu_r", "slope": "magma", "dem": "terrain"}
"""Colour maps of layers whose values have a meaning by sign or size; grey for the rest."""
_RGB = ("red", "green", "blue")


def draw_cube(cube: xr.Dataset, path: Path, *, title: str, layers: Sequence[str] | None) -> None:
    """Draw a small cube into a PNG file, its last time step where it has several.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    CubeError
        It has no such layer.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("Pictures need matplotlib, which is not installed: pip install 'rtsx[view]'")
    from matplotlib.figure import Figure  # of the extra `view`, and without pyplot, which opens a window system

    known = [*layer_names(cube), *(["valid"] if "valid" in cube else [])]
    unknown = sorted(set(layers or ()) - set(known))
    if unknown:
        raise CubeError(f"Layers {unknown} are not in this cube, which has {known}. Name some of these.")
    names = list(layers) if layers is not None else known
    wanted = dict.fromkeys([*names, *_RGB, "valid"])
    cube = cube[[name for name in wanted if name in cube]].isel({"time": -1} if "time" in cube.dims else {}).compute()
    panels = [*([None] if layers is None and set(_RGB) <= set(known) else []), *names]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_PANEL * columns, (_PANEL + 0.3) * rows + 0.4), layout="constrained", dpi=110)
    figure.suptitle(title, fontsize=12)
    axes = np.atleast_1d(np.array(figure.subplots(rows, columns))).ravel()
    valid = cube["valid"].values if "valid" in cube else np.ones((cube.sizes["y"], cube.sizes["x"]), bool)
    for axis, name in zip(axes, panels, strict=False):
        if name is None:
            limits = stretch(cube, valid)
            axis.imshow(np.dstack([colour_composite(cube, limits), _present(cube)]), interpolation="nearest")
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
    with staged(path, overwrite=True) as draft:
        figure.savefig(draft, metadata={"Software": "rtsx"})


def _draw_layer(axis: "Axes", layer: xr.DataArray) -> None:
    values = _physical(layer)
    low, high = _limits(values)
    colours = _COLOURS.get(str(layer.name), "gray")
    if colours == "RdBu_r":
        high = max(abs(low), abs(high))
        low = -high
    drawn = axis.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    units = str(layer.attrs.get("units", ""))
    axis.set_title(str(layer.name) + (f" ({units})" if units not in ("", "1") else ""), fontsize=10)
    figure: Any = axis.figure
    figure.colorbar(drawn, ax=axis, shrink=0.8, aspect=30, location="bottom", pad=0.02)


def _physical(layer: xr.DataArray) -> NDArray[np.float32]:
    """Values (y, x) in physical units, NaN where there are none."""
    packed = packing(layer)
    stored = layer.values
    values: NDArray[np.float32] = stored.astype(np.float32) * packed["scale_factor"] + packed["add_offset"]
    if packed["nodata"] is not None and layer.dtype.kind != "b":
        values[stored == packed["nodata"]] = np.nan
    return values


def _present(cube: xr.Dataset) -> NDArray[np.float32]:
    """1 where all bands of true colour hold data, 0 elsewhere: what is drawn and what is transparent."""
    present: NDArray[np.float32] = np.isfinite(sum(_physical(cube[name]) for name in _RGB)).astype(np.float32)
    return present


def _limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Values drawn darkest and brightest: 1st and 99th percentile, because single pixels would set the scale."""
    present = values[np.isfinite(values)]
    if not present.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(present, (1, 99)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)
