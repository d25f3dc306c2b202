"""Room for the overviews in the map: groups with the arrays of the map at half the size each."""

from typing import Any

import numpy as np
import xarray as xr
import zarr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from zarr.abc.store import Store

from rtsx.campaign.map import ANSWERS
from rtsx.campaign.plan import CampaignPlan
from rtsx.cube.geozarr import spatial_attrs
from rtsx.cube.levels import Levels, codec_for, root_attrs
from rtsx.cube.zarr import LAYERS, consolidate

__all__ = ["array_of", "prepare_levels"]

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
    told = zarr.open_group(store, mode="r+")
    attrs: dict[str, Any] = told.attrs.asdict()
    wanted = {key: value for key, value in attrs.items() if not key.startswith(_OF_SHAPE)} | root_attrs(levels)
    if wanted != attrs:
        told.attrs.put(wanted)
    return zarr.open_group(store, mode="r+", use_consolidated=False)


def array_of(group: zarr.Group, name: str, *, level: str) -> "zarr.Array[Any]":
    """An array of a level; ``"."`` is the root."""
    array = group[name if level == "." else f"{level}/{name}"]
    assert isinstance(array, zarr.Array)  # we created it
    return array


def _is_untold(group: zarr.Group, levels: Levels) -> bool:
    """Whether readers do not know of all room that there is, as where a run was stopped before it said so.

    Not while another run is adding a year, of which readers are not to be told before it is whole; it will tell them.
    """
    years = array_of(group, "time", level=".").shape[0]
    parts = [(name, part) for name, _ in levels[1:] for part in (*ANSWERS, "time")]
    there = {place: array_of(group, place[1], level=place[0]).shape for place in parts}
    known = {name: zarr.open_group(group.store, path=name, mode="r").metadata for name, _ in levels[1:]}
    told = {
        (name, part): getattr(node, "shape", None)
        for name, metadata in known.items()
        if metadata.consolidated_metadata is not None
        for part, node in metadata.consolidated_metadata.metadata.items()
    }
    return all(shape[0] == years for shape in there.values()) and any(
        told.get(place) != shape for place, shape in there.items()
    )


def _prepare(group: zarr.Group, name: str, geobox: GeoBox, *, plan: CampaignPlan) -> None:
    """Make a level, or what is missing of it."""
    level = group.require_group(name)
    if any(part not in level for part in (*ANSWERS, "time", "x", "y", "spatial_ref")):
        _create(group, name, geobox, plan=plan)
    times = np.asarray(array_of(group, "time", level=".")[:])
    stored = array_of(group, "time", level=name)
    if np.array_equal(np.asarray(stored[:]), times):
        return
    for part in (*ANSWERS, "time"):  # the time last, so that a step which can be found is there in all
        array = array_of(group, part, level=name)
        array.resize((len(times), *array.shape[1:]))
    stored = array_of(group, "time", level=name)
    stored[:] = times


def _create(group: zarr.Group, name: str, geobox: GeoBox, *, plan: CampaignPlan) -> None:
    several = {"class": np.array(plan.prediction.classes, object)} if len(plan.prediction.classes) > 1 else {}
    coords = xr.Dataset(coords=xr_coords(geobox, always_yx=True)).assign_coords(several).drop_encoding()
    coords.to_zarr(group.store, group=name, mode="a", zarr_format=3, consolidated=False)
    level = group.require_group(name)
    for part in (*ANSWERS, "time"):
        full = array_of(group, part, level=".")
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
            compressors="auto" if is_time else (codec_for(part, np.dtype(full.dtype)),),
            attributes=full.attrs.asdict(),
            dimension_names=full.metadata.dimension_names,
        )
    level.update_attributes({LAYERS: list(ANSWERS), **spatial_attrs(geobox)})
