"""In which order tiles are shown: mixed over all ground, or over some blocks of it at a time."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "blocks_of", "mixed_by_blocks"]

_Places = NDArray[np.int64]

BLOCK = 8
"""Tiles along each side of a block: ground that is read together."""


def blocks_of(scenes: _Places, starts: _Places, *, tile: int) -> _Places:
    """Block of each tile (tile, 3): scene, row and column of blocks.

    Examples
    --------
    >>> blocks_of(np.array([0, 1]), np.array([[0, 300], [256, 0]]), tile=32).tolist()
    [[0, 0, 1], [1, 1, 0]]
    """
    return np.column_stack([scenes, starts // (BLOCK * tile)])


def mixed_by_blocks(
    blocks: _Places, is_positive: NDArray[np.bool_], *, at_once: int, random: np.random.Generator
) -> _Places:
    """Order (tile,) in which tiles of so many blocks at a time are shown, mixed.

    Blocks come at random, those with a label and those without taking turns by their numbers, so that no part of an epoch is
    without labels as long as there are enough blocks that have some.

    Parameters
    ----------
    blocks
        Block of each tile, as `blocks_of` gives it.
    is_positive
        Which tiles have a label.
    at_once
        Blocks of which tiles are mixed, at least 1.
    random
        Where chance comes from.
    """
    _, numbers = np.unique(blocks, axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    has_label = np.zeros(numbers.max(initial=-1) + 1, bool)
    has_label[numbers[is_positive]] = True
    # Where each kind of block stands in the epoch, from 0 to 1: in equal steps, so that the two take turns.
    turn = np.empty(len(has_label))
    for kind in (True, False):
        of_kind = random.permutation(np.flatnonzero(has_label == kind))
        turn[of_kind] = (np.arange(len(of_kind)) + 0.5) / max(len(of_kind), 1)
    rank = np.argsort(np.argsort(turn, kind="stable"), kind="stable")
    return np.lexsort([random.random(len(numbers)), rank[numbers] // at_once])
