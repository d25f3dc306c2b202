"""Objects are matched like a brute-force search would."""

from itertools import permutations

import numpy as np
import pytest

from rtsx.scores import ObjectOverlaps, ObjectScores


def most_pairs(allowed):
    """Greatest number of one-to-one pairs, by trying all."""
    few, many = sorted(allowed.shape)
    table = allowed if allowed.shape[0] == few else allowed.T
    return max((sum(table[i, j] for i, j in enumerate(order)) for order in permutations(range(many), few)), default=0)


@pytest.mark.parametrize("seed", range(60))
def test_as_many_pairs_as_can_be(seed):
    random = np.random.default_rng(seed)
    n_found, n_true = random.integers(0, 6, 2)
    pixels = random.integers(0, 40, (n_found, n_true)) * (random.random((n_found, n_true)) < 0.7)
    found = pixels.sum(axis=1) + random.integers(0, 30, n_found) + 1
    true = pixels.sum(axis=0) + random.integers(0, 30, n_true) + 1
    pairs = np.argwhere(pixels > 0)
    overlaps = ObjectOverlaps(
        found=found.astype(float), true=true.astype(float), pairs=pairs, shared=pixels[pixels > 0].astype(float)
    )
    iou = pixels / (found[:, None] + true[None, :] - pixels)
    for threshold in (0.05, 0.1, 0.3, 0.5, 0.75):
        expected = most_pairs((iou >= threshold) & (pixels > 0))
        assert overlaps.match(threshold) == ObjectScores(matched=expected, found=n_found, true=n_true)


def test_the_best_first_would_lose_a_pair():
    """The pair with the greatest IoU (0.5) leaves two objects alone; below 0.5 the assignment matters."""
    overlaps = ObjectOverlaps(
        found=np.array([100.0, 40.0]),
        true=np.array([100.0, 60.0]),
        pairs=np.array([[0, 0], [0, 1], [1, 0]]),
        shared=np.array([60.0, 40.0, 40.0]),
    )
    assert overlaps.iou().argmax() == 0
    assert overlaps.match(0.3).matched == 2


def test_small_objects_are_left_out_on_both_sides():
    overlaps = ObjectOverlaps(
        found=np.array([5.0, 50.0]),
        true=np.array([50.0, 4.0, 60.0]),
        pairs=np.array([[1, 0], [0, 2]]),
        shared=np.array([45.0, 5.0]),
    )
    assert overlaps.at_least(10).match(0.5) == ObjectScores(matched=1, found=1, true=2)


def test_no_objects():
    nothing = ObjectScores(matched=0, found=0, true=0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (1.0, 1.0, 1.0)
    empty = ObjectOverlaps(found=np.empty(0), true=np.empty(0), pairs=np.empty((0, 2), int), shared=np.empty(0))
    assert empty.at_least(1).match(0.5) == nothing
