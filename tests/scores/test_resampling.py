"""The bootstrap draws as many as there are, and its interval is that of the percentiles."""

import numpy as np

from rtsx.scores import percentile_interval, resamples


def test_draws_are_seeded_and_complete():
    drawn = resamples(7, draws=200, seed=3)
    assert (drawn.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(drawn, resamples(7, draws=200, seed=3))
    assert not np.array_equal(drawn, resamples(7, draws=200, seed=4))
    assert abs(drawn.mean() - 1) < 1e-12


def test_the_interval_leaves_missing_scores_out():
    values = np.append(np.linspace(0, 1, 201), [np.nan, np.nan])
    assert np.allclose(percentile_interval(values), (0.025, 0.975))
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()
    assert np.isnan(percentile_interval(np.empty(0))).all()
