"""What a store keeps of its build: recipe, images and their versions, parts, and a commit record for each part.

They are the chunks of an array of text, because a chunk appears whole or not at all on every kind of store, and Zarr
readers look at nothing but metadata until they are asked.
"""

import errno
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from hashlib import sha256
from math import isfinite
from typing import Any, Protocol

import zarr
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, GroupNotFoundError
from zarr.storage import WrapperStore

from rtsx.cube.chunk_loader import MissingImage
from rtsx.cube.recipe import CubeRecipe
from rtsx.cube.write import StoragePlan, plan_storage
from rtsx.errors import CubeError, OutputExistsError, OutputNotWritableError, RtsxError
from rtsx.parsing import first_difference, parsed_json, without_retired, wrap_damage
from rtsx.redaction import redacted
from rtsx.storage import file_system, is_url, local_path, remove
from rtsx.storage.diagnosis import write_failures
from rtsx.storage.object_store import remove_tree
from rtsx.storage.zarr import BUILD, COMPLETE, WholeStore, refuse_what_is_no_store, store_of

_MARKS = "build/marks"


@dataclass(frozen=True)
class PartRecord:
    """What one part has written."""

    digests: Mapping[str, str]
    """SHA-256 of every file or object, by its key; a shard of nothing but nodata has none."""
    gaps: tuple[MissingImage, ...]
    """Images that were left out."""

    def to_json(self) -> str:
        """Return one line of text, the same for equal marks."""
        gaps = [[gap.source, gap.image] for gap in self.gaps]
        return json.dumps({"sha256": dict(self.digests), "gaps": gaps}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PartRecord":
        """Return the mark of such a line.

        Raises
        ------
        CubeError
            It is not one.
        """
        what = "The mark of a part"
        stored = parsed_json(text, dict[str, Any], what=what, error=CubeError)
        with wrap_damage(what, CubeError):
            digests = parsed_json(json.dumps(stored["sha256"]), dict[str, str], what=what, error=CubeError)
            gaps = parsed_json(json.dumps(stored["gaps"]), list[tuple[str, str]], what=what, error=CubeError)
        return cls(digests, tuple(MissingImage(*gap) for gap in gaps))


def create_marks(root: zarr.Group, count: int) -> None:
    """Make room for the marks of `count` parts."""
    root.create_array(
        _MARKS,
        shape=(max(count, 1),),
        chunks=(1,),
        dtype="string",
        fill_value="",
        compressors=None,
        dimension_names=("part",),  # for xarray.open_datatree
    )


def done_parts(store: Store) -> set[int]:
    """Return the numbers of the parts that have a mark; lists them, and reads none."""

    async def listed() -> list[str]:
        found: AsyncIterator[str] = store.list_dir(f"{_MARKS}/c")
        return [name async for name in found]

    return {int(name) for name in sync(listed()) if name.isdecimal()}


def read_marks(root: zarr.Group) -> dict[int, PartRecord]:
    """Return all marks by the number of their part."""
    texts = _array(root)[:]
    return {number: PartRecord.from_json(str(text)) for number, text in enumerate(texts) if text}  # type: ignore[arg-type]


def gaps_of(marks: Mapping[int, PartRecord]) -> tuple[str, ...]:
    """Return the images that were left out in some part, as ``source/id``."""
    return tuple(sorted({f"{gap.source}/{gap.image}" for mark in marks.values() for gap in mark.gaps}))


def write_mark(root: zarr.Group, number: int, mark: PartRecord) -> None:
    """Write the mark of a part, atomically."""
    _array(root)[number] = mark.to_json()


def corrupt_keys(store: Store, marks: Iterable[PartRecord]) -> list[str]:
    """Return keys of marks whose bytes are missing or not those that were written; reads every byte."""
    differing = []
    for mark in marks:
        for key, digest in mark.digests.items():
            value = sync(store.get(key, default_buffer_prototype()))
            if value is None or sha256(value.to_bytes()).hexdigest() != digest:
                differing.append(key)
    return sorted(differing)


def _array(root: zarr.Group) -> "zarr.Array[Any]":
    array = root[_MARKS]
    assert isinstance(array, zarr.Array)  # we created it
    return array


class DigestStore(WrapperStore[Store]):
    """A Zarr store that remembers a digest of everything that is written through it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.digests: dict[str, str] = {}
        """SHA-256 by key."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value."""
        self.digests[key] = sha256(value.to_bytes()).hexdigest()
        await super().set(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Any]]) -> None:
        for key, value in values:  # instead of the wrapped store's own, which would go past `set`
            await self.set(key, value)


_LEFT_OUT = frozenset({"access", "outline", "stamp", "names"})
"""Fields that change no pixel, or only tell that pixels changed, or follow from a rule's name, as the names of its bands do; `access` also holds
the keys of servers."""
_LATER = frozenset({"trend", "named_numbers", "step"})
"""Fields that came after version 0.1: left out where they say nothing, so that what it began is gone on with."""


def describe_recipe(recipe: CubeRecipe) -> dict[str, Any]:
    """Return a recipe as mappings, lists, text and finite numbers, as JSON has them; functions by their names, addresses without secrets."""
    described = _plain(recipe)
    assert isinstance(described, dict)
    return described


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        kind = {} if type(value).__name__.endswith("Recipe") else {"kind": type(value).__name__}
        parts = {
            one.name: _plain(getattr(value, one.name))
            for one in fields(value)
            if one.name not in _LEFT_OUT and not (one.name in _LATER and getattr(value, one.name) is None)
        }
        return kind | parts
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, BaseGeometry):
        return value.wkt
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, str):
        return redacted(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', repr(value))}"
    return repr(value)


_CHUNK = 512
"""Side of a stored chunk, px: what a reader decodes at least, and what `write_cube` takes."""


@dataclass(frozen=True)
class Part:
    """One shard of every variable of a group."""

    number: int
    """Place among all parts of the store."""
    rows: tuple[int, int]
    """Half-open range of rows, px."""
    columns: tuple[int, int]
    """Half-open range of columns, px."""

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns as slices."""
        return slice(*self.rows), slice(*self.columns)


@dataclass(frozen=True)
class PartPlan:
    """How the arrays of one group are cut into parts.

    Examples
    --------
    >>> plan = PartPlan((700, 300), StoragePlan(chunk=(256, 256), shard=(512, 512)), first=5)
    >>> plan.count, plan.part(6)
    (2, Part(number=6, rows=(512, 700), columns=(0, 300)))
    """

    shape: tuple[int, int]
    """Height and width of the arrays, px."""
    storage: StoragePlan
    """Their chunks and shards."""
    first: int = 0
    """Number of the first part, where a store has several groups."""

    @classmethod
    def of(cls, shape: tuple[int, int], *, side: int, first: int = 0) -> "PartPlan":
        """Return the plan of arrays in shards of at most `side` px, which a reader gets as its chunks."""
        rows, columns = ((min(side, size),) * max(1, -(-size // side)) for size in shape)
        return cls(shape, plan_storage(shape, (rows, columns), chunk=min(_CHUNK, side), shard="auto"), first=first)

    @property
    def counts(self) -> tuple[int, int]:
        """Parts along y and x."""
        rows, columns = (-(-size // shard) for size, shard in zip(self.shape, self.storage.shard, strict=True))
        return rows, columns

    @property
    def count(self) -> int:
        """Number of parts."""
        return self.counts[0] * self.counts[1]

    def part(self, number: int) -> Part:
        """Return the part of a number, row by row."""
        assert self.first <= number < self.first + self.count
        iy, ix = divmod(number - self.first, self.counts[1])
        rows, columns = (
            (place * shard, min((place + 1) * shard, size))
            for place, shard, size in zip((iy, ix), self.storage.shard, self.shape, strict=True)
        )
        return Part(number, rows, columns)

    def __iter__(self) -> Iterator[Part]:
        return (self.part(number) for number in range(self.first, self.first + self.count))


@dataclass(frozen=True)
class RegionWrite:
    """Pixels for one place of a store."""

    array: str
    """Path of the array."""
    window: tuple[slice, ...]
    """Where in it, whole shards."""
    pixels: NDArray[Any]
    """As stored."""


class PartSource(Protocol):
    """Knows the parts of a store, and computes them.

    A value that pickles; all tasks of a build share it, and `pieces` is called by several threads at a time.
    """

    @property
    def count(self) -> int:
        """Number of parts, which are numbered from 0."""

    def prepare(self, root: zarr.Group) -> None:
        """Create everything but pixels in an empty group."""

    def pieces(self, number: int) -> Iterator[RegionWrite]:
        """Compute a part, piece by piece, in the thread that asks."""

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write what follows from all parts; called again where it was stopped. `gaps` are images left out."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True)
class BuildStatus:
    """A store that was begun."""

    group: zarr.Group
    is_complete: bool
    """Whether all of it is there."""
    images: dict[str, list[str]]
    """Ids of the images by source."""
    stamps: dict[str, dict[str, list[str]]]
    """What told then that they are the same, as `image_stamps` gives it; empty in stores of earlier versions."""


def read_status(target: str, options: Mapping[str, Any], described: Mapping[str, Any]) -> BuildStatus | None:
    """Return the store that is there and was begun from this very recipe; None where nothing is, or no part could be built yet.

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
        group = zarr.open_group(
            WholeStore(store_of(target, options, read_only=True), target), mode="r", use_consolidated=False
        )
        record = group.attrs.get(BUILD)
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError, ContainsArrayError) as error:
        raise OutputExistsError(f"{target} exists and is no cube that was built. Choose another path.") from error
    if record is None:
        raise OutputExistsError(
            f"{target} exists, and was not made by building. Choose another path, or pass overwrite=True to replace it."
        )
    assert isinstance(record, Mapping)  # we wrote it
    if record["state"] == "preparing":  # stopped before there was a place for any part
        return None
    details: Any = group["build"].attrs.asdict()
    found = first_difference(without_retired(details["recipe"]), described)
    if found is not None:
        raise CubeError(
            f"{target} was begun from another recipe: {found}. Build into another path, or start again with "
            "overwrite=True."
        )
    return BuildStatus(group, group.attrs.get(COMPLETE) is True, details["images"], details.get("stamps", {}))


def remove_store(target: str, options: Mapping[str, Any]) -> None:
    """Remove the Zarr store that is there, if any."""
    if not is_url(target):
        local = local_path(target)
        if local.exists():
            refuse_what_is_no_store(local)
            remove(local)  # not piece by piece: a half-removed store would look like one that can be continued
        return
    system, root = file_system(target, options)
    with write_failures(target):
        if system.exists(root):
            if not system.isfile(f"{root}/zarr.json"):
                raise OutputExistsError(f"{target} exists and is no Zarr store, so it is not overwritten.")
            system.rm_file(f"{root}/zarr.json")  # first, likewise
            remove_tree(system, root)


def init_store(
    target: str, options: Mapping[str, Any], parts: PartSource, *, record: Mapping[str, Any], config: str
) -> None:
    """Create everything but pixels; that it is there is said last.

    Raises
    ------
    OutputNotWritableError
        Nothing can be written there.
    """
    store = store_of(target, options, read_only=False)
    with write_failures(target):
        root = zarr.create_group(store, attributes={COMPLETE: False, BUILD: {"state": "preparing"}}, zarr_format=3)
    try:
        with wrap_os_errors(target):
            parts.prepare(root)
            root.create_group("build", attributes={**record, "config": config})
            create_marks(root, parts.count)
            set_state(store, {"state": "begun"})
    except RtsxError:
        remove_store(target, options)  # a cube that cannot be built leaves nothing
        raise


def set_state(store: Store, state: Mapping[str, Any]) -> None:
    """Write down how far a build is; through a fresh group, because an older one would restore its own attributes."""
    zarr.open_group(store, mode="r+", use_consolidated=False).attrs[BUILD] = state


def remove_partial_files(target: str) -> None:
    """Remove what a process that was killed while it wrote has left beside the file that it meant."""
    if not is_url(target):
        for file in local_path(target).rglob("*.partial"):
            file.unlink(missing_ok=True)  # of zarr-python


@contextmanager
def wrap_os_errors(target: str) -> Iterator[None]:
    """Turn a full disk into `OutputNotWritableError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutputNotWritableError(
            f"{target} could not be written on: {error}. Free space and run again; what is done stays done."
        ) from error
