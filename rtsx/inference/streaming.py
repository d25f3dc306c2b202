"""The streaming driver: one region of a raster, band by band, for those who write what is finished and let it go.

Tiles are those of the whole raster, so that a region is predicted as it would be within the whole; tiles whose support covers
pixels on both sides of its border are run for each side. Every pixel is read once, by a second thread while the band
before it is computed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.inference.device import Hardware, Pending, plain_memory, planes
from rtsx.inference.kernel import BlockInput, TileSums, crop, finished
from rtsx.inference.plan import Region, input_window
from rtsx.inference.runner import Runner
from rtsx.tiling import TileAxis, TileRange

# Pixels that the windows of one band or block of tiles may span, unless one tile spans more: larger ones are no faster.
_SPAN = 2048

ReadPixels = Callable[[Region], Mapping[str, NDArray[Any]]]
"""Gives the stored layers (y, x) of any pixels of the raster by name, and as `valid` those that the runner's plan can
trust, see `Runner.valid`. Called by one thread at a time, not that of the caller, but in its context."""


def predict_region(
    read: ReadPixels, region: Region, *, runner: Runner
) -> Iterator[tuple[slice, dict[str, NDArray[Any]]]]:
    """Predict one region of the plan's raster, from the top to the bottom.

    Memory is bounded by a band: the rows that the windows of a row of tiles span, as wide as what is read. On a GPU by as many as have
    the `Runner.tiles_ahead`, and one.

    Parameters
    ----------
    read
        Gives pixels; asked for whole bands of `input_window`, each pixel once, from the top to the bottom.
    region
        Which pixels of the raster.
    runner
        What runs, on the tiling of the whole raster.

    Yields
    ------
    tuple
        Rows of the raster, and of these rows and the region's columns the outputs by name, see `quantise`, and
        `valid`. The bands follow each other and together are the region.
    """
    tiling = runner.plan.tiling
    tiles = tiling.tiles_covering(region)
    across = input_window(tiling, region)[1]
    bands = [TileRange(rows, tiles.x) for rows in _parts(tiling.y, tiles.y)]
    windows, supports = ([rows_of(band)[0] for band in bands] for rows_of in (tiling.read_region, tiling.output_region))
    columns = _parts(tiling.x, tiles.x)
    ahead = runner.tiles_ahead(Hardware.of(runner.where))
    held = _Held(windows[0].start, across, {})
    running: deque[_Running] = deque()
    waiting: list[TileSums] = []
    done = region[0].start
    with ThreadPoolExecutor(1, thread_name_prefix="rtsx-read") as reader:
        coming = reader.submit(copy_context().run, held.extended, read, windows[0].stop)
        for number, (band, window) in enumerate(zip(bands, windows, strict=True)):
            is_last = band is bands[-1]
            if held.bottom < window.stop:  # not where the raster ends within the windows of the band above
                held = coming.result()
            held = held.below(window.start)
            if not is_last and windows[number + 1].stop > held.bottom:
                kept = held.below(windows[number + 1].start)
                coming = reader.submit(copy_context().run, kept.extended, read, windows[number + 1].stop)
            # What lies in the support of no tile of the bands below is finished.
            until = region[0].stop if is_last else min(supports[number + 1].start, region[0].stop)
            ranges = [TileRange(band.y, part) for part in columns]
            outputs = [runner.submit(held.window(each, runner), each) for each in ranges]
            running.append(_Running(outputs, held, until, n_tiles=len(band)))
            # Bands are waited for when those below have enough tiles to fill the last batch.
            while running and (is_last or sum(each.n_tiles for each in running) - running[0].n_tiles >= ahead):
                first = running.popleft()
                waiting += [crop(output.result(), region) for output in first.outputs]
                if first.until > done:
                    rows = slice(done, first.until)
                    valid = first.held.valid(rows, region[1])
                    yield rows, finished(waiting, (rows, region[1]), valid, plan=runner.plan) | {"valid": valid}
                    done = first.until
                    rest = (slice(done, region[0].stop), region[1])
                    waiting = [crop(output, rest) for output in waiting if output.region[0].stop > done]
                del first  # its pixels


@dataclass(frozen=True)
class _Running:
    """A band that was handed to the device."""

    outputs: "list[Pending[TileSums]]"
    """Of its parts."""
    held: "_Held"
    """Pixels that were in memory then."""
    until: int
    """The row down to which the raster is finished with it."""
    n_tiles: int


@dataclass(frozen=True)
class _Held:
    """Pixels of the rows that are in memory, `valid` among the layers."""

    top: int
    columns: slice
    """Columns of the raster."""
    pixels: Mapping[str, NDArray[Any]]
    """Arrays (y, x) by name; empty before anything was read."""

    @property
    def bottom(self) -> int:
        """The row after the last."""
        return self.top + (len(self.pixels["valid"]) if self.pixels else 0)

    def extended(self, read: ReadPixels, bottom: int) -> "_Held":
        """Read the rows that follow, down to `bottom`, and append them."""
        more = read((slice(self.bottom, bottom), self.columns))
        if not self.pixels:
            return _Held(self.top, self.columns, more)
        dtypes = {name: np.result_type(self.pixels[name], array) for name, array in more.items()}
        joint = planes((bottom - self.top, self.columns.stop - self.columns.start), dtypes, memory=plain_memory)
        for name, array in joint.items():
            n_kept = len(self.pixels[name])
            array[:n_kept], array[n_kept:] = self.pixels[name], more[name]
        return _Held(self.top, self.columns, joint)

    def below(self, row: int) -> "_Held":
        """Drop the rows above this one; they can be freed when the next ones are appended."""
        return _Held(row, self.columns, {name: array[row - self.top :] for name, array in self.pixels.items()})

    def window(self, tiles: TileRange, runner: Runner) -> BlockInput:
        """Build the input of tiles."""
        region = runner.plan.tiling.read_region(tiles)
        place = self._place(*region)
        return BlockInput(
            region=region,
            stored={name: self.pixels[name][place] for name in runner.plan.layers},
            packings=runner.packings,
            valid=self.pixels["valid"][place],
        )

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return where pixels can be trusted, as its own memory."""
        return self.pixels["valid"][self._place(rows, columns)].copy()

    def _place(self, rows: slice, columns: slice) -> Region:
        left = self.columns.start
        return slice(rows.start - self.top, rows.stop - self.top), slice(columns.start - left, columns.stop - left)


def _parts(axis: TileAxis, tiles: range) -> Sequence[range]:
    """Group tiles along one axis, as many together as their windows span `_SPAN` pixels; one at least."""
    many = max(1, (_SPAN - axis.overlap) // axis.step)
    return [tiles[start : start + many] for start in range(0, len(tiles), many)]
