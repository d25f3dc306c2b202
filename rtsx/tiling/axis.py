"""One axis of a tiling: where tiles start, what they answer for, and with which weight. Pure integers.

Positions are pixels of the raster: 0 is its first one. Three intervals belong to tile k:

- window: everything the network sees, `tile` pixels; reaches beyond the raster at its edges;
- support: the window less `trim` on each side, cut to the raster: what the tile's answer is used for;
- core: the support without what is shared; the cores of all tiles cover every pixel exactly once.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rtsx.tiling.weights import Blend, window_shape

__all__ = ["TileAxis"]


@dataclass(frozen=True, kw_only=True)
class TileAxis:
    """Tiles along y or along x; built and checked by `TilePlan`."""

    length: int
    """Pixels of the raster along this axis."""
    offset: int
    """Position of the raster's first pixel on the lattice."""
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
        """Pixels by which the window of lattice index 0 starts before the lattice's origin.

        `trim`, raised to a multiple of the stride: so the first *support* meets the origin, and a raster that begins
        there does not pay a row of tiles for the trimmed frame, yet starts stay multiples of the stride.
        """
        return -(-self.trim // self.stride) * self.stride

    @cached_property
    def indices(self) -> range:
        """Lattice indices of the fewest tiles whose supports cover the raster."""
        shift = self.offset + self.lead
        first = (shift - self.trim) // self.step
        last = -((self.tile - self.trim - shift - self.length) // self.step)
        return range(first, max(first, last) + 1)

    def start(self, index: int) -> int:
        """First pixel of the window; negative where it begins before the raster."""
        return index * self.step - self.lead - self.offset

    def window(self, index: int) -> tuple[int, int]:
        """First pixel of the raster that the network sees and the one after the last."""
        start = self.start(index)
        return max(start, 0), min(start + self.tile, self.length)

    def support(self, index: int) -> tuple[int, int]:
        """First pixel that the tile answers for and the one after the last."""
        start = self.start(index)
        return max(start + self.trim, 0), min(start + self.tile - self.trim, self.length)

    def core(self, index: int) -> tuple[int, int]:
        """First pixel of the core and the one after the last."""
        begin = self.start(index) + self.overlap // 2
        is_first, is_last = index == self.indices[0], index == self.indices[-1]
        return 0 if is_first else begin, self.length if is_last else begin + self.step

    def weights(self, index: int) -> NDArray[np.float32]:
        """Weights over the support, positive; those of all tiles sum to one at every pixel."""
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

    def answering(self, low: int, high: int) -> range:
        """Indices of the tiles whose support meets the pixels `low` to `high`."""
        found = [k for k in self.indices if self.support(k)[0] < high and self.support(k)[1] > low]
        return range(found[0], found[-1] + 1)

    def starting(self, low: int, high: int) -> range:
        """Indices of the tiles whose window begins within the pixels `low` to `high`; may be empty."""
        found = [k for k in self.indices if low <= self.window(k)[0] < high]
        return range(found[0], found[-1] + 1) if found else range(0)

    def _raw(self, index: int, low: int, high: int) -> NDArray[np.float64]:
        begin = self.start(index) + self.trim
        shape = window_shape(self.blend, length=self.tile - 2 * self.trim, ramp=self.overlap - 2 * self.trim)
        return shape[low - begin : high - begin].copy()
