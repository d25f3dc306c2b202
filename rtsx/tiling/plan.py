"""The plan of a tiling: which tiles cover a raster, and which part of each counts, by which weights. Pure integers, no pixels.

Positions are pixels of the raster: 0 is its first one. Three intervals belong to tile k:

- window: everything the network sees, `tile` pixels; reaches beyond the raster at its edges;
- support: the window less `trim` on each side, cut to the raster: where the tile's output is used;
- core: the support without what is shared; the cores of all tiles cover every pixel exactly once.

Tiles are aligned to the grid's origin, so that which tiles exist depends on neither chunks nor cells nor
workers, only on the raster's place and the four numbers below. Weights are those of one axis; a tile's weight at a pixel is the
product of both.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rtsx.arguments import typed
from rtsx.errors import PlanError

Blend = Literal["linear", "hann", "gaussian", "crop", "max"]
"""How neighbouring tiles are joined; see `window_shape`."""

BLENDS: tuple[Blend, ...] = get_args(Blend)
"""Every blend by name."""

WIDEST_HALO = 4096
"""Pixels that are read around a block at most, for whatever looks beyond it: more than anything needs, and memory holds."""

# MONAI's and nnU-Net's choice: the standard deviation is an eighth of the window.
_GAUSSIAN_WIDTH = 0.125


def window_shape(blend: Blend, *, length: int, ramp: int) -> NDArray[np.float64]:
    """Return the raw weights (length,) of one tile along one axis, in (0, 1], before neighbours are made to sum to one.

    Parameters
    ----------
    blend
        `"linear"`: straight ramps, `(i + 0.5) / ramp` and its mirror. `"hann"`: the same with a squared sine.
        `"gaussian"`: a bell over the whole length. `"crop"` and `"max"`: 1 everywhere.
    length
        Pixels of the tile's support.
    ramp
        Pixels that it shares with each neighbour.

    Notes
    -----
    Every weight is above 0: a ramp that starts at exactly 0 would leave a dead frame of one pixel.

    Examples
    --------
    >>> window_shape("linear", length=6, ramp=2)
    array([0.25, 0.75, 1.  , 1.  , 0.75, 0.25])
    """
    position = np.arange(length) + 0.5
    if blend == "gaussian":
        shape: NDArray[np.float64] = np.exp(-0.5 * ((position / length - 0.5) / _GAUSSIAN_WIDTH) ** 2)
        return shape
    if blend in ("crop", "max") or ramp == 0:
        return np.ones(length)
    rise: NDArray[np.float64] = np.clip(np.minimum(position, length - position) / ramp, 0, 1)
    return np.sin(0.5 * np.pi * rise) ** 2 if blend == "hann" else rise


def reflect_pad(start: int, stop: int, *, length: int) -> NDArray[np.intp]:
    """Return indices (stop - start,) into an axis of `length` pixels for the pixels `start` to `stop`, mirrored at both ends.

    The edge pixel itself is not repeated, and a short axis is mirrored as often as it takes, as `numpy.pad` does with
    `mode="reflect"`. An index instead of a padded copy, because only tiles at the edge need it.

    Examples
    --------
    >>> reflect_pad(-2, 5, length=3)
    array([2, 1, 0, 1, 2, 1, 0])
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)


@dataclass(frozen=True, kw_only=True)
class TileAxis:
    """Tiles along y or along x; built and checked by `TilePlan`."""

    length: int
    """Pixels of the raster along this axis."""
    offset: int
    """Position of the raster's first pixel on the grid."""
    tile: int
    """Pixels of a window."""
    overlap: int
    """Pixels that neighbouring windows share."""
    trim: int
    """Pixels on each side of a window that never count."""
    stride: int
    """Total down-sampling of the network; `tile` and `overlap` are multiples of it."""
    blend: Blend
    """Shape of the weights."""

    @property
    def step(self) -> int:
        """Pixels between the starts of neighbouring tiles."""
        return self.tile - self.overlap

    @property
    def lead(self) -> int:
        """Pixels by which the window of index 0 starts before the grid's origin.

        `trim`, raised to a multiple of the stride: so the first *support* meets the origin, and a raster that begins
        there does not pay a row of tiles for the trimmed frame, yet starts stay multiples of the stride.
        """
        return -(-self.trim // self.stride) * self.stride

    @cached_property
    def indices(self) -> range:
        """Indices of the fewest tiles whose supports cover the raster."""
        shift = self.offset + self.lead
        first = (shift - self.trim) // self.step
        last = -((self.tile - self.trim - shift - self.length) // self.step)
        return range(first, max(first, last) + 1)

    def start(self, index: int) -> int:
        """Return the first pixel of the window; negative where it begins before the raster."""
        return index * self.step - self.lead - self.offset

    def window(self, index: int) -> tuple[int, int]:
        """Return the first pixel of the raster that the network sees and the one after the last."""
        start = self.start(index)
        return max(start, 0), min(start + self.tile, self.length)

    def support(self, index: int) -> tuple[int, int]:
        """Return the first pixel of the tile's support and the one after the last."""
        start = self.start(index)
        return max(start + self.trim, 0), min(start + self.tile - self.trim, self.length)

    def core(self, index: int) -> tuple[int, int]:
        """Return the first pixel of the core and the one after the last."""
        begin = self.start(index) + self.overlap // 2
        is_first, is_last = index == self.indices[0], index == self.indices[-1]
        return 0 if is_first else begin, self.length if is_last else begin + self.step

    def weights(self, index: int) -> NDArray[np.float32]:
        """Return weights over the support, positive; those of all tiles sum to one at every pixel."""
        low, high = self.support(index)
        own = self._raw(index, low, high)
        total = own.copy()
        for step in (-1, 1):
            other = index + step
            while other in self.indices and max(low, self.support(other)[0]) < min(high, self.support(other)[1]):
                begin, end = max(low, self.support(other)[0]), min(high, self.support(other)[1])
                total[begin - low : end - low] += self._raw(other, begin, end)
                other += step
        return (own / total).astype(np.float32)

    def alike(self, index: int) -> int:
        """Return the first tile with the same weights: all that are far enough from both ends have them.

        Examples
        --------
        >>> axis = TilePlan(shape=(1000, 1000), tile=64, overlap=16, trim=0, stride=16).x
        >>> {axis.alike(index) for index in axis.indices}
        {0, 1, 2, 19, 20}
        """
        near = -(-self.tile // self.step)
        first, last = self.indices[0] + near, self.indices[-1] - near
        return first if first <= index <= last else index

    def tiles_covering(self, low: int, high: int) -> range:
        """Return indices of the tiles whose support meets the pixels `low` to `high`."""
        first = bisect_right(self.indices, low, key=lambda k: self.support(k)[1])
        stop = bisect_left(self.indices, high, key=lambda k: self.support(k)[0])
        return self.indices[first:stop]

    def tiles_starting_in(self, low: int, high: int) -> range:
        """Return indices of the tiles whose window begins within the pixels `low` to `high`; may be empty."""
        first, stop = (bisect_left(self.indices, edge, key=lambda k: self.window(k)[0]) for edge in (low, high))
        return self.indices[first:stop]

    def _raw(self, index: int, low: int, high: int) -> NDArray[np.float64]:
        begin = self.start(index) + self.trim
        shape = window_shape(self.blend, length=self.tile - 2 * self.trim, ramp=self.overlap - 2 * self.trim)
        return shape[low - begin : high - begin].copy()


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One network input of a `TilePlan`; all positions are pixels of its raster, (y, x)."""

    index: tuple[int, int]
    """Index (y, x), the same for every raster of the grid."""
    start: tuple[int, int]
    """Upper-left pixel of the window; negative where it begins before the raster."""
    size: int
    """Pixels of the window along each axis."""
    support: tuple[slice, slice]
    """Pixels of the raster that the tile contributes to, alone or with its neighbours."""
    core: tuple[slice, slice]
    """Pixels that are this tile's own: those of all tiles cover the raster once."""


@dataclass(frozen=True)
class TileRange:
    """A rectangle of tiles by index, as one task runs them."""

    y: range
    """Indices along y."""
    x: range
    """Indices along x."""

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.y) * len(self.x)


@typed(PlanError)
@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Overlapping tiles of one raster.

    Raises
    ------
    PlanError
        The numbers contradict each other; the message names the nearest ones that do not.

    Examples
    --------
    >>> plan = TilePlan(shape=(4096, 4096), tile=1024, overlap=256, trim=0, stride=32)
    >>> len(plan), plan.step, round(plan.over_compute, 2)
    (25, 768, 1.56)
    >>> print(plan)
    25 tiles of 1024 px, overlap 256, trim 0, linear, over 4096 x 4096 px: over-compute 1.56
    """

    shape: tuple[int, int]
    """Pixels of the raster, (y, x)."""
    offset: tuple[int, int] = (0, 0)
    """Position of the raster's upper-left pixel on the grid, (y, x)."""
    tile: int
    """Pixels of a tile along each axis."""
    overlap: int
    """Pixels that neighbouring tiles share."""
    trim: int
    """Pixels on each side of a tile that never count."""
    stride: int
    """Total down-sampling of the network, in pixels."""
    blend: Blend = "linear"
    """How neighbouring outputs are blended."""

    def __post_init__(self) -> None:
        """Refuse what cannot give a right output."""
        if self.blend not in BLENDS:
            raise PlanError(f"blend has to be one of {', '.join(BLENDS)}; got {self.blend!r}.")
        if min(self.shape) < 1:
            raise PlanError(f"A raster needs at least one pixel along y and x; got {self.shape}. Look at its extent.")
        if self.stride < 1 or self.tile < 1 or self.overlap < 0 or self.trim < 0:
            raise PlanError(
                f"stride and tile have to be at least 1 px, overlap and trim at least 0; got stride={self.stride}, "
                f"tile={self.tile}, overlap={self.overlap}, trim={self.trim}."
            )
        for name, value in (("tile", self.tile), ("overlap", self.overlap)):
            if value % self.stride:
                low = value // self.stride * self.stride
                raise PlanError(
                    f"{name} has to be a multiple of the network's stride of {self.stride} px, because off that "
                    f"lattice a strided network answers differently; got {value}. Take {low} or {low + self.stride}."
                )
        if self.overlap >= self.tile:
            raise PlanError(
                f"overlap has to be below the tile of {self.tile} px; got {self.overlap}. "
                f"Take {self.tile // 4 // self.stride * self.stride}, a quarter of the tile."
            )
        if 2 * self.trim > self.overlap:
            raise PlanError(
                f"trim has to be at most half the overlap of {self.overlap} px, or pixels would have no answer; "
                f"got {self.trim}. Take {self.overlap // 2} or raise the overlap to "
                f"{-(-2 * self.trim // self.stride) * self.stride}."
            )

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.y.indices) * len(self.x.indices)

    def __iter__(self) -> Iterator[Tile]:
        """Tiles, row by row."""
        return self.tiles(self.all)

    def __str__(self) -> str:
        """One line for logs and reports."""
        return (
            f"{len(self)} tiles of {self.tile} px, overlap {self.overlap}, trim {self.trim}, {self.blend}, over "
            f"{self.shape[0]} x {self.shape[1]} px: over-compute {self.over_compute:.2f}"
        )

    @property
    def step(self) -> int:
        """Pixels between the starts of neighbouring tiles."""
        return self.tile - self.overlap

    @property
    def over_compute(self) -> float:
        """Pixels that the network sees per pixel of the raster, edges included."""
        return len(self) * self.tile**2 / (self.shape[0] * self.shape[1])

    @cached_property
    def y(self) -> TileAxis:
        """The tiling along y."""
        return self._axis(0)

    @cached_property
    def x(self) -> TileAxis:
        """The tiling along x."""
        return self._axis(1)

    @property
    def all(self) -> TileRange:
        """Every tile."""
        return TileRange(self.y.indices, self.x.indices)

    def tiles(self, among: TileRange) -> Iterator[Tile]:
        """Yield tiles of a range, row by row."""
        for j in among.y:
            for i in among.x:
                yield Tile(
                    index=(j, i),
                    start=(self.y.start(j), self.x.start(i)),
                    size=self.tile,
                    support=(slice(*self.y.support(j)), slice(*self.x.support(i))),
                    core=(slice(*self.y.core(j)), slice(*self.x.core(i))),
                )

    def starting_in(self, region: tuple[slice, slice]) -> TileRange:
        """Return tiles whose window begins in a region of the raster: each tile starts in one region of a partition."""
        return TileRange(*(axis.tiles_starting_in(part.start, part.stop) for axis, part in self._along(region)))

    def tiles_covering(self, region: tuple[slice, slice]) -> TileRange:
        """Return tiles whose support meets a region of the raster."""
        return TileRange(*(axis.tiles_covering(part.start, part.stop) for axis, part in self._along(region)))

    def read_region(self, among: TileRange) -> tuple[slice, slice]:
        """Return pixels of the raster that the windows of a range of tiles cover."""
        return self._hull(among, TileAxis.window)

    def output_region(self, among: TileRange) -> tuple[slice, slice]:
        """Return pixels of the raster that the supports of a range of tiles cover."""
        return self._hull(among, TileAxis.support)

    def complete_region(self, among: TileRange) -> tuple[slice, slice] | None:
        """Return pixels of the raster that lie in the support of no tile but those of a range; None where there are none.

        Examples
        --------
        >>> tiling = TilePlan(shape=(512, 512), tile=256, overlap=64, trim=0, stride=32)
        >>> tiling.complete_region(TileRange(range(1), range(3)))
        (slice(0, 192, None), slice(0, 512, None))
        """
        parts = []
        for axis, tiles in ((self.y, among.y), (self.x, among.x)):
            before, after = tiles.start - 1, tiles.stop
            low = axis.support(before)[1] if before in axis.indices else 0
            high = axis.support(after)[0] if after in axis.indices else axis.length
            if low >= high:
                return None
            parts.append(slice(low, high))
        return parts[0], parts[1]

    def _axis(self, number: int) -> TileAxis:
        return TileAxis(
            length=self.shape[number],
            offset=self.offset[number],
            tile=self.tile,
            overlap=self.overlap,
            trim=self.trim,
            stride=self.stride,
            blend=self.blend,
        )

    def _along(self, region: tuple[slice, slice]) -> Iterator[tuple[TileAxis, slice]]:
        return zip((self.y, self.x), region, strict=True)

    def _hull(self, among: TileRange, extent: Callable[[TileAxis, int], tuple[int, int]]) -> tuple[slice, slice]:
        y, x = (
            slice(extent(axis, ks[0])[0], extent(axis, ks[-1])[1])
            for axis, ks in ((self.y, among.y), (self.x, among.x))
        )
        return y, x
