"""From links between years to lines of descent: a kernel of arrays in and arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from rtsx.footprints.links import Links

__all__ = ["Lineage", "trace_lineage"]

Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The track and the family of every outline; both are named by the number of their first outline."""

    track: Numbers
    """`(n,)` first outline of the track."""
    family: Numbers
    """`(n,)` first outline of everything that is linked with this one, however often removed."""
    n_parents: Numbers
    """`(n,)` outlines of earlier years that this one is linked to."""
    is_split: NDArray[np.bool_]
    """`(n,)` True where an outline it comes from has several successors in this outline's year."""
    is_merge: NDArray[np.bool_]
    """`(n,)` True where it comes from several outlines of one year."""
    ended: Numbers
    """`(merger,)` tracks that end because their ground goes on in another track."""
    taken_by: Numbers
    """`(merger,)` the outline of that other track which has most of the ground."""


def trace_lineage(links: Links, *, starts: Sequence[int]) -> Lineage:
    """Follow outlines through the years.

    An outline continues the track with which it shares most ground; all pieces of an outline that fell apart
    therefore stay in its track. Where tracks run together, the one with most common ground goes on (of equal ones the
    oldest) and the others end there, unless another outline carries them on. An outline without predecessors begins a
    track. What a year brings depends on earlier years alone, so that later ones never rename a track.

    Parameters
    ----------
    links : Links
        As `link_outlines` gives them.
    starts : sequence of int
        Where each year begins among the outlines, and their number at the end.
    """
    count = starts[-1]
    track = np.arange(count)
    for start, stop in pairwise(starts):
        low, high = np.searchsorted(links.later, (start, stop))
        later, of, weight = _sum_by(links.later[low:high], track[links.earlier[low:high]], links.shared[low:high])
        outline, chosen = _largest(later, of, weight)
        track[outline] = chosen
    ended, taken_by = _mergers(links, track, year=np.repeat(np.arange(len(starts) - 1), np.diff(starts)))
    graph = scipy.sparse.coo_array((np.ones(len(links), bool), (links.earlier, links.later)), shape=(count, count))
    components, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    oldest = np.full(components, count)
    np.minimum.at(oldest, component, np.arange(count))
    is_split, is_merge = _branchings(links, starts=starts)
    return Lineage(
        track=track,
        family=oldest[component],
        n_parents=np.bincount(links.later, minlength=count),
        is_split=is_split,
        is_merge=is_merge,
        ended=ended,
        taken_by=taken_by,
    )


def _sum_by(one: Numbers, other: Numbers, weight: NDArray[np.float64]) -> tuple[Numbers, Numbers, NDArray[np.float64]]:
    """Return the pairs that occur, sorted, each once, with the sums of their weights."""
    order = np.lexsort((other, one))
    one, other, weight = one[order], other[order], weight[order]
    fresh = np.flatnonzero((np.diff(one, prepend=-1) != 0) | (np.diff(other, prepend=-1) != 0))
    return one[fresh], other[fresh], np.add.reduceat(weight, fresh) if len(fresh) else weight


def _largest(key: Numbers, value: Numbers, weight: NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    """Return every key with the value of its largest weight; of equal ones the smallest value."""
    order = np.lexsort((value, -weight, key))
    best = order[np.flatnonzero(np.diff(key[order], prepend=-1))]
    return key[best], value[best]


def _mergers(links: Links, track: Numbers, *, year: Numbers) -> tuple[Numbers, Numbers]:
    """Return the tracks that end in another one, and the outline there with most of their ground."""
    last = np.zeros(len(track), np.int64)
    np.maximum.at(last, track, year)
    source = track[links.earlier]
    ends = (source != track[links.later]) & (year[links.later] > last[source])
    return _largest(*_sum_by(source[ends], links.later[ends], links.shared[ends]))


def _branchings(links: Links, *, starts: Sequence[int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether each outline is one of several successors, and whether it has several predecessors, of one year."""
    count, years = starts[-1], len(starts) - 1
    year = np.repeat(np.arange(years), np.diff(starts))
    is_split, is_merge = np.zeros(count, bool), np.zeros(count, bool)
    _, sibling, siblings = np.unique(links.earlier * years + year[links.later], return_inverse=True, return_counts=True)
    is_split[links.later[siblings[sibling] > 1]] = True
    _, partner, partners = np.unique(links.later * years + year[links.earlier], return_inverse=True, return_counts=True)
    is_merge[links.later[partners[partner] > 1]] = True
    return is_split, is_merge
