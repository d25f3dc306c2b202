"""The map of a campaign: one sparse Zarr group for all years, filled shard by shard, each encoded whole before it is written.

`probability` and `binary` are cut into the plan's shards; the one shard of `valid` is a whole cell. A task writes it last of
all, so that whoever trusts `valid` sees each cell whole or not at all.

Zarr reads a shard that is there before it replaces it: a request more, and an error where that one is damaged.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from itertools import count
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from odc.geo.xr import xr_coords
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import LocalStore, MemoryStore

from rtsx.campaign.layout import MAP
from rtsx.campaign.plan import CampaignPlan
from rtsx.cube import open_source
from rtsx.cube.write import compressor_for, spatial_attrs
from rtsx.errors import CampaignError, OutputExistsError
from rtsx.inference.kernel import NODATA
from rtsx.inference.predict import variable_attrs
from rtsx.parsing import first_difference
from rtsx.storage import is_url, local_path, write_object
from rtsx.storage.codecs import fast_codecs
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.lock import turn
from rtsx.storage.object_store import ObjectStore, open_object_store, single_attempts
from rtsx.storage.zarr import (
    COMPLETE,
    LAYERS,
    MAP_IDENTITY,
    YEARS,
    RetryingStore,
    WholeStore,
    consolidate,
    open_group,
    store_of,
)

VARIABLES = ("probability", "binary", "spread", "valid")
"""Variables that a map may have, `valid` last, as it is written; `spread` where the plan keeps it."""

_CLAIMS = f"{MAP}/time/claims"
"""Folder of one small object per step of `time`, below the array that they speak of: which year the step belongs to."""
_NO_DAY = -1
"""Stored day of a step whose creation was stopped; no first of January."""


def variables_of(plan: CampaignPlan) -> tuple[str, ...]:
    """Variables of the map of a plan, `valid` last."""
    return tuple(name for name in VARIABLES if name != "spread" or plan.prediction.keep_members)


def stored_variables(group: zarr.Group) -> tuple[str, ...]:
    """Variables that a map has, `valid` last."""
    return tuple(name for name in VARIABLES if name in group)


def map_path(output: str) -> str:
    """Path or URL of the map of an output."""
    return f"{output.rstrip('/')}/{MAP}"


def map_store(output: str, storage_options: Mapping[str, Any]) -> Store:
    """Open the Zarr store of the map, for writing; calls are tried again while their errors can pass. Touches nothing."""
    path = map_path(output)
    if is_url(output):
        store = store_of(path, single_attempts(output, storage_options), read_only=False)
    else:
        store = _LocalMap(local_path(path))
    cure = "Remove it; rtsx campaign run writes it anew, and rtsx campaign collect that of overviews."
    return RetryingStore(WholeStore(store, path, cure=cure))


class _LocalMap(LocalStore):
    """A map on a disk: each key is on it, not in the memory of the system, before a mark says so, and killed processes leave nothing."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a key whole, or replace it."""
        await asyncio.to_thread(write_object, self.root / key, value.to_bytes(), replace=True)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a key whole where there is none."""
        await asyncio.to_thread(write_object, self.root / key, value.to_bytes(), replace=False)


def create_map(output: str, plan: CampaignPlan, *, bundle_id: str, storage_options: Mapping[str, Any]) -> None:
    """Make room for the year of a plan: all arrays, or one more step of `time` in those that are there.

    Called again, or after it was stopped half way, it ends the same. Readers see the new step when all of it is there.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    plan
        What is going to be written.
    bundle_id
        Name of what writes it, as `bundle_ids` has it.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Raises
    ------
    CampaignError
        The map that is there has another grid, extent, classes or shards; the first difference is named.
    OutputExistsError
        Something is there that is no map of a campaign.
    OutputNotWritableError
        Nothing can be written there.
    """
    if plan.prediction.dtype != "uint8":
        raise CampaignError(
            f"A campaign stores probability in per cent (dtype='uint8'); the plan has dtype={plan.prediction.dtype!r}."
        )
    store, path = map_store(output, storage_options), map_path(output)
    objects = open_object_store(output, storage_options)
    group = _opened(store, path)
    if group is None:
        group = _claimed_map(objects, store, plan)
    found = first_difference(_by_recipe(group.attrs[MAP_IDENTITY]), _by_recipe(_identity(plan)))
    if found is not None:
        raise CampaignError(
            f"{path} was made for another map: {found}. Years share a map where grid, extent, classes, spread and shards "
            "are the same: make them so, or choose another output."
        )
    needed = (*variables_of(plan), "time", *map(str, _coordinates(plan).variables))
    if group.attrs.get(COMPLETE) is not True or any(name not in group for name in needed):
        _fill(objects, plan)
    _restore_coordinates(group, plan)
    _restore_days(objects, group)
    facts = {**plan.prediction.attrs, "bundle_id": bundle_id, "plan": plan.prediction.to_json()}
    claim = {"year": plan.year, "facts": json.loads(json.dumps(facts))}
    place = _claimed(objects, group, claim)
    # Only where something is new, because another run may be adding a year, which readers are not to see before it is whole.
    if not _is_whole(store, {place: claim}):
        with map_turn(output, storage_options):
            # Until nothing is left to write: where there are no locks, two that write at once may undo what the other wrote, the claims never.
            while not _is_whole(store, claims := map_claims(objects)):
                _write_steps(store, claims)
                consolidate(store)


def map_turn(output: str, storage_options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Be alone with the metadata and times of the map, which all years share."""
    return turn(map_path(output), storage_options, what=f"writes the metadata of {map_path(output)}")


def damaged_coordinates(output: str, plan: CampaignPlan, *, storage_options: Mapping[str, Any]) -> dict[str, str]:
    """Read the coordinates of the map and the metadata of its arrays, and say what is damaged, or not what the plan and the claims of years say.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    plan
        Of a year that the map has.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Returns
    -------
    dict
        By the key of the array, such as ``map.zarr/time``.
    """
    try:
        group = zarr.open_group(map_store(output, storage_options), mode="r", use_consolidated=False)
    except Exception as error:  # of whatever reads it
        return {MAP: f"cannot be opened ({error})"}
    faults = _coordinate_faults(group, _coordinates(plan))
    for name in variables_of(plan):
        try:
            array_of(group, name)
        except Exception as error:  # likewise
            faults[name] = f"cannot be read ({error})"
    try:
        days = [int(one) for one in np.asarray(array_of(group, "time")[...])]
    except Exception as error:  # likewise
        faults["time"] = f"cannot be read ({error})"
    else:
        claims = map_claims(open_object_store(output, storage_options)).items()
        # A step that another run is adding has no day yet.
        stated = {place: days[place] for place, _ in claims if place < len(days) and days[place] != _NO_DAY}
        if _day(plan.year) not in days or any(
            stated.get(place, _day(one["year"])) != _day(one["year"]) for place, one in claims
        ):
            faults["time"] = _OTHER_VALUES
    return {f"{MAP}/{name}": fault for name, fault in faults.items()}


_OTHER_VALUES = "has other values than it was written with"


def _coordinates(plan: CampaignPlan) -> xr.Dataset:
    """Coordinates that years share."""
    classes = {"class": np.array(plan.prediction.classes, object)} if len(plan.prediction.classes) > 1 else {}
    return xr.Dataset(coords=xr_coords(plan.geobox, always_yx=True)).assign_coords(classes).drop_encoding()


def _coordinate_faults(group: zarr.Group, expected: xr.Dataset) -> dict[str, str]:
    """Say what is wrong with stored coordinates, by name."""
    faults = {}
    for name, values in expected.variables.items():
        try:
            found = np.asarray(array_of(group, str(name))[...])
        except Exception as error:  # of whatever reads it
            faults[str(name)] = f"cannot be read ({error})"
            continue
        if not np.array_equal(found.astype(values.dtype), values.values):
            faults[str(name)] = _OTHER_VALUES
    return faults


def _restore_coordinates(group: zarr.Group, plan: CampaignPlan) -> None:
    """Write coordinates anew that cannot be read, or are not those of the plan; no attributes, which another run may be writing."""
    expected = _coordinates(plan)
    for name in _coordinate_faults(group, expected):
        if name in group:
            array_of(group, name)[...] = expected[name].values


def _restore_days(objects: ObjectStore, group: zarr.Group) -> None:
    """Write days anew that cannot be read, where claims say the year of every step."""
    time, claims = array_of(group, "time"), map_claims(objects)
    try:
        np.asarray(time[:])
    except Exception:  # of whatever decodes it
        if set(range(time.shape[0])) <= set(claims):
            time[...] = np.array([_day(claims[place]["year"]) for place in range(time.shape[0])])


def map_year(group: zarr.Group, year: int) -> int:
    """Index of a year along `time`.

    Raises
    ------
    CampaignError
        The map has no room for it, or its years cannot be read.
    """
    days = _days(group)
    if _day(year) not in days:
        years = [int(str(np.datetime64(day, "D"))[:4]) for day in days if day != _NO_DAY]
        raise CampaignError(f"The map has the years {years}, and {year} is not among them. Create the campaign first.")
    return days.index(_day(year))


def open_map(output: str, *, storage_options: Mapping[str, Any]) -> xr.Dataset:
    """Open the map of all years, lazily, as `open_cube` opens a prediction; years in order.

    Cells that are not done read as invalid. Attributes say what all years were made with, and `year_facts` as JSON what each was.

    Parameters
    ----------
    output
        Folder or URL of the campaign.
    storage_options
        Storage options of the file system behind a URL, such as `endpoint_url` or `anon`.

    Raises
    ------
    CubeError
        There is no map.
    """
    path = map_path(output)
    attrs: dict[str, Any] = open_group(path, storage_options).attrs.asdict()
    shard = attrs.get(MAP_IDENTITY, {}).get("shard", "auto")
    return open_source(path, chunks=shard, storage_options=storage_options or None)


def _opened(store: Store, path: str) -> zarr.Group | None:
    """Open the map that is there; None where nothing is, or a creation of an earlier version that was stopped."""
    try:
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    except (GroupNotFoundError, FileNotFoundError):
        return None
    except (NotADirectoryError, ContainsArrayError) as error:
        raise OutputExistsError(f"{path} exists and is no map of a campaign. Choose another output.") from error
    if MAP_IDENTITY in group.attrs:
        return group
    if group.attrs.get(COMPLETE) is not False:
        raise OutputExistsError(f"{path} exists and is no map of a campaign. Choose another output, or move it away.")
    return None


def _claimed_map(objects: ObjectStore, store: Store, plan: CampaignPlan) -> zarr.Group:
    """Say in the root of the map whose it is: one of many that ask at once, whose plans may differ, does."""
    key, root = f"{MAP}/zarr.json", _empty_map(plan)["zarr.json"].to_bytes()
    path = f"{objects}/{MAP}"
    with write_failures(path):
        is_first = objects.create(key, root)
    group = _opened(store, path)
    if group is None:
        assert not is_first  # we wrote it
        objects.put(key, root)
        group = zarr.open_group(store, mode="r+", use_consolidated=False)
    return group


def _fill(objects: ObjectStore, plan: CampaignPlan) -> None:
    """Write what an empty map has and is not there; all runs of one map write the same."""
    for key, content in _empty_map(plan).items():
        objects.create(f"{MAP}/{key}", content.to_bytes())


def _empty_map(plan: CampaignPlan) -> dict[str, Buffer]:
    """Everything but years, by key."""
    stored: dict[str, Buffer] = {}
    store = MemoryStore(stored)
    attrs = {
        **spatial_attrs(plan.geobox),
        "Conventions": "CF-1.11",
        # The grid's, because the names of outlines are counted from it and must not depend on tiles.
        "lattice_origin": [float(value) for value in plan.grid.origin],
        "bundle_classes": json.dumps(plan.prediction.classes),
        LAYERS: list(variables_of(plan)),
        MAP_IDENTITY: _identity(plan),
        COMPLETE: False,
    }
    _coordinates(plan).assign_attrs(attrs).to_zarr(store, zarr_format=3, consolidated=False)
    group = zarr.open_group(store, mode="r+")
    for name in variables_of(plan):
        _create_answer(group, name, plan)
    group.create_array(
        "time",
        shape=(0,),
        chunks=(64,),
        dtype="int64",
        fill_value=_NO_DAY,
        attributes={"units": "days since 1970-01-01", "calendar": "proleptic_gregorian", "standard_name": "time"},
        dimension_names=("time",),
    )
    return stored


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
        compressors=(compressor_for(name, dtype),),
        attributes={**variable_attrs(name, dtype.name), "grid_mapping": "spatial_ref"},
        dimension_names=("time", *(("class",) if several else ()), "y", "x"),
    )


def _claimed(objects: ObjectStore, group: zarr.Group, claim: Mapping[str, Any]) -> int:
    """Step of `time` that belongs to a year, claimed where the year has none: one of many that ask at once gets it."""
    days = _days(group)
    content = json.dumps(claim, sort_keys=True).encode()
    claims = map_claims(objects)
    for place in count():
        there = claims.get(place)
        if there is None and place < len(days) and days[place] == _NO_DAY:
            raise CampaignError(
                f"Nothing says which year step {place} of the map has: {MAP}/time of {objects} has lost it, and no claim has it. Restore "
                f"{MAP}/time from a backup."
            )
        if there is None and place < len(days) and days[place] != _day(claim["year"]):
            continue  # a year of a map that was begun before there were claims
        if there is None and objects.create(_claim_key(place), content):
            return place
        there = there or map_claims(objects)[place]
        if there["year"] == claim["year"]:
            if there != claim:
                objects.put(_claim_key(place), content)
            return place
    raise AssertionError


def _claim_key(place: int) -> str:
    return f"{_CLAIMS}/{place:06d}.json"


def map_claims(objects: ObjectStore) -> dict[int, dict[str, Any]]:
    """What every step of `time` that is claimed belongs to: the year, and what it was made with."""
    claims = {}
    for found in objects.list(_CLAIMS):
        try:
            claim = json.loads(objects.get(found.key) or b"")
            claims[int(found.key.rsplit("/", 1)[-1].removesuffix(".json"))] = {
                "year": int(claim["year"]),
                "facts": dict(claim["facts"]),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise CampaignError(
                f"{objects}/{found.key} does not say whose step of the map it is: {error!r}. Restore it from a backup; it "
                'holds {"year": ..., "facts": ...}, and `time` of the map says which year the step has.'
            ) from error
    return claims


def _is_whole(store: Store, claims: Mapping[int, Mapping[str, Any]]) -> bool:
    """Test whether the map has all that these claims say, in its consolidated metadata too."""
    group = zarr.open_group(store, mode="r", use_consolidated=False)
    known = zarr.open_group(store, mode="r").metadata.consolidated_metadata
    years: Any = group.attrs.get(YEARS, {})
    days = _days(group)
    n = max(claims, default=-1) + 1
    return (
        group.attrs.get(COMPLETE) is True
        and known is not None
        and all(getattr(known.metadata.get(name), "shape", (0,))[0] >= n for name in (*stored_variables(group), "time"))
        and all(array_of(group, name).shape[0] >= n for name in (*stored_variables(group), "time"))
        and all(days[place] == _day(claim["year"]) for place, claim in claims.items())
        and all(years.get(str(claim["year"])) == claim["facts"] for claim in claims.values())
    )


def _write_steps(store: Store, claims: Mapping[int, Mapping[str, Any]]) -> None:
    """Make every array as long as there are claims, and write what they say; days last of all."""
    group = zarr.open_group(store, mode="r+", use_consolidated=False)
    days = _days(group)
    n = max(len(days), *(place + 1 for place in claims))
    for name in (*stored_variables(group), "time"):
        array = array_of(group, name)
        if array.shape[0] < n:
            array.resize((n, *array.shape[1:]))
    said = [*days, *[_NO_DAY] * (n - len(days))]
    for place, claim in claims.items():
        said[place] = _day(claim["year"])
    if said != days:
        array_of(group, "time")[:n] = np.array(said)
    years: Any = group.attrs.get(YEARS, {})
    said_of = {**years, **{str(claim["year"]): claim["facts"] for claim in claims.values()}}
    # Opened with what is consolidated, which would be dropped otherwise.
    zarr.open_group(store, mode="r+").update_attributes({YEARS: said_of, COMPLETE: True})


def _day(year: int) -> int:
    return int(np.datetime64(f"{year}-01-01", "D").astype(int))


def _days(group: zarr.Group) -> list[int]:
    time = array_of(group, "time")
    try:
        return [int(one) for one in np.asarray(time[:])]
    except Exception as error:  # of whatever decodes it
        raise CampaignError(
            f"The years of the map cannot be read: {str(time.store_path).replace('wrapping-', '')}/c/0 is damaged ({error}). Restore it from a backup; or, where "
            "time/claims beside it says the year of each step, run the campaign again, which writes it anew."
        ) from error


def _identity(plan: CampaignPlan) -> dict[str, Any]:
    """What years that share a map have in common."""
    return {
        "grid": {**asdict(plan.grid), "origin": list(plan.grid.origin)},
        "rows": list(plan.rows),
        "columns": list(plan.columns),
        "classes": list(plan.prediction.classes),
        "shard": plan.shard,
        "chunk": plan.chunk,
        **({"spread": True} if plan.prediction.keep_members else {}),
    }


def _by_recipe(identity: Any) -> dict[str, Any]:
    """Call spread as a recipe does, and state that there is none."""
    rest = {name: value for name, value in identity.items() if name != "spread"}
    return {**rest, "prediction": {"spread": identity.get("spread", False)}}


def array_of(group: zarr.Group, name: str, *, level: str = ".") -> "zarr.Array[Any]":
    """Open an array of a level of a map; ``"."`` is the root."""
    array = group[name if level == "." else f"{level}/{name}"]
    assert isinstance(array, zarr.Array)  # we created it
    return array


@contextmanager
def named_damage(array: "zarr.Array[Any]", at: tuple[Any, ...]) -> Iterator[None]:
    """Read or write a part of the map, or of a level of it, within: step of `time`, ellipsis, rows and columns.

    Raises
    ------
    CampaignError
        A chunk is damaged.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what codecs raise of it
        place, _, rows, columns = at
        cure = "rtsx campaign verify names its cell, and rtsx campaign retry --cell lets the next run make that anew."
        if "/" in array.path:
            cure = (
                f"Remove {MAP}/{array.path}/c/{place} and, in the year's folder, products/collected/overviews; then rtsx campaign "
                "collect makes it anew."
            )
        raise CampaignError(
            f"{MAP}/{array.path} is damaged in rows {rows.start} to {rows.stop}, columns {columns.start} to {columns.stop} ({error}). {cure}"
        ) from error


class ShardEncoder:
    """Arrays like those of a store, in memory; one thread at a time uses it.

    Examples
    --------
    >>> import numpy as np
    >>> group = zarr.create_group(MemoryStore())
    >>> _ = group.create_array("valid", shape=(4, 8), chunks=(2, 2), shards=(4, 4), dtype=bool, fill_value=False)
    >>> encoder = ShardEncoder(group.store, ["valid"])
    >>> encoded = encoder.encoded("valid", np.eye(4, dtype=bool), at=(slice(0, 4), slice(4, 8)), keys=["valid/c/0/1"])
    >>> encoded["valid/c/0/1"] is None
    False
    """

    def __init__(self, store: Store, names: Iterable[str]) -> None:
        self._memory = MemoryStore()
        self.arrays: dict[str, zarr.Array[Any]] = {}
        """The arrays by name, without their pixels."""
        for name in names:
            metadata = sync(store.get(f"{name}/zarr.json", default_buffer_prototype()))
            if metadata is None:
                raise FileNotFoundError(f"There is no array {name} in {store}.")
            sync(self._memory.set(f"{name}/zarr.json", metadata))
            with fast_codecs():
                self.arrays[name] = zarr.open_array(self._memory, path=name, mode="r+")

    def encoded(
        self, name: str, pixels: NDArray[Any], *, at: tuple[Any, ...], keys: Iterable[str]
    ) -> Mapping[str, Buffer | None]:
        """Bytes of whole shards by key; None for one of nothing but the fill value, which is not stored.

        Parameters
        ----------
        name
            Of the array.
        pixels
            Of the shards.
        at
            Where in the array, whole shards.
        keys
            Keys of the shards there.
        """
        self.arrays[name][at] = pixels
        encoded: dict[str, Buffer | None] = {}
        for key in keys:
            encoded[key] = sync(self._memory.get(key, default_buffer_prototype()))
            sync(self._memory.delete(key))
        return encoded
