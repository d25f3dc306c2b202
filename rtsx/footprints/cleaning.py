"""What speaks against an outline, written beside it instead of deleted."""

import math
from collections.abc import Sequence

import geopandas
import numpy as np
import pandas as pd

from rtsx.errors import FootprintError
from rtsx.footprints.schema import FLAGS, arranged, validate_footprints

__all__ = ["clean_footprints"]


def clean_footprints(
    footprints: geopandas.GeoDataFrame,
    *,
    min_area_m2: float = 288.0,
    min_pixels: int = 0,
    edge: bool = True,
    max_water: float | None = 0.2,
    min_prob_mean: float = 0.0,
    min_prob_max: float = 0.0,
    keep: Sequence[str] | None = None,
) -> geopandas.GeoDataFrame:
    """Flag outlines by rules, and leave rows out only when asked to.

    Parameters
    ----------
    footprints : geopandas.GeoDataFrame
        What `extract_footprints` or `merge_footprints` gives. Flags that are there already are made anew.
    min_area_m2, min_pixels : float, int
        "small": an outline of less, in m² on the ellipsoid or in pixels. 288 m² are 32 pixels of 3 m.
    edge : bool
        "edge": an outline with `touches_edge`, so that the true one may go on in ground without data.
    max_water : float, optional
        "water": an outline of which more than this part (0-1) is water. Applies where there is a column
        `water_fraction`, which `extract_footprints(..., water=...)` gives; None for no such rule.
    min_prob_mean, min_prob_max : float
        "weak": an outline whose mean or largest probability (0-1) is lower.
    keep : sequence of str, optional
        Flags that a row may have and stay: `()` leaves only rows without a flag. Default: every row stays.

    Returns
    -------
    geopandas.GeoDataFrame
        A copy with the column `flags`: the words that apply out of small, edge, water, weak, in this order, separated
        by commas; empty where nothing speaks against the outline.

    Raises
    ------
    FootprintError
        `footprints` is not what `validate_footprints` expects, a number is out of its range, or a flag is unknown.

    Examples
    --------
    >>> from rtsx.footprints.extraction import extract_footprints
    >>> import rioxarray
    >>> import xarray as xr
    >>> probability = np.zeros((60, 60), np.uint8)
    >>> probability[20:30, 20:30], probability[50:52, 40:50] = 80, 60
    >>> pred = xr.Dataset(
    ...     {"probability": (("y", "x"), probability, {"scale_factor": 0.01, "_FillValue": 255})},
    ...     coords={"y": 4000.0 - 3 * np.arange(60), "x": 5000.0 + 3 * np.arange(60)},
    ... ).rio.write_crs("EPSG:32608")
    >>> footprints = extract_footprints(pred, threshold=0.5, min_area_m2=0)
    >>> clean_footprints(footprints, min_prob_mean=0.7)["flags"].tolist()
    ['', 'small,edge,weak']
    >>> len(clean_footprints(footprints, keep=()))
    1
    """
    validate_footprints(footprints)
    _check(min_area_m2=min_area_m2, min_pixels=min_pixels, keep=keep)
    for name, value in {
        "max_water": max_water or 0.0,
        "min_prob_mean": min_prob_mean,
        "min_prob_max": min_prob_max,
    }.items():
        if not 0 <= value <= 1:
            raise FootprintError(f"{name} is a part from 0 to 1, not {value}: for 20 per cent give 0.2")
    has_water = max_water is not None and "water_fraction" in footprints.columns
    rules = {
        "small": (footprints["area_m2"] < min_area_m2) | (footprints["n_pixels"] < min_pixels),
        "edge": footprints["touches_edge"] & edge,
        "water": footprints["water_fraction"] > max_water if has_water else pd.Series(False, footprints.index),
        "weak": (footprints["prob_mean"] < min_prob_mean) | (footprints["prob_max"] < min_prob_max),
    }
    applies = np.column_stack([rules[flag].to_numpy(bool) for flag in FLAGS])
    flags = [",".join(np.array(FLAGS)[row]) for row in applies]
    flagged = arranged(footprints.assign(flags=pd.Series(flags, index=footprints.index, dtype=object)))
    if keep is None:
        return flagged
    forbidden = [flag not in keep for flag in FLAGS]
    return flagged[~applies[:, forbidden].any(axis=1)].reset_index(drop=True)


def _check(*, min_area_m2: float, min_pixels: int, keep: Sequence[str] | None) -> None:
    if not (math.isfinite(min_area_m2) and min_area_m2 >= 0):
        raise FootprintError(f"min_area_m2 is a finite area of at least 0 m², not {min_area_m2}: 0 flags nothing")
    if min_pixels < 0 or min_pixels != int(min_pixels):
        raise FootprintError(f"min_pixels is a whole number of pixels from 0, not {min_pixels}: 0 flags nothing")
    named = (keep,) if isinstance(keep, str) else keep or ()
    unknown = [flag for flag in named if flag not in FLAGS]
    if unknown or isinstance(keep, str):
        raise FootprintError(
            f"keep lists flags, some of {', '.join(FLAGS)}, but {keep!r} came: "
            f"give a tuple such as ('edge',), or () for rows without a flag"
        )
