"""How images and outlines are drawn: styles, pictures of a window, and tables of outlines with what is seen of them and their colours."""

import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from rtsx.cube import packing
from rtsx.errors import CubeError, FootprintError, require_extra
from rtsx.geometry.crs import cached_transformer
from rtsx.viewer.pyramid import Box, Pyramid, ReadWindow

NO_PICTURES = "Pictures need matplotlib, which is not installed: pip install 'rtsx[view]'"
TRUE_COLOUR = ("red", "green", "blue")
FALSE_COLOUR = ("nir", "red", "green")
_GAMMA = 0.8
"""Exponent of a composite's stretch: below 1 brightens the dark tundra."""
LAYER_COLOURS = {"ndvi": "RdYlGn", "relative_elevation": "RdBu_r", "slope": "magma", "dem": "terrain"}
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
    """Return ways of drawing a cube or map by name, the first the best one to begin with.

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
    """Yield places along dimensions such as `class` and `member`, with their names; one without a name where there is no choice."""
    dims = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] > 1]
    names = []
    for dim in dims:
        known = [str(name) for name in layer[dim].values]
        is_named = dim in layer.coords and len({*known}) == len(known)
        names.append(known if is_named else [f"{dim} {number}" for number in range(len(known))])
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
    if name == "spread":  # between fixed limits, like probability, so that years and places compare
        return Style(layers=(name,), colours="viridis", limits=((0.0, 0.25),))
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
        missing = (window.cube[style.layers[0]].values == 0) & window.known
        return Picture(_flat(missing, (*_GREY, 140)), window.box, style)
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
    if style.kind == "composite":
        return Picture(composite(values, style.limits), window.box, style)
    ((low, high),) = style.limits
    scaled = np.clip((values[0] - low) / (high - low), 0, 1)
    rgba = colours_of(style.colours)(scaled, bytes=True)
    opacity = np.clip(scaled * 3, 0, 1) if style.fades else np.ones_like(scaled)
    rgba[..., 3] = np.rint(255 * np.where(np.isfinite(scaled), opacity, 0))
    return Picture(rgba, window.box, style)


def composite(bands: Sequence[NDArray[np.float32]], limits: Sequence[tuple[float, float]]) -> NDArray[np.uint8]:
    """Stretch physical red, green and blue (y, x) between limits, and return RGBA (y, x, 4), transparent where one is missing."""
    scaled = [np.clip((band - low) / (high - low), 0, 1) for band, (low, high) in zip(bands, limits, strict=True)]
    colour = np.stack([np.nan_to_num(band) ** _GAMMA for band in scaled], axis=-1)
    return np.dstack([np.rint(255 * colour), 255 * np.isfinite(sum(scaled))]).astype(np.uint8)


def colours_of(name: str) -> Any:
    """Return a colour map of matplotlib: numbers from 0 to 1 become RGBA.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    CubeError
        There is none of that name.
    """
    with require_extra(NO_PICTURES):
        from matplotlib import colormaps
    if name not in colormaps:
        raise CubeError(f"There is no colour map {name!r}; some are gray, viridis, inferno, terrain and RdYlGn.")
    return colormaps[name]


def physical(layer: xr.DataArray) -> NDArray[np.float32]:
    """Return values (y, x) in physical units, NaN where there are none."""
    packed = packing(layer)
    stored = layer.values
    scale, offset = np.float32(packed["scale_factor"]), np.float32(packed["add_offset"])
    values: NDArray[np.float32] = stored.astype(np.float32) * scale + offset
    if packed["nodata"] is not None and layer.dtype.kind != "b":
        values[stored == packed["nodata"]] = np.nan
    return values


def limits_of(values: NDArray[Any], *, valid: NDArray[np.bool_] | None = None) -> tuple[float, float]:
    """Return values drawn darkest and brightest: percentiles 1 and 99, because single pixels would set the scale.

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
    """Return the brightness of ground that is lit from the north-west, 0 to 1; NaN beside missing pixels."""
    if min(elevation.shape) < 2:
        return np.where(np.isfinite(elevation), np.float32(0.7), np.float32(np.nan))
    down, right = np.gradient(elevation * _STEEPER, pixel)
    azimuth, height = _SUN
    # The normal of the ground (-dz/dx, -dz/dy, 1) on the direction of the sun; y runs south.
    towards = -right * np.sin(azimuth) * np.cos(height) + down * np.cos(azimuth) * np.cos(height) + np.sin(height)
    lit: NDArray[np.float32] = np.clip(towards / np.sqrt(1 + right**2 + down**2), 0, 1).astype(np.float32)
    return lit


MOST_SEEN = 4000
"""Outlines that are drawn at once, the largest; every browser still moves so many."""
_COMPARISONS = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_CONDITION = re.compile(r"\s*(?P<column>.+?)\s*(?P<sign><=|>=|!=|<|>|=|~)\s*(?P<value>.*?)\s*")
_MOST_CLASSES = 20
"""Values of a column of text that get a colour each."""
_OTHERS = "#999999"
_PREFERRED = ("prob_mean", "prob_max", "state", "fate", "class_name")
"""Columns to colour by, the first that is there."""


@dataclass(frozen=True)
class ColumnColours:
    """Colours of a column, one for each row, and what they say."""

    colours: NDArray[np.str_]
    """``#rrggbb`` of each row."""
    limits: tuple[float, float] | None
    """Values of the first and the last colour; None where each value has a colour of its own."""
    classes: Mapping[str, str]
    """Colour of each value, where there are limits none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class OutlineLayer:
    """A table of outlines in the CRS of the map."""

    title: str
    """What its rows are, such as `footprints`."""
    table: geopandas.GeoDataFrame
    """Numbered from 0, in the CRS of the map, without empty geometries."""
    colour: str | None = None
    """One colour for all, such as of the truth; None for those of a column."""
    colours: Mapping[str, str] | None = None
    """Colours of known values of a column of text."""
    _coloured: dict[str | None, ColumnColours] = field(default_factory=dict, init=False, repr=False)
    """What `colours_by` has found, because every pan asks again."""

    @classmethod
    def of(
        cls,
        table: geopandas.GeoDataFrame,
        *,
        title: str,
        crs: str,
        colour: str | None = None,
        colours: Mapping[str, str] | None = None,
    ) -> "OutlineLayer":
        """Bring a table of any CRS onto the map.

        Raises
        ------
        FootprintError
            It is none, or does not say its CRS.
        """
        if not isinstance(table, geopandas.GeoDataFrame):
            raise FootprintError(f"{title} are a GeoDataFrame or the path of one; got {type(table).__name__}.")
        if table.crs is None:
            raise FootprintError(f"The {title} do not say their CRS. Write it with table.set_crs('EPSG:...').")
        cached_transformer(table.crs.to_wkt(), str(crs))  # refuses what is not on Earth
        known = table[~(table.geometry.is_empty | table.geometry.isna())].to_crs(crs)
        finite = np.isfinite(known.geometry.bounds.to_numpy()).all(axis=1)
        return cls(title=title, table=known[finite].reset_index(drop=True), colour=colour, colours=colours)

    @property
    def columns(self) -> list[str]:
        """Names of the columns beside the geometry, those that hold single values."""
        return [str(name) for name in self.table.columns if name != self.table.geometry.name]

    @cached_property
    def widths(self) -> dict[str, int]:
        """Columns that say something of any row, and how wide a table shows them, px."""
        filled = [name for name in self.columns if self.table[name].notna().any()]
        texts = {name: self.table[name].astype(str).str.len().max() for name in filled if name not in self.formats}
        return {name: 24 + 7 * min(max(len(name), texts.get(name, 8)), 24) for name in filled}

    @cached_property
    def formats(self) -> dict[str, str]:
        """Numerals of columns of fractions, as a browser has them: four decimals, none from 1000 on."""
        numbers = self.table[self.columns].select_dtypes("float")
        largest = numbers.abs().max()
        return {str(name): "0" if largest[name] >= 1000 else "0.0000" for name in numbers}

    @property
    def box(self) -> Box | None:
        """Edges of all of them; None where there is none."""
        if self.table.empty:
            return None
        left, bottom, right, top = (float(edge) for edge in self.table.total_bounds)
        return left, bottom, right, top

    @cached_property
    def best_column(self) -> str | None:
        """Column to colour by at first."""
        return next((name for name in _PREFERRED if name in self.columns), None)

    def seen(self, box: Box, kept: NDArray[np.bool_], *, most: int) -> NDArray[np.intp]:
        """Return numbers of the rows that meet a box; the largest `most` of them, in the order of the table."""
        found = np.sort(self.table.sindex.query(shapely.box(*box)))
        found = found[kept[found]]
        if len(found) > most:
            areas = shapely.area(self.table.geometry.to_numpy()[found])
            found = np.sort(found[np.argsort(-areas, kind="stable")[:most]])
        return found

    def kept(self, conditions: str) -> NDArray[np.bool_]:
        """Return rows that conditions keep, such as ``max_probability >= 0.65, area_m2 > 500, region ~ yukon``.

        Signs are ``< <= > >= = !=`` and ``~`` for "contains"; a comma is "and".

        Raises
        ------
        FootprintError
            A condition cannot be read, names no column, or compares text by size.
        """
        kept = np.ones(len(self.table), bool)
        for condition in filter(str.strip, conditions.split(",")):
            found = _CONDITION.fullmatch(condition)
            if found is None or found["column"] not in self.columns:
                raise FootprintError(
                    f"{condition.strip()!r} is no condition. Write a column, one of < <= > >= = != ~ and a value, such as "
                    f"'area_m2 > 500'; columns are {', '.join(self.columns)}."
                )
            values, sign, wanted = self.table[found["column"]], found["sign"], found["value"]
            if sign == "~":
                kept &= values.astype(str).str.contains(wanted, case=False, regex=False).to_numpy(bool)
            elif is_numeric_dtype(values) and not is_bool_dtype(values):
                try:
                    kept &= np.asarray(_COMPARISONS[sign](values.to_numpy(float, na_value=np.nan), float(wanted)), bool)
                except ValueError as error:
                    raise FootprintError(f"{found['column']} holds numbers; {wanted!r} is none.") from error
            else:
                # Dates as ISO 8601, which are in order as text.
                kept &= np.asarray(_COMPARISONS[sign](values.astype(str).to_numpy(), wanted), bool)
        return kept

    def colours_by(self, column: str | None) -> ColumnColours:
        """Colour every row by a column: numbers by size, text by value."""
        if column not in self._coloured:
            self._coloured[column] = self._colours_by(column)
        return self._coloured[column]

    def _colours_by(self, column: str | None) -> ColumnColours:
        count = len(self.table)
        if self.colour is not None or column not in self.columns:
            return ColumnColours(np.full(count, self.colour or "#ff8c00"), None, {})
        values = self.table[column]
        if is_numeric_dtype(values) and not is_bool_dtype(values):
            numbers = values.to_numpy(float, na_value=np.nan)
            low, high = limits_of(numbers)
            shares = np.nan_to_num(np.clip((numbers - low) / (high - low), 0, 1), nan=0.0)
            rgba = colours_of("plasma")(shares, bytes=True)
            hexed = np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in rgba], dtype="<U7")
            return ColumnColours(np.where(np.isfinite(numbers), hexed, _OTHERS), (low, high), {})
        texts = values.astype(str)
        palette = colours_of("tab20")
        classes = {}
        for number, text in enumerate(texts.value_counts().index[:_MOST_CLASSES]):
            r, g, b, _ = palette(number, bytes=True)
            classes[str(text)] = (self.colours or {}).get(str(text), f"#{r:02x}{g:02x}{b:02x}")
        coloured = texts.map(classes).fillna(_OTHERS).to_numpy("<U7") if count else np.empty(0, "<U7")
        return ColumnColours(coloured, None, classes)

    def cells(self, rows: Sequence[int] | NDArray[np.intp]) -> dict[str, list[Any]]:
        """Return values of rows by column, as a browser can show them: numbers, and text for the rest."""
        part = self.table.iloc[rows]
        return {name: _plain(part[name]) for name in self.columns}


def _plain(values: pd.Series) -> list[Any]:
    if is_bool_dtype(values) or not is_numeric_dtype(values):
        return [None if value is None or value is pd.NaT else str(value) for value in values]
    return [None if pd.isna(value) else value for value in values.tolist()]
