"""Bootstrap: how far a score would move if other scenes had been judged."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["percentile_interval", "resamples"]


def resamples(count: int, *, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each of `count` things is drawn, (draws, count), when as many are drawn with replacement.

    Examples
    --------
    >>> drawn = resamples(3, draws=4, seed=0)
    >>> drawn.shape, drawn.sum(axis=1).tolist()
    ((4, 3), [3, 3, 3, 3])
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def percentile_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """The interval of the percentile method (Efron 1979): what a `level` of the resampled values lie in.

    Resamples without a value (NaN) are left out; NaN where none has one.

    Examples
    --------
    >>> percentile_interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
