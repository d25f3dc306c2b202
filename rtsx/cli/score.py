"""How a stored prediction compares with outlines that are known to be true, pixel by pixel."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.features import rasterize

from rtsx.cube import geobox_of

__all__ = ["PixelScore", "score_pixels", "truth_mask"]


@dataclass(frozen=True, kw_only=True)
class PixelScore:
    """Counts of valid pixels by truth and prediction.

    Examples
    --------
    >>> score = PixelScore(hits=6, false_alarms=2, misses=2)
    >>> score.iou, score.precision, score.recall
    (0.6, 0.75, 0.75)
    """

    hits: int
    """Pixels that are the target and were found."""
    false_alarms: int
    """Pixels that were found and are not the target."""
    misses: int
    """Pixels that are the target and were not found."""

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where there was nothing to find and nothing was found."""
        return _ratio(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def precision(self) -> float:
        """Part of the found pixels that are right; 1 where nothing was found."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """Part of the true pixels that were found; 1 where there are none."""
        return _ratio(self.hits, self.hits + self.misses)


def truth_mask(truth: gpd.GeoDataFrame, like: xr.Dataset) -> NDArray[np.bool_]:
    """Pixels (y, x) of a cube whose centre lies in an outline; outlines may be in any CRS."""
    geobox = geobox_of(like)
    shapes = list(truth.to_crs(geobox.crs).geometry)
    if not shapes:
        return np.zeros(geobox.shape, bool)
    burnt = rasterize(shapes, out_shape=tuple(geobox.shape), transform=geobox.affine, dtype="uint8")
    return np.asarray(burnt, bool)


def score_pixels(pred: xr.Dataset, truth: NDArray[np.bool_]) -> PixelScore:
    """Compare `binary` (y, x) with the truth wherever the prediction is valid.

    Examples
    --------
    >>> pred = xr.Dataset({"binary": (("y", "x"), [[1, 0, 1, 255]]), "valid": (("y", "x"), [[True, True, True, False]])})
    >>> score_pixels(pred, np.array([[True, True, False, True]]))
    PixelScore(hits=1, false_alarms=1, misses=1)
    """
    valid = pred["valid"].values
    found = pred["binary"].values == 1
    return PixelScore(
        hits=int((found & truth & valid).sum()),
        false_alarms=int((found & ~truth & valid).sum()),
        misses=int((~found & truth & valid).sum()),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
