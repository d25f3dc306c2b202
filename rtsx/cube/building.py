"""`build_cube`: a recipe to a Zarr store, part by part; stopped anywhere, the same call goes on."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from os.path import realpath
from typing import Any, Literal

import zarr
from dask.base import compute
from dask.delayed import delayed
from zarr.abc.store import Store

from rtsx.cube.aligned import AlignedParts
from rtsx.cube.begun import alone, begin, begun_store, failures_told, remove_leavings, remove_store, say
from rtsx.cube.description import describe_recipe
from rtsx.cube.destination import finish_store
from rtsx.cube.gaps import noted_gaps
from rtsx.cube.marks import HashingStore, Mark, done_parts, read_marks, write_mark
from rtsx.cube.native import NativeParts
from rtsx.cube.parts import PartSource, Written
from rtsx.cube.pinning import image_ids, image_stamps, pinned, require_unchanged
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.region import recipe_geobox
from rtsx.cube.zarr import store_of
from rtsx.errors import CubeError
from rtsx.grid import Cell
from rtsx.storage import is_url, local_path, refuse_other_format

__all__ = ["Build", "build_cube"]

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
        The store was begun from another recipe, a source finds nothing, an image cannot be read, or was rewritten since
        the build began.
    OutputExistsError
        Something else is there.
    OutputNotWritableError
        Nothing can be written there, or the disk is full; what is done stays done.
    """
    if layout not in ("aligned", "native"):
        raise CubeError(f"A layout is 'aligned' or 'native'; got {layout!r}.")
    refuse_other_format(path, what="a Zarr store", suffixes=(".zarr",))
    target, options = str(path), storage_options or {}
    if not is_url(target):
        target = realpath(local_path(path))  # a link to a store on another disk is followed, also where nothing is yet
    geobox = recipe_geobox(recipe, cell)
    described = {
        **describe_recipe(recipe),
        "layout": layout,
        "shard": shard,
        "overviews": overviews,
        "raster": [list(geobox.shape.yx), [float(value) for value in tuple(geobox.affine)[:6]]],
    }
    with alone(target, options):
        if overwrite:
            remove_store(target, options)
        stored = begun_store(target, options, described)
        if stored is not None and stored.is_complete:
            marks = read_marks(stored.group)
            return Build(path=str(path), parts=len(marks), built=0, gaps=_gaps(marks))
        ready = pinned(recipe, geobox, ids=None if stored is None else stored.images)
        parts: PartSource
        if layout == "aligned":
            parts = AlignedParts(recipe=ready, geobox=geobox, shard=shard, overviews=overviews)
        else:
            parts = NativeParts(recipe=ready, geobox=geobox, shard=shard)
        if stored is None:
            stamps = image_stamps(ready)
            record = {"recipe": described, "images": image_ids(ready), "stamps": stamps, "parts": parts.count}
            remove_store(target, options)  # one that was being prepared when its process ended
            begin(target, options, parts, record=record, config=config)
        else:
            stamps = stored.stamps
            require_unchanged(ready, stamps, target=target)
            remove_leavings(target)
        store = store_of(target, options, read_only=False)
        left = sorted(set(range(parts.count)) - done_parts(store))
        _build_parts(parts, store, left, target=target)
        require_unchanged(ready, stamps, target=target)  # once more, because building may have taken days
        _finish(parts, store, target=target)
    marks = read_marks(zarr.open_group(store, mode="r"))
    return Build(path=str(path), parts=parts.count, built=len(left), gaps=_gaps(marks))


def _build_parts(parts: PartSource, store: Store, left: list[int], *, target: str) -> None:
    """Build the parts that are left, each by a task that depends on no other."""
    if not left:
        return
    shared = delayed(_PartBuilder(parts, store, target), traverse=False, pure=False)
    name = f"part-{uuid.uuid4().hex}"
    tasks = [delayed(_call)(shared, number, dask_key_name=(name, number)) for number in left]
    with failures_told(target):
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


def _finish(parts: PartSource, store: Store, *, target: str) -> None:
    """Write what follows from all parts, the gaps, and the word that all of it is there."""
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    gaps = _gaps(read_marks(root))
    with failures_told(target):
        parts.finish(root, gaps)
        say(store, {"state": "built", "gaps": list(gaps)})
        finish_store(store)


def _gaps(marks: Mapping[int, Mark]) -> tuple[str, ...]:
    return tuple(sorted({f"{gap.source}/{gap.image}" for mark in marks.values() for gap in mark.gaps}))
