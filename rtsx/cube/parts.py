"""The parts that a store is built of: whole shards, so that no two writers meet in one. A plan made from shapes."""

from collections.abc import Iterator
from dataclasses import dataclass

from rtsx.cube.storage import StoragePlan

__all__ = ["Part", "PartPlan"]


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
