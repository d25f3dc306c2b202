"""`build_cube`: a recipe to a Zarr store, part by part; stopped anywhere, the same call goes on."""

import errno
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import dask.array as da
import xarray as xr
import zarr
from dask.base import compute
from dask.delayed import delayed
from zarr.abc.store import Store
from zarr.errors import ContainsArrayError, GroupNotFoundError

from rtsx.cube.aligned import AlignedParts, Written
from rtsx.cube.description import describe_recipe, difference
from rtsx.cube.destination import finish_store, refuse_existing
from rtsx.cube.gaps import noted_gaps
from rtsx.cube.georeference import with_georeference
from rtsx.cube.levels import level_below, levels_of, prepare_level, root_attrs, write_level
from rtsx.cube.marks import HashingStore, Mark, create_marks, done_parts, read_marks, write_mark
from rtsx.cube.native import NativeParts
from rtsx.cube.pinning import image_ids, pinned
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.region import recipe_geobox, search_area
from rtsx.cube.zarr import BUILD, COMPLETE, LAYERS, file_system, is_url, store_of
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError
from rtsx.grid import Cell

__all__ = ["Build", "build_cube"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
Layout = Literal["aligned", "native"]


@dataclass(frozen=True, kw_only=True)
class Build:
    """What a call of `build_cube` did."""

    path: str
    """The store."""
    parts: int
    """Parts of the whole store."""
    built: int
    """Parts that this call built; the others had their mark already."""
    gaps: tuple[str, ...]
    """Images that were left out in some part, as ``source/id``."""


class PartSource(Protocol):
    """Knows the parts of a store, and computes them; a value that pickles, shared by all tasks."""

    @property
    def count(self) -> int:
        """Number of parts."""

    def pieces(self, number: int) -> Any:
        """Iterate over the `Written` pieces of a part."""


def build_cube(
    recipe: CubeRecipe,
    path: str | PathLike[str],
    *,
    cell: Cell | None = None,
    layout: Layout = "aligned",
    shard: int | None = None,
    overviews: bool = True,
    overwrite: bool = False,
    config: str = "",
    storage_options: Mapping[str, Any] | None = None,
) -> Build:
    """Build a store from a recipe, part by part, on the dask scheduler of the caller.

    A part is one shard of every variable. It is read, warped and written by one task, which last of all writes the part's
    commit mark with digests of its bytes. Memory is bounded by the parts that run at a time. A call on a store that was not
    finished builds the parts without a mark, from the images that were found when it began, and ends with the same bytes
    as a call that was never stopped.

    Parameters
    ----------
    recipe
        What to build.
    path
        Local path, or a URL that fsspec knows. Workers on other machines have to reach it under the same name.
    cell
        Ground; None for the recipe's region.
    layout
        ``"aligned"``: one group on the recipe's grid. ``"native"``: a copy of every image's pixels on its own grid, which
        `open_native` aligns when it is opened, with the same answer as the images themselves.
    shard
        Side of a shard, px; None for the recipe's chunk.
    overviews
        Also write levels at half the resolution each; for the aligned layout.
    overwrite
        Remove a store that is there, and start again. Without it, an unfinished one is continued.
    config
        Text that is stored beside the data, such as the YAML that the recipe comes from.
    storage_options
        For fsspec, where `path` is a URL.

    Returns
    -------
    Build
        What was done.

    Raises
    ------
    CubeError
        The store was begun from another recipe, a source finds nothing, or an image cannot be read.
    OutputExistsError
        Something else is there.
    OutputNotWritableError
        Nothing can be written there, or the disk is full; what is done stays done.
    """
    if layout not in ("aligned", "native"):
        raise CubeError(f"A layout is 'aligned' or 'native'; got {layout!r}.")
    target, options = str(path), storage_options or {}
    geobox = recipe_geobox(recipe, cell)
    described = {
        **describe_recipe(recipe),
        "layout": layout,
        "shard": shard,
        "overviews": overviews,
        "raster": [list(geobox.shape.yx), [float(value) for value in tuple(geobox.affine)[:6]]],
    }
    if overwrite:
        _remove(target, options)
    stored = _stored(target, options, described)
    if stored is not None and stored.is_complete:
        marks = read_marks(stored.group)
        return Build(path=target, parts=len(marks), built=0, gaps=_gaps(marks))
    ready = pinned(recipe, search_area(geobox), ids=None if stored is None else stored.images)
    parts: AlignedParts | NativeParts
    if layout == "aligned":
        parts = AlignedParts(recipe=ready, geobox=geobox, shard=shard)
    else:
        parts = NativeParts(recipe=ready, geobox=geobox, shard=shard)
    if stored is None:
        _prepare(
            target,
            options,
            parts,
            record={"recipe": described, "images": image_ids(ready), "parts": parts.count},
            config=config,
        )
    else:
        _remove_leavings(target)
    store = store_of(target, options, read_only=False)
    left = sorted(set(range(parts.count)) - done_parts(store))
    _build_parts(parts, store, left, target=target)
    _finish(parts, store, target=target, options=options, overviews=overviews)
    marks = read_marks(zarr.open_group(store, mode="r"))
    return Build(path=target, parts=parts.count, built=len(left), gaps=_gaps(marks))


@dataclass(frozen=True)
class _Stored:
    """A store that was begun."""

    group: zarr.Group
    """Its root."""
    is_complete: bool
    """Whether all of it is there."""
    images: dict[str, list[str]]
    """Ids of the images by source."""


def _stored(target: str, options: Mapping[str, Any], described: Mapping[str, Any]) -> _Stored | None:
    """The store that is there and was begun from this very recipe; None where nothing is.

    Raises
    ------
    OutputExistsError
        Something else is there.
    CubeError
        It was begun from another recipe.
    """
    system, root = file_system(target, options)
    if not system.exists(root):
        return None
    try:
        group = zarr.open_group(store_of(target, options, read_only=True), mode="r", use_consolidated=False)
        record = group.attrs.get(BUILD)
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError, ContainsArrayError) as error:
        raise OutputExistsError(f"{target} exists and is no cube that was built. Choose another path.") from error
    if record is None:
        raise OutputExistsError(
            f"{target} exists, and was not made by building. Choose another path, or pass overwrite=True to replace it."
        )
    assert isinstance(record, Mapping)  # we wrote it
    if record["state"] == "preparing":  # stopped before there was a place for any part
        _remove(target, options)
        return None
    details: Any = group["build"].attrs.asdict()
    found = difference(details["recipe"], described)
    if found is not None:
        raise CubeError(
            f"{target} was begun from another recipe: {found}. Build into another path, or start again with "
            "overwrite=True."
        )
    return _Stored(group, group.attrs.get(COMPLETE) is True, details["images"])


def _remove(target: str, options: Mapping[str, Any]) -> None:
    """Remove the Zarr store that is there, if any."""
    if not is_url(target):
        local = Path(target.removeprefix("file://"))
        if local.exists():
            refuse_existing(local, overwrite=True)
            # Renamed first, because a half-removed store would look like one that can be continued.
            old = local.with_name(f".{local.name}.{uuid.uuid4().hex[:8]}.old")
            local.rename(old)
            shutil.rmtree(old)
        return
    system, root = file_system(target, options)
    if system.exists(root):
        if not system.isfile(f"{root}/zarr.json"):
            raise OutputExistsError(f"{target} exists and is no Zarr store, so it is not overwritten.")
        system.rm(f"{root}/zarr.json")  # first, likewise
        system.rm(root, recursive=True)


def _prepare(
    target: str,
    options: Mapping[str, Any],
    parts: "AlignedParts | NativeParts",
    *,
    record: Mapping[str, Any],
    config: str,
) -> None:
    """Create everything but pixels; that it is there is said last."""
    store = store_of(target, options, read_only=False)
    try:
        root = zarr.create_group(store, attributes={COMPLETE: False, BUILD: {"state": "preparing"}}, zarr_format=3)
    except OSError as error:
        raise OutputNotWritableError(
            f"{target} cannot be written: {error}. Choose a place that you may write to."
        ) from error
    with _failures_told(target):
        if isinstance(parts, AlignedParts):
            _prepare_aligned(parts, store)
        else:
            parts.prepare(root)
        root.create_group("build", attributes={**record, "config": config})
        create_marks(root, parts.count)
        _say(store, {"state": "begun"})


def _prepare_aligned(parts: AlignedParts, store: Store) -> None:
    first = parts.open(0)
    variables = {}
    for name, variable in first.data_vars.items():
        shape = (*variable.shape[:-2], *parts.geobox.shape.yx)
        # One chunk that is never computed, because only shape and dtype count here.
        variables[str(name)] = xr.Variable(
            variable.dims, da.zeros(shape, dtype=variable.dtype, chunks=-1), variable.attrs
        )
    template = with_georeference(variables, parts.geobox, lattice_origin=parts.recipe.grid.origin)
    others = {name: coord for name, coord in first.coords.items() if not {"y", "x"} & set(coord.dims)}
    template = template.assign_coords({name: coord for name, coord in others.items() if name != "spatial_ref"})
    template = template.assign_attrs(first.attrs)
    prepare_level(template, store, group=None, plan=parts.storage)


def _build_parts(parts: PartSource, store: Store, left: list[int], *, target: str) -> None:
    """Build the parts that are left, each by a task that depends on no other."""
    if not left:
        return
    shared = delayed(_PartBuilder(parts, store, target), traverse=False, pure=False)
    name = f"part-{uuid.uuid4().hex}"
    tasks = [delayed(_call)(shared, number, dask_key_name=(name, number)) for number in left]
    with _failures_told(target):
        compute(*tasks)


def _call(builder: "_PartBuilder", number: int) -> None:
    builder(number)


@dataclass(frozen=True)
class _PartBuilder:
    """Everything that the tasks share."""

    parts: PartSource
    """What is built."""
    store: Store
    """Where."""
    target: str
    """Its name, for messages."""

    def __call__(self, number: int) -> None:
        """Build one part, and mark it last of all."""
        store = HashingStore(self.store)
        root = zarr.open_group(store, mode="r+", use_consolidated=False)
        with noted_gaps() as gaps:
            try:
                for piece in self.parts.pieces(number):
                    _write(root, piece)
            except CubeError as error:
                raise CubeError(
                    f"Part {number} of {self.target} was not built: {error} What is done stays done: cure it and run again."
                ) from error
        write_mark(root, number, Mark(store.digests, tuple(sorted(set(gaps)))))


def _write(root: zarr.Group, piece: Written) -> None:
    array = root[piece.array]
    assert isinstance(array, zarr.Array)
    array[piece.window] = piece.pixels


def _finish(
    parts: "AlignedParts | NativeParts", store: Store, *, target: str, options: Mapping[str, Any], overviews: bool
) -> None:
    """Overviews, gaps, and the word that all of it is there."""
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    marks = read_marks(root)
    with _failures_told(target):
        if isinstance(parts, AlignedParts):
            _write_overviews(parts, store, target=target, options=options, overviews=overviews)
        else:
            parts.finish(root, _gaps(marks))
        _say(store, {"state": "built", "gaps": list(_gaps(marks))})
        finish_store(store)


def _write_overviews(
    parts: AlignedParts, store: Store, *, target: str, options: Mapping[str, Any], overviews: bool
) -> None:
    levels = levels_of(parts.geobox, overviews=overviews)
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs.update(root_attrs(levels))
    stored = xr.open_zarr(store, consolidated=False, chunks=None, mask_and_scale=False, decode_coords="all")
    cube = stored[list(stored.attrs[LAYERS])]  # in order, because a folder is listed in any
    system, root = file_system(target, options)
    above = "."
    for name, geobox in levels[1:]:
        with suppress(FileNotFoundError):  # of a run that was stopped here
            system.rm(f"{root}/{name}", recursive=True)
        write_level(
            level_below(cube, store, above=above, geobox=geobox, plan=parts.storage),
            store,
            group=name,
            plan=parts.storage,
        )
        above = name


def _say(store: Store, state: Mapping[str, Any]) -> None:
    """Write down how far a build is; through a fresh group, because an older one would restore its own attributes."""
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs[BUILD] = state


def _gaps(marks: Mapping[int, Mark]) -> tuple[str, ...]:
    return tuple(sorted({f"{gap.source}/{gap.image}" for mark in marks.values() for gap in mark.gaps}))


def _remove_leavings(target: str) -> None:
    """Remove what a process that was killed while it wrote has left beside the file that it meant."""
    if not is_url(target):
        for file in Path(target.removeprefix("file://")).rglob("*.partial"):
            file.unlink(missing_ok=True)


class _failures_told:  # noqa: N801 - used like a function
    """Turn failures of the disk into `OutputNotWritableError`."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise OutputNotWritableError(
                f"{self.target} could not be written on: {error}. Free space and run again; what is done stays done."
            ) from error
