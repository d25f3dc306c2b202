"""What a cube is made of: sources, layers, quality and terrain as frozen values. A YAML file becomes one of these."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import BandRequest, ImageSource, Period
from rtsx.cube.mask_rules import GOOD, LOW, MaskRule
from rtsx.cube.sensors import require_layer_names
from rtsx.errors import CubeError
from rtsx.grid import Grid
from rtsx.names import did_you_mean
from rtsx.parsing import AfterValidator

if TYPE_CHECKING:
    from rtsx.cube.terrain.grid import TerrainGrid

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
"""``nearest`` for masks and classes; ``bilinear`` or ``cubic`` for what varies smoothly; ``average`` where the target is
coarser."""

Grouping = Literal["all", "item", "day", "year"]
"""Which images of a source become one time step; ``all`` gives no time dimension. A day is a solar day of the place."""

_COMPOSITES = ("first", "best", "mean", "median", "medoid")


def percent_of(composite: str) -> float | None:
    """Return the percentile that a composite takes; None for one that takes none.

    Raises
    ------
    CubeError
        There is no such composite.

    Examples
    --------
    >>> percent_of("median"), percent_of("p20"), percent_of("medoid")
    (50.0, 20.0, None)
    """
    found = re.fullmatch(r"p(\d{1,3}(?:\.\d+)?)", composite)
    percent = 50.0 if composite == "median" else float(found[1]) if found else None
    if (composite not in _COMPOSITES and percent is None) or (percent is not None and percent > 100):
        raise CubeError(
            f"A composite is one of {', '.join(_COMPOSITES)}, or a percentile from p0 to p100, such as p20; got {composite!r}."
            f"{did_you_mean(composite, _COMPOSITES)}"
        )
    return percent


def _known_composite(composite: str) -> str:
    percent_of(composite)
    return composite


Composite = Annotated[Literal["first", "best", "mean", "median", "medoid"] | str, AfterValidator(_known_composite)]
"""How the images of one time step become one: per pixel the first valid image, least cloudy first; the best quality, then
the newest; of the valid ones the mean, the median or another percentile of each layer, such as ``p20``; or the medoid, which is
the image nearest to all others."""

ReaderName = Literal["rtsx", "stackstac"]

_PIXELS_M = 200.0
"""A few pixels of the coarsest elevation in use: 32 m of ArcticDEM, 30 m of Copernicus."""

_RESERVED = frozenset({"item_ids", "quality"})
"""Names that the cube of a recipe gives to variables and coordinates of its own, beside those of every cube."""


@dataclass(frozen=True, kw_only=True)
class LayerRecipe:
    """One layer that a source's images hold."""

    wanted: BandRequest
    """Its name, where it lies in an image, and its packing."""
    resampling: Resampling = "bilinear"
    """How it comes onto the grid; ``nearest`` for classes."""
    dtype: Literal["float32"] | None = None
    """Dtype of the variable; None keeps the stored one, rounding what lies between two whole numbers."""
    units: str | None = None
    """Physical unit, such as ``reflectance``."""
    long_name: str | None = None
    """What a plot calls it."""

    @property
    def name(self) -> str:
        """Name of the variable."""
        return self.wanted.name


@dataclass(frozen=True, kw_only=True)
class QualityRecipe:
    """How a source tells pixels to trust."""

    wanted: BandRequest
    """Quality data, such as all bands of ``udm2``."""
    rule: MaskRule
    """Reads it to three levels: 0 invalid, 1 low, 2 good."""
    keep_low: bool = False
    """Trust low quality too."""
    erode_m: float = 0.0
    """Ground beside invalid ground and scene edges that is not trusted either, m."""


def trusted_level(quality: QualityRecipe | None) -> int:
    """Return the lowest level of a pixel that counts."""
    return LOW if quality is not None and quality.keep_low else GOOD


TrendMethod = Literal["linear", "theil-sen"]

TASSELED_CAP_BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
"""Bands that tasseled cap trends are computed from, by the names that STAC gives them."""

TREND_LAYERS = ("tc_brightness", "tc_greenness", "tc_wetness")
"""Trends of the tasseled cap indices, in the order of their rows of coefficients."""

TREND_EXTRAS = ("tc_observations", *(f"{name}_stderr" for name in TREND_LAYERS))
"""What can be had beside them: the number of observations, and the standard error of each slope."""


@dataclass(frozen=True, kw_only=True)
class TrendRecipe:
    """How the scenes of Landsat become trends of tasseled cap brightness, greenness and wetness; as the published trends were made.

    Raises
    ------
    CubeError
        The window runs backwards, a month is none, or a layer cannot be had.

    Examples
    --------
    >>> TrendRecipe(window=(2005, 2024)).period.months
    (7, 8)
    """

    window: tuple[int, int]
    """First and last year."""
    months: tuple[int, ...] = (7, 8)
    """Months of every year that count, 1-12."""
    method: TrendMethod = "linear"
    """Unweighted least squares, or the median of the slopes between all pairs (Theil-Sen)."""
    layers: tuple[str, ...] = TREND_LAYERS
    """Layers to compute, in order: some of `TREND_LAYERS` and `TREND_EXTRAS`."""
    dtype: Literal["uint8", "float32"] = "uint8"
    """Of the trends: as published, -0.12 to 0.12 a decade on 0 to 255, or reflectance a decade."""
    max_cloud_cover: float = 70.0
    """Scenes that state this percent under cloud or more are left out."""
    resampling: Resampling = "bilinear"
    """How the layers come from Landsat's grid onto the cube's."""

    def __post_init__(self) -> None:
        """Check names and combinations."""
        if not 1982 <= self.window[0] <= self.window[1] <= 9999:
            raise CubeError(
                f"The window of a trend is its first and its last year, from 1982 on; got {self.window[0]}-{self.window[1]}."
            )
        known = (*TREND_LAYERS, *TREND_EXTRAS)
        odd = [name for name in self.layers if name not in known]
        if odd or not self.layers:
            raise CubeError(f"A trend has the layers {list(known)}; got {list(self.layers)}. Ask for some of these.")
        errors = [name for name in self.layers if name.endswith("_stderr")]
        if errors and self.method != "linear":
            raise CubeError(f"{errors} are errors of the linear fit; got the method {self.method!r}. Leave one out.")
        if not self.months or not self.max_cloud_cover > 0:
            raise CubeError(
                f"A trend has at least one month, and a max_cloud_cover above 0; got {self.months} and {self.max_cloud_cover}."
            )
        _ = self.period  # checks the months

    @property
    def period(self) -> Period:
        """Days whose scenes count."""
        first, last = self.window
        return Period(date(first, 1, 1), date(last, 12, 31), months=self.months)


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
    kernel: Callable[..., NDArray[np.float32]]
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

    def halo(self, ground: "TerrainGrid") -> tuple[int, int]:
        """Return pixels (y, x) around a window on `ground` that the kernel looks at."""
        if not self.halo_m:
            return self.halo_px, self.halo_px
        y, x = (ceil(self.halo_m / lengths.min()) for lengths in (ground.heights_m(), ground.widths_m()))
        return max(y, self.halo_px), max(x, self.halo_px)


@dataclass(frozen=True, kw_only=True)
class DerivedLayer:
    """A layer made from others of the same pixel."""

    name: str
    """Name of the variable."""
    needs: tuple[str, ...]
    """Layers that the kernel takes, in its order."""
    units: str
    """Physical unit of the result; ``1`` or ``index`` where it has none."""
    kernel: Callable[..., NDArray[np.float32]] | None
    """From physical float32 arrays of equal shape, NaN where invalid, to float32; None for ndvi, which has exact rules
    of its own (see `add_ndvi`)."""
    long_name: str = ""
    """What a plot calls it."""

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.needs)})"


@dataclass(frozen=True, kw_only=True)
class SourceRecipe:
    """One catalog, folder or table, and what its images become.

    Raises
    ------
    CubeError
        There is nothing to make, a name is taken twice, or terrain has no `dem`.
    """

    name: str
    """Name for messages and attributes, such as ``planetscope``."""
    images: ImageSource
    """Where its images come from."""
    layers: tuple[LayerRecipe, ...]
    """Layers that are read. With `terrain`, `dem` is read for it, and becomes a variable only where `keep_dem` says so."""
    quality: QualityRecipe | None = None
    """Pixels to trust; None trusts all that hold data."""
    period: Period | None = None
    """Days that count; None for all."""
    group: Grouping = "all"
    """Which images become one time step."""
    composite: Composite = "first"
    """How they become one."""
    terrain: tuple[TerrainLayer, ...] = ()
    """Layers that are computed from `dem`."""
    terrain_grid: Literal["source", "cube"] = "source"
    """Where: on the elevation's own grid and then warped (*tss-v1*), or on the cube's after warping (*darts-v2*)."""
    terrain_resampling: Resampling = "cubic"
    """How terrain that was computed on its own grid comes onto the cube's."""
    keep_dem: bool = False
    """Make `dem` a variable too."""
    sun_of: str | None = None
    """Name of the source whose images say where the sun stands in hillshade: the mean of those that meet the cube, so that
    cubes of other ground may have another sun, which campaigns refuse. None for the fixed sun of the field, the same everywhere."""
    trend: TrendRecipe | None = None
    """What is computed of all images of a pixel together, which then are scenes of Landsat; None for none."""
    is_required: bool = True
    """Whether a pixel that this source does not have is invalid in the whole cube."""
    unreadable: Literal["error", "gap"] = "error"
    """What an image that cannot be read is: an error, or missing ground that is recorded and filled by others."""
    reader: ReaderName = "rtsx"
    """What reads: our block reader, or stackstac where its graph and GDAL's warp are preferred; it takes no file with a mask."""

    def __post_init__(self) -> None:
        """Check names and combinations."""
        names = self.layer_names
        if not names:
            raise CubeError(f"Source {self.name!r} has no layer. Name at least one in layers=.")
        percent_of(self.composite)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CubeError(f"Source {self.name!r} has layers {twice} twice. Give every layer a name of its own.")
        if self.terrain and [layer.name for layer in self.layers] != ["dem"]:
            raise CubeError(
                f"Source {self.name!r} computes terrain, and for that it reads one layer called 'dem'; it reads "
                f"{[layer.name for layer in self.layers]}. Put other layers into a source of their own."
            )
        if self.reader != "rtsx" and self.terrain:
            raise CubeError(
                f"Source {self.name!r}: terrain needs the halo that only the reader 'rtsx' gives; got {self.reader!r}."
            )
        if self.reader != "rtsx" and self.quality is not None and self.quality.erode_m:
            raise CubeError(
                f"Source {self.name!r}: eroding needs the halo that only the reader 'rtsx' gives; got {self.reader!r} with "
                f"erode_m={self.quality.erode_m}."
            )
        if self.terrain and self.unreadable != "error":
            raise CubeError(
                f"Source {self.name!r}: a hole in the elevation would change the terrain around it, so a file that cannot be "
                "read is always an error. Leave unreadable= out."
            )
        if self.terrain and (self.group != "all" or self.composite != "first" or self.quality is not None):
            raise CubeError(
                f"Source {self.name!r}: terrain is computed from one mosaic, so it has no quality data, and takes "
                f"group='all' and composite='first'; got {self.group!r} and {self.composite!r}."
            )

        if self.trend is not None:
            self._check_trend(self.trend)

    def _check_trend(self, trend: TrendRecipe) -> None:
        """Refuse what a trend leaves no room for, and take its days."""
        read = [(layer.name, layer.resampling, layer.dtype) for layer in self.layers]
        if read != [(name, "nearest", None) for name in TASSELED_CAP_BANDS] or self.terrain:
            raise CubeError(
                f"Source {self.name!r} computes trends, and for that it reads {list(TASSELED_CAP_BANDS)} as they are stored, with "
                f"resampling 'nearest'; it reads {read}. Put other layers into a source of their own."
            )
        if self.quality is None or self.group != "all" or self.composite != "first" or self.reader != "rtsx":
            raise CubeError(
                f"Source {self.name!r}: a trend is made of all clear observations, so it has quality data, and takes "
                f"group='all', composite='first' and reader='rtsx'; got quality {self.quality and self.quality.rule.name!r}, "
                f"{self.group!r}, {self.composite!r} and {self.reader!r}."
            )
        if self.period not in (None, trend.period):
            raise CubeError(
                f"Source {self.name!r}: the days of a trend are its window and months; got a period, too. Leave it out."
            )
        object.__setattr__(self, "period", trend.period)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of its variables, in order."""
        if self.trend is not None:
            return self.trend.layers
        read = tuple(layer.name for layer in self.layers) if self.keep_dem or not self.terrain else ()
        return (*read, *(layer.name for layer in self.terrain))

    @property
    def reach_m(self) -> float:
        """How far beyond a cube's edge its images matter, m.

        Terrain sees the mosaic of all of them, so the neighbours' pixels count: what its layers look at, and a few pixels of
        the elevation, whose size nobody knows before it is found. Trends are computed on Landsat's grid, and a few pixels of
        that count. Other images answer for their own ground only.
        """
        if self.trend is not None:
            return _PIXELS_M
        return max(layer.halo_m for layer in self.terrain) + _PIXELS_M if self.terrain else 0.0

    @property
    def wanted(self) -> tuple[BandRequest, ...]:
        """What each of its images has to hold."""
        layers = tuple(layer.wanted for layer in self.layers)
        if self.quality is None:
            return layers
        quality = self.quality.wanted
        return *layers, quality if quality.bands else replace(quality, names=self.quality.rule.names)


@dataclass(frozen=True, kw_only=True)
class CubeRecipe:
    """A grid, the sources of its layers, and what is derived from them.

    Raises
    ------
    CubeError
        Two sources share a name or a layer, a derived layer lacks its inputs, or several sources have time steps.
    """

    grid: Grid
    """Where the pixels lie."""
    sources: tuple[SourceRecipe, ...]
    """Where the layers come from, in order."""
    region: BaseGeometry | None = None
    """Ground of the cube, longitude and latitude; None where the caller names a cell or a raster."""
    derived: tuple[DerivedLayer, ...] = ()
    """Layers computed pixel by pixel from others, such as ndvi."""
    layers: tuple[str, ...] | None = None
    """Variables in their order; None for all, derived ones last."""
    chunk: int = 1024
    """Side of a chunk, px."""

    def __post_init__(self) -> None:
        """Check what only shows when the sources stand side by side."""
        names = [name for source in self.sources for name in source.layer_names]
        names += [layer.name for layer in self.derived]
        for what, given in (("source", [source.name for source in self.sources]), ("layer", names)):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice or not given:
                raise CubeError(
                    f"Every {what} of a cube has a name of its own, and there is at least one; got {given}."
                )
        require_layer_names(names, cure="Write `another_name: {band: name}` under `layers`.")
        if reserved := sorted(name for name in names if name in _RESERVED or name.startswith("quality_")):
            raise CubeError(
                f"Layers cannot be called {reserved}: a cube has variables of that name. Write `another_name: {{band: name}}` "
                "under `layers`."
            )
        for layer in self.derived:
            if missing := sorted(set(layer.needs) - set(names)):
                raise CubeError(f"Layer {layer.name!r} is made from {list(layer.needs)}; {missing} are not in {names}.")
        if unknown := sorted(set(self.layers or ()) - set(names)):
            raise CubeError(f"Layers {unknown} are not in this cube, which has {names}. Ask for some of these.")
        timed = [source.name for source in self.sources if source.group != "all"]
        if len(timed) > 1:
            raise CubeError(
                f"One source of a cube can have time steps; {timed} all have. Fuse the others with group='all'."
            )
        if suns := {source.sun_of for source in self.sources} - {None} - {source.name for source in self.sources}:
            raise CubeError(f"The sun is taken from a source of the cube; {sorted(map(str, suns))} are none.")
        degrees = CRS.from_user_input(self.grid.crs).is_geographic
        eroding = [one.name for one in self.sources if one.quality is not None and one.quality.erode_m]
        if degrees and eroding:
            raise CubeError(
                f"Sources {eroding} erode by metres, and pixels of {self.grid.crs} have no one width in metres. Take a projected "
                "grid, or leave erode_m out."
            )
        if self.chunk < 1:
            raise CubeError(f"Chunks are a number of pixels above 0; got {self.chunk}.")

    def only(self, layers: tuple[str, ...]) -> "CubeRecipe":
        """Return the recipe of some layers: sources that none of them needs are not asked, and make no pixel invalid.

        Raises
        ------
        CubeError
            A layer is not in this cube.
        """
        chosen = replace(self, layers=layers)
        needed = {*layers, *(name for layer in self.derived if layer.name in layers for name in layer.needs)}
        sources = [source for source in self.sources if needed & set(source.layer_names)]
        suns = {source.sun_of for source in sources}
        return replace(
            chosen,
            sources=tuple(one for one in self.sources if one in sources or one.name in suns),
            derived=tuple(layer for layer in self.derived if layer.name in layers),
        )
