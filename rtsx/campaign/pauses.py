"""How long to wait before a store is asked again."""

import random
from collections.abc import Iterator

__all__ = ["PAUSES_S", "spread"]

PAUSES_S = (0.1, 0.3, 1.0, 3.0, 9.0)
"""Seconds before the second, third ... attempt of one call. What lasts longer fails the cell, whose own pauses are longer."""


def spread(pauses_s: tuple[float, ...]) -> Iterator[float]:
    """Pauses moved at random by up to a half, so that workers that failed together do not come back together.

    Examples
    --------
    >>> all(0.5 <= pause <= 1.5 for pause in spread((1.0, 1.0, 1.0)))
    True
    """
    for pause in pauses_s:
        yield pause * random.uniform(0.5, 1.5)
