"""Area of the target that the map of a year expects, by coarse cells and without a threshold; what has not changed is not read again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.rasters import MapReader
from rtsx.campaign.products.tables import CellStates, Record, group_by_partition, parse_partition
from rtsx.cube.cog import encoded_cog
from rtsx.cube.encoding import packing_attrs
from rtsx.cube.georeference import with_georeference
from rtsx.geometry.pixels import PixelMesh
from rtsx.scores.area import CellSums, SumCells

_SIDE_M, _SIDE_DEGREES = 10_000.0, 0.5
_ROWS = 256
"""Pixels that are summed at a time, along a cell's height."""

EXPECTED = ("expected_area_m2", "valid_area_m2")
"""Rasters, by the names that `rtsx area` has for them."""


@dataclass(frozen=True, kw_only=True)
class ExpectedArea:
    """Probability x ground, summed by cells of 10 km of the map's CRS, or of 0.5 degrees where that is geographic."""

    reader: MapReader
    """Of the probability."""
    states: CellStates
    """Finished cells."""

    @property
    def plan(self) -> CampaignPlan:
        """Of the year."""
        return self.reader.plan

    @cached_property
    def classes(self) -> Sequence[int]:
        """Places of those classes that are a target."""
        return [place for place, name in enumerate(self.plan.prediction.classes) if name != "background"]

    @cached_property
    def _kernel(self) -> SumCells:
        degrees = bool(CRS(self.plan.grid.crs).geographic)
        side = _SIDE_DEGREES if degrees else _SIDE_M
        return SumCells(mesh=PixelMesh(self.plan.geobox), side=side, degrees=degrees, levels=100)

    def sums(self, partition: str) -> Record:
        """Sums of a partition, as JSON values: `cells` (row upwards and column), and of each the areas by class and the valid one, m²."""
        plan, length = self.plan, self.plan.grid.cell_size
        found = [[CellSums.nothing()] for _ in self.classes]
        cells = (cell for cell, state in self.states.items() if not state.is_empty)
        for cell in group_by_partition(cells)[parse_partition(partition)]:
            top, left = (cell[0] - plan.rows[0]) * length, (cell[1] - plan.columns[0]) * length
            columns = slice(left, left + length)
            for start in range(top, top + length, _ROWS):
                rows = slice(start, min(start + _ROWS, top + length))
                pixels = self.reader.read(rows, columns)
                for place, parts in zip(self.classes, found, strict=True):
                    parts.append(self._kernel(pixels[place], (rows, columns)))
        joined = [reduce(add, parts) for parts in found]
        areas = np.column_stack([*(one.area_m2[:, 0] for one in joined), joined[0].area_m2[:, 1]])
        return {"cells": joined[0].cells.tolist(), "m2": areas.tolist()}

    def totals(self, records: Mapping[str, Record]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Cells of all partitions, each once, and their areas by class and the valid one, m²."""
        every = [records[name] for name in sorted(records)]
        width = len(self.classes) + 1
        stacked = np.concatenate([np.array(one["cells"], np.int64).reshape(-1, 2) for one in every])
        cells, place = np.unique(stacked, axis=0, return_inverse=True)
        areas = np.zeros((len(cells), width))
        np.add.at(
            areas, place.ravel(), np.concatenate([np.array(one["m2"], float).reshape(-1, width) for one in every])
        )
        return cells, areas

    def rasters(self, cells: NDArray[np.int64], areas: NDArray[np.float64]) -> Iterator[tuple[str, bytes]]:
        """Encode `EXPECTED` as cloud-optimised GeoTIFFs by name; -1 where nothing was mapped, a band for each class of several."""
        (bottom, left), (top, right) = cells.min(axis=0), cells.max(axis=0) + 1
        side = self._kernel.side
        affine = Affine(side, 0, left * side, 0, -side, top * side)
        geobox = GeoBox((int(top - bottom), int(right - left)), affine, self.crs)
        filled = np.full((areas.shape[1], *geobox.shape.yx), -1.0, np.float32)
        filled[:, top - 1 - cells[:, 0], cells[:, 1] - left] = areas.T
        names = [self.plan.prediction.classes[place] for place in self.classes]
        titles = ("Expected area of the target by cell, m²", "Ground with a valid probability by cell, m²")
        for name, values, long_name in zip(EXPECTED, (filled[:-1], filled[-1:]), titles, strict=True):
            several = len(values) > 1
            attrs = packing_attrs(np.dtype(np.float32), nodata=-1, units="m2", long_name=long_name)
            variable = xr.Variable(
                ("class", "y", "x") if several else ("y", "x"), values if several else values[0], attrs
            )
            cube = with_georeference({name: variable}, geobox, lattice_origin=(0.0, 0.0))
            yield name, encoded_cog(cube.assign_coords({"class": names}) if several else cube, name)

    @property
    def crs(self) -> str:
        """Of the rasters."""
        return "EPSG:4326" if self._kernel.degrees else self.plan.grid.crs

    @property
    def side(self) -> str:
        """Of a cell, for people."""
        return f"{_SIDE_DEGREES:g} degrees" if self._kernel.degrees else f"{_SIDE_M / 1000:g} km"
