"""Objects are matched like a brute-force search would."""

from itertools import permutations

import numpy as np
import pytest
import scipy.ndimage

from rtsx.scores import BoundaryScores, ObjectOverlaps, ObjectScores, boundary_buffer


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


def published(mask, distance):
    """`mask_to_boundary` of the paper: the mask less its erosion by `distance` steps of a 3 x 3 square."""
    padded = np.pad(mask, 1)
    eroded = scipy.ndimage.binary_erosion(padded, np.ones((3, 3)), iterations=distance)
    return mask & ~eroded[1:-1, 1:-1]


def naive(mask, counts, distance):
    band = np.zeros_like(mask)
    for y, x in np.argwhere(mask & counts):
        around = (slice(max(0, y - distance), y + distance + 1), slice(max(0, x - distance), x + distance + 1))
        band[y, x] = (counts[around] & ~mask[around]).any()
    return band


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_the_band_of_the_paper(distance):
    random = np.random.default_rng(distance)
    mask = np.pad(scipy.ndimage.gaussian_filter(random.random((60, 70)), 2) > 0.5, 6)
    np.testing.assert_array_equal(
        boundary_buffer(mask, np.ones_like(mask), distance=distance), published(mask, distance)
    )


@pytest.mark.parametrize("seed", range(5))
def test_ground_that_does_not_count_is_no_outline(seed):
    random = np.random.default_rng(seed)
    mask, counts = random.random((20, 24)) < 0.8, random.random((20, 24)) < 0.7
    band = boundary_buffer(mask, counts, distance=2)
    np.testing.assert_array_equal(band, naive(mask, counts, 2))
    hidden = np.where(counts, mask, ~mask)
    np.testing.assert_array_equal(band, boundary_buffer(hidden, counts, distance=2))


def test_without_an_outline_there_is_no_score():
    assert np.isnan(BoundaryScores(shared=0, either=0).iou)
    assert not boundary_buffer(np.ones((5, 5), bool), np.ones((5, 5), bool), distance=3).any()
