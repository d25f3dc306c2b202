"""Random scenes over a region, some of them neighbours in a strip, for every test of the room."""

from datetime import UTC, datetime, timedelta

import numpy as np
from shapely import Polygon
from shapely.affinity import rotate

from rtsx.ordering import Scene

START = datetime(2024, 7, 1, 20, tzinfo=UTC)


def random_scenes(count: int, *, seed: int, lon: float = 150.0, lat: float = 70.0, size: float = 1.0) -> list[Scene]:
    """Tilted boxes around a point, of several days, with random cloud."""
    rng = np.random.default_rng(seed)
    scenes = []
    for index in range(count):
        x, y = lon + rng.uniform(-1.2, 1.2), lat + rng.uniform(-0.4, 0.4)
        half = size * rng.uniform(0.4, 1.0)
        outline = rotate(
            Polygon(
                [(x - half, y - half / 3), (x + half, y - half / 3), (x + half, y + half / 3), (x - half, y + half / 3)]
            ),
            rng.uniform(-15, 15),
        )
        day = int(rng.integers(0, 6))
        scenes.append(
            Scene(
                id=f"s{index:03d}",
                footprint=outline,
                time=START + timedelta(days=day, seconds=index),
                cloud_cover=round(rng.uniform(0, 60), 1) if index % 5 else None,
                clear_percent=round(rng.uniform(30, 100), 1) if index % 3 else None,
                strip=f"strip{day}",
            )
        )
    return scenes
