"""The map of a report: every cell with its state, drawn by hand as SVG, so that the page needs no library."""

import html
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rtsx.campaign.cell_table import Address
from rtsx.grid.cell import cell_id

__all__ = ["COLOURS", "CellState", "MapSquare", "cell_map", "map_squares"]

CellState = Literal["mapped", "empty", "running", "failed", "left"]
"""Done with a map; done, and nothing was there; leased by a run; set aside; none of these."""

COLOURS: Mapping[CellState, str] = {
    "mapped": "#2a8c55",
    "empty": "#a9c8d8",
    "running": "#e0a100",
    "failed": "#c0392b",
    "left": "#dddddd",
}
"""Fill of each state."""

_MOST_SQUARES = 2500
"""Squares of a page that every browser still moves easily."""
_WIDTH = 900
"""Width of the picture, in its own units."""


@dataclass(frozen=True)
class MapSquare:
    """One square of the picture: a cell, or a block of `side` x `side` cells."""

    place: tuple[int, int]
    """Row and column of the square, in squares."""
    first: Address
    """Cell in its upper left corner, or the cell itself."""
    side: int
    """Cells along each of its sides."""
    counts: Mapping[CellState, int]
    """Cells of the campaign in it by state."""

    @property
    def state(self) -> CellState:
        """What its colour says: the state of most of its cells, but a failure always shows."""
        if "failed" in self.counts:
            return "failed"
        return max(self.counts, key=lambda state: (self.counts[state], state))

    @property
    def title(self) -> str:
        """What a pointer over it reads."""
        if self.side == 1:
            return f"{cell_id(*self.first)}: {self.state}"
        parts = ", ".join(f"{self.counts[state]:,} {state}" for state in COLOURS if state in self.counts)
        last = self.first[0] + self.side - 1, self.first[1] + self.side - 1
        return f"{cell_id(*self.first)} to {cell_id(*last)}: {parts}"


def map_squares(states: Mapping[Address, CellState], *, most: int = _MOST_SQUARES) -> list[MapSquare]:
    """Squares that show all cells: one each, or one for a block of them where they are more than `most`.

    Examples
    --------
    >>> square, = map_squares({(4, -1): "mapped", (5, -1): "left", (5, -2): "left"}, most=1)
    >>> square.side, dict(square.counts), square.title
    (2, {'mapped': 1, 'left': 2}, 'r004c-002 to r005c-001: 1 mapped, 2 left')
    """
    if not states:
        return []
    side = _side(np.array(list(states), np.int64), most)
    blocks: dict[Address, Counter[CellState]] = {}
    for (row, column), state in states.items():
        blocks.setdefault((row // side, column // side), Counter())[state] += 1
    top, left = min(row for row, _ in blocks), min(column for _, column in blocks)
    return [
        MapSquare((row - top, column - left), (row * side, column * side), side, counts)
        for (row, column), counts in sorted(blocks.items())
    ]


def _side(cells: NDArray[np.int64], most: int) -> int:
    """Cells along a block, a power of two, so that there are few enough blocks."""
    side = 1
    while len(np.unique((cells[:, 0] // side << 32) + cells[:, 1] // side)) > most:
        side *= 2
    return side


def cell_map(states: Mapping[Address, CellState], *, reasons: Mapping[Address, str]) -> str:
    """The map as an ``<svg>`` element and its legend.

    Parameters
    ----------
    states
        State of every cell of the campaign.
    reasons
        Why cells failed; shown where a square is one cell.
    """
    squares = map_squares(states)
    if not squares:
        return "<p>No cells.</p>"
    columns = max(square.place[1] for square in squares) + 1
    rows = max(square.place[0] for square in squares) + 1
    unit = min(_WIDTH / columns, 48.0)
    drawn = [_square(square, unit, reasons.get(square.first, "") if square.side == 1 else "") for square in squares]
    side = squares[0].side
    each = "Each square is a cell." if side == 1 else f"Each square is a block of {side} x {side} cells."
    legend = "".join(
        f'<span class="key"><i style="background:{colour}"></i>{state}: {count:,}</span>'
        for state, colour in COLOURS.items()
        if (count := sum(square.counts.get(state, 0) for square in squares))
    )
    return (
        f'<p>{each} Rows of the grid run down. {legend}</p><svg class="map" role="img" aria-label="map of cells" '
        f'width="{columns * unit:.0f}" viewBox="0 0 {columns * unit:.2f} {rows * unit:.2f}">{"".join(drawn)}</svg>'
    )


def _square(square: MapSquare, unit: float, reason: str) -> str:
    row, column = square.place
    done = (square.counts.get("mapped", 0) + square.counts.get("empty", 0)) / sum(square.counts.values())
    # A block that is done in part is paler, because its colour stands for most of its cells only.
    opacity = "" if square.side == 1 or square.state != "mapped" else f' fill-opacity="{0.35 + 0.65 * done:.2f}"'
    title = html.escape(f"{square.title}: {reason}" if reason else square.title)
    return (
        f'<rect x="{column * unit:.2f}" y="{row * unit:.2f}" width="{unit * 0.94:.2f}" height="{unit * 0.94:.2f}" '
        f'fill="{COLOURS[square.state]}"{opacity}><title>{title}</title></rect>'
    )
