"""The band of the boundary IoU is that of Cheng et al. where their border of the image does not come in."""

import numpy as np
import pytest
import scipy.ndimage

from rtsx.scores import BoundaryScores, boundary_band


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
    np.testing.assert_array_equal(boundary_band(mask, np.ones_like(mask), distance=distance), published(mask, distance))


@pytest.mark.parametrize("seed", range(5))
def test_ground_that_does_not_count_is_no_outline(seed):
    random = np.random.default_rng(seed)
    mask, counts = random.random((20, 24)) < 0.8, random.random((20, 24)) < 0.7
    band = boundary_band(mask, counts, distance=2)
    np.testing.assert_array_equal(band, naive(mask, counts, 2))
    hidden = np.where(counts, mask, ~mask)
    np.testing.assert_array_equal(band, boundary_band(hidden, counts, distance=2))


def test_without_an_outline_there_is_no_score():
    assert np.isnan(BoundaryScores(shared=0, either=0).iou)
    assert not boundary_band(np.ones((5, 5), bool), np.ones((5, 5), bool), distance=3).any()
