"""Commit marks of a build: one per part, written last, with digests of the bytes that the part has written.

They are the chunks of an array of text, because a chunk appears whole or not at all on every kind of store, and Zarr
readers look at nothing but metadata until they are asked.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from rtsx.cube.gaps import Gap
from rtsx.errors import CubeError
from rtsx.parsing import damage_told, parsed_json

__all__ = ["HashingStore", "Mark", "create_marks", "differing_keys", "done_parts", "read_marks", "write_mark"]

_MARKS = "build/marks"


@dataclass(frozen=True)
class Mark:
    """What one part has written."""

    digests: Mapping[str, str]
    """SHA-256 of every file or object, by its key; a shard of nothing but nodata has none."""
    gaps: tuple[Gap, ...]
    """Images that were left out."""

    def to_json(self) -> str:
        """One line of text, the same for equal marks."""
        gaps = [[gap.source, gap.image] for gap in self.gaps]
        return json.dumps({"sha256": dict(self.digests), "gaps": gaps}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Mark":
        """The mark of such a line.

        Raises
        ------
        CubeError
            It is not one.
        """
        what = "The mark of a part"
        stored = parsed_json(text, dict[str, Any], what=what, error=CubeError)
        with damage_told(what, CubeError):
            digests = parsed_json(json.dumps(stored["sha256"]), dict[str, str], what=what, error=CubeError)
            gaps = parsed_json(json.dumps(stored["gaps"]), list[tuple[str, str]], what=what, error=CubeError)
        return cls(digests, tuple(Gap(*gap) for gap in gaps))


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
    """Numbers of the parts that have a mark; lists them, and reads none."""

    async def listed() -> list[str]:
        found: AsyncIterator[str] = store.list_dir(f"{_MARKS}/c")
        return [name async for name in found]

    return {int(name) for name in sync(listed()) if name.isdecimal()}


def read_marks(root: zarr.Group) -> dict[int, Mark]:
    """All marks by the number of their part."""
    texts = _array(root)[:]
    return {number: Mark.from_json(str(text)) for number, text in enumerate(texts) if text}  # type: ignore[arg-type]


def write_mark(root: zarr.Group, number: int, mark: Mark) -> None:
    """Write the mark of a part, atomically."""
    _array(root)[number] = mark.to_json()


def differing_keys(store: Store, marks: Iterable[Mark]) -> list[str]:
    """Keys of marks whose bytes are missing or not those that were written; reads every byte."""
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


class HashingStore(WrapperStore[Store]):
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
