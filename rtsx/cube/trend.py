"""One chunk of trends: the scenes of Landsat that meet it read one by one, fitted on Landsat's own grid, and warped. The twin of `terrain_blocks`."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rtsx.cube import trend_kernels as kernels
from rtsx.cube.chunk_loader import QUALITY, ChunkLoader
from rtsx.cube.encoding import packing_attrs
from rtsx.cube.georeference import geobox_window, pixel_m
from rtsx.cube.graph import covering_window
from rtsx.cube.images import BandSource, Image
from rtsx.cube.mask_rules import GOOD
from rtsx.cube.recipe import TASSELED_CAP_BANDS, TREND_LAYERS, SourceRecipe, TrendRecipe
from rtsx.cube.resample.warp import warp
from rtsx.errors import CubeError
from rtsx.geometry.crs import apply_affine, transform

SCALE_FACTOR, ADD_OFFSET, NODATA = 2.75e-5, -0.2, 0
"""Packing of surface reflectance in Collection 2, for items and files that state none."""

_DECADE_DAYS = 3650.0

_PLATFORM = re.compile(r"landsat[-_ ]?0?([1-9])\b", re.IGNORECASE)
_SCENE = re.compile(r"L[COTE]0([1-9])_")
_OLI = {4: False, 5: False, 7: False, 8: True, 9: True}


def is_oli(image: Image) -> bool:
    """Test whether a scene is of Landsat 8 or 9 rather than of 4, 5 or 7: by its item's platform, else by its id.

    Raises
    ------
    CubeError
        It is of no Landsat with these bands.
    """
    found = _PLATFORM.search(image.platform or "") or _SCENE.match(image.id)
    if found is None or int(found[1]) not in _OLI:
        scene = image.id if image.platform is None else f"{image.id} of the platform {image.platform}"
        raise CubeError(
            f"Trends are made of scenes of Landsat {', '.join(map(str, _OLI))}; got {scene}. Search a collection of Landsat, such "
            "as landsat-c2-l2; items have to state their platform, such as landsat-8, or be called as USGS does, such as LC08_L2SP_..."
        )
    return _OLI[int(found[1])]


def with_packing_of_collection2(image: Image) -> Image:
    """Return a scene with scale, offset and nodata of Collection 2 where its integers state none."""
    return replace(image, bands={name: _packed(name, bands) for name, bands in image.bands.items()})


def _packed(name: str, bands: BandSource) -> BandSource:
    if name not in TASSELED_CAP_BANDS or np.dtype(bands.dtype).kind not in "iu":
        return bands
    known: dict[str, Any] = {}
    if (bands.scale_factor, bands.add_offset) == (1.0, 0.0) and not {"scale_factor", "add_offset"} & bands.settled:
        known = {"scale_factor": SCALE_FACTOR, "add_offset": ADD_OFFSET}
    if bands.nodata is None:
        known["nodata"] = NODATA
    return replace(bands, settled=bands.settled | set(known), **known)


def decades_of(image: Image, trend: TrendRecipe) -> float:
    """Return the time of a scene, in decades from the middle of the window, so that sums of it stay small.

    Raises
    ------
    CubeError
        It has no time.
    """
    if image.time is None:
        raise CubeError(f"A trend needs the time of every scene; {image.id!r} has none. Give its item a datetime.")
    middle = datetime((trend.window[0] + trend.window[1] + 1) // 2, 1, 1, tzinfo=UTC)
    return (image.time - middle).total_seconds() / 86400 / _DECADE_DAYS


_KEPT_BYTES = 64 * 2**20
"""Memory in which observations of a block wait until they can be classified; linear fits read what does not fit a second time."""
_STACK_BYTES = 256 * 2**20
"""Memory that the observations of a Theil-Sen fit may take side by side."""
_SERIES_BYTES = 64
"""Memory of one observation of one pixel among those of a Theil-Sen fit: as it was read, and as a member of a series."""
_READ_AROUND = 4
"""Pixels of Landsat around a chunk that warping may look at."""


@dataclass(frozen=True, kw_only=True)
class TrendReader:
    """The trends of a stack of scenes as one raster, computed window by window: see `WindowReader`.

    A linear fit goes twice over the observations of a window, once for the mean and the deviation by which they are screened
    and once for the sums of those that are left. It keeps what fits `_KEPT_BYTES` in between, and reads the rest again: its
    memory does not grow with the number of scenes.
    """

    stack: ChunkLoader
    """Reads the scenes on the grid of the trend."""
    images: tuple[Image, ...]
    """Scenes that meet the chunk, by time."""
    trend: TrendRecipe

    @property
    def geobox(self) -> GeoBox:
        """The grid of the trend, around the whole cube."""
        return self.stack.geobox

    @property
    def count(self) -> int:
        """Number of layers, and last how far a pixel lies from the middle of the projection."""
        return len(self.trend.layers) + 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype that holds all layers."""
        return np.dtype(np.float64)

    @property
    def nodata(self) -> None:
        """NaN is missing, nothing else."""

    def read(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Return layers (layer, y, x) of a window, and the distance of each pixel from the middle of the projection."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        at_once = shape[0]
        if self.trend.method == "theil-sen":
            at_once = max(1, _STACK_BYTES // max(1, _SERIES_BYTES * len(self.images) * shape[1]))
        parts = [
            self._fit(slice(start, min(start + at_once, rows.stop)), columns)
            for start in range(rows.start, rows.stop, at_once)
        ]
        window = geobox_window(self.geobox, (rows.start, rows.stop), (columns.start, columns.stop), halo=0)
        x, _ = _centres(window)
        return np.vstack([np.hstack(parts), _off_middle(x, str(window.crs))]).reshape(-1, *shape)

    def overview_for(self, factor: float) -> "TrendReader":
        """Return itself: a trend of coarse pixels is not the mean of the fine ones' trends."""
        return self

    def _fit(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Return the layers (layer, pixel) of some rows."""
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        moments = np.zeros((pixels, kernels.MOMENTS))
        kept: list[kernels.SceneObservations] = []
        held = read = 0
        for place, scene in self._scenes(0, rows, columns):
            kernels.add_moments(scene.counts, scene.values, scene.gain, scene.bias, moments)
            held += scene.nbytes
            if held <= _KEPT_BYTES or self.trend.method == "theil-sen":
                kept.append(scene)
                read = place + 1
        limits = kernels.reflectance_limits(moments)
        del moments
        again = self._scenes(read, rows, columns) if held > _KEPT_BYTES and self.trend.method == "linear" else ()
        scenes = chain(kept, (scene for _, scene in again))
        if self.trend.method == "linear":
            sums = np.zeros((pixels, kernels.SUMS))
            for scene in scenes:
                given = (scene.counts, scene.values, scene.gain, scene.bias, limits)
                kernels.add_sums(*given, kernels.TASSELED_CAP, scene.decades, sums)
            number, slopes, errors = kernels.linear_fit(sums)
            return kernels.trend_layers(self.trend, number=number, slopes=slopes, errors=errors)
        counts = np.zeros(pixels, np.int64)
        times, series = np.empty((pixels, len(kept))), np.empty((pixels, 3, len(kept)))
        for scene in scenes:
            given = (scene.counts, scene.values, scene.gain, scene.bias, limits)
            kernels.add_series(*given, kernels.TASSELED_CAP, scene.decades, counts, times, series)
        slopes = np.full((3, pixels), np.nan)
        kernels.median_slopes(counts, times, series, kernels.LEAST, slopes)
        return kernels.trend_layers(self.trend, number=counts.astype(np.float64), slopes=slopes, errors=None)

    def _scenes(self, first: int, rows: slice, columns: slice) -> Iterator[tuple[int, kernels.SceneObservations]]:
        """Yield what the scenes from a place on give to a window, with their place; nothing of those that give nothing."""
        packing = (
            np.array([layer.scale_factor for layer in self.stack.layers]),
            np.array([layer.add_offset for layer in self.stack.layers]),
        )
        every, span = slice(0, rows.stop - rows.start), ((rows.start, rows.stop), (columns.start, columns.stop))
        for place, image in enumerate(self.images[first:], start=first):
            decades = decades_of(image, self.trend)
            observed = partial(kernels.scene_observations, packing=packing, oli=is_oli(image), decades=decades)
            for piece in self.stack.pieces((image,), every, rows=span[0], columns=span[1]):
                counts = piece.quality >= self.stack.least
                if counts.any():
                    yield place, observed(piece.layers, counts)


@dataclass(frozen=True, kw_only=True)
class TrendChunkReader:
    """Everything that the tasks of a source of trends share; pickled once for all of them."""

    trend: TrendRecipe
    stacks: tuple[ChunkLoader, ...]
    """The same scenes on the grid of each projection among them. A pixel is fitted on the grid whose middle is nearest, with
    what was seen on the others warped to it (nearest), so that no border of UTM zones is an edge of the data."""
    geobox: GeoBox
    """The whole cube's raster."""
    anchor: tuple[float, float]
    """Corner (x, y) of the pixel grid that coordinates are anchored to."""

    @property
    def images(self) -> tuple[Image, ...]:
        """Scenes on the grids of all projections."""
        return tuple(image for stack in self.stacks for image in stack.images)

    @classmethod
    def plan(
        cls, source: SourceRecipe, images: Sequence[Image], *, geobox: GeoBox, anchor: tuple[float, float]
    ) -> "TrendChunkReader":
        """Plan the reader of a source; opens no file.

        Raises
        ------
        CubeError
            Scenes are of another sensor, have no time, or do not fit together.
        """
        assert source.trend is not None
        scenes = tuple(images)
        for image in scenes:
            is_oli(image), decades_of(image, source.trend)
        loader = replace(ChunkLoader.plan(source, scenes, geobox=geobox, anchor=anchor), composite="median")
        grids = Counter(image.bands[TASSELED_CAP_BANDS[0]].geobox for image in scenes)
        # Of each projection that of most scenes, last; all of Landsat's share the corners of their pixels.
        ordered = sorted(grids, key=lambda grid: (grids[grid], str(grid)))
        lattices = {str(grid.crs): grid for grid in ordered}
        stacks = []
        for name in sorted(lattices):
            own = _around(geobox, lattices[name])
            stacks.append(replace(loader, geobox=own, anchor=(own.affine.c, own.affine.f)))
        return cls(trend=source.trend, stacks=tuple(stacks), geobox=geobox, anchor=anchor)

    @property
    def variables(self) -> dict[str, tuple[np.dtype[Any], dict[str, Any]]]:
        """Dtype and CF attributes of what `__call__` returns, in order: the layers, and last the quality."""
        return {name: (self._dtype(name), self._attributes(name)) for name in self.trend.layers} | {"quality": QUALITY}

    def _dtype(self, name: str) -> np.dtype[Any]:
        if name == "tc_observations":
            return np.dtype(np.uint16)
        return np.dtype(self.trend.dtype if name in TREND_LAYERS else np.float32)

    def _attributes(self, name: str) -> dict[str, Any]:
        window = f"{self.trend.window[0]}-{self.trend.window[1]}"
        dtype = self._dtype(name)
        if name == "tc_observations":
            return packing_attrs(dtype, units="1", long_name=f"clear observations of Landsat, {window}")
        index = name.removeprefix("tc_").removesuffix("_stderr")
        what = f"{'trend' if name in TREND_LAYERS else 'standard error of the trend'} of tasseled cap {index}, {window}"
        if dtype.kind != "f":
            return packing_attrs(
                dtype, units="1", long_name=f"{what}; 0 to 255 for -{kernels.LIMIT} to {kernels.LIMIT} per decade"
            )
        return packing_attrs(dtype, nodata=float("nan"), units="decade-1", long_name=what)

    @property
    def halo(self) -> int:
        """Pixels around a chunk within which a scene matters to it."""
        reach_m = max((stack.halo + _READ_AROUND) * pixel_m(stack.geobox) for stack in self.stacks)
        return int(reach_m / pixel_m(self.geobox)) + 1

    def __call__(
        self, places: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> tuple[NDArray[Any], ...]:
        """Arrays (y, x) of one chunk, see `variables`; reads pixels.

        Parameters
        ----------
        places
            Indices of the scenes that meet the chunk and what warping looks at, by time.
        rows, columns
            Half-open range of the cube's pixels.

        Raises
        ------
        CubeError
            A scene cannot be read, and gaps are errors.
        """
        window = geobox_window(self.geobox, rows, columns, halo=0)
        out = np.full((len(self.trend.layers), *window.shape), np.nan)
        distance = np.full(window.shape, np.inf)
        for stack in self._nearest(window) if places else ():
            images = tuple(stack.images[place] for place in places)
            reader = TrendReader(stack=stack, images=images, trend=self.trend)
            warped = warp(reader, window, resampling=self.trend.resampling, anchor=self.anchor)
            *layers, away = warped.pixels
            nearer = warped.valid[-1] & (away < distance)
            distance[nearer] = away[nearer]
            for goal, layer in zip(out, layers, strict=True):
                np.copyto(goal, layer, where=nearer)
        fitted = [layer for name, layer in zip(self.trend.layers, out, strict=True) if name != "tc_observations"]
        seen = np.isfinite(fitted).all(axis=0) if fitted else out[0] > 0
        stored = (self._stored(name, layer) for name, layer in zip(self.trend.layers, out, strict=True))
        return (*stored, np.where(seen, np.uint8(GOOD), np.uint8(0)))

    def _nearest(self, window: GeoBox) -> Iterator[ChunkLoader]:
        """Yield the stacks whose projection has its middle nearest to some pixel of a window."""
        if len(self.stacks) == 1:
            yield self.stacks[0]
            return
        assert window.crs is not None  # every grid has one, and every scene
        x, y = _centres(window)
        rim = np.ones(window.shape, bool)
        rim[1:-1, 1:-1] = False
        x, y = x[rim.ravel()], y[rim.ravel()]
        away = []
        for stack in self.stacks:
            assert stack.geobox.crs is not None
            there, _ = transform(x, y, source=window.crs, target=stack.geobox.crs)
            away.append(np.nan_to_num(_off_middle(there, str(stack.geobox.crs)), nan=np.inf))
        for place in np.unique(np.argmin(away, axis=0)):
            yield self.stacks[place]

    def _stored(self, name: str, values: NDArray[np.float64]) -> NDArray[Any]:
        dtype = self._dtype(name)
        if dtype.kind == "f":
            return values.astype(dtype)
        # Rounded after warping as any layer of whole numbers.
        return np.clip(np.rint(np.nan_to_num(values)), 0, np.iinfo(dtype).max).astype(dtype)


_FAR = 2**29
"""Pixels: farther than any cube reaches from a scene."""


def _around(geobox: GeoBox, lattice: GeoBox) -> GeoBox:
    """Return the raster on the pixels of a scene that holds a cube and what warping looks at."""
    boundless = GeoBox((2 * _FAR, 2 * _FAR), lattice.affine * Affine.translation(-_FAR, -_FAR), lattice.crs)
    window = covering_window(boundless, geobox, margin_m=_READ_AROUND * pixel_m(lattice))
    assert window is not None  # it has no end
    return geobox_window(boundless, *window, halo=0)


def _centres(window: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y (pixel,) of the middles of pixels."""
    rows, columns = np.indices(window.shape).reshape(2, -1).astype(np.float64) + 0.5
    return apply_affine(window.affine, columns, rows)


def _off_middle(x: NDArray[np.float64], crs: str) -> NDArray[np.float64]:
    """Return how far points lie from the middle of a projection: of a zone of UTM, from its central meridian."""
    operation = CRS.from_user_input(crs).coordinate_operation
    params = [] if operation is None else operation.params
    middle = float(next((param.value for param in params if param.name == "False easting"), 0.0))
    return np.abs(x - middle)
