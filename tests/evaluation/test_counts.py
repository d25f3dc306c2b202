"""Weighted sums of counts, held to adding them one by one."""

import numpy as np
import pytest

from rtsx.evaluation.counts import ClassCounts
from rtsx.scores import PixelTally


def some_counts(random, *, levels=10, tally=True):
    def pixels():
        return random.integers(0, 2**40, levels + 1)

    return ClassCounts(
        extent=random.integers(0, 2**40, 4).astype(float),
        boundary=random.integers(0, 99, 2),
        objects=random.integers(0, 99, 3),
        tally=PixelTally(target=pixels(), other=pixels()) if tally else None,
    )


def naive(counts, weights):
    """Each repeated as often as its weight says, and added one by one."""
    repeated = [one for one, times in zip(counts, weights, strict=True) for _ in range(times)]
    names = ("extent", "boundary", "objects")
    tallies = [sum(getattr(one.tally, name) for one in repeated) for name in ("target", "other")]
    return [sum(getattr(one, name) for one in repeated) for name in names] + tallies


def test_sums_are_those_of_adding_one_by_one():
    random = np.random.default_rng(4)
    counts = [some_counts(random) for _ in range(5)]
    # More than are in memory together.
    weights = random.integers(0, 4, (70, 5))
    weights[:, 0] = 1
    for row, found in zip(weights, ClassCounts.weighted(counts, weights), strict=True):
        parts = (found.extent, found.boundary, found.objects, found.tally.target, found.tally.other)
        for one, other in zip(parts, naive(counts, row), strict=True):
            assert one.tolist() == other.tolist()
        assert found.tally.target.dtype == np.int64


@pytest.mark.parametrize("other", [{"tally": False}, {"levels": 7}])
def test_there_is_no_tally_where_one_has_none_or_levels_differ(other):
    random = np.random.default_rng(0)
    both = some_counts(random) + some_counts(random, **other)
    assert both.tally is None
    assert both.objects.dtype == np.int64
