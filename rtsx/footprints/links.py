"""Which outlines of one year lie on those of another: a kernel of arrays in and arrays out."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["Links", "link_outlines"]

BATCH = 2_000
"""Pairs whose common ground is computed at once, so that memory does not grow with the number of outlines."""

Geometries = NDArray[np.object_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Links:
    """Pairs of outlines of different years on common ground, sorted by the later and then the earlier one."""

    earlier: Numbers
    """`(link,)` number of the outline of the earlier year."""
    later: Numbers
    """`(link,)` number of the outline of the later year."""
    shared: NDArray[np.float64]
    """`(link,)` their common ground, in square units of the CRS; above 0."""

    def __len__(self) -> int:
        return len(self.earlier)

    @classmethod
    def concatenate(cls, parts: Sequence["Links"]) -> "Links":
        """Return all links of all parts, sorted."""
        earlier = np.concatenate([np.empty(0, np.int64), *(part.earlier for part in parts)])
        later = np.concatenate([np.empty(0, np.int64), *(part.later for part in parts)])
        shared = np.concatenate([np.empty(0), *(part.shared for part in parts)])
        order = np.lexsort((earlier, later))
        return cls(earlier=earlier[order], later=later[order], shared=shared[order])


def link_outlines(
    outlines: Geometries, kinds: Numbers, *, starts: Sequence[int], min_overlap: float, max_gap: int
) -> Links:
    """Link outlines of different years that share ground.

    Two outlines are linked if what they share is at least `min_overlap` of the smaller of the two, instead of a least
    intersection over union, because a small piece of a slump that fell apart has a low one with the whole. Years next
    to each other are linked first. Over a gap, an outline is linked only if it is still without a link in that
    direction: one that has a successor next year needs none in the year after.

    Parameters
    ----------
    outlines : numpy.ndarray
        `(n,)` valid Polygons or MultiPolygons in one CRS, year by year.
    kinds : numpy.ndarray
        `(n,)` int64; only outlines of one kind are linked.
    starts : sequence of int
        Where each year begins in `outlines`, and `n` at the end.
    min_overlap : float
        Share of the smaller outline, above 0 and at most 1.
    max_gap : int
        Years that may lie between the two of a link.

    Returns
    -------
    Links
        Numbers are positions in `outlines`. The shares are ratios of areas in the CRS: at one place a projection
        stretches both alike.
    """
    years = [np.arange(start, stop) for start, stop in pairwise(starts)]
    trees = [shapely.STRtree(outlines[members]) for members in years]
    area = shapely.area(outlines)
    found: list[Links] = []
    has_later, has_earlier = np.zeros(len(outlines), bool), np.zeros(len(outlines), bool)
    for gap in range(min(max_gap, max(len(years) - 2, 0)) + 1):
        now: list[Links] = []
        for first in range(len(years) - 1 - gap):
            second = first + 1 + gap
            one, other = _meeting(outlines[years[first]], trees[second])
            one, other = years[first][one], years[second][other]
            wanted = (kinds[one] == kinds[other]) & ~(has_later[one] & has_earlier[other])
            now.append(_share(outlines, (one[wanted], other[wanted]), area=area, min_overlap=min_overlap))
        for links in now:
            has_later[links.earlier] = True
            has_earlier[links.later] = True
        found += now
    return Links.concatenate(found)


def _meeting(outlines: Geometries, tree: shapely.STRtree) -> tuple[Numbers, Numbers]:
    if len(outlines) == 0 or len(tree) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    one, other = tree.query(outlines, predicate="intersects")
    return one.astype(np.int64), other.astype(np.int64)


def _share(
    outlines: Geometries, pairs: tuple[Numbers, Numbers], *, area: NDArray[np.float64], min_overlap: float
) -> Links:
    one, other = pairs

    def common(start: int) -> NDArray[np.float64]:
        part = slice(start, start + BATCH)
        return np.asarray(shapely.area(shapely.intersection(outlines[one[part]], outlines[other[part]])))

    # In threads, because shapely lets go of the interpreter's lock, and this is most of the work.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        shared = np.concatenate([np.empty(0), *pool.map(common, range(0, len(one), BATCH))])
    # A rounding error less, so that an outline on itself shares all of it.
    enough = (shared > 0) & (shared >= (min_overlap - 1e-9) * np.minimum(area[one], area[other]))
    return Links(earlier=one[enough], later=other[enough], shared=shared[enough])
