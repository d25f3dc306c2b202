"""Scenes that differ as those of an archive do: day, clouds, haze, and the place if asked, follow from the seed."""

import datetime as dt
from dataclasses import replace

import numpy as np

from rtsx.synthetic.spec import MARGIN, PIXEL_M, SceneSpec

__all__ = ["placed_apart", "varied_spec"]

_COLUMNS, _ROWS = 25, 40
"""Places for scenes that lie apart, from the usual one to the east and to the south; all within one UTM zone."""


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


def placed_apart(spec: SceneSpec) -> SceneSpec:
    """The same scene at one of a thousand places that do not overlap, by its seed, instead of where all scenes lie.

    Scenes on the same ground are not divided between training and test, and by default all lie on the same square of the map.

    Examples
    --------
    >>> placed_apart(SceneSpec(seed=26, size=1024)).left - SceneSpec.left
    3648.0
    """
    step = (spec.size + 2 * MARGIN) * PIXEL_M
    row, column = divmod(spec.seed % (_COLUMNS * _ROWS), _COLUMNS)
    return replace(spec, left=spec.left + column * step, top=spec.top - row * step)
