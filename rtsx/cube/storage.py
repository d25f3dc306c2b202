"""How a Dataset is cut into chunks and shards on disk: a plan made from shapes alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rtsx.errors import CubeError

__all__ = ["StoragePlan", "plan_storage"]

_LARGEST_AUTO_SHARD = 4096
"""Pixels per side: 16 Mpx, 16 MB of uint8, so that a shard stays one write and one file of handy size."""
_LARGEST_AUTO_CUT = 2048
"""Pixels per side of the shards of a large array that comes in one piece."""


@dataclass(frozen=True)
class StoragePlan:
    """Chunks and shards of every variable on (y, x)."""

    chunk: tuple[int, int]
    """Height and width in pixels of a chunk: what a reader decodes at least."""
    shard: tuple[int, int]
    """Height and width in pixels of a shard, whole chunks: what a writer writes at once, one file or object."""

    @property
    def has_shards(self) -> bool:
        """Whether a shard holds more than one chunk; otherwise chunks are stored plainly."""
        return self.chunk != self.shard

    def fits(self, lengths: Sequence[Sequence[int]]) -> bool:
        """Whether dask chunks of these lengths (y, x) are whole shards, the last of an axis excepted.

        Anything else would let two tasks write into one shard, of which one would be lost.

        Examples
        --------
        >>> plan = StoragePlan(chunk=(512, 512), shard=(1024, 1024))
        >>> plan.fits(((2048, 2048, 300), (1024,))), plan.fits(((1536, 1536), (1024,)))
        (True, False)
        """
        return all(length % shard == 0 for axis, shard in zip(lengths, self.shard, strict=True) for length in axis[:-1])


def plan_storage(
    shape: tuple[int, int],
    lengths: tuple[Sequence[int], Sequence[int]],
    *,
    chunk: int,
    shard: int | Literal["auto"],
) -> StoragePlan:
    """Chunks and shards for an array that arrives in dask chunks of the given lengths.

    ``shard="auto"`` makes each dask chunk one shard where it can: where the dask chunks of an axis are equal and have a
    divisor near `chunk`. Where they have none, the nearest whole number of chunks is taken, and the dask chunks have
    to follow.

    Parameters
    ----------
    shape
        Height and width, px.
    lengths
        Lengths of the dask chunks along y and x, px.
    chunk
        Wanted side of a chunk, px.
    shard
        Wanted side of a shard, px.

    Raises
    ------
    CubeError
        A size is below 1, or a shard is not a whole number of chunks.

    Examples
    --------
    >>> plan_storage((5000, 700), ((1000,) * 5, (700,)), chunk=512, shard="auto")
    StoragePlan(chunk=(500, 512), shard=(1000, 1024))
    """
    if chunk < 1 or (shard != "auto" and shard < 1):
        raise CubeError(f"Chunks and shards are 1 pixel or more; got chunks={chunk}, shards={shard}.")
    if shard != "auto":
        if shard % chunk:
            raise CubeError(f"A shard is a whole number of chunks; got shards={shard} and chunks={chunk}.")
        return StoragePlan(chunk=(chunk, chunk), shard=(shard, shard))
    axes = [_plan_axis(size, axis, chunk) for size, axis in zip(shape, lengths, strict=True)]
    return StoragePlan(chunk=(axes[0][0], axes[1][0]), shard=(axes[0][1], axes[1][1]))


def _plan_axis(size: int, lengths: Sequence[int], chunk: int) -> tuple[int, int]:
    """Chunk and shard of one axis."""
    if len(lengths) == 1 and size <= chunk:
        return size, size
    if len(lengths) == 1:
        return chunk, min(math.ceil(size / chunk) * chunk, _LARGEST_AUTO_CUT // chunk * chunk or chunk)
    length = max(lengths)
    is_regular = all(one == length for one in lengths[:-1])
    inner = _divisor(length, chunk)
    if not is_regular or inner is None:
        return chunk, min(max(round(length / chunk), 1) * chunk, _LARGEST_AUTO_SHARD // chunk * chunk or chunk)
    parts = min(
        (n for n in range(1, length // inner + 1) if length % (n * inner) == 0 and length // n <= _LARGEST_AUTO_SHARD),
        default=length // inner,
    )
    return inner, length // parts


def _divisor(length: int, chunk: int) -> int | None:
    """The largest divisor of `length` that is at most `chunk` and not below a quarter of it; None if there is none."""
    smallest = min(length, max(chunk // 4, 1))
    return next((size for size in range(min(chunk, length), smallest - 1, -1) if length % size == 0), None)
