"""Pictures of a window: colours by percentiles of what is seen, colour maps, relief; transparent where there is no data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from rtsx.cube import packing
from rtsx.errors import CubeError, MissingExtraError
from rtsx.viewer.pyramid import Box, Pyramid, ReadWindow

__all__ = ["Picture", "Style", "colours_of", "draw_picture", "draw_window", "limits_of", "physical", "styles_of"]

TRUE_COLOUR = ("red", "green", "blue")
FALSE_COLOUR = ("nir", "red", "green")
_GAMMA = 0.8
"""Exponent of a composite's stretch: below 1 brightens the dark tundra."""
LAYER_COLOURS = {
    "ndvi": "RdYlGn",
    "relative_elevation": "RdBu_r",
    "slope": "magma",
    "dem": "terrain",
    "spread": "viridis",
}
"""Colour maps of layers whose values have a meaning by sign or size; grey for the rest."""
_ELEVATION = ("dem", "elevation", "relative_elevation")
"""Layers that a relief is shaded from, the best first."""
_SUN = (np.radians(315.0), np.radians(45.0))
"""Azimuth and height of the sun in a relief, as cartographers have it."""
_STEEPER = 2.0
"""How many times steeper a relief is than the ground, which is gentle where slumps are."""
_ORANGE = (255, 140, 0)
_GREY = (90, 90, 90)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an image is drawn."""

    layers: tuple[str, ...]
    """Three make a composite of red, green and blue; one has a colour map."""
    kind: str = "map"
    """``"composite"``, ``"map"`` (by a colour map), ``"relief"`` (shaded from elevation), ``"found"`` (1 is opaque, 0 is not drawn)
    or ``"missing"`` (what is False is greyed)."""
    colours: str = "gray"
    """Name of a colour map of matplotlib, for ``"map"``."""
    limits: tuple[tuple[float, float], ...] | None = None
    """Physical values drawn darkest and brightest, of each layer; None for percentiles 1 and 99 of what is seen."""
    place: tuple[tuple[str, int], ...] = ()
    """Place along dimensions beside y, x and time, such as ``(("class", 1),)``; the first of those left out."""
    fades: bool = False
    """Transparent at the lower limit, opaque from a third of the way on: for probabilities, under which the ground shows."""


@dataclass(frozen=True)
class Picture:
    """A window as it is drawn."""

    rgba: NDArray[np.uint8]
    """(y, x, 4), north first; alpha is 0 where there is no data."""
    box: Box
    """Its edges in the CRS of the map: left, bottom, right, top."""
    style: Style
    """With the limits that were used."""


def styles_of(cube: xr.Dataset) -> dict[str, Style]:
    """Ways of drawing a cube or map by name, the first the best one to begin with.

    Examples
    --------
    >>> flat = xr.DataArray(np.zeros((2, 2), np.uint8), dims=("y", "x"))
    >>> list(styles_of(xr.Dataset({name: flat for name in ("blue", "green", "red", "nir", "dem")})))
    ['true colour', 'false colour', 'relief', 'blue', 'green', 'red', 'nir', 'dem']
    >>> list(styles_of(xr.Dataset({"binary": flat, "probability": flat, "valid": flat > 0})))
    ['probability', 'binary', 'valid']

    Of several classes each has its own, but for the background:

    >>> several = xr.DataArray(np.zeros((3, 2, 2), np.uint8), dims=("class", "y", "x"), coords={"class": ["background", "slump", "lake"]})
    >>> list(styles_of(xr.Dataset({"probability": several, "valid": flat > 0})))
    ['probability: slump', 'probability: lake', 'valid']
    """
    names = [str(name) for name, layer in cube.data_vars.items() if {"y", "x"} <= set(layer.dims)]
    made = {}
    for title, layers in (("true colour", TRUE_COLOUR), ("false colour", FALSE_COLOUR)):
        if set(layers) <= set(names):
            made[title] = Style(layers=layers, kind="composite")
    elevation = next((name for name in _ELEVATION if name in names), None)
    if elevation is not None:
        made["relief"] = Style(layers=(elevation,), kind="relief")
    for name in sorted(names, key=lambda name: (name == "valid", name != "probability" and names.index(name) + 1)):
        style = _style(cube[name])
        made |= {": ".join((name, *labels)): replace(style, place=place) for labels, place in _places(cube[name])}
    return made


def _places(layer: xr.DataArray) -> Iterator[tuple[list[str], tuple[tuple[str, int], ...]]]:
    """Places along dimensions such as `class` and `member`, with their names; one without a name where there is no choice."""
    dims = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] > 1]
    names = [[str(name) for name in layer[dim].values] for dim in dims]
    names = [
        known
        if dim in layer.coords and len({*known}) == len(known)
        else [f"{dim} {number}" for number in range(len(known))]
        for dim, known in zip(dims, names, strict=True)
    ]
    for numbers in product(*(range(layer.sizes[dim]) for dim in dims)):
        labels = [known[number] for known, number in zip(names, numbers, strict=True)]
        if "background" not in labels:
            yield labels, tuple(zip(map(str, dims), numbers, strict=True))


def _style(layer: xr.DataArray) -> Style:
    name = str(layer.name)
    if name == "binary":
        return Style(layers=(name,), kind="found")
    if layer.dtype.kind == "b":
        return Style(layers=(name,), kind="missing")
    if name.startswith("probability"):
        return Style(layers=(name,), colours="inferno", limits=((0.0, 1.0),), fades=True)
    flags = layer.attrs.get("flag_values")
    if flags is not None or name in ("scl", "class_index"):
        return Style(layers=(name,), colours="tab20", limits=((0.0, 19.0),))
    return Style(layers=(name,), colours=LAYER_COLOURS.get(name, "gray"))


def draw_window(
    image: Pyramid | xr.Dataset,
    box: Box,
    *,
    size: tuple[int, int],
    style: Style,
    crs: str | None = None,
    select: Mapping[str, int] | None = None,
) -> Picture:
    """Draw what is seen of an image: reads its chunks under the window alone, at the coarsest level that shows every pixel.

    Parameters
    ----------
    image
        A pyramid, which has overviews, or any lazy cube.
    box
        Edges of the window in `crs`: left, bottom, right, top.
    size
        Height and width of the screen, px. The picture has at most about twice as many along each side, because it is made of
        whole pixels of the image; `Picture.box` says where they lie.
    style
        How; see `styles_of`.
    crs
        Of the map; None for that of the image.
    select
        Place along dimensions beside y and x that the style leaves open, such as ``{"time": 0}``.
    """
    pyramid = image if isinstance(image, Pyramid) else Pyramid.of(image)
    names = [*style.layers, *(["valid"] if style.kind != "missing" and "valid" in pyramid.cube else [])]
    place = {**(select or {}), **dict(style.place)}
    return draw_picture(pyramid.only(style.layers).read(names, box, size=size, crs=crs, select=place), style)


def draw_picture(window: ReadWindow, style: Style) -> Picture:
    """Draw a window that was read; its variable `valid`, where there is one, keeps clouds out of the stretch."""
    values = [physical(window.cube[name]) for name in style.layers]
    if not values[0].size:
        return Picture(np.zeros((0, 0, 4), np.uint8), window.box, style)
    if style.kind == "missing":
        return Picture(
            _flat((window.cube[style.layers[0]].values == 0) & window.known, (*_GREY, 140)), window.box, style
        )
    if style.kind == "found":
        return Picture(_flat(values[0] > 0, (*_ORANGE, 255)), window.box, style)
    if style.kind == "relief":
        values = [_shaded(values[0], window.pixel_m)]
        style = replace(style, limits=((0.0, 1.0),), colours="gray")
    if style.limits is None:
        valid = window.cube["valid"].values != 0 if "valid" in window.cube else None
        style = replace(style, limits=tuple(limits_of(value, valid=valid) for value in values))
        if style.colours == "RdBu_r":
            reach = max(map(abs, style.limits[0])) if style.limits is not None else 1.0
            style = replace(style, limits=((-reach, reach),))
    assert style.limits is not None
    scaled = [
        np.clip((value - low) / (high - low), 0, 1) for value, (low, high) in zip(values, style.limits, strict=True)
    ]
    if style.kind == "composite":
        present = np.isfinite(sum(scaled))
        colour = np.stack([np.nan_to_num(value) ** _GAMMA for value in scaled], axis=-1)
        rgba = np.dstack([np.rint(255 * colour), 255 * present]).astype(np.uint8)
    else:
        rgba = colours_of(style.colours)(scaled[0], bytes=True)
        opacity = np.clip(scaled[0] * 3, 0, 1) if style.fades else np.ones_like(scaled[0])
        rgba[..., 3] = np.rint(255 * np.where(np.isfinite(scaled[0]), opacity, 0))
    return Picture(rgba, window.box, style)


def colours_of(name: str) -> Any:
    """Return a colour map of matplotlib: numbers from 0 to 1 become RGBA.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    CubeError
        There is none of that name.
    """
    try:
        from matplotlib import colormaps  # of the extra `view`
    except ImportError as error:
        raise MissingExtraError("Pictures need matplotlib, which is not installed: pip install 'rtsx[view]'") from error
    if name not in colormaps:
        raise CubeError(f"There is no colour map {name!r}; some are gray, viridis, inferno, terrain and RdYlGn.")
    return colormaps[name]


def physical(layer: xr.DataArray) -> NDArray[np.float32]:
    """Values (y, x) in physical units, NaN where there are none."""
    packed = packing(layer)
    stored = layer.values
    values: NDArray[np.float32] = stored.astype(np.float32) * np.float32(packed["scale_factor"]) + np.float32(
        packed["add_offset"]
    )
    if packed["nodata"] is not None and layer.dtype.kind != "b":
        values[stored == packed["nodata"]] = np.nan
    return values


def limits_of(values: NDArray[Any], *, valid: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Values drawn darkest and brightest: percentiles 1 and 99, because single pixels would set the scale.

    Clouds are not valid, so they do not darken the ground; where nothing is valid, what is there counts.
    """
    present = np.isfinite(values)
    counted = values[present & valid] if valid is not None and (present & valid).any() else values[present]
    if not counted.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(counted, (1, 99)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _flat(where: NDArray[np.bool_], colour: Sequence[int]) -> NDArray[np.uint8]:
    rgba = np.zeros((*where.shape, 4), np.uint8)
    rgba[where] = colour
    return rgba


def _shaded(elevation: NDArray[np.float32], pixel: float) -> NDArray[np.float32]:
    """Brightness of ground that is lit from the north-west, 0 to 1; NaN beside missing pixels."""
    if min(elevation.shape) < 2:
        return np.where(np.isfinite(elevation), np.float32(0.7), np.float32(np.nan))
    down, right = np.gradient(elevation * _STEEPER, pixel)
    azimuth, height = _SUN
    # The normal of the ground (-dz/dx, -dz/dy, 1) on the direction of the sun; y runs south.
    towards = -right * np.sin(azimuth) * np.cos(height) + down * np.cos(azimuth) * np.cos(height) + np.sin(height)
    lit: NDArray[np.float32] = np.clip(towards / np.sqrt(1 + right**2 + down**2), 0, 1).astype(np.float32)
    return lit
