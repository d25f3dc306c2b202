"""How many pixels of which kind any window of a scene holds, known without keeping the scene."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rtsx.labels import TruthWindow

__all__ = ["PixelCounts"]

_Windows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelCounts:
    """Sums over cells of a raster: exact for windows whose sides lie on cuts, bounds for all others.

    Cells lie between the cuts of both axes, so where a tile begins and ends is a cut, whatever its size.

    Examples
    --------
    >>> counts = PixelCounts.over((4, 4), rows=[2], columns=[2], kinds=1)
    >>> counts.add(np.eye(4, dtype=bool)[None], (slice(0, 4), slice(0, 4)))
    >>> summed = counts.summed()
    >>> windows = np.array([[0, 0, 4, 2], [1, 1, 3, 4]])
    >>> summed.at_least(windows)[0], summed.at_most(windows)[0]
    (array([2, 0]), array([2, 4]))
    """

    rows: NDArray[np.int64]
    """Cuts along y, from 0 to the height, rising."""
    columns: NDArray[np.int64]
    """Cuts along x, from 0 to the width, rising."""
    cells: NDArray[np.int64]
    """While it is filled: pixels of each kind in each cell (kind, row, column). Once `summed`: those above and to the left of
    each pair of cuts, one more along either axis."""

    @classmethod
    def over(cls, shape: tuple[int, int], *, rows: Iterable[int], columns: Iterable[int], kinds: int) -> Self:
        """Nothing counted yet, over a raster of this shape with these cuts within."""
        cuts = [
            np.unique(np.clip([0, *wanted, length], 0, length)).astype(np.int64)
            for wanted, length in zip((rows, columns), shape, strict=True)
        ]
        cells = np.zeros((kinds, *(len(along) - 1 for along in cuts)), np.int64)
        return cls(rows=cuts[0], columns=cuts[1], cells=cells)

    def add(self, kinds: NDArray[np.bool_], window: TruthWindow) -> None:
        """Count pixels (kind, y, x) of a window into the cells, in place."""
        places: list[slice] = []
        breaks: list[NDArray[np.int64]] = []
        for cuts, part in zip((self.rows, self.columns), window, strict=True):
            first = int(np.searchsorted(cuts, part.start, "right")) - 1
            stop = int(np.searchsorted(cuts, part.stop, "left"))
            places.append(slice(first, stop))
            breaks.append(np.maximum(cuts[first:stop] - part.start, 0))
        for cells, pixels in zip(self.cells, kinds, strict=True):
            # One kind after the other and in 32 bits, because NumPy makes numbers of all pixels before it adds any.
            rows = np.add.reduceat(pixels, breaks[0], axis=0, dtype=np.uint32)
            cells[places[0], places[1]] += np.add.reduceat(rows, breaks[1], axis=1, dtype=np.int64)

    def summed(self) -> Self:
        """The same as sums from the upper left corner, which windows are counted by."""
        sums = np.pad(self.cells, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
        return type(self)(rows=self.rows, columns=self.columns, cells=sums)

    def at_least(self, windows: _Windows) -> NDArray[np.int64]:
        """Pixels (kind, window) of the cells that lie wholly in windows (window, 4) of start y, x and stop y, x."""
        places = [
            np.searchsorted(cuts, windows[:, side], "left" if side < 2 else "right") - (side >= 2)
            for side, cuts in enumerate((self.rows, self.columns) * 2)
        ]
        return self._between(*places)

    def at_most(self, windows: _Windows) -> NDArray[np.int64]:
        """Pixels (kind, window) of the cells that share a pixel with windows (window, 4)."""
        places = [
            np.searchsorted(cuts, windows[:, side], "right" if side < 2 else "left") - (side < 2)
            for side, cuts in enumerate((self.rows, self.columns) * 2)
        ]
        return self._between(*places)

    def _between(self, *places: NDArray[np.intp]) -> NDArray[np.int64]:
        top, left, bottom, right = places
        bottom, right = np.maximum(bottom, top), np.maximum(right, left)  # a window within a cell holds none wholly
        sums = self.cells
        between: NDArray[np.int64] = (
            sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
        )
        return between
