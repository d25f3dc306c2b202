"""The parts that a store is built of: whole shards, so that no two writers meet in one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import zarr
from numpy.typing import NDArray

from rtsx.cube.storage import StoragePlan

__all__ = ["Part", "PartPlan", "PartSource", "Written"]


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
        """The part of a number, row by row."""
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
class Written:
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

    def pieces(self, number: int) -> Iterator[Written]:
        """Compute a part, piece by piece, in the thread that asks."""

    def finish(self, root: zarr.Group, gaps: Sequence[str]) -> None:
        """Write what follows from all parts; called again where it was stopped. `gaps` are images left out."""
