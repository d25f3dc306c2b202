"""One chunk of one source: its images read, warped, masked and composited; images that cannot be read are left out with a warning."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube import composite
from rtsx.cube.composite import ImageStack, Observation
from rtsx.cube.encoding import output_nodata, packing_attrs, require_nodata
from rtsx.cube.erosion import erode_quality, erosion_halo
from rtsx.cube.georeference import geobox_window, pixel_m
from rtsx.cube.images import BandSource, Image
from rtsx.cube.mask_rules import GOOD, LOW
from rtsx.cube.recipe import Composite, LayerRecipe, QualityRecipe, SourceRecipe, percent_of, trusted_level
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError, LayerValuesWarning, MissingCoverageWarning
from rtsx.redaction import redacted


@dataclass(frozen=True)
class LayerEncoding:
    """How one variable of a cube is stored, whatever its images say one by one."""

    recipe: LayerRecipe
    """Where it comes from and how it is warped."""
    dtype: np.dtype[Any]
    """Dtype of the variable."""
    nodata: float | None
    """Stored value of a missing pixel; None where the dtype has no value to spare."""
    scale_factor: float
    """Physical units per stored unit."""
    add_offset: float
    """Physical value of stored 0."""

    @property
    def fill(self) -> float:
        """What a missing pixel holds: nodata, else NaN, else 0, which only `valid` tells from a value."""
        return self.nodata if self.nodata is not None else (math.nan if self.dtype.kind == "f" else 0)

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes of the variable."""
        packs = (self.scale_factor, self.add_offset) != (1.0, 0.0)
        return packing_attrs(
            self.dtype,
            scale_factor=self.scale_factor if packs else None,
            add_offset=self.add_offset if packs else None,
            nodata=self.nodata if self.dtype.kind != "f" or self.nodata is not None else math.nan,
            units=self.recipe.units,
            long_name=self.recipe.long_name,
        )

    def repacked(self, pixels: NDArray[Any], valid: NDArray[np.bool_], bands: BandSource) -> NDArray[Any]:
        """Return stored pixels of one image in the packing of the variable; Sentinel-2's offset of 2022 is why they differ."""
        if (bands.scale_factor, bands.add_offset) == (self.scale_factor, self.add_offset):
            return pixels.astype(self.dtype, copy=False)
        shift = (bands.add_offset - self.add_offset) / self.scale_factor
        stored = pixels * (bands.scale_factor / self.scale_factor) + shift
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            stored = np.clip(np.floor(stored + 0.5), limits.min, limits.max)
            if self.nodata is not None:  # a value that lands on nodata is a value all the same
                stored[stored == self.nodata] += 1
        return np.where(valid, stored, self.fill).astype(self.dtype)


def plan_encodings(source: SourceRecipe, images: Sequence[Image]) -> tuple[LayerEncoding, ...]:
    """Return the dtype and packing of every layer of a source.

    The images of a layer share a dtype. Where their offsets differ, as Sentinel-2's do from 2022, the lowest is the
    variable's, because then no stored value of the others falls below zero.

    Raises
    ------
    CubeError
        A layer is more than one band, or its images have several dtypes, scales or nodata values.
    """
    layers = []
    for recipe in source.layers:
        bands = [(image.id, image.bands[recipe.name]) for image in images]
        _, one = bands[0]
        for name, each in bands:
            if len(each.bands) != 1:
                raise CubeError(
                    f"Source {source.name!r}: layer {recipe.name!r} is one band, but image {name!r} answers with the "
                    f"{len(each.bands)} bands {list(each.bands)} of {each.asset or each.href}. Say which one it is, such as "
                    f"{recipe.name}: 1."
                )
        # Offsets may differ: they are brought to one below. Those of elevation may not, as its pieces are read as one.
        alike = ("dtype", "scale_factor", "nodata", *(("add_offset",) if source.terrain else ()))
        for what in alike:
            values = {str(getattr(each, what)): name for name, each in bands}
            if len(values) > 1:
                raise CubeError(
                    f"Source {source.name!r}: all images have to store layer {recipe.name!r} in one {what}, but they have "
                    + ", ".join(f"{value} (as {name})" for value, name in values.items())
                    + f". Say {what} in the layer where the items are wrong, else make them sources of their own."
                )
        if np.dtype(one.dtype).kind not in "uifb":
            raise CubeError(
                f"Source {source.name!r}: layer {recipe.name!r} of image {bands[0][0]!r} is stored as {one.dtype}, and a layer has "
                "integers or floats. Store what is wanted of it in a file of its own, such as the amplitude: gdal_calc.py -A FILE "
                "--calc 'abs(A)' --outfile AMPLITUDE.tif"
            )
        require_nodata(recipe.wanted.nodata, np.dtype(one.dtype), layer=recipe.name)
        _refuse_mixed_classes(source, recipe, images)
        if source.terrain:
            _require_metres(source.name, recipe.name, bands)
        if (
            one.nodata is not None
            and output_nodata(one.nodata, np.dtype(one.dtype)) is None
            and np.dtype(one.dtype).kind in "iu"
        ):
            warnings.warn(
                f"Source {source.name!r}: layer {recipe.name!r} is stored as {one.dtype}, which cannot hold the nodata {one.nodata:g} that item "
                "or file states, so all of its pixels count. Write `nodata:` in the layer with the value that marks missing pixels.",
                LayerValuesWarning,
                stacklevel=2,
            )
        dtype = np.dtype(one.dtype if recipe.dtype is None else recipe.dtype)
        # Of integers, only what a stored pixel can have.
        nodata = one.nodata if dtype.kind == "f" else output_nodata(one.nodata, dtype)
        if recipe.dtype is not None:
            nodata = float("nan")
        offset = min(each.add_offset for _, each in bands)
        layers.append(
            LayerEncoding(recipe=recipe, dtype=dtype, nodata=nodata, scale_factor=one.scale_factor, add_offset=offset)
        )
    return tuple(layers)


def _warn_of_doubt(source: SourceRecipe, images: Sequence[Image]) -> None:
    """Warn where 0 is declared missing in quality data, and its rule takes it for good; raise for a dtype that it cannot read."""
    if source.quality is None:
        return
    rule, name = source.quality.rule, source.quality.wanted.name
    for dtype in sorted({image.bands[name].dtype for image in images}):
        rule.require_dtype(np.dtype(dtype))
    for image in images:
        bands = image.bands[name]
        if doubt := rule.doubt(nodata=bands.nodata, dtype=bands.dtype):
            warnings.warn(f"Source {source.name!r}: {name!r} {doubt}", LayerValuesWarning, stacklevel=2)
            return


_FEET_M = dict.fromkeys(("us survey foot", "us_survey_foot", "us-ft", "ftus"), 1200 / 3937)
_METRES = {"mm": 0.001, "cm": 0.01, "dm": 0.1, "km": 1000.0, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048} | _FEET_M
"""Metres of units that elevation is stored in."""


def _require_metres(source: str, layer: str, bands: Sequence[tuple[str, BandSource]]) -> None:
    """Raise for elevation in another unit, which nobody has brought to metres: its slopes are others."""
    for image, each in bands:
        factor = _METRES.get(each.units.strip().lower())
        # A scale that is the unit's own factor makes metres of it already; the unit is that of the stored numbers.
        if (
            factor is not None
            and "scale_factor" not in each.settled
            and not math.isclose(each.scale_factor, factor, rel_tol=1e-5)
        ):
            raise CubeError(
                f"Source {source!r}: terrain is computed from metres, and {layer!r} of image {image!r} is stated to be in "
                f"{each.units}. Write `scale_factor: {factor * each.scale_factor:.9g}` in the layer, which brings it to metres, or "
                "correct the unit of the file or item."
            )


def _refuse_mixed_classes(source: SourceRecipe, recipe: LayerRecipe, images: Sequence[Image]) -> None:
    """Raise where numbers of classes are resampled or composited to numbers between them, which are other classes.

    Layers with a scale or as floats are measurements, whatever colours them.
    """
    if recipe.dtype is not None or recipe.wanted.scale_factor is not None:
        return
    named = next((image.id for image in images if image.bands[recipe.name].has_classes), None)
    is_mixed = source.composite == "mean" or percent_of(source.composite) is not None
    for mixes, key, value, cure in (
        (recipe.resampling != "nearest", "resampling", recipe.resampling, "nearest"),
        (is_mixed and len(images) > 1, "composite", source.composite, "first"),
    ):
        if named is not None and mixes:
            raise CubeError(
                f"Source {source.name!r}: the numbers of layer {recipe.name!r} of image {named!r} stand for classes, by its colour table, "
                f"its flag_values or its item, and {value} gives numbers between them, which are other classes or none. Write "
                f"`{key}: {cure}`; where they measure something, such as percent, write `dtype: float32` in the layer."
            )


@dataclass(frozen=True, order=True)
class MissingImage:
    """One image that was left out."""

    source: str
    """Name of its source."""
    image: str


# Variables of the context, instead of recorded warnings, because recording those is not safe among threads.
_NOTED: ContextVar[list[MissingImage] | None] = ContextVar("noted gaps", default=None)
_IS_GAP: ContextVar[Callable[[CubeError], bool] | None] = ContextVar("errors that are gaps", default=None)


def warn_missing(gap: MissingImage, *, reason: str, error: CubeError) -> None:
    """Warn of an image that is left out, and note it where this thread keeps a list.

    Raises
    ------
    CubeError
        The error is none that this thread takes for a gap.
    """
    is_gap = _IS_GAP.get()
    if is_gap is not None and not is_gap(error):
        raise CubeError(reason) from error
    noted = _NOTED.get()
    if noted is not None:
        noted.append(gap)
    warnings.warn(f"{redacted(reason)} It is left out.", MissingCoverageWarning, stacklevel=3)


def collect_missing(gaps: list[MissingImage], is_gap: Callable[[CubeError], bool]) -> None:
    """Add all gaps that this thread reports from now on to a list; for threads of a pool, which never leave a block.

    Parameters
    ----------
    gaps
        The list.
    is_gap
        Which errors are gaps; all others stay errors, such as those of a server that is away for a moment.
    """
    _NOTED.set(gaps)
    _IS_GAP.set(is_gap)


@contextmanager
def collected_missing() -> Iterator[list[MissingImage]]:
    """List that all gaps reported by this thread within the block are added to.

    Examples
    --------
    >>> with warnings.catch_warnings(), collected_missing() as gaps:
    ...     warnings.simplefilter("ignore")
    ...     warn_missing(MissingImage("planetscope", "scene"), reason="It is damaged.", error=CubeError("damaged"))
    >>> gaps
    [MissingImage(source='planetscope', image='scene')]
    """
    gaps: list[MissingImage] = []
    token = _NOTED.set(gaps)
    try:
        yield gaps
    finally:
        _NOTED.reset(token)


QUALITY = np.dtype(np.uint8), {"long_name": "0 invalid, 1 low quality, 2 good", "units": "1"}
"""Dtype and CF attributes of the quality of a source."""

_STACK_BYTES = 256 * 2**20
"""Memory that the images of a percentile or a medoid may take side by side."""


@dataclass(frozen=True, kw_only=True)
class ChunkLoader:
    """Everything that the tasks of one source share; pickled once for all of them."""

    source: str
    """Name of the source, for messages."""
    images: tuple[Image, ...]
    """All images; a task names those that it reads by index."""
    layers: tuple[LayerEncoding, ...]
    """Variables, in order."""
    quality: QualityRecipe | None
    """How pixels are masked; None where those that hold data count."""
    composite: Composite
    """How images become one."""
    geobox: GeoBox
    """The whole cube's raster."""
    anchor: tuple[float, float]
    """Corner (x, y) of the pixel grid that coordinates are anchored to."""
    gaps: bool
    """Whether an image that cannot be read is a gap instead of an error."""

    @classmethod
    def plan(
        cls, source: SourceRecipe, images: Sequence[Image], *, geobox: GeoBox, anchor: tuple[float, float]
    ) -> "ChunkLoader":
        """Return the loader of a source; opens no file.

        Raises
        ------
        CubeError
            The images do not fit together.
        """
        _warn_of_doubt(source, images)
        return cls(
            source=source.name,
            images=tuple(images),
            layers=plan_encodings(source, images),
            quality=source.quality,
            composite=source.composite,
            geobox=geobox,
            anchor=anchor,
            gaps=source.unreadable == "gap",
        )

    @property
    def variables(self) -> dict[str, tuple[np.dtype[Any], dict[str, Any]]]:
        """Dtype and CF attributes of what `__call__` returns, in order: the layers, and last the quality."""
        return {layer.recipe.name: (layer.dtype, layer.attributes) for layer in self.layers} | {"quality": QUALITY}

    @property
    def halo(self) -> int:
        """Pixels around a chunk that are read too, because dirty edges are widened."""
        if self.quality is None or not self.quality.erode_m:
            return 0
        return erosion_halo(distance_m=self.quality.erode_m, resolution_m=pixel_m(self.geobox))

    @property
    def least(self) -> int:
        """Lowest level of a pixel that counts."""
        return trusted_level(self.quality)

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of one chunk, see `variables`; reads pixels.

        Parameters
        ----------
        places
            Indices of the images that meet the chunk, best first.
        rows, columns
            Half-open range of the cube's pixels.

        Raises
        ------
        CubeError
            An image cannot be read, and gaps are errors; it is named.
        """
        images = tuple(self.images[place] for place in places)
        stack = partial(self.pieces, images, rows=rows, columns=columns)
        return self.composited(stack, count=len(images), shape=(rows[1] - rows[0], columns[1] - columns[0]))

    def composited(self, stack: ImageStack, *, count: int, shape: tuple[int, int]) -> tuple[NDArray[Any], ...]:
        """Return the arrays (y, x) of `shape` that become of the `count` images of a stack; see `variables`."""
        layers = tuple(np.full(shape, layer.fill, layer.dtype) for layer in self.layers)
        empty = Observation(layers, np.zeros(shape, np.uint8))
        least = self.least
        everything, percent = slice(0, shape[0]), percent_of(self.composite)
        if self.composite == "first":
            made = composite.first_valid(stack(everything), empty=empty, least=least)
        elif self.composite == "best":
            made = composite.best_quality(stack(everything), empty=empty)
        elif self.composite == "mean":
            made = composite.mean_composite(stack(everything), empty=empty, least=least)
        else:
            beside = {"count": count, "rows_at_once": self._rows_at_once(count, width=shape[1])}
            if percent is None:
                scales = tuple(layer.scale_factor for layer in self.layers)
                made = composite.medoid_composite(stack, empty=empty, least=least, scales=scales, **beside)
            else:
                made = composite.percentile_composite(stack, empty=empty, least=least, percent=percent, **beside)
        if self.composite == "mean" or percent is not None:
            self._keep_off_nodata(made)
        return (*made.layers, made.quality)

    def _keep_off_nodata(self, made: Observation) -> None:
        """Move means that land on nodata by one unit: a mean of -1 and 1 is a value, not missing ground."""
        for layer, pixels in zip(self.layers, made.layers, strict=True):
            if layer.dtype.kind in "iu" and layer.nodata is not None:
                beside = layer.nodata - 1 if layer.nodata == np.iinfo(layer.dtype).max else layer.nodata + 1
                pixels[(pixels == layer.nodata) & (made.quality > 0)] = beside

    def masked_and_ranked(
        self, layers: Sequence[NDArray[Any]], valid: NDArray[np.bool_], data: NDArray[Any] | None, *, image: Image
    ) -> Observation:
        """Return the layers (y, x) with the level of every pixel: by the image's quality data (band, y, x) where there are, 0 where not `valid`."""
        quality = np.where(valid, np.uint8(GOOD), np.uint8(0))
        if self.quality is not None and data is not None:
            nodata = image.bands[self.quality.wanted.name].nodata
            quality = np.minimum(quality, self.quality.rule.levels(data, nodata=nodata))
        return Observation(tuple(layers), quality)

    def pieces(
        self, images: Sequence[Image], part: slice, *, rows: tuple[int, int], columns: tuple[int, int]
    ) -> Iterator[Observation]:
        """Yield images, best first, for a part of the rows of a chunk; each is read when it is asked for."""
        span = (rows[0] + part.start, rows[0] + part.stop)
        for image in images:
            try:
                yield self.piece(image, span, columns)
            except CubeError as error:
                message = f"Source {self.source!r}, image {image.id!r}: {error}"
                if not self.gaps:
                    raise CubeError(
                        f"{message} To leave unreadable images out, say unreadable='gap' in the source."
                    ) from error
                warn_missing(MissingImage(self.source, image.id), reason=message, error=error)

    def piece(self, image: Image, rows: tuple[int, int], columns: tuple[int, int]) -> Observation:
        """Return one image on a window of the cube: its layers, and the level of every pixel.

        Quality data is read first, and where no pixel of the window can count, the layers are not read at all.
        """
        halo = self.halo
        window = geobox_window(self.geobox, rows, columns, halo=halo)
        inner = slice(halo, halo + rows[1] - rows[0]), slice(halo, halo + columns[1] - columns[0])
        data: NDArray[Any] | None = None
        seen: NDArray[np.bool_] = np.ones(window.shape, bool)
        if self.quality is not None:
            bands = image.bands[self.quality.wanted.name]
            # Every value counts here: what 0 means in quality data, nodata or all clear, is for the rule to say.
            warped = warp(open_reader(bands, any_value=True), window, resampling="nearest", anchor=self.anchor)
            data, seen = warped.pixels, np.asarray(warped.valid.all(axis=0))
            levels = self.masked_and_ranked((), seen, data, image=image).quality[inner]
            if not (levels >= (LOW if self.composite in ("first", "best") else self.least)).any():
                fills = (np.full(levels.shape, layer.fill, layer.dtype) for layer in self.layers)
                return Observation(tuple(fills), np.zeros(levels.shape, np.uint8))
        layers, valid = self._warped_layers(image, window)
        piece = self.masked_and_ranked(layers, valid & seen, data, image=image)
        quality = piece.quality
        if self.quality is not None and self.quality.erode_m:
            quality = erode_quality(quality, distance_m=self.quality.erode_m, resolution_m=pixel_m(self.geobox))
        return Observation(tuple(layer[inner] for layer in piece.layers), quality[inner])

    def _warped_layers(self, image: Image, window: GeoBox) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """Return the layers of one image, bands of one file read together, and where all of them hold data."""
        layers: dict[str, NDArray[Any]] = {}
        valid = np.ones(window.shape, bool)
        for group in self._groups(image):
            bands = image.bands[group[0].recipe.name]
            together = replace(bands, bands=tuple(image.bands[one.recipe.name].bands[0] for one in group))
            dtype = np.dtype(np.float32) if group[0].dtype.kind == "f" else None
            warped = warp(
                open_reader(together), window, resampling=group[0].recipe.resampling, anchor=self.anchor, dtype=dtype
            )
            for one, pixels, seen in zip(group, warped.pixels, warped.valid, strict=True):
                layers[one.recipe.name] = one.repacked(pixels, seen, image.bands[one.recipe.name])
                valid &= seen
        return [layers[one.recipe.name] for one in self.layers], valid

    def _groups(self, image: Image) -> list[list[LayerEncoding]]:
        """Return the layers that one read gives: same file, grid and resampling."""
        groups: dict[object, list[LayerEncoding]] = {}
        for layer in self.layers:
            bands = image.bands[layer.recipe.name]
            key = (replace(bands, bands=(), asset="", stamp="", units=""), layer.recipe.resampling, layer.dtype)
            groups.setdefault(key, []).append(layer)
        return list(groups.values())

    def _rows_at_once(self, count: int, *, width: int) -> int:
        """Return rows of a block whose images fit the memory that they may take side by side."""
        pixel_bytes = len(self.layers) * np.result_type(*(layer.dtype for layer in self.layers)).itemsize + 1
        return max(1, _STACK_BYTES // max(1, count * pixel_bytes * width))
