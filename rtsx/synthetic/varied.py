"""Scenes that differ as those of an archive do: day, clouds and haze follow from the seed."""

import datetime as dt

import numpy as np

from rtsx.synthetic.spec import SceneSpec

__all__ = ["varied_spec"]


def varied_spec(
    seed: int, *, size: int = 1024, slumps_per_km2: float = 1.0, region: str = SceneSpec.region
) -> SceneSpec:
    """Scene of its own ground whose day (July and August of 2018-2024), clouds (up to 8 %) and haze follow from its seed.

    Parameters
    ----------
    seed
        Seed of everything, 0 or above.
    size
        Side of the raster, px of 3 m.
    slumps_per_km2
        Active slumps per km² of ground.
    region
        Value of the truth's field `region`.

    Examples
    --------
    >>> [str(varied_spec(seed).date) for seed in (1000, 1001)]
    ['2024-07-30', '2018-07-30']
    """
    rng = np.random.default_rng([seed, 99])
    return SceneSpec(
        seed=seed,
        size=size,
        date=dt.date(2018 + seed % 7, 7, 1) + dt.timedelta(days=int(rng.integers(0, 50))),
        cloud_cover=float(rng.uniform(0, 0.08)),
        haze=float(rng.uniform(0, 0.06)),
        slumps_per_km2=slumps_per_km2,
        region=region,
    )
