"""Outlines of slumps: areas as published, and horseshoe shapes of exactly that area."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

AREA_MEDIAN_M2 = 9534.0
"""Median area of the 2,182 outlines of Nitze et al. 2021."""
AREA_LOG_DEVIATION = 1.49
"""Standard deviation of the logarithm of their area (natural logarithm)."""
AREA_LEAST_M2 = 80.0
"""Smallest of them."""
AREA_LARGEST_M2 = 870_000.0
"""Largest of them."""


def draw_areas(count: int, *, rng: np.random.Generator, largest_m2: float = AREA_LARGEST_M2) -> NDArray[np.float64]:
    """Areas in m² from the log-normal distribution of published outlines, cut at `largest_m2`.

    Examples
    --------
    >>> areas = draw_areas(2000, rng=np.random.default_rng(0))
    >>> bool(8_000 < np.median(areas) < 11_000), bool(areas.max() <= 870_000)
    (True, True)
    """
    low, high = ndtr(np.log(np.array([AREA_LEAST_M2, largest_m2]) / AREA_MEDIAN_M2) / AREA_LOG_DEVIATION)
    quantile = ndtri(rng.uniform(low, high, count))
    return np.asarray(AREA_MEDIAN_M2 * np.exp(AREA_LOG_DEVIATION * quantile), np.float64)


def wobble(angle: NDArray[np.float64], *, size: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Periodic factor around 1 with a deviation of about `size`, rougher at low frequencies."""
    orders = np.arange(2, 18)
    amplitude = rng.standard_normal(orders.size) / orders**0.95
    phase = rng.uniform(0, 2 * np.pi, orders.size)
    wave = (amplitude[:, None] * np.cos(orders[:, None] * angle + phase[:, None])).sum(axis=0)
    return np.asarray(np.clip(1 + size * wave, 0.55, 1.6), np.float64)


def polygon_area(points: NDArray[np.float64]) -> float:
    """Area of a ring (vertex, 2), the last vertex joined to the first."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def horseshoe(area_m2: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ring (vertex, 2) of a scar in its own frame: upslope u and across v in m, toe at u = 0, head at the far end.

    The head is a scalloped arc, the toe narrower: mud leaves there. The area is exactly `area_m2`.
    """
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    elongation = np.exp(rng.normal(0.42, 0.4))
    widest, toe = rng.uniform(0.5, 0.75), rng.uniform(0.35, 0.8)
    along = (1 - np.cos(turn)) / 2
    body = toe + (1 - toe) * np.sin(np.pi / 2 * np.clip(along / widest, 0, 1))
    head = np.sqrt(np.clip(1 - np.clip((along - widest) / (1 - widest), 0, 1) ** 2.4, 0, 1))
    foot = np.sqrt(np.clip(along / 0.08, 0, 1))
    across = np.sign(np.sin(turn)) * body * head * foot / 2
    scallops = 1 + rng.uniform(0.03, 0.2) * np.abs(np.sin(rng.integers(2, 6) * turn + rng.uniform(0, np.pi))) * along
    u, v = elongation * (along - 0.5), across
    factor = wobble(turn, size=rng.uniform(0.08, 0.26), rng=rng) * scallops
    ring = np.stack([u * factor, v * factor + rng.normal(0, 0.12) * u**2 * np.sign(elongation)], axis=1)
    ring *= np.sqrt(area_m2 / polygon_area(ring))
    ring[:, 0] -= ring[:, 0].min()
    return ring


def blob(area_m2: float, *, rng: np.random.Generator) -> NDArray[np.float64]:
    """Ring (vertex, 2) of a rounded patch around 0, 0 in m, with exactly `area_m2`: lakes, basins, bare ground."""
    turn = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = wobble(turn, size=rng.uniform(0.1, 0.35), rng=rng)
    stretch, angle = np.exp(rng.normal(0.2, 0.25)), rng.uniform(0, np.pi)
    x, y = stretch * radius * np.cos(turn), radius * np.sin(turn)
    ring = np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=1)
    return np.asarray(ring * np.sqrt(area_m2 / polygon_area(ring)), np.float64)
