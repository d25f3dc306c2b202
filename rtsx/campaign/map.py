"""The map of a campaign: one sparse Zarr group for all years, created whole before a cell is run, filled shard by shard.

`probability` and `binary` are cut into the plan's shards; the one shard of `valid` is a whole cell. A task writes it last of
all, so that whoever trusts `valid` sees each cell whole or not at all.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr
import zarr
from odc.geo.xr import xr_coords
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError

from rtsx.campaign.layout import MAP
from rtsx.campaign.plan import CampaignPlan
from rtsx.campaign.retrying import RetryingStore
from rtsx.campaign.s3fs import is_s3, single_attempts
from rtsx.cube import open_cube
from rtsx.cube.description import difference
from rtsx.cube.geozarr import spatial_attrs
from rtsx.cube.levels import codec_for
from rtsx.cube.zarr import COMPLETE, LAYERS, consolidate, open_group, store_of
from rtsx.errors import CampaignError, OutputExistsError, OutputNotWritableError
from rtsx.inference.answers import NODATA
from rtsx.inference.prediction import answer_attributes

__all__ = ["ANSWERS", "create_map", "map_path", "map_store", "map_year", "open_map"]

ANSWERS = ("probability", "binary", "valid")
"""Variables of the map, `valid` last, as it is written."""

_IDENTITY = "rtsx:map"
"""Root attribute: what all years have in common."""
_YEARS = "rtsx:years"
"""Root attribute: what each year was made with."""
_NO_DAY = -1
"""Stored day of a step whose creation was stopped; no first of January."""
_EPOCH = np.datetime64("1970-01-01", "D")


def map_path(output: str) -> str:
    """Path or URL of the map of an output."""
    return f"{output.rstrip('/')}/{MAP}"


def map_store(output: str, storage_options: Mapping[str, Any]) -> Store:
    """The Zarr store of the map, for writing; calls are tried again while their errors can pass. Touches nothing."""
    options = single_attempts(storage_options) if is_s3(output) else storage_options
    return RetryingStore(store_of(map_path(output), options, read_only=False))


def create_map(output: str, plan: CampaignPlan, *, storage_options: Mapping[str, Any]) -> None:
    """Make room for the year of a plan: all arrays, or one more step of `time` in those that are there.

    Called again, or after it was stopped half way, it ends the same. Readers see the new step when all of it is there.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    plan
        What is going to be written.
    storage_options
        For fsspec, where `output` is a URL.

    Raises
    ------
    CampaignError
        The map that is there has another grid, extent, classes or shards; the first difference is named.
    OutputExistsError
        Something is there that is no map of a campaign.
    OutputNotWritableError
        Nothing can be written there.
    """
    if plan.prediction.dtype != "uint8" or plan.prediction.keep_members:
        raise CampaignError(
            "A campaign stores probability in per cent (dtype='uint8') and no single members; the plan has "
            f"dtype={plan.prediction.dtype!r} and keep_members={plan.prediction.keep_members}."
        )
    store = map_store(output, storage_options)
    group = _opened(store, map_path(output))
    if group is None or _IDENTITY not in group.attrs:
        group = _created(store, plan, path=map_path(output))
    found = difference(group.attrs[_IDENTITY], _identity(plan), name="")
    if found is not None:
        raise CampaignError(
            f"{map_path(output)} was made for another map: {found}. Years share a map where grid, extent, classes and shards "
            "are the same: make them so, or choose another output."
        )
    # Only where something is new, because another run may be adding a year, of which readers are not to be told before it is whole.
    if _add_year(group, plan) or not _is_consolidated(group, plan.year):
        consolidate(store)


def map_year(group: zarr.Group, year: int) -> int:
    """Index of a year along `time`.

    Raises
    ------
    CampaignError
        The map has no room for it.
    """
    days = [_EPOCH + np.timedelta64(int(day), "D") for day in np.asarray(_array(group, "time")[:])]
    years = [int(day.astype("datetime64[Y]").astype(int)) + 1970 for day in days]
    if year not in years:
        raise CampaignError(f"The map has the years {years}, and {year} is not among them. Create the campaign first.")
    return years.index(year)


def open_map(output: str, *, storage_options: Mapping[str, Any]) -> xr.Dataset:
    """The map of all years, lazily, as `open_cube` opens a prediction; years in order.

    Cells that are not done read as invalid. Provenance that all years share is in the attributes.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    storage_options
        For fsspec, where `output` is a URL.

    Raises
    ------
    CubeError
        There is no map.
    """
    path = map_path(output)
    attrs: dict[str, Any] = open_group(path, storage_options).attrs.asdict()
    shard = attrs.get(_IDENTITY, {}).get("shard", "auto")
    cube = open_cube(path, chunks=shard, storage_options=storage_options or None)
    if not cube.indexes["time"].is_monotonic_increasing:
        cube = cube.sortby("time")
    facts = list(attrs.get(_YEARS, {}).values())
    shared = {
        key: value for key, value in (facts[0] if facts else {}).items() if all(one.get(key) == value for one in facts)
    }
    return cube.assign_attrs(shared)


def _opened(store: Store, path: str) -> zarr.Group | None:
    """The group that is there; None where nothing is, or a creation that was stopped."""
    try:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    except (GroupNotFoundError, FileNotFoundError):
        return None
    except (NotADirectoryError, ContainsArrayError) as error:
        raise OutputExistsError(f"{path} exists and is no map of a campaign. Choose another output.") from error
    if _IDENTITY not in group.attrs and group.attrs.get(COMPLETE) is not False:
        raise OutputExistsError(f"{path} exists and is no map of a campaign. Choose another output, or move it away.")
    return group


def _created(store: Store, plan: CampaignPlan, *, path: str) -> zarr.Group:
    """Everything but years. Nothing that is there is removed, because another run may be further already."""
    try:
        group = zarr.open_group(store, mode="a", zarr_format=3, use_consolidated=False, attributes={COMPLETE: False})
    except OSError as error:
        raise OutputNotWritableError(
            f"{path} cannot be written: {error}. Choose a place that you may write to."
        ) from error
    classes = {"class": np.array(plan.prediction.classes, object)} if len(plan.prediction.classes) > 1 else {}
    # With the attribute, because xarray puts its own in place of those that are there.
    coords = xr.Dataset(coords=xr_coords(plan.geobox, always_yx=True), attrs={COMPLETE: False}).assign_coords(classes)
    coords = coords.drop_encoding()
    coords.to_zarr(store, mode="a", zarr_format=3, consolidated=False)
    for name in ANSWERS:
        if name not in group:
            _create_answer(group, name, plan)
    if "time" not in group:
        group.create_array(
            "time",
            shape=(0,),
            chunks=(64,),
            dtype="int64",
            fill_value=_NO_DAY,
            attributes={"units": "days since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"},
            dimension_names=("time",),
        )
    attrs = {
        **spatial_attrs(plan.geobox),
        "Conventions": "CF-1.11",
        # The grid's, because the names of outlines are counted from it and must not depend on tiles.
        "lattice_origin": [float(value) for value in plan.grid.origin],
        "bundle_classes": list(plan.prediction.classes),
        LAYERS: list(ANSWERS),
        _IDENTITY: _identity(plan),
        COMPLETE: True,
    }
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    group.update_attributes(attrs)
    return group


def _create_answer(group: zarr.Group, name: str, plan: CampaignPlan) -> None:
    dtype = np.dtype(bool if name == "valid" else np.uint8)
    several = len(plan.prediction.classes) > 1 and name != "valid"
    leading = (len(plan.prediction.classes),) if several else ()
    shard = plan.grid.cell_size if name == "valid" else plan.shard
    ones = (1,) * (1 + len(leading))
    group.create_array(
        name,
        shape=(0, *leading, *plan.shape),
        chunks=(*ones, plan.chunk, plan.chunk),
        shards=(*ones, shard, shard),
        dtype=dtype,
        fill_value=False if name == "valid" else NODATA,
        compressors=(codec_for(name, dtype),),
        attributes={**answer_attributes(name, dtype.name), "grid_mapping": "spatial_ref"},
        dimension_names=("time", *(("class",) if several else ()), "y", "x"),
    )


def _add_year(group: zarr.Group, plan: CampaignPlan) -> bool:
    """One more step of time, unless it is there; its day last, so that a step without one was not finished.

    Returns whether anything was written; readers see it once the metadata are consolidated.
    """
    day = int((np.datetime64(f"{plan.year}-01-01", "D") - _EPOCH).astype(int))
    days = [int(one) for one in np.asarray(_array(group, "time")[:])]
    if day not in days:
        place = days.index(_NO_DAY) if _NO_DAY in days else len(days)
        for name in (*ANSWERS, "time"):
            array = _array(group, name)
            if array.shape[0] <= place:
                array.resize((place + 1, *array.shape[1:]))
        _array(group, "time")[place] = day
    facts = {
        "bundle_digest": "+".join(plan.prediction.members),
        "threshold": plan.prediction.threshold,
        "plan": plan.prediction.to_json(),
    }
    years: Any = group.attrs.get(_YEARS, {})
    if day in days and years.get(str(plan.year)) == facts:
        return False
    # Opened with what is consolidated, which would be dropped otherwise.
    zarr.open_group(group.store, mode="r+").update_attributes({_YEARS: {**years, str(plan.year): facts}})
    return True


def _is_consolidated(group: zarr.Group, year: int) -> bool:
    """Whether readers are told of a year, which they are not where a run was stopped before it said so.

    Of this year alone, because another may be half added, and its own run knows when it is whole.
    """
    known = zarr.open_group(group.store, mode="r").metadata.consolidated_metadata
    place = map_year(group, year)
    return known is not None and all(
        getattr(known.metadata.get(name), "shape", (0,))[0] > place for name in (*ANSWERS, "time")
    )


def _identity(plan: CampaignPlan) -> dict[str, Any]:
    """What years that share a map have in common."""
    return {
        "grid": {**asdict(plan.grid), "origin": list(plan.grid.origin)},
        "rows": list(plan.rows),
        "columns": list(plan.columns),
        "classes": list(plan.prediction.classes),
        "shard": plan.shard,
        "chunk": plan.chunk,
    }


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    assert isinstance(array, zarr.Array)  # we created it
    return array
