"""Objects of two maps on their way to be matched: sizes and overlaps in one block, joined across seams."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from rtsx.footprints.plan import Block
from rtsx.scores import ObjectOverlaps

__all__ = ["MaskPieces", "ObjectPieces", "join_pieces", "pieces_of"]

Numbers = NDArray[np.int64]
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPieces:
    """Objects of one map, or the parts of them that lie in a block."""

    sizes: Numbers
    """(piece,) pixels of each."""
    places: Numbers
    """(pixel,) pixels at seams that belong to a piece: row * (columns + 1) + column on the raster."""
    owners: Numbers
    """(pixel,) the piece that each belongs to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPieces:
    """Pieces of found and of true objects, and how many pixels they share."""

    found: MaskPieces
    """What was found."""
    true: MaskPieces
    """What is there."""
    pairs: Numbers
    """(pair, 2) a found and a true piece that share pixels."""
    shared: Numbers
    """(pair,) pixels of each pair."""

    @classmethod
    def concatenate(cls, parts: Sequence["ObjectPieces"]) -> "ObjectPieces":
        """All pieces of at least one set, numbered anew."""
        sides = []
        offsets = []
        for masks in ([part.found for part in parts], [part.true for part in parts]):
            before = np.cumsum([0, *(len(mask.sizes) for mask in masks)])
            offsets.append(before)
            sides.append(
                MaskPieces(
                    sizes=np.concatenate([mask.sizes for mask in masks]),
                    places=np.concatenate([mask.places for mask in masks]),
                    owners=np.concatenate([mask.owners + start for mask, start in zip(masks, before, strict=False)]),
                )
            )
        pairs = [part.pairs + np.array([before[number] for before in offsets]) for number, part in enumerate(parts)]
        shared = np.concatenate([part.shared for part in parts])
        return cls(found=sides[0], true=sides[1], pairs=np.concatenate(pairs), shared=shared)


def pieces_of(found: NDArray[np.bool_], true: NDArray[np.bool_], *, block: Block) -> ObjectPieces:
    """Pieces of one block; its pixels (y, x) that do not count are False in both masks."""
    labels, masks = [], []
    for mask in (found, true):
        numbered, count = scipy.ndimage.label(mask, _EIGHT)
        labels.append(numbered)
        masks.append(_mask_pieces(numbered, count, block=block))
    both = np.flatnonzero(found & true)
    keys = (labels[0].ravel()[both].astype(np.int64) - 1) * max(len(masks[1].sizes), 1) + labels[1].ravel()[both] - 1
    unique, shared = np.unique(keys, return_counts=True)
    pairs = np.column_stack(np.divmod(unique, max(len(masks[1].sizes), 1)))
    return ObjectPieces(found=masks[0], true=masks[1], pairs=pairs, shared=shared.astype(np.int64))


def join_pieces(pieces: ObjectPieces, *, columns: int) -> ObjectOverlaps:
    """Whole objects from the pieces of all blocks of a raster with so many columns."""
    groups = [_objects(mask, columns=columns) for mask in (pieces.found, pieces.true)]
    sizes = [
        _sums(mask.sizes, group, count=int(group.max(initial=-1)) + 1)
        for group, mask in zip(groups, (pieces.found, pieces.true), strict=True)
    ]
    width = max(len(sizes[1]), 1)
    keys = groups[0][pieces.pairs[:, 0]] * width + groups[1][pieces.pairs[:, 1]]
    unique, inverse = np.unique(keys, return_inverse=True)
    shared = _sums(pieces.shared, inverse, count=len(unique))
    return ObjectOverlaps(found=sizes[0], true=sizes[1], pairs=np.column_stack(np.divmod(unique, width)), shared=shared)


def _sums(values: Numbers, group: Numbers, *, count: int) -> NDArray[np.float64]:
    return np.asarray(np.bincount(group, weights=values.astype(np.float64), minlength=count), np.float64)


def _mask_pieces(labels: NDArray[np.int32], count: int, *, block: Block) -> MaskPieces:
    height, width = labels.shape
    across, down = np.arange(width), np.arange(height) * width
    sides = (across, across + (height - 1) * width, down, down + width - 1)
    flat = np.concatenate([across[:0], *(side for side, is_seam in zip(sides, block.seams, strict=True) if is_seam)])
    flat = np.unique(flat[labels.ravel()[flat] > 0])
    rows, columns = np.divmod(flat, width)
    return MaskPieces(
        sizes=np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64),
        # One column more than there is, so that the last pixel of a row is no neighbour of the next row's first.
        places=(rows + block.y[0]) * (block.shape[1] + 1) + columns + block.x[0],
        owners=labels[rows, columns].astype(np.int64) - 1,
    )


def _objects(mask: MaskPieces, *, columns: int) -> Numbers:
    """Number of the object that each piece belongs to."""
    order = np.argsort(mask.places)
    places, owners = mask.places[order], mask.owners[order]
    links = []
    for step in (1, columns, columns + 1, columns + 2):
        at = np.searchsorted(places, places + step)
        meets = np.flatnonzero(at < len(places))
        meets = meets[places[at[meets]] == places[meets] + step]
        links.append(np.column_stack((owners[meets], owners[at[meets]])))
    pairs = np.concatenate(links)
    count = len(mask.sizes)
    graph = scipy.sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return np.asarray(group, np.int64)
