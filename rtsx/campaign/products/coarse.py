"""A delivery at a glance: the greatest probability of coarse pixels, a picture of it, and objects and expected area by cells."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from math import log
from operator import add
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.rasters import MapReader, encoded_bands, native_size
from rtsx.campaign.products.tables import (
    SIDE,
    CellStates,
    Record,
    group_by_partition,
    mapped_cells,
    partition_of,
    partition_sources,
)
from rtsx.cube.encoding import packing_attrs
from rtsx.geometry.crs import transform
from rtsx.geometry.pixels import PixelMesh
from rtsx.grid.grid import parse_cell_id
from rtsx.inference.kernel import NODATA
from rtsx.scores.estimates import CellSums, SumCells

_PIXEL_M = 95.0
"""Side of a coarse pixel on the ground, m, or what is nearest to it: a power of two of the map's pixels."""
DENSITY_M = 10_000.0
"""Side of a cell of the density grids, m."""
_SIDE_M, _SIDE_DEGREES = 10_000.0, 0.5
"""Sides of cells of expected area."""
_ROWS = 256
"""Pixels that are summed at a time, along a cell's height."""
EXPECTED = ("expected_area_m2", "valid_area_m2")
"""Rasters of expected area, by the names that `rtsx area` has for them."""
_THUMBNAIL = 512
"""Pixels along the longer side of the picture."""

RAMP: tuple[tuple[float, str], ...] = (
    (0.0, "#f4f4f0"),
    (0.1, "#ffffcc"),
    (0.25, "#fed976"),
    (0.4, "#feb24c"),
    (0.55, "#fd8d3c"),
    (0.7, "#fc4e2a"),
    (0.85, "#e31a1c"),
    (1.0, "#800026"),
)
"""Colours of probabilities, between which they are interpolated."""


def colour_table() -> dict[int, tuple[int, int, int, int]]:
    """Return colours (red, green, blue, alpha) of stored probabilities, per cent, and of missing pixels."""
    stops = [100 * probability for probability, _ in RAMP]
    channels = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for _, colour in RAMP])
    mixed = np.stack([np.interp(np.arange(101), stops, channel) for channel in channels.T], axis=-1).round().astype(int)
    table = dict.fromkeys(range(256), (0, 0, 0, 0))
    return table | {value: (red, green, blue, 255) for value, (red, green, blue) in enumerate(mixed.tolist())}


def greatest(stored: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Take the greatest of blocks of `step` x `step` pixels ([class,] y, x) in per cent, over classes too; 255 is missing, as is what lies outside."""
    *_, height, width = stored.shape
    rows, columns = -(-height // step), -(-width // step)
    # One more makes 255 the least.
    more = np.reshape(stored, (-1, height, width)) + np.uint8(1)
    padded = np.pad(more, ((0, 0), (0, rows * step - height), (0, columns * step - width)))
    return np.asarray(padded.reshape(-1, rows, step, columns, step).max(axis=(0, 2, 4)) - np.uint8(1))


@dataclass(frozen=True, kw_only=True)
class MapSummary:
    """What is computed of the probability of a whole map."""

    reader: MapReader
    """Of the probability."""
    states: CellStates
    """Finished cells."""

    @property
    def plan(self) -> CampaignPlan:
        """Of the year."""
        return self.reader.plan

    @cached_property
    def targets(self) -> dict[str, int]:
        """Places of the classes that are a target, by name."""
        return {name: place for place, name in enumerate(self.plan.prediction.classes) if name != "background"}


@dataclass(frozen=True, kw_only=True)
class CoarseMap(MapSummary):
    """The greatest probability of any class but the background, in blocks of pixels of the map."""

    @cached_property
    def factor(self) -> int:
        """Pixels of the map along a coarse one."""
        side: int = self.plan.grid.cell_size
        wanted: float = _PIXEL_M / native_size(self.plan, equal_area_crs(self.plan))
        factors: list[int] = [2**power for power in range(side.bit_length()) if side % 2**power == 0]
        return min(factors, key=lambda factor: abs(log(factor / wanted)))

    @cached_property
    def sources(self) -> dict[str, str]:
        """What each partition of the map is made of: digests by its name."""
        return partition_sources(self.states)

    def encode(self, before: bytes | None, known: Mapping[str, str]) -> bytes:
        """Encode it as a cloud-optimised GeoTIFF with a colour table, pixel by pixel a function of the map alone.

        Parameters
        ----------
        before
            An earlier one of the same plan, of which partitions that have not changed are taken; None for none.
        known
            What its partitions were made of.
        """
        plan, factor = self.plan, self.factor
        side = plan.grid.cell_size // factor
        chunks = tuple(tuple(length * side for length in _parts(*ends)) for ends in (plan.rows, plan.columns))

        def block(block_info: Any = None) -> NDArray[np.uint8]:
            (top, bottom), (left, right) = block_info[None]["array-location"]
            name = partition_of((plan.rows[0] + top // side, plan.columns[0] + left // side))
            window = Window.from_slices((top, bottom), (left, right))
            if before is not None and known.get(name, "") == self.sources.get(name, ""):
                with rasterio.MemoryFile(before) as memory, memory.open() as file:
                    return np.asarray(file.read(1, window=window), np.uint8)
            return self._block(name, (bottom - top, right - left), corner=(top, left))

        pixels = da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))[None]
        attrs = packing_attrs(
            np.dtype(np.uint8), scale_factor=0.01, nodata=NODATA, units="1", long_name="Greatest probability"
        )
        geobox = GeoBox(pixels.shape[1:], plan.geobox.affine * Affine.scale(factor), plan.geobox.crs)
        name, colours = "greatest_probability", colour_table()
        return encoded_bands(name, pixels, geobox, names=(name,), attrs=attrs, anchor=plan.grid.origin, colours=colours)

    def _block(self, name: str, shape: tuple[int, int], *, corner: tuple[int, int]) -> NDArray[np.uint8]:
        """Make the coarse pixels of a partition."""
        found = np.full(shape, NODATA, np.uint8)
        plan, factor = self.plan, self.factor
        side = plan.grid.cell_size // factor
        row, column = parse_cell_id(name)
        for cell in ((row * SIDE + y, column * SIDE + x) for y in range(SIDE) for x in range(SIDE)):
            if cell in self.states and not self.states[cell].is_empty:
                y, x = plan.region(cell)
                top, left = y.start // factor - corner[0], x.start // factor - corner[1]
                pixels = self.reader.read(y, x)[[*self.targets.values()]]
                found[top : top + side, left : left + side] = greatest(pixels, factor)
        return found


def _parts(first: int, stop: int) -> list[int]:
    """Return cells of a range in each partition."""
    edges = [first, *range((first // SIDE + 1) * SIDE, stop, SIDE), stop]
    return [high - low for low, high in pairwise(edges)]


def thumbnail(coarse: bytes) -> bytes:
    """Draw a coarse map as a small PNG: of each pixel the greatest probability, transparent where there is none."""
    with rasterio.MemoryFile(coarse) as memory, memory.open() as file:
        step = max(-(-max(file.shape) // _THUMBNAIL), 1)
        height, width = (-(-length // step) for length in file.shape)
        rows = np.empty((height, width), np.uint8)
        for number in range(height):
            window = Window(0, number * step, file.width, min(step, file.height - number * step))
            rows[number] = greatest(file.read(1, window=window), step)
    return probability_png(rows)


def probability_png(stored: NDArray[np.uint8]) -> bytes:
    """Draw probabilities (y, x) in per cent, 255 where there is none, in the colours of `colour_table`."""
    table = np.array(list(colour_table().values()), np.uint8)
    height, width = stored.shape
    with rasterio.MemoryFile() as memory:
        # The transform means nothing, but rasterio warns of rasters without one.
        turned = Affine(1, 0, 0, 0, -1, height)
        with memory.open(driver="PNG", width=width, height=height, count=4, dtype="uint8", transform=turned) as picture:
            picture.write(np.moveaxis(table[stored], -1, 0))
        content: bytes = memory.read()
    return content


def equal_area_crs(plan: CampaignPlan) -> CRS:
    """Return the projection of EASE-Grid 2.0 of the map's hemisphere, which is equal-area."""
    grid = plan.grid
    side = grid.cell_size * grid.resolution
    rows, columns = plan.cells.addresses.mean(axis=0) + 0.5
    x, y = np.array([grid.origin[0] + columns * side]), np.array([grid.origin[1] - rows * side])
    _, latitude = transform(x, y, source=CRS(grid.crs), target=CRS("EPSG:4326"))
    return CRS("EPSG:6931" if latitude[0] >= 0 else "EPSG:6932")


def density_grids(plan: CampaignPlan, states: CellStates, outlines: pd.DataFrame) -> Iterator[tuple[str, bytes]]:
    """Encode objects by cells of equal area, as cloud-optimised GeoTIFFs: their number, and their area in km².

    Cells that no ground of the map meets are missing; an object counts where its centroid lies.

    Parameters
    ----------
    plan
        Of the year.
    states
        Finished cells.
    outlines
        `centroid_lon`, `centroid_lat` and `area_m2` of all objects.
    """
    crs = equal_area_crs(plan)
    mapped = np.unique(np.floor(_samples(plan, states, crs) / DENSITY_M).astype(np.int64), axis=0)
    lonlat = (outlines[name].to_numpy(np.float64) for name in ("centroid_lon", "centroid_lat"))
    x, y = transform(*lonlat, source=CRS("EPSG:4326"), target=crs)
    found = np.floor(np.stack([x, y], axis=-1) / DENSITY_M).astype(np.int64)
    geobox, places = _raster_of(np.concatenate([mapped, found])[:, ::-1], side=DENSITY_M, crs=crs)
    areas = outlines["area_m2"].to_numpy(np.float64) / 1e6
    for name, values, long_name in (
        ("density_count", np.ones(len(areas)), "Objects by cell"),
        ("density_area_km2", areas, "Area of objects by cell, km²"),
    ):
        sums = np.full(geobox.shape.yx, -1.0)
        sums[places] = 0
        np.add.at(sums, tuple(along[len(mapped) :] for along in places), values)
        attrs = packing_attrs(np.dtype(np.float32), nodata=-1, long_name=long_name)
        yield name, encoded_bands(name, sums.astype(np.float32)[None], geobox, names=(name,), attrs=attrs)


def _raster_of(
    cells: NDArray[np.int64], *, side: float, crs: CRS | str
) -> tuple[GeoBox, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the raster that holds cells (cell, 2), by row upwards and column, and their rows and columns in it."""
    (bottom, left), (top, right) = cells.min(axis=0), cells.max(axis=0) + 1
    affine = Affine(side, 0, left * side, 0, -side, top * side)
    geobox = GeoBox((int(top - bottom), int(right - left)), affine, crs)
    return geobox, (top - 1 - cells[:, 0], cells[:, 1] - left)


def _samples(plan: CampaignPlan, states: CellStates, crs: CRS) -> NDArray[np.float64]:
    """Return points (n, 2) in all finished cells with a map, at most a quarter of a cell of the grids apart."""
    grid = plan.grid
    side = grid.cell_size * grid.resolution
    steps = int(np.ceil(4 * grid.cell_size * native_size(plan, crs) / DENSITY_M)) + 1
    cells = mapped_cells(states)
    inside = (np.arange(steps) + 0.5) / steps
    rows, columns = (np.array([cell[axis] for cell in cells])[:, None, None] for axis in (0, 1))
    x = grid.origin[0] + (columns + inside[None, None]) * side
    y = grid.origin[1] - (rows + inside[None, :, None]) * side
    x, y = (part.ravel() for part in np.broadcast_arrays(x, y))
    return np.stack(transform(x, y, source=CRS(grid.crs), target=crs), axis=-1)


@dataclass(frozen=True, kw_only=True)
class ExpectedArea(MapSummary):
    """Probability x ground, summed by cells of 10 km of the map's CRS, or of 0.5 degrees where that is geographic."""

    @cached_property
    def _kernel(self) -> SumCells:
        degrees = bool(CRS(self.plan.grid.crs).geographic)
        side = _SIDE_DEGREES if degrees else _SIDE_M
        return SumCells(mesh=PixelMesh(self.plan.geobox), side=side, degrees=degrees, levels=100)

    def sums(self, partition: str) -> Record:
        """Return sums of a partition, as JSON values: `cells` (row upwards and column), and of each the areas by class and the valid one, m²."""
        found = [[CellSums.nothing()] for _ in self.targets]
        for cell in group_by_partition(mapped_cells(self.states))[partition]:
            whole, columns = self.plan.region(cell)
            for start in range(whole.start, whole.stop, _ROWS):
                rows = slice(start, min(start + _ROWS, whole.stop))
                pixels = self.reader.read(rows, columns)
                for place, parts in zip(self.targets.values(), found, strict=True):
                    parts.append(self._kernel(pixels[place], (rows, columns)))
        joined = [reduce(add, parts) for parts in found]
        areas = np.column_stack([*(one.area_m2[:, 0] for one in joined), joined[0].area_m2[:, 1]])
        return {"cells": joined[0].cells.tolist(), "m2": areas.tolist()}

    def totals(self, records: Mapping[str, Record]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return cells of all partitions, each once, and their areas by class and the valid one, m²."""
        every = [records[name] for name in sorted(records)]
        width = len(self.targets) + 1
        stacked = np.concatenate([np.array(one["cells"], np.int64).reshape(-1, 2) for one in every])
        cells, place = np.unique(stacked, axis=0, return_inverse=True)
        areas, found = np.zeros((len(cells), width)), [np.array(one["m2"], float).reshape(-1, width) for one in every]
        np.add.at(areas, place.ravel(), np.concatenate(found))
        return cells, areas

    def rasters(self, cells: NDArray[np.int64], areas: NDArray[np.float64]) -> Iterator[tuple[str, bytes]]:
        """Encode `EXPECTED` as cloud-optimised GeoTIFFs by name; -1 where nothing was mapped, a band for each class of several."""
        geobox, places = _raster_of(cells, side=self._kernel.side, crs=self.crs)
        filled = np.full((areas.shape[1], *geobox.shape.yx), -1.0, np.float32)
        filled[:, *places] = areas.T
        titles = ("Expected area of the target by cell, m²", "Ground with a valid probability by cell, m²")
        for name, values, long_name in zip(EXPECTED, (filled[:-1], filled[-1:]), titles, strict=True):
            attrs = packing_attrs(np.dtype(np.float32), nodata=-1, units="m2", long_name=long_name)
            yield name, encoded_bands(name, values, geobox, names=[*self.targets], attrs=attrs)

    @property
    def crs(self) -> str:
        """Of the rasters."""
        return "EPSG:4326" if self._kernel.degrees else self.plan.grid.crs

    @property
    def side(self) -> str:
        """Of a cell, for people."""
        return f"{_SIDE_DEGREES:g} degrees" if self._kernel.degrees else f"{_SIDE_M / 1000:g} km"
