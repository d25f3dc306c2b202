"""Overviews of the map: the groups ``2x``, ``4x``, ... kept up to date shard by shard."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.abc.store import Store
from zarr.errors import ZarrUserWarning

from rtsx.campaign.cells import Address
from rtsx.campaign.layout import YearLayout
from rtsx.campaign.map import array_of, map_store, map_turn, map_year, named_damage, open_map, stored_variables
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.products.tables import CellStates, Records, group_by_partition
from rtsx.cube.encoding import packing
from rtsx.cube.write import (
    Levels,
    Reduction,
    compressor_for,
    halve,
    overviews_of,
    reduction_of,
    root_attrs,
    spatial_attrs,
)
from rtsx.grid.grid import cell_id, parse_cell_id
from rtsx.inference.plan import Region
from rtsx.storage.object_store import ObjectStore
from rtsx.storage.zarr import LAYERS, consolidate

Shard = tuple[int, int]
"""Row and column of a shard in its level."""


@dataclass(frozen=True, kw_only=True)
class OverviewPlan:
    """Levels of half the resolution each, all cut into shards of one side.

    Examples
    --------
    >>> plan = OverviewPlan(shape=(5000, 3000), side=512, count=3)
    >>> plan.shapes
    ((5000, 3000), (2500, 1500), (1250, 750), (625, 375))
    >>> plan.touched([(slice(0, 1024), slice(1024, 2048))])
    (((0, 1),), ((0, 0),), ((0, 0),))
    >>> plan.source(1, (4, 2)), plan.target(1, (4, 2))
    ((slice(4096, 5000, None), slice(2048, 3000, None)), (slice(2048, 2500, None), slice(1024, 1500, None)))
    """

    shape: tuple[int, int]
    """Height and width of the full resolution, px."""
    side: int
    """Side of a shard, px of its level."""
    count: int
    """Levels below the full resolution."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level, the full resolution first; odd sides are rounded up."""
        shapes = [self.shape]
        for _ in range(self.count):
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return tuple(shapes)

    def touched(self, regions: Iterable[Region]) -> tuple[tuple[Shard, ...], ...]:
        """Shards of each level, from the finest, that show some of these pixels of the full resolution; sorted."""
        step = 2 * self.side
        shards = {
            (i, j)
            for y, x in regions
            for i in range(y.start // step, -(-y.stop // step))
            for j in range(x.start // step, -(-x.stop // step))
        }
        levels = []
        for _ in range(self.count):
            levels.append(tuple(sorted(shards)))
            shards = {(i // 2, j // 2) for i, j in shards}
        return tuple(levels)

    def source(self, level: int, shard: Shard) -> Region:
        """Return the pixels of the level above that a shard of a level (from 1) is made of."""
        return self._window(shard, shape=self.shapes[level - 1], step=2 * self.side)

    def target(self, level: int, shard: Shard) -> Region:
        """Return the pixels of a level (from 1) that a shard holds."""
        return self._window(shard, shape=self.shapes[level], step=self.side)

    @staticmethod
    def _window(shard: Shard, *, shape: tuple[int, int], step: int) -> Region:
        y, x = (
            slice(index * step, min((index + 1) * step, length)) for index, length in zip(shard, shape, strict=True)
        )
        return y, x


_OF_SHAPE = ("spatial:", "proj:", "multiscales", "zarr_conventions")
"""Root attributes that say other things with overviews than without."""


def prepare_levels(store: Store, levels: Levels, *, plan: CampaignPlan) -> zarr.Group:
    """Make room for every year of the map in every level; called again, it does what is left. Returns the root.

    Parameters
    ----------
    store
        The map, with full resolution in its root.
    levels
        The root and at least one level below it.
    plan
        Whose chunks and shards they have.
    """
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    for name, geobox in levels[1:]:
        _prepare(group, name, geobox, plan=plan)
    if _is_untold(group, levels):
        consolidate(store)
    # The attributes last, because readers find levels by them; in a group that knows what is consolidated, which would be
    # dropped otherwise.
    group = zarr.open_group(store, mode="r+")
    attrs: dict[str, Any] = group.attrs.asdict()
    wanted = {key: value for key, value in attrs.items() if not key.startswith(_OF_SHAPE)} | root_attrs(levels)
    if wanted != attrs:
        group.attrs.put(wanted)
    return zarr.open_group(store, mode="r+", use_consolidated=False)


def _is_untold(group: zarr.Group, levels: Levels) -> bool:
    """Whether readers do not know of all room that there is, as where a run was stopped before it said so.

    Not while another run is adding a year, which readers are not to see before it is whole; it will show it.
    """
    years = array_of(group, "time").shape[0]
    parts = [(name, part) for name, _ in levels[1:] for part in (*stored_variables(group), "time")]
    there = {place: array_of(group, place[1], level=place[0]).shape for place in parts}
    known = {name: zarr.open_group(group.store, path=name, mode="r").metadata for name, _ in levels[1:]}
    listed = {
        (name, part): getattr(node, "shape", None)
        for name, metadata in known.items()
        if metadata.consolidated_metadata is not None
        for part, node in metadata.consolidated_metadata.metadata.items()
    }
    return all(shape[0] == years for shape in there.values()) and any(
        listed.get(place) != shape for place, shape in there.items()
    )


def _prepare(group: zarr.Group, name: str, geobox: GeoBox, *, plan: CampaignPlan) -> None:
    """Make a level, or what is missing of it."""
    level = zarr.open_group(group.store, path=name, mode="a", zarr_format=3, use_consolidated=False)
    parts = (*stored_variables(group), "time")  # the time last, so that a step which can be found is there in all
    if LAYERS not in level.attrs or any(part not in level for part in (*parts, "x", "y", "spatial_ref")):
        _create(group, name, geobox, plan=plan)
    times = np.asarray(array_of(group, "time")[:])
    arrays = [array_of(group, part, level=name) for part in parts]
    is_whole = all(array.shape[0] == len(times) for array in arrays)
    if is_whole and np.array_equal(np.asarray(arrays[-1][:]), times):
        return
    for array in arrays:
        array.resize((len(times), *array.shape[1:]))
    array_of(group, "time", level=name)[:] = times


def _create(group: zarr.Group, name: str, geobox: GeoBox, *, plan: CampaignPlan) -> None:
    several = {"class": np.array(plan.prediction.classes, object)} if len(plan.prediction.classes) > 1 else {}
    coords = xr.Dataset(coords=xr_coords(geobox, always_yx=True)).assign_coords(several).drop_encoding()
    with warnings.catch_warnings():
        # What has lost its metadata gets it here.
        warnings.filterwarnings("ignore", message="Object at .* is not recognized", category=ZarrUserWarning)
        coords.to_zarr(group.store, group=name, mode="a", zarr_format=3, consolidated=False)
    level = zarr.open_group(group.store, path=name, mode="a", zarr_format=3, use_consolidated=False)
    for part in (*stored_variables(group), "time"):
        full = array_of(group, part)
        if part in level:
            continue
        is_time = part == "time"
        ones = (1,) * (full.ndim - 2)
        assert full.metadata.zarr_format == 3  # we created it
        level.create_array(
            part,
            shape=(0,) if is_time else (0, *full.shape[1:-2], *geobox.shape.yx),
            chunks=full.chunks if is_time else (*ones, plan.chunk, plan.chunk),
            shards=None if is_time else (*ones, plan.shard, plan.shard),
            dtype=full.dtype,
            fill_value=full.fill_value,
            compressors="auto" if is_time else (compressor_for(part, np.dtype(full.dtype)),),
            attributes=full.attrs.asdict(),
            dimension_names=full.metadata.dimension_names,
        )
    level.update_attributes({LAYERS: list(stored_variables(group)), **spatial_attrs(geobox)})


_AT_ONCE = 1000
"""Tasks that dask is given at a time, so that its graph does not grow with the map."""
_UNKNOWN = "?"
"""Recorded of a cell whose overviews are being written: no digest, so that they are written again after a stop."""

Rule = tuple[Reduction, float | None]
"""How four pixels of a variable become one, and its stored value of nodata."""


def collect_overviews(
    output: str, plan: CampaignPlan, states: CellStates, *, objects: ObjectStore, options: Mapping[str, Any]
) -> int:
    """Bring the overviews of a year up to date; how many shards were made again, of each variable.

    Every shard is a dask task of its own, on the scheduler that is in force; a level is done before the next is begun.
    Ground of cells without a mark is left out, whatever has been written there. All levels are those that `write_cube`
    makes of the map.
    """
    levels = overviews_of(plan.geobox, overviews=True)
    if len(levels) == 1:
        return 0
    store = map_store(output, options)
    with map_turn(output, options):
        group = prepare_levels(store, levels, plan=plan)
    records = Records(objects, f"{YearLayout(plan.year).products}/collected/overviews")
    now = {cell: state.map for cell, state in states.items() if state.map}
    changed = _changes(records, now)
    overviews = OverviewPlan(shape=plan.shape, side=plan.shard, count=len(levels) - 1)
    touched = overviews.touched(plan.region(cell) for cell in sorted(changed))
    variables = open_map(output, storage_options=options)
    rules: dict[str, Rule] = {
        name: (reduction_of(variables[name]), packing(variables[name])["nodata"]) for name in stored_variables(group)
    }
    time = map_year(group, plan.year)
    for number, ((above, _), (name, _)) in enumerate(pairwise(levels), start=1):
        step = _Step(store=store, above=above, level=name, time=time, rules=rules)
        _run(step, _jobs(overviews, number, touched[number - 1], plan=plan, mapped=now))
    _write(records, now, changed)
    return sum(map(len, touched))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """From one level to the next; a value that pickles."""

    store: Store
    above: str
    level: str
    time: int
    rules: Mapping[str, Rule]

    def __call__(self, source: Region, target: Region, blank: Sequence[Region]) -> None:
        """Make one shard of every variable: `source` and `target` in pixels of their levels, `blank` in those of `source`."""
        group = zarr.open_group(self.store, mode="r+", use_consolidated=False)
        for name, (reduction, nodata) in self.rules.items():
            finer = array_of(group, name, level=self.above)
            read, written = (self.time, ..., *source), (self.time, ..., *target)
            with named_damage(finer, read):
                block = np.array(finer[read])
            for window in blank:
                block[(..., *window)] = finer.fill_value
            coarser = array_of(group, name, level=self.level)
            # A shard of nothing but nodata is not stored, and removed where there was one.
            with named_damage(coarser, written):
                coarser[written] = halve(block, reduction=reduction, nodata=nodata)


Job = tuple[Region, Region, tuple[Region, ...]]


def _jobs(
    overviews: OverviewPlan, level: int, shards: Sequence[Shard], *, plan: CampaignPlan, mapped: Mapping[Address, str]
) -> Iterator[Job]:
    for shard in shards:
        source = overviews.source(level, shard)
        # Below the first level there is nothing left of cells without a mark.
        blank = _blank(source, plan=plan, mapped=mapped) if level == 1 else ()
        yield source, overviews.target(level, shard), blank


def _blank(source: Region, *, plan: CampaignPlan, mapped: Mapping[Address, str]) -> tuple[Region, ...]:
    """Parts of a region that no finished cell has written, counted from its corner."""
    top, left = (part.start for part in source)
    return tuple(
        (slice(y.start - top, y.stop - top), slice(x.start - left, x.stop - left))
        for cell, (y, x) in plan.cells_under(*source)
        if cell not in mapped
    )


def _run(step: _Step, jobs: Iterator[Job]) -> None:
    make = delayed(step, pure=False, traverse=False)
    while batch := list(islice(jobs, _AT_ONCE)):
        compute([make(*job) for job in batch], optimize_graph=False)


def _changes(records: Records, now: Mapping[Address, str]) -> set[Address]:
    """List the cells whose pixels are not those that the overviews were made of; recorded as unknown before any is touched."""
    before: dict[Address, str] = {}
    for record in records.read().values():
        before |= {parse_cell_id(name): digest for name, digest in record["cells"].items()}
    changed = {cell for cell in before.keys() | now.keys() if before.get(cell) != now.get(cell)}
    doubtful = {cell: _UNKNOWN if cell in changed else digest for cell, digest in (before | dict(now)).items()}
    _write(records, doubtful, changed)
    return changed


def _write(records: Records, digests: Mapping[Address, str], changed: set[Address]) -> None:
    """Write down the partitions that changed cells are in."""
    parts = group_by_partition(digests)
    for partition in group_by_partition(changed):
        cells = {cell_id(*cell): digests[cell] for cell in parts.get(partition, ())}
        if cells:
            records.put(partition, {"cells": cells})
        else:
            records.take_back(partition)
