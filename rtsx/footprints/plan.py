"""The plan of an extraction: which blocks are read, which windows and halos they have. Integers and names only."""

from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["NO_MARGINS", "Block", "BlockPlan", "Margins", "OutlineRule"]

Margins = tuple[int, int, int, int]
NO_MARGINS: Margins = (0, 0, 0, 0)
"""A raster that has no neighbours: all its borders are ends of the data."""

Part = tuple[tuple[int, int], tuple[slice, slice]]
"""A block by its row and column among the blocks, and a window inside it."""


@dataclass(frozen=True, kw_only=True)
class OutlineRule:
    """What counts as an object, in units that need no geography."""

    threshold: float | None
    """Smallest probability (0-1) of an object pixel; None: the binary map decides."""
    levels: int
    """Steps between probability 0 and 1 in which statistics are kept: 100 for uint8, 10000 for float."""
    edge_distance: int
    """Pixels, counted in king's moves: an object this near to invalid ground touches the edge."""
    min_pixels: int
    """An object of fewer pixels is below the smallest area wherever it lies; it is dropped before it is outlined."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A rectangle of the raster, read and outlined at once; half-open intervals of pixels."""

    y: tuple[int, int]
    """First row, and the row after the last."""
    x: tuple[int, int]
    """First column, and the column after the last."""
    shape: tuple[int, int]
    """Rows and columns of the whole raster."""
    margins: Margins = NO_MARGINS
    """Pixels at the top, bottom, left and right of the raster that belong to neighbouring rasters."""

    @property
    def window(self) -> tuple[slice, slice]:
        """The block as an index `(y, x)` into the raster."""
        return slice(*self.y), slice(*self.x)

    def halo(self, reach: int) -> tuple[slice, slice]:
        """Return the window widened by `reach` pixels and cut to the raster."""
        y, x = (
            slice(max(0, start - reach), min(length, stop + reach))
            for (start, stop), length in zip((self.y, self.x), self.shape, strict=True)
        )
        return y, x

    def beyond(self, reach: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how many pixels of the halo were cut off before and after, along y and along x."""
        y, x = (
            (max(0, reach - start), max(0, stop + reach - length))
            for (start, stop), length in zip((self.y, self.x), self.shape, strict=True)
        )
        return y, x

    @property
    def core(self) -> tuple[slice, slice]:
        """The part of the block outside the margins, as an index `(y, x)` into the block; may be empty."""
        y, x = (
            slice(*(min(max(limit - start, 0), stop - start) for limit in (before, length - after)))
            for (start, stop), length, before, after in zip(
                (self.y, self.x), self.shape, self.margins[::2], self.margins[1::2], strict=True
            )
        )
        return y, x

    @property
    def cuts(self) -> tuple[tuple[slice, slice], ...]:
        """The lines of pixels along which a neighbouring raster goes on, as indices `(y, x)` into the block."""
        y, x = self.core
        lines = []
        for side, margin in enumerate(self.margins):
            (start, stop), length = ((self.y, self.x)[side // 2], self.shape[side // 2])
            line = (margin if side % 2 == 0 else length - margin - 1) - start
            if margin and 0 <= line < stop - start:
                lines.append((slice(line, line + 1), x) if side < 2 else (y, slice(line, line + 1)))
        return tuple(lines)

    @property
    def seams(self) -> tuple[bool, bool, bool, bool]:
        """Whether another block lies above, below, to the left and to the right."""
        return self.y[0] > 0, self.y[1] < self.shape[0], self.x[0] > 0, self.x[1] < self.shape[1]


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """The division of one raster into blocks, which together cover each pixel once.

    Examples
    --------
    >>> plan = BlockPlan(rows=(2, 1), columns=(3,))
    >>> plan.shape
    (3, 3)
    >>> [block.window for block in plan.blocks]
    [(slice(0, 2, None), slice(0, 3, None)), (slice(2, 3, None), slice(0, 3, None))]
    """

    rows: tuple[int, ...]
    """Height of each row of blocks, in pixels."""
    columns: tuple[int, ...]
    """Width of each column of blocks, in pixels."""
    margins: Margins = NO_MARGINS
    """Pixels at the top, bottom, left and right of the raster that belong to neighbouring rasters."""

    @classmethod
    def regular(cls, shape: tuple[int, int], *, size: int, margins: Margins = NO_MARGINS) -> "BlockPlan":
        """Return square blocks of `size` pixels, smaller at the lower and right border."""
        rows, columns = (
            tuple(min(size, length - start) for start in range(0, max(length, 1), size)) for length in shape
        )
        return cls(rows=rows, columns=columns, margins=margins)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the raster, in pixels."""
        return sum(self.rows), sum(self.columns)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, row by row."""
        return tuple(
            Block(y=y, x=x, shape=self.shape, margins=self.margins)
            for y in _intervals(self.rows)
            for x in _intervals(self.columns)
        )

    def parts(self, window: tuple[slice, slice]) -> list[list[Part]]:
        """Return the rows of parts of blocks that together make up a window `(y, x)` of the raster.

        Examples
        --------
        >>> BlockPlan(rows=(2, 1), columns=(3,)).parts((slice(1, 3), slice(0, 2)))
        [[((0, 0), (slice(1, 2, None), slice(0, 2, None)))], [((1, 0), (slice(0, 1, None), slice(0, 2, None)))]]
        """
        rows, columns = (
            [
                (number, slice(max(wanted.start, start) - start, min(wanted.stop, stop) - start))
                for number, (start, stop) in enumerate(_intervals(lengths))
                if start < wanted.stop and stop > wanted.start
            ]
            for lengths, wanted in zip((self.rows, self.columns), window, strict=True)
        )
        return [[((i, j), (y, x)) for j, x in columns] for i, y in rows]


def _intervals(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise(accumulate(lengths, initial=0)))
