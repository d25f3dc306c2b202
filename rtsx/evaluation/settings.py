"""Settings of an evaluation, and one scene of it: what was predicted and what is there."""

import math
from dataclasses import dataclass

import geopandas as gpd
import xarray as xr

from rtsx.errors import EvaluationError
from rtsx.labels import LabelRaster


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Everything that scores depend on besides predictions and truth.

    Raises
    ------
    EvaluationError
        A number is out of its range.
    """

    threshold: float | None
    """Least probability, 0-1, of what counts as found; None: the prediction's own decision, its `binary`."""
    object_iou: float
    """Least IoU of a found and a true object that are the same, above 0 to 1."""
    boundary: int
    """Width of the band inside outlines that the boundary IoU looks at, px, at least 1."""
    min_object_area_m2: float
    """Smaller objects, found or true, are left out of the object scores, m²; 0 keeps all."""
    bootstrap: int
    """Times that scenes are drawn anew for the intervals; 0 gives none."""
    seed: int
    """Seed of these draws."""

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise EvaluationError(
                f"threshold is a probability from 0 to 1, not {self.threshold}: for 50 per cent give 0.5"
            )
        if not 0 < self.object_iou <= 1:
            raise EvaluationError(
                f"object_iou is the least IoU of a match, above 0 to 1, not {self.object_iou}: 0.5 is usual"
            )
        if self.boundary < 1 or self.boundary != int(self.boundary):
            raise EvaluationError(f"boundary is a whole number of pixels from 1, not {self.boundary}")
        if not (math.isfinite(self.min_object_area_m2) and self.min_object_area_m2 >= 0):
            raise EvaluationError(
                f"min_object_area_m2 is a finite area of at least 0 m², not {self.min_object_area_m2}: 0 keeps everything"
            )
        if self.bootstrap < 0 or self.bootstrap != int(self.bootstrap):
            raise EvaluationError(f"bootstrap is a whole number of draws from 0, not {self.bootstrap}")


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationScene:
    """One ground at one time, twice: as predicted and in truth. Nothing is read before it is evaluated.

    Raises
    ------
    EvaluationError
        Prediction or truth are of a kind that cannot be evaluated.
    """

    name: str
    """Tells the scene from the others; the unit that intervals are drawn from."""
    region: str = ""
    """What scores are summed over beside the whole."""
    prediction: xr.Dataset | gpd.GeoDataFrame
    """What `predict_cube` returns, or what is opened from where it was written; or footprints."""
    truth: LabelRaster | xr.DataArray | gpd.GeoDataFrame
    """On the pixels of the prediction: a `LabelRaster`, or an integer raster (y, x) with its CRS, coded like one: 0 nothing, k the
    k-th class of the prediction, 255 where nobody can tell. Or polygons in any CRS, which every pixel whose centre they
    hold belongs to; polygons are the only truth of footprints."""

    def __post_init__(self) -> None:
        """Refuse kinds that do not go together."""
        if not isinstance(self.prediction, xr.Dataset | gpd.GeoDataFrame):
            raise EvaluationError(
                f"The prediction of scene {self.name!r} is a Dataset as predict_cube returns it, or a GeoDataFrame of "
                f"footprints, not {type(self.prediction).__name__}."
            )
        if isinstance(self.prediction, gpd.GeoDataFrame) and not isinstance(self.truth, gpd.GeoDataFrame):
            raise EvaluationError(
                f"Footprints are evaluated by polygons, but the truth of scene {self.name!r} is "
                f"{type(self.truth).__name__}: evaluate the prediction that the footprints are from instead."
            )
