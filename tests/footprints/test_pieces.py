import numpy as np
import pytest

from rtsx.footprints.pieces import Outlines, Pieces


def pieces_of(values):
    """One piece for each list of levels."""
    tallies = [np.unique(levels, return_counts=True) for levels in values]
    return Pieces(
        geometry=np.full(len(values), None, object),
        first=np.arange(len(values))[::-1].astype(np.int64),
        touches_edge=np.zeros(len(values), bool),
        cut=np.zeros(len(values), bool),
        n_water=np.zeros(len(values), np.int64),
        owner=np.repeat(np.arange(len(values)), [len(levels) for levels, _ in tallies]).astype(np.int64),
        level=np.concatenate([levels for levels, _ in tallies] or [np.empty(0, int)]).astype(np.int64),
        count=np.concatenate([counts for _, counts in tallies] or [np.empty(0, int)]).astype(np.int64),
    )


def test_statistics_are_those_of_the_pixels():
    values = [[50], [50, 100], [60, 60, 61, 90], [51, 52, 53], list(range(50, 101))]
    outlines = pieces_of(values).finish(100, thresholds=())
    for number, levels in enumerate(values):
        probability = np.array(levels) / 100
        assert outlines.n_pixels[number] == len(levels)
        assert outlines.prob_min[number] == probability.min()
        assert outlines.prob_max[number] == probability.max()
        assert outlines.prob_mean[number] == pytest.approx(probability.mean(), abs=1e-15)
        assert outlines.prob_median[number] == pytest.approx(np.median(probability), abs=1e-15)
        assert outlines.prob_std[number] == pytest.approx(probability.std(), abs=1e-15)


def test_nothing_has_no_statistics():
    outlines = pieces_of([]).finish(100, thresholds=())
    assert len(outlines) == 0
    assert outlines.n_pixels.dtype == np.int64


def test_taking_pieces_numbers_their_bins_anew():
    pieces = pieces_of([[10, 20], [30], [40, 50, 60]])
    taken = pieces.take(np.array([True, False, True]))
    assert taken.owner.tolist() == [0, 0, 1, 1, 1]
    assert taken.level.tolist() == [10, 20, 40, 50, 60]


def test_sets_come_together_in_the_order_of_first_pixels():
    one, other = pieces_of([[10], [20]]).finish(100, thresholds=()), pieces_of([[30], [40]]).finish(100, thresholds=())
    whole = Outlines.concatenate([one, other])
    assert whole.first.tolist() == [0, 0, 1, 1]
    assert whole.prob_mean.tolist() == [0.2, 0.4, 0.1, 0.3]
