"""Which shards of the overviews show which ground: integers only."""

from collections.abc import Iterable
from dataclasses import dataclass

from rtsx.campaign.plan import Region

__all__ = ["OverviewPlan", "Shard"]

Shard = tuple[int, int]
"""Row and column of a shard in its level."""


@dataclass(frozen=True, kw_only=True)
class OverviewPlan:
    """Levels of half the resolution each, all cut into shards of one side.

    Examples
    --------
    >>> plan = OverviewPlan(shape=(5000, 3000), side=512, count=3)
    >>> plan.shapes
    ((5000, 3000), (2500, 1500), (1250, 750), (625, 375))
    >>> plan.touched([(slice(0, 1024), slice(1024, 2048))])
    (((0, 1),), ((0, 0),), ((0, 0),))
    >>> plan.source(1, (4, 2)), plan.target(1, (4, 2))
    ((slice(4096, 5000, None), slice(2048, 3000, None)), (slice(2048, 2500, None), slice(1024, 1500, None)))
    """

    shape: tuple[int, int]
    """Height and width of the full resolution, px."""
    side: int
    """Side of a shard, px of its level."""
    count: int
    """Levels below the full resolution."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of each level, the full resolution first; odd sides are rounded up."""
        shapes = [self.shape]
        for _ in range(self.count):
            shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        return tuple(shapes)

    def touched(self, regions: Iterable[Region]) -> tuple[tuple[Shard, ...], ...]:
        """Shards of each level, from the finest, that show some of these pixels of the full resolution; sorted."""
        if not self.count:
            return ()
        step = 2 * self.side
        shards = {
            (i, j)
            for y, x in regions
            for i in range(y.start // step, -(-y.stop // step))
            for j in range(x.start // step, -(-x.stop // step))
        }
        levels = [tuple(sorted(shards))]
        for _ in range(self.count - 1):
            levels.append(tuple(sorted({(i // 2, j // 2) for i, j in levels[-1]})))
        return tuple(levels)

    def source(self, level: int, shard: Shard) -> Region:
        """Pixels of the level above that a shard of a level (from 1) is made of."""
        return self._window(shard, shape=self.shapes[level - 1], step=2 * self.side)

    def target(self, level: int, shard: Shard) -> Region:
        """Pixels of a level (from 1) that a shard holds."""
        return self._window(shard, shape=self.shapes[level], step=self.side)

    @staticmethod
    def _window(shard: Shard, *, shape: tuple[int, int], step: int) -> Region:
        y, x = (
            slice(index * step, min((index + 1) * step, length)) for index, length in zip(shard, shape, strict=True)
        )
        return y, x
