"""One chunk of one source: its images read, warped, masked and composited; images that cannot be read are left out with a warning."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rtsx.cube.composite import (
    ImageStack,
    Observation,
    best_quality,
    first_valid,
    mean_composite,
    medoid_composite,
    percentile_composite,
)
from rtsx.cube.erosion import erode_quality, erosion_halo
from rtsx.cube.georeference import geobox_window, pixel_m
from rtsx.cube.images import Image
from rtsx.cube.mask_rules import GOOD, LOW
from rtsx.cube.recipe import Composite, QualityRecipe, percent_of
from rtsx.cube.resample.readers import open_reader
from rtsx.cube.resample.warp import warp
from rtsx.cube.source_plan import LayerEncoding
from rtsx.errors import CubeError, MissingCoverageWarning
from rtsx.redaction import redacted


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

    @property
    def names(self) -> tuple[str, ...]:
        """What `__call__` returns, in order: the layers, and last the quality."""
        return (*(layer.recipe.name for layer in self.layers), "quality")

    @property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Dtype of each of `names`."""
        return (*(layer.dtype for layer in self.layers), np.dtype(np.uint8))

    @property
    def attributes(self) -> dict[str, dict[str, Any]]:
        """CF attributes of every layer."""
        return {layer.recipe.name: layer.attributes for layer in self.layers}

    @property
    def halo(self) -> int:
        """Pixels around a chunk that are read too, because dirty edges are widened."""
        if self.quality is None or not self.quality.erode_m:
            return 0
        return erosion_halo(distance_m=self.quality.erode_m, resolution_m=pixel_m(self.geobox))

    @property
    def least(self) -> int:
        """Lowest level of a pixel that counts."""
        return LOW if self.quality is not None and self.quality.keep_low else GOOD

    def __dask_tokenize__(self) -> str:
        # Pickled bytes (cloudpickle, as rules may be functions of a notebook), instead of dask's walk through thousands of images, their geoboxes and footprints.
        return blake2b(cloudpickle.dumps(self), digest_size=16).hexdigest()

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of one chunk, see `names`; reads pixels.

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
        """Return the arrays (y, x) of `shape` that become of the `count` images of a stack; see `names`."""
        layers = tuple(np.full(shape, layer.fill, layer.dtype) for layer in self.layers)
        empty = Observation(layers, np.zeros(shape, np.uint8))
        least = self.least
        everything, percent = slice(0, shape[0]), percent_of(self.composite)
        if self.composite == "first":
            made = first_valid(stack(everything), empty=empty, least=least)
        elif self.composite == "best":
            made = best_quality(stack(everything), empty=empty)
        elif self.composite == "mean":
            made = mean_composite(stack(everything), empty=empty, least=least)
        else:
            beside = {"count": count, "rows_at_once": self._rows_at_once(count, width=shape[1])}
            if percent is None:
                scales = tuple(layer.scale_factor for layer in self.layers)
                made = medoid_composite(stack, empty=empty, least=least, scales=scales, **beside)
            else:
                made = percentile_composite(stack, empty=empty, least=least, percent=percent, **beside)
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
        self, layers: Sequence[NDArray[Any]], valid: NDArray[np.bool_], data: NDArray[Any] | None
    ) -> Observation:
        """Return the layers (y, x) with the level of every pixel: by quality data (band, y, x) where there are, 0 where not `valid`."""
        quality = np.where(valid, np.uint8(GOOD), np.uint8(0))
        if self.quality is not None and data is not None:
            quality = np.minimum(quality, self.quality.rule.quality(data))
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
            levels = self.masked_and_ranked((), seen, data).quality[inner]
            if not (levels >= (LOW if self.composite in ("first", "best") else self.least)).any():
                fills = (np.full(levels.shape, layer.fill, layer.dtype) for layer in self.layers)
                return Observation(tuple(fills), np.zeros(levels.shape, np.uint8))
        layers, valid = self._warped_layers(image, window)
        piece = self.masked_and_ranked(layers, valid & seen, data)
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
            key = (replace(bands, bands=(), asset="", stamp=""), layer.recipe.resampling, layer.dtype)
            groups.setdefault(key, []).append(layer)
        return list(groups.values())

    def _rows_at_once(self, count: int, *, width: int) -> int:
        """Return rows of a block whose images fit the memory that they may take side by side."""
        pixel_bytes = len(self.layers) * np.result_type(*(layer.dtype for layer in self.layers)).itemsize + 1
        return max(1, _STACK_BYTES // max(1, count * pixel_bytes * width))
